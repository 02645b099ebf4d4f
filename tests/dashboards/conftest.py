"""A synthetic run root: three arms, six seeds, and trials that end as a test asks."""

import hashlib
import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ablations.registration import registration_key, study_folder
from tests.registered import register
from trainers.config import TrainConfig
from trainers.runs.records import digest_of
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import Store, open_store

STEPS = 600
EVERY = 300
SEEDS = (0, 1, 2, 3, 4, 5)
ARMS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "cls_position_none": {"model.cls_position": "none"},
    "loss_on_patches": {"loss.cls": 0.0, "loss.patches": 1.0},
}
CONFOUNDS = {"loss_on_patches": ["every <patch> has a loss", "the loss is larger"]}
ACCURACY = {"baseline": 0.86, "cls_position_none": 0.862, "loss_on_patches": 0.74}
GYRATION = {
    "baseline": {"cls": 0.93, "patch": 0.72},
    "cls_position_none": {"cls": 0.92, "patch": 0.73},
    "loss_on_patches": {"cls": 0.99, "patch": 0.84},
}
HYPOTHESES: dict[str, dict[str, Any]] = {
    "cls_needs_no_position": {
        "claim": "[CLS] learns as well without a position of its own.",
        "metric": "knn/cls_top1",
        "contrast": ["cls_position_none", "baseline"],
        "direction": "holds",
        "smallest_effect": 0.02,
        "control": "loss_on_patches",
        "rationale": "Two points of accuracy change no conclusion here.",
    },
    "loss_on_cls_makes_it_useful": {
        "claim": "[CLS] is less useful when the loss sits on the patches.",
        "metric": "knn/cls_top1",
        "contrast": ["loss_on_patches", "baseline"],
        "direction": "falls",
        "smallest_effect": 0.05,
    },
    "loss_on_cls_makes_it_local": {
        "claim": "[CLS] attends more widely, against its own start, without a loss <on it>.",
        "metric": "globality/cls/gyration",
        "minus_start": True,
        "contrast": ["loss_on_patches", "baseline"],
        "direction": "rises",
        "smallest_effect": 0.02,
    },
}
GATES: dict[str, dict[str, Any]] = {
    "learned": {
        "arms": ["baseline", "cls_position_none"],
        "metric": "knn/cls_top1",
        "minus_start": True,
        "at_least": 0.1,
    }
}

SEGMENT = "metrics-000000000.jsonl"


class Made(NamedTuple):
    """A study in a run root, as `read_study` takes it."""

    store: Store
    name: str

    @property
    def root(self) -> Path:
        """The folder of the run root."""
        assert self.store.local is not None
        return self.store.local

    @property
    def folder(self) -> Path:
        """The folder of the study."""
        return self.root / study_folder(self.name)

    @property
    def registration(self) -> Path:
        """The file of its registration."""
        return self.root / registration_key(self.name, 1)

    def trial(self, arm: str, seed: int) -> StoredTrial:
        """The trial of a run."""
        return StoredTrial(self.store, trial_key(arm, seed))

    def records(self, arm: str, seed: int) -> Path:
        """The one segment of records of a run."""
        return self.root / self.trial(arm, seed).attempt_folder(1) / SEGMENT

    def record_anew(self, arm: str, seed: int, text: str) -> None:
        """Gives a finished run other records, with their digest in its result."""
        write_records(self.root / "trials" / trial_key(arm, seed), text)


Endings = Mapping[tuple[str, int], str]
MakeStudy = Callable[..., Made]


def trial_key(arm: str, seed: int) -> str:
    """Name of a trial's folder."""
    return hashlib.sha256(f"{arm} {seed}".encode()).hexdigest()[:16]


def records(arm: str, seed: int, last: int) -> list[dict[str, Any]]:
    """What a run of `arm` records up to step `last`."""
    draw = random.Random(f"{seed}")
    own = random.Random(f"{arm} {seed}")
    skill = draw.gauss(0, 0.015)
    lines: list[dict[str, Any]] = []
    for step in range(0, last + 1, 20):
        share = 1 - math.exp(-step / 200)
        if step:
            loss = 5.5 - 2.2 * share + own.gauss(0, 0.05)
            metrics = {"loss/total": loss, "loss/cls": loss, "time/step_s": 0.03}
            lines.append({"step": step, "metrics": metrics})
        if step % EVERY:
            continue
        top = 0.45 + (ACCURACY[arm] - 0.45) * share + skill + own.gauss(0, 0.004)
        evaluation = {
            "knn/cls_top1": top,
            "knn/patch_top1": top - 0.08,
            "collapse/target_entropy": 0.95 - 0.4 * share + own.gauss(0, 0.01),
            "collapse/mean_target_entropy": 0.97 - 0.03 * share,
            "collapse/feature_rank": 12 + 20 * share + own.gauss(0, 0.5),
        }
        for token, end in GYRATION[arm].items():
            for layer in (1, 2, 3):
                values = []
                for head in (0, 1, 2):
                    value = 0.99 + (end - 0.99) * share * layer / 2 + own.gauss(0, 0.006)
                    evaluation[f"globality/{token}/gyration@{layer}.{head}"] = value
                    values.append(value)
                if layer == 2:
                    evaluation[f"globality/{token}/gyration"] = sum(values) / 3
        lines.append({"step": step, "metrics": evaluation})
    return lines


