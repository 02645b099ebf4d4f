"""What an ablation is: a claim, arms that change knobs, and what each change is expected to do."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainers.config import TrainConfig, flatten, override
from trainers.errors import ConfigError

Direction = Literal["rises", "falls", "holds"]

BASELINE = "baseline"
"""Name of the arm that changes nothing."""


@dataclass(frozen=True)
class Expectation:
    """A metric's expected change against the baseline, and the smallest one of interest."""

    metric: str
    by: float
    direction: Direction


Rises = functools.partial(Expectation, direction="rises")
Falls = functools.partial(Expectation, direction="falls")
Holds = functools.partial(Expectation, direction="holds")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A change of the base recipe: dotted knobs and their values, and what else it changes.

    `confounds` are short plain statements of what differs beside what the change is about; numbers
    of parameters, tokens, crops and FLOPs need none, `dinolab plan` counts them. Raises ConfigError
    for an unknown knob, with the nearest name. Whether a value differs from the base is known only
    with the base: see ablations/study.py.
    """

    change: Mapping[str, Any]
    expect: Expectation | tuple[Expectation, ...] = ()
    confounds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = flatten(TrainConfig())
        # Names only: whether the values fit is known with the base that they change.
        override(TrainConfig(), {knob: known.get(knob) for knob in self.change})

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """`expect` as a tuple."""
        return (self.expect,) if isinstance(self.expect, Expectation) else self.expect


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One claim, where it was made, and the arms that test it, by name.

    `base` are knobs, beside those that an arm changes, that a study's base must have for the arms
    to make sense: a study whose base has others is refused. Raises ConfigError for an unknown knob,
    a value of the wrong type, or values that do not fit together.
    """

    claim: str
    source: str
    arms: Mapping[str, Arm]
    base: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            base = override(TrainConfig(), self.base)
        except ConfigError as error:
            raise ConfigError(_each_line("base", error)) from None
        for name, arm in self.arms.items():
            try:
                override(base, arm.change)
            except ConfigError as error:
                raise ConfigError(_each_line(f"arm {name}", error)) from None

    def missing(self, base: TrainConfig) -> dict[str, Any]:
        """The knobs of `self.base` that `base` does not have, with the values it would need."""
        needed, given = flatten(override(TrainConfig(), self.base)), flatten(base)
        return {knob: needed[knob] for knob in self.base if given[knob] != needed[knob]}


def _each_line(what: str, error: ConfigError) -> str:
    return "\n".join(f"{what}: {line}" for line in str(error).splitlines())


class Declared(BaseModel):
    """Base of what a study file declares: frozen, strict, no unknown names."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Hypothesis(Declared):
    """One comparison of two arms, stated before anything runs (METRICS C.6, step 1)."""

    claim: str = Field("", description="the claim in words")
    metric: str = Field(description="name of a reported metric, see `dinolab list metrics`")
    minus_start: bool = Field(
        False, description="use the last value minus the same run's value at step 0"
    )
    contrast: tuple[str, str] = Field(description="[arm, arm it is compared with]")
    direction: Direction = Field(
        description="rises or falls: superiority in that direction; holds: equivalence"
    )
    smallest_effect: Annotated[float, Field(gt=0)] = Field(
        description="smallest effect of interest, in the metric's own units"
    )
    rationale: str = Field("", description="why an effect smaller than that does not matter")
    test: Literal["signflip", "t"] = Field("signflip", description="test behind the p-value")
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(0.05, description="error rate")
    family: str = Field("primary", description="p-values are Holm-adjusted within a family")

    @model_validator(mode="after")
    def _two_arms(self) -> Self:
        if self.contrast[0] == self.contrast[1]:
            raise ValueError(f"contrast compares {self.contrast[0]!r} with itself")
        return self


class Gate(Declared):
    """A manipulation check: what must hold in an arm, on average over seeds, for it to count."""

    arms: tuple[str, ...] = Field(min_length=1, description="arms that must pass")
    metric: str = Field(description="name of a reported metric")
    minus_start: bool = Field(False, description="use the last value minus that at step 0")
    at_least: float = Field(description="smallest mean over seeds that passes")
