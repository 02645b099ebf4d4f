"""`study.lock.json`: what was stated before the first trial ran."""

import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablations.lock import LOCK
from orchestrator.plan import Plan
from trainers.data.image_set import ImageSet
from trainers.errors import RootError
from trainers.runs.version import code_versions
from trainers.system.atomic import replace_json

_PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "ray", "mlflow", "scipy", "statsmodels")


def write_lock(plan: Plan, images: ImageSet, folder: Path) -> dict[str, Any]:
    """Write the lock of a study, or renew one whose hypotheses are the same; returns it.

    Arms and seeds may be added later; hypotheses and gates may not change once they are locked.
    Raises RootError when the folder holds a study with other hypotheses or other data.
    """
    path = folder / LOCK
    lock = _content(plan, images)
    if earlier := read_earlier(folder):
        for what, before, now in (
            ("hypotheses", earlier["hypotheses_sha256"], lock["hypotheses_sha256"]),
            ("data", earlier["dataset"]["digest"], lock["dataset"]["digest"]),
        ):
            if before != now:
                raise RootError(
                    f"{folder} was locked with other {what} (sha256 {before[:12]}, now "
                    f"{now[:12]}); give the changed study another name or another --root"
                )
        lock["created"] = earlier["created"]
    replace_json(path, lock)
    return lock


def read_earlier(folder: Path) -> dict[str, Any]:
    """The lock that lies in `folder`; empty without one."""
    path = folder / LOCK
    earlier: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return earlier


def _content(plan: Plan, images: ImageSet) -> dict[str, Any]:
    study = plan.study
    resolved = study.to_json()
    stated = json.dumps(
        [resolved["hypotheses"], resolved["gates"], resolved["claims"]], sort_keys=True
    )
    return {
        "study": study.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "hypotheses_sha256": hashlib.sha256(stated.encode()).hexdigest(),
        "resolved": resolved,
        "arms": {
            arm: {
                "change": dict(cost.change),
                "before": dict(cost.before),
                "parameters": cost.parameters,
                "gigaflops_per_image": cost.gigaflops_per_image,
                "gigaflops_per_step": cost.gigaflops_per_step,
                "tokens": cost.tokens,
                "crops_per_step": cost.crops_per_step,
                "losses": dict(cost.losses),
                "confounds": list(cost.confounds),
            }
            for arm, cost in plan.arms.items()
        },
        "trials": [
            {"key": trial.key, "arm": arm, "seed": trial.seed}
            for trial in plan.trials
            for arm in trial.arms
        ],
        "config": study.base.model_dump(mode="json"),
        "dataset": _dataset(study.base.data.source, images),
        "code": dict(code_versions()),
        "git": _git(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _dataset(source: str, images: ImageSet) -> dict[str, Any]:
    return {
        "source": source,
        "digest": images.digest,
        "images": len(images),
        "train": len(images.train),
        "test": len(images.test),
        "labelled": images.labels is not None,
        "skipped": [{"path": s.path, "reason": s.reason} for s in images.skipped],
    }


def _git() -> Mapping[str, Any]:
    """Commit and dirtiness of the checkout this code lies in; empty outside one."""
    here = Path(__file__).parent

    def ask(*words: str) -> str:
        asked = subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        )
        return asked.stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}
