"""`study.lock.json`: what was stated before the first trial ran."""

import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablations.lock import LOCK, Lock, study_folder
from dashboards.tables.reading import read_lock
from orchestrator.plan import Plan
from trainers.data.image_set import ImageSet
from trainers.errors import RootError
from trainers.runs.version import code_versions
from trainers.system.store import Store

_PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "ray", "mlflow", "scipy", "statsmodels")


def write_lock(plan: Plan, images: ImageSet, store: Store) -> dict[str, Any]:
    """Write the lock of a study, or renew one whose hypotheses are the same; returns it.

    Arms and seeds may be added later; hypotheses and gates may not change once they are locked.
    Raises RootError when the folder holds a study with other hypotheses or other data.
    """
    lock = _content(plan, images)
    if earlier := matching_lock(plan, images, store):
        lock["created"] = earlier.created
    text = json.dumps(lock, indent=2, ensure_ascii=False) + "\n"
    store.put(f"{study_folder(plan.study.name)}/{LOCK}", text.encode())
    return lock


def matching_lock(plan: Plan, images: ImageSet, store: Store) -> Lock | None:
    """The lock of that study in `store`, or None without one.

    Raises RootError when it is of other hypotheses or other data, InputError when it is damaged.
    """
    earlier = read_earlier(store, plan.study.name)
    if earlier is None:
        return None
    for what, before, now in (
        ("hypotheses", earlier.hypotheses_sha256, _digest_of_hypotheses(plan)),
        ("data", str(earlier.dataset.get("digest", "unknown")), images.digest),
    ):
        if before != now:
            raise RootError(
                f"{store.shown}/{study_folder(plan.study.name)} was locked with other {what} "
                f"(sha256 {before[:12]}, now {now[:12]}); give the changed study another name or "
                "another --root"
            )
    return earlier


def read_earlier(store: Store, name: str) -> Lock | None:
    """The lock of a study, or None without one. Raises InputError, one line."""
    there = store.get(f"{study_folder(name)}/{LOCK}") is not None
    return read_lock(store, name) if there else None


def _digest_of_hypotheses(plan: Plan) -> str:
    resolved = plan.study.to_json()
    stated = [resolved["hypotheses"], resolved["gates"], resolved["claims"]]
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def _content(plan: Plan, images: ImageSet) -> dict[str, Any]:
    study = plan.study
    return {
        "study": study.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "hypotheses_sha256": _digest_of_hypotheses(plan),
        "resolved": study.to_json(),
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
    """Commit and dirtiness of the checkout this code is part of; empty outside one."""
    here = Path(__file__).parent

    def ask(*words: str) -> str:
        asked = subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        )
        return asked.stdout.strip()

    try:
        # A package installed inside somebody's repository is no part of that.
        ask("ls-files", "--error-unmatch", __file__)
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}
