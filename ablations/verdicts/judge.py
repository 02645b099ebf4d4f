"""What the runs say about each hypothesis: paired statistics, one label, and the reason for it.

The unit is the training seed. Two arms are compared by their differences at equal seeds, n of
them, arm minus the arm it is compared with. Intervals are Student t; p-values are exact sign-flip
(or t, if the hypothesis says so), Holm-adjusted within a family; the label follows the rule of
METRICS C.6, step 6. No bootstrap: over ten seeds or fewer its intervals cover too little
(METRICS C.2).
"""

import bisect
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.stats
from scipy.special import gammaln
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from ablations.spec import Direction, Gate, Hypothesis

Status = Literal["finished", "collapsed", "diverged", "failed", "missing"]
Label = Literal["supported", "refuted", "equivalent", "inconclusive", "failed"]
Tag = Literal["strong", "negligible-but-nonzero"]
Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]

FEWEST_SEEDS = 6
"""Fewest seeds that get a label other than inconclusive: 2 / 2**6 is the first below 0.05."""

EXACT_SEEDS = 16
"""Most seeds for which all 2**n sign flips are enumerated."""

SIGN_FLIPS = 65_536
"""Random sign flips drawn, with a fixed seed, beyond EXACT_SEEDS."""

PLANNED_POWER = 0.8
"""Power that `Verdict.seeds_needed` plans for."""

PLANNED_EFFECT = 1.5
"""Effect planned for, in smallest effects of interest.

A true effect of exactly one is called supported half the time by construction, since the rule asks
for a mean of at least one; so METRICS C.6 plans at 1.5 to 2.
"""

MOST_SEEDS = 10_000
"""Where the search for a number of seeds gives up."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """How the run of one arm at one seed ended, and its metrics at step 0 and at the last step."""

    status: Status
    reason: str = ""
    start: Mapping[str, float]
    end: Mapping[str, float]


class Pair(NamedTuple):
    """Both sides of a contrast at one seed, in the metric's units; None: no finite number.

    A side is the weighted sum of its arms; one without arms is 0.
    """

    seed: int
    arm: float | None
    against: float | None
    difference: float | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Paired statistics of n differences, arm minus against, whatever direction was predicted.

    None stands for a number that does not exist: most need n >= 2, and the standardised effects
    need differences that vary. Levels follow the alpha of the hypothesis.
    """

    n: int
    """Differences that are finite numbers."""
    mean: float | None
    """Mean difference, in the metric's units."""
    standard_deviation: float | None
    """Standard deviation of the differences (n - 1), in the metric's units."""
    interval: Interval | None
    """t interval of the mean at level 1 - alpha; the mean itself if the differences are equal."""
    interval_equivalence: Interval | None
    """The same at level 1 - 2 alpha: inside the margins exactly when TOST passes at alpha."""
    interval_inversion: Interval | None
    """Shifts the sign-flip test does not reject at alpha; None where it can reject none."""
    p: float | None
    """Two-sided p-value of no difference, in (0, 1]: sign-flip or t, as the hypothesis says."""
    p_equivalence: float | None
    """TOST p-value of a mean outside the smallest effect of interest (Schuirmann 1987)."""
    dz: float | None
    """Mean over standard deviation of the differences."""
    hedges_g: float | None
    """dz without its small-sample bias (Hedges 1981); needs n >= 3."""
    probability_of_superiority: float | None
    """Share of seeds at which the arm is above, ties counting half, in [0, 1]."""
    probability_of_superiority_interval: Interval | None
    """Clopper-Pearson at level 1 - alpha, ties against the arm below and for it above."""


@dataclass(frozen=True, kw_only=True)
class Verdict(Summary):
    """The label of one hypothesis, what decided it, and every number behind it."""

    label: Label
    tags: tuple[Tag, ...]
    reason: str
    """One line: what decided the label."""
    seeds: tuple[int, ...]
    """Seeds that were planned."""
    pairs: tuple[Pair, ...]
    """One for each planned seed, in that order, complete or not."""
    p_adjusted: float | None
    """p after Holm over the family; None for `holds`, which is not in one, and for failed."""
    seeds_needed: int | None
    """Only when inconclusive: see `_seeds_needed`. None also where that exceeds MOST_SEEDS."""

    def to_json(self) -> dict[str, Any]:
        """Fields by name as JSON types; a pair is an object; None where a number is not there."""
        plain = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return {**plain, "pairs": [pair._asdict() for pair in self.pairs]}


