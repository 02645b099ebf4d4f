"""The arms that a study file names: from the catalogue, packages and files, or inline."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ablations.library import library
from ablations.spec import BASELINE, Ablation, Arm, Hypothesis
from ablations.study.schema import Change
from trainers.config import TrainConfig, diff, flatten, nearest, override
from trainers.errors import ConfigError


def ablation(name: str, paths: Sequence[Path] = ()) -> Ablation:
    """The ablation of that name, from the catalogue, an installed package or one of `paths`.

    Raises ConfigError with the nearest name, or with what is wrong in the file.
    """
    known = library(paths)
    if name not in known:
        raise ConfigError(
            f"arm {name}: not in the catalogue{nearest(name, list(known))} (allowed: "
            f"{', '.join(known)}; or inline: `{name}: {{knob: value}}`; or from files of your own: "
            "--ablations PATH)"
        )
    return known[name].load()


def declared_arms(
    listed: object, paths: Sequence[Path], problems: list[str]
) -> Iterator[tuple[str, Change, Ablation | None]]:
    """Each arm with its change, and the ablation that it comes from if it is not inline."""
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, str):
            try:
                found = ablation(entry, paths)
            except ConfigError as error:
                problems += str(error).splitlines()
                continue
            for name, arm in found.arms.items():
                yield name, dict(arm.change), found
        elif isinstance(entry, dict):
            for name, change in entry.items():
                if isinstance(change, dict):
                    yield str(name), change, None


def expectations_of(name: str, arm: Arm, claim: str) -> dict[str, Hypothesis]:
    """What a declared arm is expected to do, as hypotheses against the baseline."""
    return {
        f"{name}:{one.metric}": Hypothesis(
            claim=claim,
            metric=one.metric,
            contrast=(name, BASELINE),
            direction=one.direction,
            smallest_effect=one.by,
        )
        for one in arm.expectations
    }


def check_base(base: TrainConfig, found: Ablation) -> list[str]:
    given = flatten(base)
    return [
        f"needs {knob} {value!r} in the base, which has {given[knob]!r}; set it under `set`, or "
        "leave the arm out"
        for knob, value in found.missing(base).items()
    ]


def check_change(base: TrainConfig, change: Change) -> list[str]:
    if not change:
        return ["changes nothing: an arm must differ from the baseline"]
    try:
        changed = diff(base, override(base, change))
    except ConfigError as error:
        return str(error).splitlines()
    return [
        f"{knob} is {change[knob]!r} in the base already: an arm must differ from the baseline"
        for knob in change
        if knob not in changed
    ]
