"""What a look shows of one hypothesis in many simulated studies at once.

The tests, levels and intervals are those of :mod:`ablations.verdicts.looks`; a p-value comes out as
the least of the levels that it is compared with, which is all that a label depends on.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.stats

from ablations.design import Design as Looks
from ablations.spec import Hypothesis
from ablations.statistics.e_process import anytime_p, e_values
from ablations.statistics.equivalence import tost_p
from ablations.statistics.flips import TIE, Floats, of_length_one
from ablations.statistics.outcomes import summarise_outcomes
from ablations.statistics.sequential_p import level, one_sided_level
from ablations.statistics.spending import Kind, spent
from ablations.verdicts.power import Flags

_BELOW = 1 - 1e-9
"""So that a level, divided and multiplied again, is not above itself."""

Rows = npt.NDArray[np.intp]


class Seen(NamedTuple):
    """What the interval of a look shows, [studies], in the predicted direction or the mean's."""

    reaches: Flags
    """its mean is the smallest effect or more"""
    above: Flags
    """not below 0"""
    below: Flags
    """below the smallest effect"""
    outside: Flags
    """entirely beyond the smallest effect, either way"""
    small: Flags
    """shown to be small"""
    shows: bool
    """whether so many signs can show that"""


class _ByT:
    """Looks at values, by t or sign flips; p-values come out as the least of some levels."""

    def __init__(
        self, hypothesis: Hypothesis, looks: Looks, d: Floats, levels: Floats, flips: Floats
    ) -> None:
        self.one, self.looks, self.d, self.levels = hypothesis, looks.looks, d, levels
        assert looks.spending != "e-process"
        self.kind: Kind = looks.spending
        flipped = hypothesis.by_signs and hypothesis.direction != "holds"
        self.signs = _Signs(d, self.looks, levels, self.kind, flips) if flipped else None

    def p(self, number: int, rows: Rows) -> Floats:
        """Of no difference, of studies `rows` by look `number`, which come in order."""
        if self.signs:
            return self.signs.p(number, rows)
        return self._least(self._plain_p(number, rows), number, level)

    def p_equivalence(self, number: int, rows: Rows) -> Floats:
        """Of a mean outside the margin, at this look."""
        return self._least(self._plain_equivalence(number, rows), number, one_sided_level)

    def seen(self, number: int, rows: Rows) -> Seen:
        """What the intervals of this look show."""
        d, n = self._first(number, rows), self.looks[number]
        mean, wide = d.mean(axis=1), level(self.looks, number, self.one.alpha, self.kind)
        reach = scipy.stats.t.isf(wide / 2, n - 1) * d.std(axis=1, ddof=1) / math.sqrt(n)
        small = self._plain_equivalence(number, rows) <= self._narrow(number)
        return _seen(self.one, mean, mean - reach, mean + reach, small, 2 / 2**n <= wide)

    def _plain_p(self, number: int, rows: Rows) -> Floats:
        return np.asarray(scipy.stats.ttest_1samp(self._first(number, rows), 0.0, axis=1).pvalue)

    def _plain_equivalence(self, number: int, rows: Rows) -> Floats:
        return tost_p(self._first(number, rows), self.one.smallest_effect)

    def _narrow(self, number: int) -> float:
        return one_sided_level(self.looks, number, self.one.alpha, self.kind)

    def _first(self, number: int, rows: Rows) -> Floats:
        return self.d[rows, : self.looks[number]]

    def _least(self, p: Floats, number: int, level_of: Callable[..., float]) -> Floats:
        """The least of the levels whose boundary at a look each p crosses; 1 without."""
        at = np.array([level_of(self.looks, number, alpha, self.kind) for alpha in self.levels])
        return _least_level(p[:, None] <= at, self.levels)


class _ByOutcome(_ByT):
    """The same of a yes or no that happens in one arm only: all follows from how often."""

    def seen(self, number: int, rows: Rows) -> Seen:
        wide = level(self.looks, number, self.one.alpha, self.kind)
        found = self._counted(number, rows, wide)
        small = found[:, 4] <= self._narrow(number)
        return _seen(self.one, found[:, 0], found[:, 1], found[:, 2], small, True)

    def _plain_p(self, number: int, rows: Rows) -> Floats:
        return self._counted(number, rows, self.one.alpha)[:, 3]

    def _plain_equivalence(self, number: int, rows: Rows) -> Floats:
        return self._counted(number, rows, self.one.alpha)[:, 4]

    def _counted(self, number: int, rows: Rows, alpha: float) -> Floats:
        """Mean, interval, p and p of equivalence: [studies, 5]."""
        one = self.one
        table = _by_count(
            one.direction == "falls", one.smallest_effect, alpha, one.paired,
            len(one.contrast) > 1, self.looks[number],
        )  # fmt: skip
        return table[np.abs(self._first(number, rows).sum(axis=1)).astype(int)]


@functools.lru_cache(maxsize=256)
def _by_count(falls: bool, s: float, alpha: float, paired: bool, is_pair: bool, n: int) -> Floats:
    """The same for 0 to n seeds of n at which it happens, [n + 1, 5]."""
    rows = []
    for count in range(n + 1):
        sides = [place < count for place in range(n)], [False] * n
        first, second = reversed(sides) if falls else sides
        found = summarise_outcomes(
            first, second if is_pair else None, alpha=alpha, margin=s, paired=paired
        )
        assert found.interval is not None
        rows.append((found.mean, *found.interval, found.p, found.p_equivalence))
    return np.array(rows, dtype=np.float64)


