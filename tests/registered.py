"""Registrations written by hand, as a driver would leave them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ablations.registration import registration_key, written
from trainers.system.store import Store


def register(store: Store, content: dict[str, Any], **fields: Any) -> None:
    """Put the first registration of the study that `content` names."""
    first = {"number": 1, "parent": None, "reason": None, "known": {}, "root_results": 0}
    store.put(registration_key(content["study"], 1), written({**content, **first, **fields}))


def restated(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a registration so that its file is whole: its digest is that of what it now says."""
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    path.write_bytes(written(content))
