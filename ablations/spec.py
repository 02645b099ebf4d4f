"""What an ablation is: a claim, arms that change knobs, and what each change is expected to do."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainers.config import TrainConfig, override

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
    """A change of the base recipe: dotted knobs and their values, checked when it is made.

    Raises ConfigError for an unknown knob (with the nearest name) or a value of the wrong type.
    Whether a value differs from the base is known only with the base: see ablations/study.py.
    """

    change: Mapping[str, Any]
    expect: Expectation | tuple[Expectation, ...] = ()

    def __post_init__(self) -> None:
        override(TrainConfig(), self.change)

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """`expect` as a tuple."""
        return (self.expect,) if isinstance(self.expect, Expectation) else self.expect


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One claim, where it was made, and the arms that test it, by name."""

    claim: str
    source: str
    arms: Mapping[str, Arm]


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
