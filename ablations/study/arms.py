"""The arms that a study file names: from the catalogue, packages and files, or inline."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ablations.library import Known, library
from ablations.spec import BASELINE, Ablation, Arm, Hypothesis, not_an_arms
from ablations.study.schema import Change
from trainers.adapters.timm_shapes import NAME, timm_knobs
from trainers.config import TrainConfig, diff, flatten, nearest, override
from trainers.config.explain import brief
from trainers.config.idle import idle
from trainers.errors import ConfigError


def ablation(name: str, paths: Sequence[Path] = ()) -> Ablation:
    """The ablation of that name, from the catalogue, an installed package or one of `paths`.

    Raises ConfigError with the nearest name, or with what is wrong in the file.
    """
    return named(name, library(paths))


def named(name: str, known: Mapping[str, Known]) -> Ablation:
    """The ablation of that name, of those in `known`. Raises ConfigError as `ablation` does."""
    if name == BASELINE:
        raise ConfigError(f"arm {name}: is there anyway; leave it out, or give it first")
    if name not in known:
        raise ConfigError(
            f"arm {brief(name)}: not in the catalogue{nearest(name, list(known))} (allowed: "
            f"{', '.join(known)}; or inline: `NAME: {{knob: value}}`; or from files of your own: "
            "--ablations PATH)"
        )
    return known[name].load()


def declared_arms(
    listed: object, known: Mapping[str, Known], problems: list[str]
) -> Iterator[tuple[str, Change, Ablation | None]]:
    """Each arm with its change, and the ablation that it comes from if it is not inline."""
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, str):
            try:
                found = named(entry, known)
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


def check_base(base: TrainConfig, found: Ablation) -> None:
    """Raises ConfigError, a line for each knob that the base of an ablation needs otherwise."""
    given = flatten(base)
    lines = [
        f"needs {knob} {value!r} in the base, which has {given[knob]!r}; set it under `set`, or "
        "leave the arm out"
        for knob, value in found.missing(base).items()
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def changed(base: TrainConfig, change: Change) -> tuple[TrainConfig, Change]:
    """The configuration of an arm, and its change with values as the configuration has them.

    Raises ConfigError, a line for each problem: a knob that is not an arm's to change, a value that
    `override` refuses, or one that the base has already; or a change that does nothing.
    """
    if not change:
        raise ConfigError("changes nothing: an arm must differ from the baseline")
    if refused := not_an_arms(change):
        raise ConfigError("\n".join(refused))
    change = _spelled(base, change)
    config = override(base, change)
    different = diff(base, config)
    same = [
        f"{knob} is {flatten(base)[knob]!r} in the base already: an arm must differ from the "
        "baseline"
        for knob in change
        if knob not in different
    ]
    if same:
        raise ConfigError("\n".join(same))
    idling = [f"{knob} does nothing while {why}" for knob in change if (why := idle(knob, config))]
    if len(idling) == len(change):
        raise ConfigError(f"repeats the baseline: {', and '.join(idling)}")
    return config, {knob: different[knob] for knob in change}


def _spelled(base: TrainConfig, change: Change) -> Change:
    """`change` with the knobs that `model.timm` stands for, but those that the base has already."""
    if NAME not in change:
        return change
    own = flatten(base)
    shape = {knob: v for knob, v in timm_knobs(change[NAME]).items() if v != own[knob]}
    rest = {knob: value for knob, value in change.items() if knob != NAME}
    if not shape and not rest:
        raise ConfigError(
            f"{NAME} {change[NAME]} is the shape of the base already: an arm must differ from the "
            "baseline"
        )
    return shape | rest


def measured_otherwise(change: Change) -> tuple[str, ...]:
    """As a confound: the knobs of a change that decide how an arm is measured."""
    knobs = [knob for knob in change if knob.startswith("evaluation.") or knob == "data.image_size"]
    return (f"how it is measured: {', '.join(knobs)}",) if knobs else ()
