"""What an ablation is: a claim, arms that change knobs, and what each change is expected to do."""

import functools
import json
import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    create_model,
    model_validator,
)

from trainers.config import Knobs, Switch, TrainConfig, explain, flatten, override
from trainers.config.explain import brief
from trainers.errors import ConfigError

Direction = Literal["rises", "falls", "differs", "holds"]

BASELINE = "baseline"
"""Name of the arm that changes nothing."""

LONGEST_NAME = 100
"""Bytes of a name that a study file gives: file systems stop at 255, and cells join several."""

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


class Declared(BaseModel):
    """Base of what a study file declares: frozen, strict, no unknown names."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def _form_of_contrast(contrast: Any) -> str | None:
    if isinstance(contrast, dict):
        weights = contrast.values()
        return "<weights>" if all(type(one) in (int, float) for one in weights) else None
    is_list = isinstance(contrast, (list, tuple))
    return "<arms>" if is_list and all(isinstance(one, str) for one in contrast) else None


def _weights(contrast: tuple[str, ...] | dict[str, float]) -> dict[str, float]:
    if isinstance(contrast, dict):
        return dict(contrast)
    return dict(zip(contrast, (1.0, -1.0), strict=False))


def sides_of(weights: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """The arms whose weight is above 0, and those whose is below, with its size."""
    first = {arm: weight for arm, weight in weights.items() if weight > 0}
    return first, {arm: -weight for arm, weight in weights.items() if weight < 0}


def _problem_of(contrast: tuple[str, ...] | dict[str, float]) -> str:
    """What is wrong with a contrast, in words that follow its name; empty if it is one."""
    named = tuple(contrast)
    if isinstance(contrast, dict):
        good = bool(named) and all(contrast.values())
        return "" if good else "must give each arm a weight other than 0"
    if len(named) not in (1, 2):
        return (
            "must be [arm], [arm, arm it is compared with] or {arm: weight}, got "
            f"{len(named)} arms"
        )
    return f"compares {named[0]!r} with itself" if len(set(named)) < len(named) else ""


Contrast = Annotated[
    Annotated[tuple[str, ...], Tag("<arms>")] | Annotated[dict[str, float], Tag("<weights>")],
    Discriminator(
        _form_of_contrast,
        custom_error_type="contrast",
        custom_error_message="must be [arm, arm it is compared with], [arm] or {arm: weight}",
    ),
]


def _form_of_control(control: Any) -> str | None:
    return "<name>" if isinstance(control, str) else _form_of_contrast(control)


Control = Annotated[
    Annotated[str, Tag("<name>")]
    | Annotated[tuple[str, ...], Tag("<arms>")]
    | Annotated[dict[str, float], Tag("<weights>")],
    Discriminator(
        _form_of_control,
        custom_error_type="control",
        custom_error_message="must be an arm, [arm, arm it is compared with] or {arm: weight}",
    ),
]


class Hypothesis(Declared):
    """One comparison of two arms, stated before anything runs."""

    claim: str = Field("", description="the claim in words")
    metric: str = Field(description="name of a reported metric, see `dinolab list metrics`")
    minus_start: Switch = Field(
        False, description="use the last value minus the same run's value at step 0"
    )
    metric_against: str = Field(
        "", description="metric of the arm it is compared with, where that is another one"
    )
    contrast: Contrast = Field(
        description="[arm, arm it is compared with]; [arm]: its own value; or {arm: weight}, the "
        "weighted sum"
    )
    over: Literal["arms", "cells"] = Field(
        "arms",
        description="cells: the two names of the contrast are levels of one factor, compared over "
        "all cells of the factorial that have them",
    )
    direction: Direction = Field(
        description="rises or falls: superiority in that direction; differs: in either; holds: "
        "equivalence"
    )
    smallest_effect: Annotated[float, Field(gt=0)] = Field(
        description="smallest effect of interest, in the metric's own units"
    )
    rationale: str = Field("", description="why an effect smaller than that does not matter")
    control: Control = Field(
        "",
        description="arm that is expected to differ by smallest_effect or more where this one may "
        "not, compared with the same arm; or a contrast of its own. Without one that is found to "
        "differ nothing is called equivalent",
    )
    test: Literal["signflip", "t"] = Field("signflip", description="test behind the p-value")
    alpha: Annotated[float, Field(ge=1e-6, lt=0.5)] = Field(0.05, description="error rate")
    family: str = Field(
        "",
        max_length=LONGEST_NAME,
        description="p-values are adjusted within a family; empty: see `multiplicity`",
    )
    secondary: Switch = Field(
        False,
        description="beside what the study is about: adjusted among all such hypotheses, so that a "
        "share of alpha at most of what is found in them is expected to be wrong "
        "(Benjamini-Hochberg)",
    )

    @model_validator(mode="after")
    def _is_a_contrast(self) -> Self:
        if problem := _problem_of(self.contrast):
            raise ValueError(f"contrast {problem}")
        if not isinstance(self.control, str) and (problem := _problem_of(self.control)):
            raise ValueError(f"control {problem}")
        if self.over == "cells" and len(self.contrast) < 2:
            raise ValueError("over: cells needs a contrast of two levels of a factor")
        if self.control:
            self._check_control()
        if self.metric_against and min(self.weights.values()) > 0:
            raise ValueError(
                "metric_against is the metric of an arm that is compared with, and contrast has "
                "none; add that arm, or leave metric_against out"
            )
        return self

    def _check_control(self) -> None:
        if max(self.control_weights.values()) < 0:
            raise ValueError("control must give an arm a weight above 0")
        first, second = self.control_sides
        if first == second and not self.metric_against:
            raise ValueError(f"control compares {' and '.join(first)} with itself")
        if (first, second) == sides_of(self.weights):
            raise ValueError("control is what the hypothesis compares; name another arm")

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each arm in a seed's score."""
        return _weights(self.contrast)

    @property
    def by_signs(self) -> bool:
        """Whether its p comes from sign flips of its differences."""
        return self.test == "signflip"

    @property
    def control_weights(self) -> dict[str, float]:
        """The weight of each arm that `control` names; empty without one.

        Where none is below 0, the control is compared with what the hypothesis compares with.
        """
        if isinstance(self.control, str):
            total = math.fsum(weight for weight in self.weights.values() if weight > 0)
            return {self.control: total} if self.control else {}
        return _weights(self.control)

    @property
    def control_metrics(self) -> list[tuple[str, str]]:
        """Each arm that the control rests on, and the metric that it is measured by."""
        if not self.control:
            return []
        metrics = self.metric, self.metric_against or self.metric
        return [
            (arm, metric)
            for side, metric in zip(self.control_sides, metrics, strict=True)
            for arm in side
        ]

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm that it rests on, those of its control among them."""
        return tuple(dict.fromkeys((*self.contrast, *self.control_weights)))

    def metric_of(self, arm: str) -> str:
        """The metric of an arm: `metric_against`, if there is one, where its weight is below 0."""
        against = self.metric_against if self.weights[arm] < 0 else ""
        return against or self.metric

    @property
    def control_sides(self) -> tuple[dict[str, float], dict[str, float]]:
        """Arms and positive weights of the control, and of what it is compared with."""
        first, second = sides_of(self.control_weights)
        return first, second or sides_of(self.weights)[1]

    @property
    def sides(self) -> tuple[str, str]:
        """In words, what is compared and what with; the second is empty if with nothing."""
        words = []
        for arms in sides_of(self.weights):
            if self.over == "cells":
                # The level that all these cells share; the baseline's has no part in their names.
                shared = set.intersection(*(set(arm.split("+")) for arm in arms))
                level = "+".join(sorted(shared - {BASELINE})) or BASELINE
                words.append(f"{level}, mean of {len(arms)} cells")
            elif len(arms) > 3 and len(set(arms.values())) == 1:
                words.append(f"mean of {len(arms)} arms")
            else:
                words.append(
                    " + ".join(arm if w == 1 else f"{w:.3g} {arm}" for arm, w in arms.items())
                )
        return words[0], words[1]


class Multiplicity(Declared):
    """How p-values are adjusted for the number of hypotheses."""

    over: Literal["claim", "study"] = Field(
        "claim",
        description="the family of a hypothesis that names none. claim: the first claim that names "
        "it, or `primary` for those of no claim; study: all of the study",
    )
    by: Literal["max-t", "holm", "fixed-sequence"] = Field(
        "max-t",
        description="max-t: step-down over joint sign flips (Holm where a hypothesis of the family "
        "asks for t); fixed-sequence: in the order of the file, at no price, each only if all "
        "before it passed",
    )


class Claim(Declared):
    """What was said, in words, and how hypotheses decide it."""

    text: str = Field(description="the claim in words")
    source: str = Field("", description="where it was made")
    hypotheses: tuple[str, ...] = Field(min_length=1, description="names of hypotheses")
    rule: str = Field(
        "all",
        description="all: every hypothesis must be supported; any: one must; or the name of the "
        "one that decides",
    )

    @model_validator(mode="after")
    def _rule_is_known(self) -> Self:
        if self.rule not in ("all", "any", *self.hypotheses):
            raise ValueError(f"rule must be all, any or one of its hypotheses, got {self.rule!r}")
        return self


class Gate(Declared):
    """A manipulation check: what must hold in an arm, on average over seeds, for it to count."""

    arms: tuple[str, ...] = Field(min_length=1, description="arms that must pass")
    metric: str = Field(description="name of a reported metric")
    minus_start: Switch = Field(False, description="use the last value minus that at step 0")
    at_least: float = Field(description="smallest mean over seeds that passes")
