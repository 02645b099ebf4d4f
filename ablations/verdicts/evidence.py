"""What the runs give a hypothesis: pairs of seeds, and why some are not there."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from ablations.contrast import sides_of
from ablations.spec import Hypothesis
from ablations.statistics.effect_sizes import Interval
from ablations.verdicts.reasons import seed_list

if TYPE_CHECKING:
    from trainers.runs.by_image import ByImage

Status = Literal["finished", "collapsed", "diverged", "failed", "missing", "skipped"]
"""`skipped`: not run, since a sequential design had no need of it."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """How the run of one arm at one seed ended, and its metrics at step 0 and at the last step."""

    status: Status
    reason: str = ""
    start: Mapping[str, float]
    end: Mapping[str, float]
    machine: str = ""
    """Device and versions it was computed with, in words; empty if they were not recorded."""
    key: str = ""
    """The trial that it is, which arms without a difference share; empty if not known."""
    wall_s: float | None = None
    """Seconds it took; None if it has no result."""
    by_image: "ByImage | None" = field(default=None, compare=False, repr=False)
    """Of each held-out image, at the last step; None where that was not kept or not read."""
    by_image_at_start: "ByImage | None" = field(default=None, compare=False, repr=False)
    """The same at step 0."""
    has_maps: bool = field(default=False, compare=False, repr=False)
    """Whether it has kept maps of attention."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look of a sequential design has shown of a hypothesis; None where pairs lack."""

    seeds: int
    label: str
    mean: float | None
    interval: Interval | None
    """These two cover over all looks together."""
    interval_equivalence: Interval | None
    p_adjusted: float | None
    """Over all looks so far, and the family."""
    p: float | None = None
    """Of this look alone; of an e-process, of all so far."""
    level: float | None = None
    """What that is held against: the boundary, for one hypothesis alone."""
    level_first: float | None = None
    """The same for the first of the family, by Holm."""
    p_equivalence: float | None = None
    level_equivalence: float | None = None


_MISSING = Run(status="missing", start={}, end={})


class Pair(NamedTuple):
    """Both sides of a contrast at one seed, in the metric's units; None: no finite number.

    A side is the weighted sum of its arms; one without arms is 0.
    """

    seed: int
    arm: float | None
    against: float | None
    difference: float | None


def value_of(run: Run, metric: str, minus_start: bool = False) -> float | None:
    """The metric at the last step, less that at step 0 if asked; None if not a finite number."""
    value = run.end.get(metric, math.nan)
    if minus_start:
        value = value - run.start.get(metric, math.nan)
    return float(value) if math.isfinite(value) else None


def run_of(runs: Mapping[tuple[str, int], Run], arm: str, seed: int) -> Run:
    """The run of an arm at a seed; one that is not there is missing."""
    return runs.get((arm, seed), _MISSING)


def shown(hypothesis: Hypothesis, run: Run, metric: str) -> float | None:
    """The value of its end point in a run, however that ended; None where there is none.

    Of an endpoint 1 if the run ended so, else 0; one that is missing or failed says nothing.
    """
    if not hypothesis.endpoint:
        return value_of(run, metric, hypothesis.minus_start)
    ended = run.status not in ("missing", "failed", "skipped")
    return float(run.status == hypothesis.endpoint) if ended else None


def counted(hypothesis: Hypothesis, run: Run, metric: str) -> float | None:
    """The same of a run that counts: of a metric, one that has finished."""
    if hypothesis.metric and run.status != "finished":
        return None
    return shown(hypothesis, run, metric)


def pairs_of(
    hypothesis: Hypothesis, runs: Mapping[tuple[str, int], Run], seeds: Sequence[int]
) -> tuple[Pair, ...]:
    """The pairs of a hypothesis, one for each seed."""
    return _pairs(hypothesis, sides_of(hypothesis.weights), runs, seeds, shown)


def control_pairs(
    hypothesis: Hypothesis, runs: Mapping[tuple[str, int], Run], seeds: Sequence[int]
) -> tuple[Pair, ...]:
    """The pairs of its control, one for each seed; runs that do not count have no number."""
    return _pairs(hypothesis, hypothesis.control_sides, runs, seeds, counted)


def same_trial(
    hypothesis: Hypothesis, runs: Mapping[tuple[str, int], Run], seeds: Sequence[int]
) -> bool:
    """Whether both sides are one trial at every seed, so that no difference is possible."""
    if hypothesis.metric_against or abs(math.fsum(hypothesis.weights.values())) > 1e-12:
        return False
    found = [{run_of(runs, arm, seed).key for arm in hypothesis.weights} for seed in seeds]
    return all(len(keys) == 1 and keys != {""} for keys in found)


Weights = Mapping[str, float]


def _pairs(
    hypothesis: Hypothesis,
    sides: tuple[Weights, Weights],
    runs: Mapping[tuple[str, int], Run],
    seeds: Sequence[int],
    value: Callable[[Hypothesis, Run, str], float | None],
) -> tuple[Pair, ...]:
    metrics = hypothesis.metric, hypothesis.metric_against or hypothesis.metric
    pairs = []
    for seed in seeds:
        arm, against = (
            _sum(
                (weight, value(hypothesis, run_of(runs, arm, seed), metric))
                for arm, weight in weights.items()
            )
            for weights, metric in zip(sides, metrics, strict=True)
        )
        difference = math.nan if arm is None or against is None else arm - against
        pairs.append(Pair(seed, arm, against, difference if math.isfinite(difference) else None))
    return tuple(pairs)


def _sum(terms: Iterable[tuple[float, float | None]]) -> float | None:
    """Sum of weights times values; None if one has no finite value."""
    products = []
    for weight, value in terms:
        if value is None:
            return None
        products.append(weight * value)
    return math.fsum(products)


def problems_of(
    hypothesis: Hypothesis, runs: Mapping[tuple[str, int], Run], pairs: Sequence[Pair]
) -> list[str]:
    """Why the pairs are not all there, one line for each arm and cause; empty if they are."""
    where: dict[str, list[int]] = defaultdict(list)
    for arm in hypothesis.weights:
        for pair in pairs:
            run = run_of(runs, arm, pair.seed)
            metric = hypothesis.metric_of(arm)
            if counted(hypothesis, run, metric) is not None:
                continue
            if run.status != "finished":
                cause = f" ({' '.join(run.reason.split())})" if run.reason else ""
                where[f"{arm}: {run.status}{cause}"].append(pair.seed)
            else:
                steps = "step 0 or the last step" if hypothesis.minus_start else "the last step"
                where[f"{arm}: no finite {metric} at {steps}"].append(pair.seed)
    for pair in pairs:
        if pair.difference is None and pair.arm is not None and pair.against is not None:
            where[f"{hypothesis.metric}: no finite difference"].append(pair.seed)
    return [f"{text}, {seed_list(seeds)}" for text, seeds in where.items()]
