"""RAY: the cluster at RAY_ADDRESS, or one of our own."""

import contextlib
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator import interrupt


@contextlib.contextmanager
def connected(console: Console) -> Iterator[None]:
    """The cluster at RAY_ADDRESS, or a Ray of our own that leaves nothing behind."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    import ray

    address = os.environ.get("RAY_ADDRESS")
    with tempfile.TemporaryDirectory(prefix="dinolab-", ignore_cleanup_errors=True) as scratch:
        if address:
            console.print(f"using the Ray cluster at {address}", highlight=False)
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **shipped_code(address))
        else:
            # Without a token given, Ray writes one into the home directory.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=200 * 2**20,
                _temp_dir=scratch,
            )
        interrupt.listen()
        try:
            yield
        finally:
            ray.shutdown()


def shipped_code(address: str) -> dict[str, Any]:
    """Our own packages for the cluster's workers, unless a Ray job ships them already."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    home = Path(__file__).parent.parent.parent
    packages = ("trainers", "ablations", "dashboards", "orchestrator")
    return {"runtime_env": {"py_modules": [str(home / name) for name in packages]}}
