"""What an ablation is: a claim, arms that change knobs, and what each change is expected to do."""

import functools
import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError, create_model

from ablations.contrast import BASELINE as BASELINE
from ablations.hypothesis import LONGEST_NAME as LONGEST_NAME
from ablations.hypothesis import Claim as Claim
from ablations.hypothesis import Declared as Declared
from ablations.hypothesis import Direction as Direction
from ablations.hypothesis import Gate as Gate
from ablations.hypothesis import Hypothesis as Hypothesis
from ablations.hypothesis import Multiplicity as Multiplicity
from trainers.config import Knobs, TrainConfig, explain, flatten, override
from trainers.config.explain import brief
from trainers.errors import ConfigError

_KEEPS = "it changes nothing that a run measures; it can be put under `set`"

NOT_AN_ARMS: Mapping[str, str] = types.MappingProxyType(
    {
        "seed": "`seeds` lists them, and every arm has all",
        "data.source": "a study has one data set, which is `dataset` or --data",
        "checkpoint_every": _KEEPS,
        **{f"checkpoints.{name}": _KEEPS for name in TrainConfig().checkpoints.model_dump()},
        "data.test_share": "every arm holds the same images out; it can be put under `set`",
    }
)
"""Knobs that no arm may change, since arms are paired by seed and image; and what to do instead."""

A_STUDYS = ("seed", "data.source")
"""Those of them that neither `set` nor the base of an ablation may have."""


def name_problem(name: str, longest: int = LONGEST_NAME) -> str:
    """What is wrong with a name for an arm, a hypothesis and the like; empty if it is good."""
    wrong = "/" in name or "\\" in name or not name.isprintable() or name[:1] in ("", ".", " ")
    if wrong or name[-1] == " " or len(name.encode(errors="replace")) > longest:
        return (
            f"a name must be 1 to {longest} printable characters without / and \\, which begin "
            "with none of . and space, and do not end with a space"
        )
    return ""


def not_an_arms(knobs: Iterable[str]) -> list[str]:
    """A line for each of `knobs` that no arm may change."""
    return [
        f"{knob} is not an arm's to change: {NOT_AN_ARMS[knob]}"
        for knob in knobs
        if knob in NOT_AN_ARMS
    ]


def _checked(change: Mapping[str, Any]) -> dict[str, Any]:
    """`change` with values as a configuration has them; whether they fit together is open.

    Raises ConfigError, one line for each problem: an unknown knob, a value of the wrong type or out
    of its range.
    """
    _check_names(change)
    fields: dict[str, Any] = {
        knob: (field.annotation, field) for knob in change for field in (_field(knob),)
    }
    each = create_model("Change", __base__=Knobs, **fields)
    try:
        return each.model_validate_json(json.dumps(change)).model_dump(mode="json")
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error))) from None
    except TypeError as error:
        line = brief(f"{', '.join(change)}: not a value that JSON knows: {error}")
        raise ConfigError(line) from None


def _check_names(change: Mapping[str, Any]) -> None:
    known = flatten(TrainConfig())
    override(TrainConfig(), {knob: known.get(knob) for knob in change})


def _field(knob: str) -> Any:
    *groups, name = knob.split(".")
    group: Any = TrainConfig
    for one in groups:
        group = group.model_fields[one].annotation
    return group.model_fields[name]


@dataclass(frozen=True)
class Expectation:
    """A metric's expected change against the baseline, and the smallest one of interest."""

    metric: str
    by: float
    direction: Direction


Rises = functools.partial(Expectation, direction="rises")
Falls = functools.partial(Expectation, direction="falls")
Differs = functools.partial(Expectation, direction="differs")
Holds = functools.partial(Expectation, direction="holds")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A change of the base recipe: dotted knobs and their values, and what else it changes.

    `confounds` are short plain statements of what differs beside what the change is about; numbers
    of parameters, tokens, crops and FLOPs need none, `dinolab plan` counts them. Raises ConfigError
    for an unknown knob, with the nearest name, and for one that no arm may change. Whether a value
    differs from the base is known only with the base: see ablations/study.
    """

    change: Mapping[str, Any]
    expect: Expectation | tuple[Expectation, ...] = ()
    confounds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_names(self.change)
        if refused := not_an_arms(self.change):
            raise ConfigError("\n".join(refused))

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """`expect` as a tuple."""
        return (self.expect,) if isinstance(self.expect, Expectation) else self.expect


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One claim, where it was made, and the arms that test it, by name.

    `base` are knobs, beside those that an arm changes, that a study's base must have for the arms
    to make sense: a study whose base has others is refused. Raises ConfigError for an unknown knob
    and a value of the wrong type or out of its range. Whether values fit together is known only
    with the recipe of a study: see ablations/study.
    """

    claim: str
    source: str
    arms: Mapping[str, Arm]
    base: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.arms:
            if problem := name_problem(name):
                raise ConfigError(f"arm {name!r}: {problem}")
        if any(knob in self.base for knob in A_STUDYS):
            raise ConfigError(f"base: {' and '.join(A_STUDYS)} are a study's own; leave them out")
        arms = {f"arm {name}": arm.change for name, arm in self.arms.items()}
        for what, change in {"base": self.base, **arms}.items():
            try:
                _checked(change)
            except ConfigError as error:
                lines = str(error).splitlines()
                raise ConfigError("\n".join(f"{what}: {line}" for line in lines)) from None

    def missing(self, base: TrainConfig) -> dict[str, Any]:
        """The knobs of `self.base` that `base` does not have, with the values it would need."""
        given = flatten(base)
        needed = _checked(self.base)
        return {knob: value for knob, value in needed.items() if given[knob] != value}
