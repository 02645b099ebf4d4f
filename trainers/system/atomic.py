"""Files that are either whole or not there."""

import json
import os
import tempfile
from pathlib import Path


def replace(path: Path, content: bytes) -> Path:
    """Write `content` to `path` so that readers see the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def replace_json(path: Path, value: object) -> Path:
    """Write `value` as indented JSON, atomically."""
    return replace(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