def signflip_p(differences: Floats) -> Floats:
    """Two-sided p-value of the sign-flip test that differences are symmetric around 0.

    The statistic is the mean. Flips leave the sum of squares as it is, so the studentised mean
    orders them the same way and gives the same p-value. Exact up to EXACT_SEEDS differences, then
    SIGN_FLIPS random flips with the +1 correction. Differences that agree to 12 digits of the
    largest are ties.

    Args:
        differences: shape [..., n], n >= 2; each row is tested.

    Returns:
        Shape [...], in [2 / 2**n, 1]; 1 where all differences are 0.
    """
    n = differences.shape[-1]
    largest = np.abs(differences).max(axis=-1, keepdims=True)
    scaled = differences / np.where(largest > 0, largest, 1.0)
    result = scipy.stats.permutation_test(
        (scaled,),
        lambda sample, axis: np.round(sample.mean(axis=axis), 12),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if n <= EXACT_SEEDS else SIGN_FLIPS,
        batch=4096,
        axis=-1,
        rng=np.random.default_rng(0),
    )
    return np.asarray(result.pvalue, dtype=np.float64)


def inversion_interval(differences: Floats, alpha: float) -> tuple[Floats, Floats] | None:
    """Shifts that the two-sided sign-flip test at `alpha` does not reject, ends included.

    Flipping a set of signs keeps the mean as large exactly if the mean over that set is not above
    the shift. So the ends are the k-th smallest and k-th largest mean over the 2**n - 1 non-empty
    subsets, k = floor(alpha * 2**n / 2), and the coverage under symmetry is 1 - 2k / 2**n (Hartigan
    1969, typical values). SIGN_FLIPS random subsets beyond EXACT_SEEDS.

    Args:
        differences: shape [..., n], n >= 1.
        alpha: error rate, in (0, 1).

    Returns:
        Lower and upper ends, each of shape [...]; None where no shift can be rejected (k = 0, so
        below 6 differences at 0.05).
    """
    n = differences.shape[-1]
    if n <= EXACT_SEEDS:
        codes = np.arange(1, 2**n)
        members = (codes[:, None] >> np.arange(n)) & 1
    else:
        members = np.random.default_rng(0).integers(0, 2, size=(SIGN_FLIPS, n))
        members = members[members.any(axis=1)]
    k = math.floor(alpha * (len(members) + 1) / 2)
    if k == 0:
        return None
    means = differences @ (members / members.sum(axis=1, keepdims=True)).T
    ends = np.partition(means, (k - 1, len(members) - k), axis=-1)
    return ends[..., k - 1], ends[..., len(members) - k]


