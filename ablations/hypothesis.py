"""What a study states before anything runs: hypotheses, claims, gates."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from ablations.contrast import (
    BASELINE,
    Contrast,
    Control,
    problem_of,
    side_text,
    sides_of,
    weights_of,
)
from ablations.crossing import Along, Crossing, problem_of_along, trend_weights
from trainers.config import Switch

Direction = Literal["rises", "falls", "differs", "holds"]

CROSSES = "crosses"
"""What a study file may have as a direction beside those: two hypotheses are made of it."""

LONGEST_NAME = 100
"""Bytes of a name that a study file gives: file systems stop at 255, and cells join several."""


class Declared(BaseModel):
    """Base of what a study file declares: frozen, strict, no unknown names."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Hypothesis(Declared):
    """One comparison of two arms, stated before anything runs."""

    claim: str = Field("", description="the claim in words")
    metric: str = Field("", description="name of a reported metric, see `dinolab list metrics`")
    endpoint: Literal["", "collapsed", "diverged", "finished"] = Field(
        "",
        description="instead of a metric, whether the run of a seed ended so: a yes or no, whose "
        "share of seeds is compared by exact tests. A collapse is then a result",
    )
    paired: Switch = Field(
        True,
        description="of an endpoint: whether equal seeds are pairs (McNemar); false: they have "
        "nothing in common (Fisher)",
    )
    minus_start: Switch = Field(
        False, description="use the last value minus the same run's value at step 0"
    )
    metric_against: str = Field(
        "", description="metric of the arm it is compared with, where that is another one"
    )
    contrast: Contrast = Field(
        (),
        description="[arm, arm it is compared with]; [arm]: its own value; or {arm: weight}, the "
        "weighted sum",
    )
    over: Literal["arms", "cells"] = Field(
        "arms",
        description="cells: the two names of the contrast are levels of one factor, compared over "
        "all cells of the factorial that have them",
    )
    interaction: tuple[tuple[str, str], tuple[str, str]] | None = Field(
        None,
        description="instead of a contrast, [[level, other level], [level, other level]] of two "
        "factors: how much larger the first difference is at the second factor's first level than "
        "at its other one, over all cells",
    )
    along: Along = Field(
        {},
        description="levels of one factor in order, each with a number, such as {grid_4: 4, "
        "baseline: 8}: the contrast is taken at each, and what is compared is its change from the "
        "first to the last, along the least-squares line",
    )
    rungs: SkipJsonSchema[tuple[str, ...]] = ()
    """arms of the other rungs of a crossing that it is part of, which rests on them, too"""
    direction: Direction = Field(
        description="rises or falls: superiority in that direction; differs: in either; holds: "
        "equivalence; crosses: `along` a factor, below 0 at its first level and above 0 at its "
        "last, by smallest_effect or more at both: a claim of that name, of two hypotheses, with "
        "the place where the sign changes and an interval of that",
        json_schema_extra={"enum": ["rises", "falls", "differs", "holds", CROSSES]},
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
        if self.interaction:
            self._check_interaction()
        elif problem := problem_of(self.contrast):
            raise ValueError(f"contrast {problem}")
        if not isinstance(self.control, str) and (problem := problem_of(self.control)):
            raise ValueError(f"control {problem}")
        if self.over == "cells" and len(self.contrast) < 2:
            raise ValueError("over: cells needs a contrast of two levels of a factor")
        self._check_end_point()
        if self.along:
            self._check_along()
        if self.control:
            self._check_control()
        if self.metric_against and min(self.weights.values(), default=1.0) > 0:
            raise ValueError(
                "metric_against is the metric of an arm that is compared with, and contrast has "
                "none; add that arm, or leave metric_against out"
            )
        return self

    def _check_end_point(self) -> None:
        if not self.metric and not self.endpoint:
            raise ValueError("metric is missing: name one, or give `endpoint: collapsed`")
        if not self.endpoint:
            if not self.paired:
                raise ValueError("paired: false is of an endpoint; values of equal seeds are pairs")
            return
        given = {
            name for name in ("metric", "minus_start", "metric_against") if getattr(self, name)
        }
        if given or self.test == "t":
            wrong = ", ".join(sorted(given)) or "test: t"
            raise ValueError(f"an endpoint is a yes or no; leave {wrong} out")
        if isinstance(self.contrast, dict) or self.over == "cells" or self.interaction:
            raise ValueError("endpoint needs a contrast [arm, arm it is compared with] or [arm]")
        if not self.paired and len(self.contrast) < 2:
            raise ValueError("paired: false needs a contrast of two arms")

    def _check_along(self) -> None:
        if problem := problem_of_along(self.along):
            raise ValueError(f"along {problem}")
        if self.interaction or self.over == "cells" or self.endpoint or self.metric_against:
            raise ValueError(
                "along goes with a metric and a contrast of arms at its baseline; leave "
                "interaction, over, endpoint and metric_against out"
            )

    def _check_interaction(self) -> None:
        # Loading writes it out as weights of cells.
        if self.over == "cells" or not (isinstance(self.contrast, dict) or self.contrast == ()):
            raise ValueError("interaction is over all cells and has no contrast; leave both out")
        for pair in self.interaction or ():
            if pair[0] == pair[1]:
                raise ValueError(f"interaction compares {pair[0]!r} with itself")
        if self.control and isinstance(self.control, str):
            raise ValueError("control of an interaction must be a contrast, such as {arm: weight}")

    def _check_control(self) -> None:
        if max(self.control_weights.values()) < 0:
            raise ValueError("control must give an arm a weight above 0")
        first, second = self.control_sides
        if self.endpoint and any(
            list(side.values()) not in ([], [1.0]) for side in (first, second)
        ):
            raise ValueError(
                "control of an endpoint must be an arm, [arm] or [arm, arm it is compared with]"
            )
        most = max(_scale(self.weights), 2.0 if self.interaction else 0.0)
        if _scale(self.control_weights) > most * (1 + 1e-9):
            # Else twice the hypothesis's own contrast could be what differs.
            raise ValueError(
                f"control has weights that sum to {_scale(self.control_weights):g}, and what it is "
                f"for {most:g}: the same smallest effect would mean less; give it smaller weights"
            )
        if first == second and not self.metric_against:
            raise ValueError(f"control compares {' and '.join(first)} with itself")
        if self.contrast and (first, second) == sides_of(self.weights):
            raise ValueError("control is what the hypothesis compares; name another arm")

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each arm in a seed's score."""
        return weights_of(self.contrast)

    @property
    def by_signs(self) -> bool:
        """Whether its p comes from sign flips of its differences."""
        return self.test == "signflip" and self.paired

    @property
    def end_point(self) -> str:
        """What is compared: the name of its metric, or how a run ended."""
        return self.metric or self.endpoint

    @property
    def control_weights(self) -> dict[str, float]:
        """The weight of each arm that `control` names; empty without one.

        Where none is below 0, the control is compared with what the hypothesis compares with.
        """
        if isinstance(self.control, str):
            total = math.fsum(weight for weight in self.weights.values() if weight > 0)
            return {self.control: total} if self.control else {}
        return weights_of(self.control)

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
        """Every arm that it rests on, those of its control and of other rungs among them."""
        return tuple(dict.fromkeys((*self.contrast, *self.control_weights, *self.rungs)))

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
        if self.interaction:
            (level, other), (at, instead) = self.interaction
            return f"{level} − {other} at {at}", f"the same at {instead}"
        if self.along:
            return self._along_text()
        first, second = sides_of(self.weights)
        if not first:
            return contrast_text(self.weights), ""
        return (
            side_text(first, cells=self.over == "cells"),
            side_text(second, cells=self.over == "cells"),
        )

    def _along_text(self) -> tuple[str, str]:
        *others, last = self.along
        at_last = {
            arm: weight / trend_weights(self.along)[last]
            for arm, weight in self.weights.items()
            if not {*arm.split("+")} & {*others} - {BASELINE}
            and (last == BASELINE or last in arm.split("+"))
        }
        line = f", on the line through {', '.join(self.along)}" if len(others) > 1 else ""
        return contrast_text(at_last), f"the same at {others[0]}{line}"


def contrast_text(weights: Mapping[str, float]) -> str:
    """Both sides of a contrast in words, with their signs."""
    first, second = sides_of(weights)
    if not first:
        return f"−{_grouped(second)}"
    shown = side_text(first, cells=False)
    return f"{shown} − {_grouped(second)}" if second else shown


def _grouped(side: Mapping[str, float]) -> str:
    """A side in words, in brackets where it has several arms, for a sign before it."""
    text = side_text(side, cells=False)
    return f"({text})" if " + " in text else text


def _scale(weights: Mapping[str, float]) -> float:
    """The larger sum of weights of the two sides."""
    return max(math.fsum(side.values()) for side in sides_of(weights))


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
    crossing: SkipJsonSchema[Crossing | None] = None
    """what is to change its sign, where the claim is of that; made of a hypothesis that crosses"""

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
    at_least: float = Field(
        description="smallest mean over seeds that passes; with at_least_over, how far it must be "
        "above that"
    )
    at_least_over: Literal["", "step0", "pixels", "mean_colour", "histogram"] = Field(
        "",
        description="what the mean must be above. step0: the same runs at step 0; the others: the "
        "k-NN accuracy of the same held-out images by their pixels, mean colour or colour "
        "histogram, for metrics that are accuracies",
    )

    @model_validator(mode="after")
    def _over_one_thing(self) -> Self:
        if self.minus_start and self.at_least_over:
            raise ValueError(
                "minus_start is at_least_over: step0; leave it out, and give each reference a gate "
                "of its own"
            )
        return self

    @property
    def since_start(self) -> bool:
        """Whether it looks at the change since step 0."""
        return self.minus_start or self.at_least_over == "step0"

    @property
    def reference(self) -> str:
        """What is measured of the data that it looks at; empty if nothing is."""
        return "" if self.at_least_over == "step0" else self.at_least_over