def write_records(trial: Path, text: str) -> None:
    """Writes the records of the first attempt, and their digest where there is a result."""
    attempt = trial / "attempts" / "0001"
    attempt.mkdir(parents=True, exist_ok=True)
    (attempt / SEGMENT).write_text(text)
    result = trial / "result.json"
    if result.exists():
        files = {SEGMENT: digest_of(text.encode())}
        result.write_text(json.dumps(json.loads(result.read_text()) | {"files": files}))


def write_trial(root: Path, arm: str, seed: int, ending: str) -> None:
    """Writes one trial: `finished`, `collapsed`, `diverged`, `failed`, `running` or `missing`;
    or `stopped`, which is collapsed before the last step.
    """
    if ending == "missing":
        return
    trial = root / "trials" / trial_key(arm, seed)
    trial.mkdir(parents=True)
    (trial / "config.json").write_text("{}")
    last = STEPS if ending in ("finished", "collapsed") else 240
    reasons = {
        "finished": "",
        "collapsed": "target entropy 0.01 is below 0.05",
        "stopped": "at step 240: outputs are the same for every image",
        "diverged": "loss is not a number",
    }
    if ending in reasons:
        result = {
            "status": "collapsed" if ending == "stopped" else ending,
            "reason": reasons[ending],
            "step": last,
            "steps": STEPS,
            "attempt": 1,
            "chain": "0" * 64,
            "wall_s": 12.5,
        }
        (trial / "result.json").write_text(json.dumps(result))
    write_records(trial, "".join(json.dumps(record) + "\n" for record in records(arm, seed, last)))
    if ending == "failed":
        failure = {"kind": "infrastructure", "message": "worker lost: <out of memory>"}
        (trial / "attempts" / "0001" / "failure.json").write_text(json.dumps(failure))


@pytest.fixture
def make_study(tmp_path: Path) -> MakeStudy:
    """A function that writes a run root; `endings` says which runs did not finish, and how."""
    return maker(tmp_path)


def maker(place: Path) -> MakeStudy:
    """That function, for the folder of a run root."""

    def make(
        endings: Endings | None = None,
        *,
        otherwise: str = "finished",
        name: str = "why_cls_is_global",
        hypotheses: Mapping[str, Mapping[str, Any]] = HYPOTHESES,
        reverse: bool = False,
        root: Path = place,
    ) -> Made:
        trials = [
            {"key": trial_key(arm, seed), "arm": arm, "seed": seed}
            for arm in ARMS
            for seed in SEEDS
        ]
        stated = {
            "study": name,
            "created": "2025-11-23T12:00:00+00:00",
            "hypotheses_sha256": "ab" * 32,
            "resolved": {
                "name": name,
                "recipe": "digits_small",
                "seeds": list(SEEDS),
                "arms": ARMS,
                "hypotheses": hypotheses,
                "gates": GATES,
            },
            "arms": {
                arm: {
                    "change": change,
                    "parameters": 91_000 - 48 * (arm == "cls_position_none"),
                    "gigaflops_per_image": 0.0031,
                    "confounds": CONFOUNDS.get(arm, []),
                }
                for arm, change in ARMS.items()
            },
            "trials": trials,
            "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
            "packages": {"torch": "2.11.0", "numpy": "2.4.6"},
            "dataset": {
                "source": "digits",
                "digest": "cd" * 32,
                "images": 1797,
                "train": 1438,
                "test": 359,
                "labelled": True,
                "skipped": [{"path": "broken & <odd>.png", "reason": "not an image"}],
            },
            "config": TrainConfig().model_dump(mode="json"),
        }
        root.mkdir(parents=True, exist_ok=True)
        register(open_store(root), stated)
        for trial in reversed(trials) if reverse else trials:
            arm, seed = str(trial["arm"]), int(str(trial["seed"]))
            write_trial(root, arm, seed, (endings or {}).get((arm, seed), otherwise))
        return Made(open_store(root), name)

    return make
