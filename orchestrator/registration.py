"""Registers a study before its first trial, and again when it was changed; never in between."""

import contextlib
import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ablations.changes import changes
from ablations.registration import (
    LOCK,
    STUDIES,
    Entry,
    entry_of,
    registration_key,
    shortened,
    study_folder,
    written,
)
from dashboards.tables.chain import find_chain
from orchestrator.plan import Plan
from orchestrator.references import references_of
from trainers.data.image_set import ImageSet
from trainers.errors import InputError, RootError, printable
from trainers.runs.records import is_segment
from trainers.runs.stored_trial import TRIALS
from trainers.runs.version import code_versions, versions_below
from trainers.system.store import AT_ONCE, Store

_PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "ray", "mlflow", "scipy")

_DIFF = ("diff", "--no-ext-diff", "--no-color", "HEAD")

JUDGING = ("ablations/statistics", "ablations/verdicts")
"""Folders of the code that judges."""


class Statement:
    """What a study states now, and its registrations in a run root.

    Raises InputError, one line, when a registration is damaged.
    """

    def __init__(self, plan: Plan, images: ImageSet, store: Store) -> None:
        self.name, self.store = plan.study.name, store
        self.study, self.images = plan.study, images
        self.diff, self.git = _git()
        self.content = _content(plan, images, self.git)
        self.chain = find_chain(store, self.name)

    @property
    def changes(self) -> list[str]:
        """What differs from the newest registration, a line each; empty also without one."""
        return changes(self.chain[-1], self._now) if self.chain else []

    @cached_property
    def _now(self) -> Entry:
        return Entry.model_validate_json(json.dumps(self.content))

    def refuse_unregistered(self) -> None:
        """Raises RootError, one line, where the root has the study registered as another."""
        self.refuse_lock()
        if found := self.changes:
            raise RootError(
                f"{self._shown} is registered otherwise (registration {self.chain[-1].number}): "
                f"{shortened(found)}; nothing was trained. Undo the change, or state it: "
                'dinolab amend STUDY --reason "…"'
            )

    def refuse_lock(self) -> None:
        """Raises RootError, one line, where the root has what came before registrations."""
        if self.chain and self.chain[-1].number == 0:
            raise RootError(
                f"{self._shown} has a {LOCK} of an earlier version, which is no registration: move "
                "that file away, and the next run registers the study; what has results then is "
                "exploratory"
            )

    @property
    def _shown(self) -> str:
        return f"{self.store.shown}/{study_folder(self.name)}"

    def register(self) -> Entry:
        """The newest registration, which states this; the first one is written where there is none.

        Where somebody else registers the study at the same time, one comes first and decides.
        Raises RootError as `refuse_unregistered`.
        """
        self.refuse_unregistered()
        while not self.chain:
            self._put(None)
            self.refuse_unregistered()
        return self._with_diff(self.chain[-1])

    def amend(self, reason: str) -> Entry:
        """Write the next registration. Raises InputError, one line, where there is nothing to.

        Where somebody else amends at the same time, one comes first. If that states the same for
        the same reason, it is what comes back; for another one, there is nothing left to amend.
        """
        reason = said(reason)
        if not self.chain or self.chain[-1].number == 0:
            raise InputError(
                f"study {self.name} has no registration in {self.store.shown}: `dinolab run` "
                "makes the first one"
            )
        if not self.changes:
            raise InputError(
                f"nothing has changed since registration {self.chain[-1].number} of study "
                f"{self.name}: there is nothing to amend"
            )
        while self.changes and not self._put(reason):
            pass  # somebody else was first, and the chain is read again
        newest = self.chain[-1]
        if newest.reason != reason:
            raise InputError(
                f"somebody else has amended study {self.name} at the same time: registration "
                f'{newest.number} states the same, for the reason "{newest.reason}"; yours, '
                f'"{reason}", is in no registration, and there is nothing left to amend'
            )
        return self._with_diff(newest)

    def _with_diff(self, entry: Entry) -> Entry:
        """Put what was not committed beside its registration; a kill may have left that out."""
        if self.diff and entry.git.get("diff_sha256") == self.git["diff_sha256"]:
            key = registration_key(self.name, entry.number, "diff")
            self.store.put(key, self.diff, if_absent=True)
        return entry

    @cached_property
    def _references(self) -> dict[str, float]:
        """What gates compare with: measured only where a registration is written."""
        return references_of(self.study, self.images)

    def _elsewhere(self) -> list[dict[str, Any]]:
        """Trials of other studies of the root that change the same at the same seed and data."""
        now, found = self._now, {}
        for name in self.store.names(STUDIES):
            # One that cannot be read is said by those who read it.
            with contextlib.suppress(InputError):
                for entry in find_chain(self.store, name) if name != self.name else ():
                    if entry.dataset.get("digest") != now.dataset.get("digest"):
                        continue
                    for arm, change in now.resolved.arms.items():
                        same = {a for a, one in entry.resolved.arms.items() if one == change}
                        for trial in entry.trials:
                            if trial.arm in same and trial.seed in now.resolved.seeds:
                                place = {"key": trial.key, "arm": arm, "seed": trial.seed}
                                found[trial.key, arm] = place
        return [found[place] for place in sorted(found)]

    def _put(self, reason: str | None) -> bool:
        """Try to write the next registration, and read the chain again; whether this one is it."""
        number = len(self.chain) + 1
        named = {trial["key"] for trial in self.content["trials"]}
        named |= {trial.key for entry in self.chain for trial in entry.trials}
        # Before what is known is read: it takes a while.
        dataset = {**self.content["dataset"], "references": self._references}
        akin = [one for one in self._elsewhere() if one["key"] not in named]
        found = found_in(self.store, named | {one["key"] for one in akin})
        elsewhere = [one for one in akin if one["key"] in found["known"]]
        found["known"] = {key: one for key, one in found["known"].items() if key in named}
        found["under_way"] = [key for key in found["under_way"] if key in named]
        content = written(
            {
                **self.content,
                "dataset": dataset,
                "number": number,
                "parent": self.chain[-1].digest if self.chain else None,
                "reason": reason,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                **found,
                "elsewhere": elsewhere,
            }
        )
        entry, key = entry_of(content), registration_key(self.name, number)
        is_ours = self.store.put(key, content, if_absent=True)
        self.chain = [*self.chain, entry] if is_ours else find_chain(self.store, self.name)
        return is_ours