def seeds_for(
    effect: float,
    *,
    alpha: float,
    power: float,
    alternative: Literal["two-sided", "larger"] = "two-sided",
) -> int | None:
    """Smallest n at which a one-sample t test at `alpha` has `power` for a true effect.

    Args:
        effect: true mean over standard deviation, > 0.
        alpha: error rate, in (0, 1).
        power: probability of rejecting, in (0, 1).
        alternative: two-sided, or larger for a one-sided test.

    Returns:
        The number, from 2 up to MOST_SEEDS; None beyond.
    """

    def enough(n: int) -> bool:
        reached = TTestPower().power(effect, n, alpha, alternative=alternative)
        return bool(reached >= power)

    high = 2
    while not enough(high):
        high *= 2
        if high > 2 * MOST_SEEDS:
            return None
    found = bisect.bisect_left(range(high + 1), True, lo=max(2, high // 2), key=enough)
    return found if found <= MOST_SEEDS else None


def decide(
    *,
    direction: Direction,
    smallest_effect: float,
    alpha: float,
    mean: float,
    interval: Interval,
    interval_equivalence: Interval,
    p: float,
    p_adjusted: float,
) -> tuple[Label, tuple[Tag, ...]]:
    """The label that METRICS C.6, step 6 gives to complete data, and its tags.

    With s the smallest effect, and mean and intervals signed in the predicted direction, the first
    that is true of: supported, if p_adjusted <= alpha, interval above 0 and mean >= s (tag strong,
    if interval not below s); equivalent, if interval_equivalence is inside (-s, s) (tag
    negligible-but-nonzero, if p <= alpha); refuted, if interval below s; inconclusive. For
    `differs` the direction is that of the mean, and there is no refuted. For `holds`: supported, if
    interval_equivalence is inside (-s, s); refuted, if interval is entirely outside; inconclusive.

    Args:
        direction: as predicted.
        smallest_effect: s, > 0.
        alpha: error rate, in (0, 0.5).
        mean: mean difference, arm minus against, not yet signed.
        interval: its interval at level 1 - alpha, low then high, not yet signed.
        interval_equivalence: the same at level 1 - 2 alpha.
        p: two-sided p-value.
        p_adjusted: the same, Holm-adjusted; not used for `holds`.
    """
    s = smallest_effect
    inside = -s < interval_equivalence[0] and interval_equivalence[1] < s
    if direction == "holds":
        if inside:
            return "supported", ()
        outside = interval[0] >= s or interval[1] <= -s
        return ("refuted" if outside else "inconclusive"), ()
    effect, (low, high) = _signed(direction, mean, interval)
    if p_adjusted <= alpha and low > 0 and effect >= s:
        return "supported", (("strong",) if low >= s else ())
    if inside:
        return "equivalent", (("negligible-but-nonzero",) if p <= alpha else ())
    excluded = high < s and direction != "differs"
    return ("refuted" if excluded else "inconclusive"), ()


def judge(
    hypotheses: Mapping[str, Hypothesis],
    gates: Mapping[str, Gate],
    runs: Mapping[tuple[str, int], Run],
    seeds: Sequence[int],
) -> dict[str, Verdict]:
    """A verdict for each hypothesis, by name, in the order given.

    `failed` comes first: a run of any of its arms at a planned seed that is not finished, a metric
    that is absent or not finite in a finished run, or a gate that any of its arms misses. Its
    statistics are those of the pairs that have numbers, for display only. Then fewer than
    FEWEST_SEEDS seeds are `inconclusive`, and the rest is :func:`decide`. A failed hypothesis keeps
    its place in its family, as p = 1: the others must not gain from its failure.

    Args:
        hypotheses: what was claimed, by name.
        gates: what arms must show to count, by name; each arm is checked alone.
        runs: what happened, by (arm, seed); one that is not there is missing.
        seeds: the planned seeds, all different.

    Raises:
        ValueError: if a seed is planned twice.
    """
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must differ, one pair each, got {list(seeds)}: remove repeats")
    missed = _missed_gates(gates, runs, seeds)
    pairs = {name: _pairs(h, runs, seeds) for name, h in hypotheses.items()}
    summaries = {
        name: _summary(h, [pair.difference for pair in pairs[name] if pair.difference is not None])
        for name, h in hypotheses.items()
    }
    problems = {
        name: [
            *_problems(h, runs, pairs[name]),
            *(text for arm in h.weights for text in missed.get(arm, [])),
        ]
        for name, h in hypotheses.items()
    }
    counted = {
        name: 1.0 if problems[name] or summary.p is None else summary.p
        for name, summary in summaries.items()
        if hypotheses[name].direction != "holds"
    }
    adjusted, sizes = _holm({name: (hypotheses[name].family, p) for name, p in counted.items()})

    verdicts = {}
    for name, hypothesis in hypotheses.items():
        summary = summaries[name]
        label: Label
        tags: tuple[Tag, ...] = ()
        p_adjusted = adjusted.get(name) if summary.p is not None and not problems[name] else None
        seeds_needed = None
        if problems[name]:
            label, reason = "failed", "; ".join(problems[name])
        elif summary.n < FEWEST_SEEDS:
            label, seeds_needed = "inconclusive", FEWEST_SEEDS
            reason = (
                f"{_counted(summary.n, 'seed')}; {FEWEST_SEEDS} is the fewest at which a two-sided "
                "exact test can reach 0.05"
            )
        else:
            family_size = sizes.get(hypothesis.family, 1)
            label, tags, reason = _decided(hypothesis, summary, p_adjusted, family_size)
            if label == "inconclusive":
                seeds_needed = _seeds_needed(hypothesis, summary, family_size)
                reason += f"; {_seeds_text(hypothesis, summary.n, seeds_needed)}"
        verdicts[name] = Verdict(
            **vars(summary),
            label=label,
            tags=tags,
            reason=reason,
            seeds=tuple(seeds),
            pairs=pairs[name],
            p_adjusted=p_adjusted,
            seeds_needed=seeds_needed,
        )
    return verdicts


def _value(run: Run, metric: str, minus_start: bool) -> float | None:
    """The metric at the last step, less that at step 0 if asked; None if not a finite number."""
    value = run.end.get(metric, math.nan)
    if minus_start:
        value = value - run.start.get(metric, math.nan)
    return float(value) if math.isfinite(value) else None


def _run(runs: Mapping[tuple[str, int], Run], arm: str, seed: int) -> Run:
    return runs.get((arm, seed), Run(status="missing", start={}, end={}))


def _pairs(
    hypothesis: Hypothesis, runs: Mapping[tuple[str, int], Run], seeds: Sequence[int]
) -> tuple[Pair, ...]:
    pairs = []
    for seed in seeds:
        sides = [_side(hypothesis, runs, seed, sign) for sign in (1, -1)]
        arm, against = sides
        difference = math.nan if arm is None or against is None else arm - against
        pairs.append(Pair(seed, arm, against, difference if math.isfinite(difference) else None))
    return tuple(pairs)


def _side(
    hypothesis: Hypothesis, runs: Mapping[tuple[str, int], Run], seed: int, sign: int
) -> float | None:
    """Weighted sum of the arms whose weight has that sign; None if one has no finite value."""
    terms = []
    for arm, weight in hypothesis.weights.items():
        if weight * sign > 0:
            value = _arm_value(hypothesis, runs, arm, seed)
            if value is None:
                return None
            terms.append(abs(weight) * value)
    return math.fsum(terms)


def _arm_value(
    hypothesis: Hypothesis, runs: Mapping[tuple[str, int], Run], arm: str, seed: int
) -> float | None:
    return _value(_run(runs, arm, seed), hypothesis.metric_of(arm), hypothesis.minus_start)


def _problems(
    hypothesis: Hypothesis, runs: Mapping[tuple[str, int], Run], pairs: Sequence[Pair]
) -> list[str]:
    """Why the pairs are not all there, one line for each arm and cause; empty if they are."""
    where: dict[str, list[int]] = defaultdict(list)
    for arm in hypothesis.weights:
        for pair in pairs:
            run = _run(runs, arm, pair.seed)
            if run.status != "finished":
                cause = f" ({' '.join(run.reason.split())})" if run.reason else ""
                where[f"{arm}: {run.status}{cause}"].append(pair.seed)
            elif _arm_value(hypothesis, runs, arm, pair.seed) is None:
                steps = "step 0 or the last step" if hypothesis.minus_start else "the last step"
                metric = hypothesis.metric_of(arm)
                where[f"{arm}: no finite {metric} at {steps}"].append(pair.seed)
    for pair in pairs:
        if pair.difference is None and pair.arm is not None and pair.against is not None:
            where[f"{hypothesis.metric}: no finite difference"].append(pair.seed)
    return [f"{text}, {_seed_list(seeds)}" for text, seeds in where.items()]


def _missed_gates(
    gates: Mapping[str, Gate], runs: Mapping[tuple[str, int], Run], seeds: Sequence[int]
) -> dict[str, list[str]]:
    """For each arm that misses a gate, one line for each gate it misses."""
    missed: dict[str, list[str]] = defaultdict(list)
    for name, gate in gates.items():
        metric = f"{gate.metric} minus step 0" if gate.minus_start else gate.metric
        for arm in dict.fromkeys(gate.arms):
            values = {s: _value(_run(runs, arm, s), gate.metric, gate.minus_start) for s in seeds}
            numbers = [value for value in values.values() if value is not None]
            absent = [seed for seed, value in values.items() if value is None]
            start = f"gate {name}: {arm} has"
            if absent:
                missed[arm].append(f"{start} no finite {metric}, {_seed_list(absent)}")
            elif numbers and (mean := math.fsum(numbers) / len(numbers)) < gate.at_least:
                missed[arm].append(f"{start} mean {metric} {mean:.4g}, below {gate.at_least:g}")
    return missed


def _summary(hypothesis: Hypothesis, differences: Sequence[float]) -> Summary:
    """All statistics of the differences, shape [n]; equal ones (to 12 digits) need no test."""
    n = len(differences)
    d = np.array(differences, dtype=np.float64)
    alpha, margin = hypothesis.alpha, hypothesis.smallest_effect
    mean = standard_deviation = p = p_equivalence = dz = hedges_g = None
    interval = interval_equivalence = interval_inversion = None
    superiority = superiority_interval = None
    if n >= 1:
        mean = float(d.mean())
        wins, ties = int((d > 0).sum()), int((d == 0).sum())
        superiority = (wins + ties / 2) / n
        low, high = (
            scipy.stats.binomtest(count, n).proportion_ci(1 - alpha, method="exact")
            for count in (wins, wins + ties)
        )
        superiority_interval = (float(low.low), float(high.high))
    if n >= 2:
        assert mean is not None
        standard_deviation = float(d.std(ddof=1))
        p = float(signflip_p(d))
        ends = inversion_interval(d, alpha)
        interval_inversion = None if ends is None else (float(ends[0]), float(ends[1]))
        if standard_deviation <= 1e-12 * float(np.abs(d).max()):
            standard_deviation = 0.0
            interval = interval_equivalence = (mean, mean)
            p_equivalence = 0.0 if -margin < mean < margin else 1.0
        else:
            result = scipy.stats.ttest_1samp(d, 0.0)
            p = float(result.pvalue) if hypothesis.test == "t" else p
            interval = _ends(result.confidence_interval(1 - alpha))
            interval_equivalence = _ends(result.confidence_interval(1 - 2 * alpha))
            p_equivalence = float(DescrStatsW(d).ttost_mean(-margin, margin)[0])
            dz = mean / standard_deviation
            if n >= 3:
                half = (n - 1) / 2
                hedges_g = dz * math.exp(gammaln(half) - gammaln(half - 0.5)) / math.sqrt(half)
    return Summary(
        n=n,
        mean=mean,
        standard_deviation=standard_deviation,
        interval=interval,
        interval_equivalence=interval_equivalence,
        interval_inversion=interval_inversion,
        p=p,
        p_equivalence=p_equivalence,
        dz=dz,
        hedges_g=hedges_g,
        probability_of_superiority=superiority,
        probability_of_superiority_interval=superiority_interval,
    )


def _holm(
    counted: Mapping[str, tuple[str, float]],
) -> tuple[dict[str, float], dict[str, int]]:
    """Holm-adjusted p by name and the size of each family, from (family, p) by name."""
    families: dict[str, list[str]] = defaultdict(list)
    for name, (family, _) in counted.items():
        families[family].append(name)
    adjusted: dict[str, float] = {}
    for names in families.values():
        corrected = multipletests([counted[name][1] for name in names], method="holm")[1]
        adjusted |= zip(names, map(float, corrected), strict=True)
    return adjusted, {family: len(names) for family, names in families.items()}


def _decided(
    hypothesis: Hypothesis, summary: Summary, p_adjusted: float | None, family_size: int
) -> tuple[Label, tuple[Tag, ...], str]:
    """Label, tags and reason for complete data of FEWEST_SEEDS or more."""
    mean, interval, equivalence = summary.mean, summary.interval, summary.interval_equivalence
    assert mean is not None
    assert interval is not None
    assert equivalence is not None
    assert summary.p is not None
    label, tags = decide(
        direction=hypothesis.direction,
        smallest_effect=hypothesis.smallest_effect,
        alpha=hypothesis.alpha,
        mean=mean,
        interval=interval,
        interval_equivalence=equivalence,
        p=summary.p,
        p_adjusted=summary.p if p_adjusted is None else p_adjusted,
    )
    s = f"{hypothesis.smallest_effect:g}"
    wide = f"{_percent(1 - hypothesis.alpha)} interval"
    narrow = f"{_percent(1 - 2 * hypothesis.alpha)} interval {_ends_text(equivalence)}"
    if hypothesis.direction == "holds":
        changes = f"changes by {mean:.3g}; "
        return (
            label,
            tags,
            changes
            + {
                "supported": f"{narrow} is inside ±{s}",
                "refuted": f"{wide} {_ends_text(interval)} is outside ±{s}",
                "inconclusive": f"{narrow} is not inside ±{s}, and {wide} {_ends_text(interval)} "
                "not outside",
            }[label],
        )
    effect, (low, high) = _signed(hypothesis.direction, mean, interval)
    says = f"{hypothesis.direction} by {effect:.3g}, {wide} {_ends_text((low, high))}"
    alone = f"p {summary.p:.2g}"
    adjusted = f"p {p_adjusted:.2g}"
    if family_size > 1:
        adjusted += f" after Holm over {family_size} hypotheses"
    if label == "supported":
        found = "all of it" if "strong" in tags else "above 0, mean"
        return label, tags, f"{says}: {found} at least {s}; {adjusted}"
    if label == "equivalent":
        nonzero = f", though not 0 ({alone})" if tags else ""
        return label, tags, f"changes by {mean:.3g}; {narrow} is inside ±{s}{nonzero}"
    if label == "refuted":
        found = "the opposite of the prediction" if high < 0 else f"less than {s} throughout"
        return label, tags, f"{says}: {found}"
    if low <= 0:
        return label, tags, f"{says}: excludes neither 0 nor {s}"
    if effect < hypothesis.smallest_effect:
        return label, tags, f"{says}: above 0, mean less than {s}, which is not excluded"
    return label, tags, f"{says}: mean at least {s}, but {adjusted}"


def _seeds_needed(hypothesis: Hypothesis, summary: Summary, family_size: int) -> int | None:
    """Seeds to plan a new study with, at PLANNED_POWER; not what would settle these data.

    The standard deviation is the upper 80 % limit of the one observed (METRICS C.6, step 2), the
    test is t as an approximation. `rises` and `falls`: two-sided, at a true effect of
    PLANNED_EFFECT smallest effects and alpha over the size of the family (Holm's first step); with
    the sign-flip test, also enough for it to reach that level. `holds`: TOST at a true effect of 0,
    as two one-sided tests that share the risk of missing.
    """
    n, alpha = summary.n, hypothesis.alpha
    assert summary.standard_deviation is not None
    inflated = summary.standard_deviation * math.sqrt((n - 1) / scipy.stats.chi2.ppf(0.2, n - 1))
    # Beyond 4 the fewest seeds are enough anyway; the limit keeps the power computable.
    margin = min(4.0, hypothesis.smallest_effect / inflated) if inflated > 0 else 4.0
    if hypothesis.direction == "holds":
        power = (1 + PLANNED_POWER) / 2
        needed = seeds_for(margin, alpha=alpha, power=power, alternative="larger")
        return None if needed is None else max(FEWEST_SEEDS, needed)
    level = alpha / family_size
    needed = seeds_for(PLANNED_EFFECT * margin, alpha=level, power=PLANNED_POWER)
    reachable = 1 + math.ceil(-math.log2(level)) if hypothesis.test == "signflip" else 0
    return None if needed is None else max(FEWEST_SEEDS, needed, reachable)


def _seeds_text(hypothesis: Hypothesis, n: int, needed: int | None) -> str:
    truth = (
        "to show that nothing changes"
        if hypothesis.direction == "holds"
        else f"for a true effect of {PLANNED_EFFECT * hypothesis.smallest_effect:g}"
    )
    power = f"{_percent(PLANNED_POWER)} power {truth}"
    if needed is None:
        return f"more than {MOST_SEEDS:,} seeds are needed for {power}"
    return f"{needed} seeds are needed for {power}; {n} ran"


def _signed(
    direction: Direction, mean: float, interval: Interval
) -> tuple[float, tuple[float, float]]:
    """Mean and interval counted positive in the predicted direction, or in the mean's own."""
    if direction == "falls" or (direction == "differs" and mean < 0):
        return -mean, (-interval[1], -interval[0])
    return mean, interval


def _ends(interval: Any) -> Interval:
    return float(interval.low), float(interval.high)


def _ends_text(interval: Interval) -> str:
    return f"[{interval[0]:.3g}, {interval[1]:.3g}]"


def _percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _seed_list(seeds: Sequence[int]) -> str:
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
