"""What the runs of a study must have in common: what was registered, crops of a seed, machines."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from ablations.registration import MEASURES_NOTHING, Entry
from ablations.verdicts.machines import machines_text
from dashboards.tables.reading import StudyRun
from dashboards.tables.trials import places_of
from dashboards.verification.finding import Finding
from dashboards.verification.trials import CHAIN, Checked
from trainers.config import TrainConfig, flatten, in_steps, leaves, override
from trainers.errors import ConfigError, listed
from trainers.runs.stored_trial import TRIALS

_NOT_COMPARED = (*MEASURES_NOTHING, "model.weights", "seed")
"""Knobs of a configuration that are not those of the registration, or are in its key: weights are
pinned to what they were."""


def check_planned(entry: Entry, checked: Mapping[str, Checked]) -> tuple[list[Finding], str]:
    """Runs whose configuration is not that of their arm; and why none could be compared, if so."""
    try:
        base = TrainConfig.model_validate_json(json.dumps(entry.config))
        planned = {arm: _planned(entry, base, arm) for arm in entry.resolved.arms}
    except (ValidationError, ConfigError, KeyError, ValueError):
        return [], (
            "configurations are not compared with those registered: they have knobs, or values, "
            "that this version of dinolab has not"
        )
    findings = []
    for arm, seed, key in places_of(entry):
        config = checked[key].config
        if config is None:
            continue
        own = dict(leaves(config))
        wrong = [
            f"{knob} {json.dumps(own.get(knob))} for {json.dumps(value)}"
            for knob, value in {**planned[arm], "seed": seed}.items()
            if own.get(knob) != value
        ]
        if wrong:
            what = f"it is not that of arm {arm}, seed {seed}: {listed(wrong)}"
            findings.append(Finding(kind="differs", where=f"{TRIALS}/{key}/config.json", what=what))
    return findings, ""


def _planned(entry: Entry, base: TrainConfig, arm: str) -> dict[str, Any]:
    """Knobs of the runs of an arm, as far as the registration has them."""
    resolved = in_steps(override(base, entry.resolved.arms[arm]), int(entry.dataset["train"]))
    known = dict(leaves(entry.config))
    return {
        knob: value
        for knob, value in flatten(resolved).items()
        if knob in known and knob not in _NOT_COMPARED
    }


def check_crops(entry: Entry, checked: Mapping[str, Checked]) -> tuple[list[Finding], int]:
    """Runs of one seed that must have seen the same crops, and have not; how many were compared.

    They must where seed, data, batch and augmentation are the same, and so are the machines:
    other devices may decode and round otherwise.
    """
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for arm, seed, key in places_of(entry):
        if (seen := _seen(checked[key])) is not None:
            groups[seen].setdefault(key, f"{arm}, seed {seed}")
    findings: list[Finding] = []
    for runs in groups.values():
        if len(runs) > 1:
            findings += _other_crops(runs, checked)
    return findings, sum(len(runs) for runs in groups.values() if len(runs) > 1)


def _other_crops(runs: Mapping[str, str], checked: Mapping[str, Checked]) -> Iterator[Finding]:
    """Of runs that must be alike, those that are not as most are, at the first step that shows."""
    left = dict(runs)
    for step in sorted({step for key in runs for step in checked[key].crops}):
        at = {key: checked[key].crops[step] for key in left if step in checked[key].crops}
        if len(set(at.values())) < 2:
            continue
        usual, _ = Counter(at.values()).most_common(1)[0]
        as_most = next(runs[key] for key in at if at[key] == usual)
        for key in [key for key in at if at[key] != usual]:
            del left[key]
            what = f"{runs[key]}: other crops up to step {step} than {as_most} ({CHAIN})"
            yield Finding(kind="differs", where=f"{TRIALS}/{key}", what=what)


def _seen(checked: Checked) -> str | None:
    """All that the crops of a run depend on, as text; None where it has not recorded them."""
    config, result = checked.config, checked.result
    if config is None or result is None or not checked.crops:
        return None
    augment = config.get("augment", {})
    parts = {
        "seed": config.get("seed"),
        "batch_size": config.get("batch_size"),
        "data": {**config.get("data", {}), "source": result.get("data")},
        "augment": augment,
        "machine": [result.get(name) for name in ("device", "device_name", "torch", "cuda")],
    }
    if augment.get("shuffle") == "patches":
        parts["patch_size"] = config.get("model", {}).get("patch_size")
    if augment.get("small_share"):
        parts["steps"] = config.get("steps")
    return json.dumps(parts, sort_keys=True)


def check_machines(study: StudyRun) -> list[Finding]:
    """Hypotheses that compare runs of other devices, versions or numbers of workers."""
    names = defaultdict(list)
    for name, hypothesis in study.hypotheses.items():
        if text := machines_text(hypothesis, study.runs, study.seeds):
            names[text].append(name)
    return [
        Finding(kind="differs", where=f"hypothesis {', '.join(those)}", what=text)
        for text, those in names.items()
    ]
