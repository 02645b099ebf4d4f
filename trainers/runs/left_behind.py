"""Finished runs that other code made: their keys are no longer asked for."""

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trainers.config import TrainConfig, leaves, trial_content
from trainers.errors import InputError, listed
from trainers.runs.stored_trial import TRIALS, StoredTrial
from trainers.runs.version import code_versions, differing
from trainers.system.store import Store


@dataclass(frozen=True, kw_only=True)
class LeftBehind:
    """Runs that are to be trained though other code has finished them."""

    wanted: tuple[str, ...]
    """keys of runs to train"""
    found: tuple[str, ...]
    """keys of finished runs that differ from them in nothing but code"""
    modules: tuple[str, ...]
    """in which their code differs; empty if they have not recorded theirs"""

    def sentence(self, of: int, then: str = "") -> str:
        """What to tell a person, where `of` runs are to be trained; `then` names the code."""
        differ = listed(self.modules) or "modules that it has not recorded"
        return (
            f"other code{f' ({then})' if then else ''} has finished {len(self.wanted)} of the {of} "
            f"runs to train; it differs in {differ}. Those are left where they are, and trained "
            "again. To use them instead, stop and check out the code of then; to keep the two "
            "apart, give another --root"
        )


def left_behind(wanted: Iterable[tuple[str, TrainConfig, str]], store: Store) -> LeftBehind | None:
    """Which of the runs `wanted`, each (key, configuration, digest of its data), are such.

    They are looked for in all of `store`. A run that is finished under its key is not wanted.
    None when there are none. Folders of runs that are damaged are passed over.
    """
    of_seed: dict[int, list[tuple[str, TrainConfig, str]]] = {}
    for key, config, digest in wanted:
        of_seed.setdefault(config.seed, []).append((key, config, digest))

    @functools.cache
    def asked(seed: int) -> list[tuple[str, str, dict[str, Any]]]:
        return [
            (key, digest, dict(leaves(trial_content(config))))
            for key, config, digest in of_seed.get(seed, ())
        ]

    keys: set[str] = set()
    found: list[str] = []
    modules: set[str] = set()
    for name in store.names(TRIALS) if of_seed else ():
        folder = StoredTrial(store, name)
        result = _result_of(folder)
        code = result.get("code")
        if not result or code == code_versions():
            continue
        knobs = _knobs_of(folder)
        twins = [
            key
            for key, digest, own in asked(knobs.get("seed", 0))
            if result.get("data", digest) == digest
            and all(knobs[name] == own[name] for name in own if name in knobs)
        ]
        if knobs and twins:
            keys.update(twins)
            found.append(name)
            modules.update(differing(code, code_versions()) if isinstance(code, dict) else ())
    if not keys:
        return None
    return LeftBehind(
        wanted=tuple(sorted(keys)), found=tuple(found), modules=tuple(sorted(modules))
    )


def _result_of(folder: StoredTrial) -> dict[str, Any]:
    """The result of a run; empty when it cannot be read."""
    try:
        result = folder.finished()
    except (OSError, ValueError, InputError):
        return {}
    return result if isinstance(result, dict) else {}


def _knobs_of(folder: StoredTrial) -> dict[str, Any]:
    """The knobs of a run that count in its key, as this code reads them, or else as they stand.

    Empty when it has kept none that can be read.
    """
    try:
        content = json.loads(folder.config() or b"")
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    try:
        return dict(leaves(trial_content(TrainConfig.model_validate_json(json.dumps(content)))))
    except ValidationError:
        # Other code had other knobs: the ones that both have must do.
        knobs = dict(leaves(content))
        knobs.pop("data.source", None)
        return knobs