class _ByBets:
    """The same of an e-process, which has rejected what it has at any seed so far."""

    def __init__(self, hypothesis: Hypothesis, looks: Looks, d: Floats) -> None:
        self.one, self.looks, self.d = hypothesis, looks.looks, d
        s = hypothesis.smallest_effect
        self.of = {shift: _anytime_p(d - shift) for shift in (0.0, s, -s)}

    def p(self, number: int, rows: Rows) -> Floats:
        """As that of :class:`_ByT`, and exact."""
        return self.of[0.0][rows, self.looks[number] - 1]

    def p_equivalence(self, number: int, rows: Rows) -> Floats:
        """As that of :class:`_ByT`, and exact."""
        s, n = self.one.smallest_effect, self.looks[number]
        inside = np.abs(self.d[rows, :n].mean(axis=1)) < s
        larger = np.maximum(self.of[s][rows, n - 1], self.of[-s][rows, n - 1])
        return np.where(inside, larger / 2, 1.0)

    def seen(self, number: int, rows: Rows) -> Seen:
        """What shifts have been rejected by this look."""
        s, n, alpha = self.one.smallest_effect, self.looks[number], self.one.alpha
        mean = self.d[rows, :n].mean(axis=1)
        # A shift that is rejected is on one side of all that are not.
        low, high = np.full(len(rows), -np.inf), np.full(len(rows), np.inf)
        for shift in (-s, 0.0, s):
            gone = self.of[shift][rows, n - 1] <= alpha
            above, below = np.nextafter(shift, np.inf), np.nextafter(shift, -np.inf)
            low = np.where(gone & (mean > shift), np.maximum(low, above), low)
            high = np.where(gone & (mean < shift), np.minimum(high, below), high)
        small = self.p_equivalence(number, rows) <= alpha
        return _seen(self.one, mean, low, high, small, float(anytime_p(np.ones(n))) <= alpha)


def _anytime_p(differences: Floats) -> Floats:
    """p after each of the differences, [studies, n] in and out."""
    return np.minimum(1.0, 1 / np.maximum.accumulate(e_values(differences), axis=1))


def _seen(
    hypothesis: Hypothesis, mean: Floats, low: Floats, high: Floats, small: Flags, shows: bool
) -> Seen:
    s, falls = hypothesis.smallest_effect, hypothesis.direction == "falls"
    turned = falls | ((hypothesis.direction == "differs") & (mean < 0))
    effect = np.where(turned, -mean, mean)
    lower, upper = np.where(turned, -high, low), np.where(turned, -low, high)
    outside = (low >= s) | (high <= -s)
    return Seen(effect >= s, lower >= 0, upper < s, outside, small, shows)


class _Signs:
    """Exact sign flips over looks, as `sign_flip_look`, at many levels at once.

    Only the patterns with the largest means can be rejected at a look, so only they are ranked.
    """

    def __init__(
        self, d: Floats, looks: Sequence[int], levels: Floats, kind: Kind, flips: Floats
    ) -> None:
        self.d, self.looks, self.levels, self.flips = of_length_one(d), looks, levels, flips
        self.may = [
            [math.floor(spent(n / looks[-1], a, kind) * len(flips) * (1 + TIE)) for a in levels]
            for n in looks
        ]
        self.rejected = np.zeros((len(levels), len(d), len(flips)), dtype=np.bool_)
        self.count = np.zeros((len(levels), len(d)), dtype=np.int64)

    def p(self, number: int, rows: Rows) -> Floats:
        """The least level at which studies `rows` have crossed by look `number`."""
        n = self.looks[number]
        means = self.d[rows, :n] @ self.flips[:, :n].T
        np.abs(means, out=means)
        most = min(max(self.may[number]) + 1, means.shape[1])
        top = np.argpartition(means, -most)[:, -most:]
        found = np.take_along_axis(means, top, axis=1)
        order = np.argsort(-found)
        top = np.take_along_axis(top, order, axis=1)
        found = np.take_along_axis(found, order, axis=1)
        study, each = rows[:, None], np.arange(len(rows))
        crossed = np.empty((len(rows), len(self.levels)), dtype=np.bool_)
        for place, may in enumerate(self.may[number]):
            first = slice(may + 1)
            gone = self.rejected[place, study, top[:, first]]
            room = may - self.count[place, rows, None]
            kept = np.argmax(np.cumsum(~gone, axis=1) > room, axis=1)
            extreme = ~gone & (found[:, first] > found[each, kept][:, None] + TIE)
            self.rejected[place, study, top[:, first]] = gone | extreme
            self.count[place, rows] += extreme.sum(axis=1)
            crossed[:, place] = self.rejected[place, rows, 0]
        # As sign_flip_p has it, all levels above must cross too.
        return _least_level(np.logical_and.accumulate(crossed, axis=1), self.levels)


def _least_level(crossed: Flags, levels: Floats) -> Floats:
    """The least of `levels` that is crossed, [studies] of [studies, levels]; 1 without."""
    return np.asarray(np.where(crossed, levels * _BELOW, 1.0).min(axis=1))


Test = _ByT | _ByBets


def test_of(hypothesis: Hypothesis, looks: Looks, d: Floats, levels: Floats, flips: Floats) -> Test:
    if looks.spending == "e-process":
        return _ByBets(hypothesis, looks, d)
    return (_ByOutcome if hypothesis.endpoint else _ByT)(hypothesis, looks, d, levels, flips)