def said(reason: str) -> str:
    """A reason in one line. Raises InputError when it says nothing."""
    if not (words := reason.split()):
        raise InputError('--reason is empty: say why the study was changed, --reason "…"')
    return printable(" ".join(words))


def found_in(store: Store, keys: Collection[str]) -> dict[str, Any]:
    """What is known of trials: `known`, SHA-256 of the result of each that has one; `under_way`,
    those that have recorded something without; `root_results`, how many the root has in all.

    A result that was set aside as damaged was known too.
    """
    results: dict[str, str] = {}
    recorded = set()
    for entry in store.list(TRIALS):
        _, key, *rest = entry.key.split("/")
        if rest[-1:] == ["result.json"] and (len(rest) == 1 or rest[0] == "damaged"):
            # Where both are there, the one that counts comes last.
            results[key] = entry.key
        elif rest and is_segment(rest[-1]):
            recorded.add(key)
    known = sorted(results.keys() & set(keys))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        contents = pool.map(lambda key: store.get(results[key]) or b"", known)
        digests = [hashlib.sha256(content).hexdigest() for content in contents]
    return {
        "known": dict(zip(known, digests, strict=True)),
        "under_way": sorted(recorded.intersection(keys) - results.keys()),
        "root_results": len(results),
    }


def _digest_of_hypotheses(resolved: Mapping[str, Any]) -> str:
    stated = [resolved["hypotheses"], resolved["gates"], resolved["claims"]]
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def _content(plan: Plan, images: ImageSet, git: Mapping[str, Any]) -> dict[str, Any]:
    study = plan.study
    resolved = study.to_json()
    return {
        "study": study.name,
        "hypotheses_sha256": _digest_of_hypotheses(resolved),
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
        "results_name_it": True,
        "dataset": _dataset(study.base.data.source, images),
        "code": dict(code_versions()),
        "analysis": versions_below(JUDGING),
        "git": dict(git),
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


def _git() -> tuple[bytes, Mapping[str, Any]]:
    """What is not committed in the checkout this code is part of, and its commit and dirtiness.

    Both are empty outside a checkout.
    """
    here = Path(__file__).parent

    def ask(*words: str) -> bytes:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, check=True).stdout

    try:
        # A package installed inside somebody's repository is no part of that.
        ask("ls-files", "--error-unmatch", __file__)
        commit = ask("rev-parse", "HEAD").decode().strip()
        dirty, diff = bool(ask("status", "--porcelain").strip()), ask(*_DIFF)
    except (OSError, subprocess.CalledProcessError):
        return b"", {}
    found = {"commit": commit, "dirty": dirty}
    return diff, found | ({"diff_sha256": hashlib.sha256(diff).hexdigest()} if diff else {})
