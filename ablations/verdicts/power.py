"""Power of a planned study: the chance that its verdicts are those that it predicts.

Whole studies are simulated, and each is decided as :func:`ablations.verdicts.judge.judge` decides:
the same tests, adjusted in the same families, the same intervals, the same rules of claims. Paired
differences are normal. All effects are true at once, at one multiple of each smallest effect of
interest, and where no change is predicted there is none. Of an end point that is a yes or no the
effect is the share of seeds at which it happens in one arm, and it never happens in the other. All
other runs finish, gates are passed, and controls differ.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import scipy.stats

from ablations.spec import Claim, Direction, Hypothesis, Multiplicity
from ablations.statistics.equivalence import tost_p
from ablations.statistics.flips import Floats, signs
from ablations.statistics.max_t import step_down_p
from ablations.statistics.multiplicity import (
    benjamini_hochberg,
    fixed_sequence,
    holm_over_groups,
    holm_p,
)
from ablations.statistics.outcomes import summarise_outcomes
from ablations.statistics.power import POWER
from ablations.verdicts.claims import alternatives
from ablations.verdicts.families import families_of
from ablations.verdicts.rule import FEWEST_SEEDS, decide
from ablations.verdicts.spread import Spread

Flags = npt.NDArray[np.bool_]

STUDIES = 10_000
"""Simulated studies behind a power: its standard error is half a percentage point at most."""

MULTIPLES = (1.0, 1.5, 2.0)
"""True effects at which power is stated, in smallest effects of interest."""

MOST_FLIPS = 512
"""Sign flips of a simulated test: all of them up to 10 seeds, then so many random ones."""

SEARCHED = 2_000
"""Simulated studies at each effect that the search for the least detectable one looks at."""

LARGEST = 64.0
"""Largest effect that the search looks at, in smallest effects of interest."""

_LOOKED_AT = np.geomspace(0.5, LARGEST, 23)

_AT_ONCE = 250
"""Studies that share random flips: more of them would share what is odd in these."""


@dataclass(frozen=True, kw_only=True)
class Chances:
    """A number for each hypothesis and each claim, by name."""

    hypotheses: Mapping[str, float | None]
    claims: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a study asks, of how many seeds, and how far its differences are expected to vary."""

    hypotheses: Mapping[str, Hypothesis]
    claims: Mapping[str, Claim]
    seeds: int
    spread: Spread
    multiplicity: Multiplicity = field(default_factory=Multiplicity)
    searched: int = SEARCHED

    def power(self, multiple: float, studies: int = STUDIES) -> Chances:
        """The chance of `supported`, in [0, 1], where effects are `multiple` smallest effects."""
        return self.named(self._shares(multiple, studies).tolist())

    def least_detectable(self) -> Chances:
        """The effects that have POWER, in smallest effects; None where LARGEST has not.

        None for `holds` too, which predicts no effect, and for claims of nothing else.
        """
        found: list[float | None] = [None] * (len(self.hypotheses) + len(self.claims))
        open_ = [i for i, has_effect in enumerate(self._have_effects()) if has_effect]
        before, last = np.zeros(len(found)), _LOOKED_AT[0]
        for multiple in _LOOKED_AT:
            shares = self._shares(multiple, self.searched)
            for i in [i for i in open_ if shares[i] >= POWER]:
                found[i] = float(_crossing(last, before[i], multiple, shares[i]))
                open_.remove(i)
            if not open_:
                break
            before, last = shares, multiple
        return self.named(found)

    def named(self, numbers: Sequence[float | None]) -> Chances:
        """Numbers of the hypotheses and then of the claims, by name."""
        left = iter(numbers)
        return Chances(
            hypotheses={name: next(left) for name in self.hypotheses},
            claims={name: next(left) for name in self.claims},
        )

    def _have_effects(self) -> list[bool]:
        own = {name: one.direction != "holds" for name, one in self.hypotheses.items()}
        return [*own.values(), *(any(own[n] for n in c.hypotheses) for c in self.claims.values())]

    def _shares(self, multiple: float, studies: int) -> Floats:
        """Of `studies` simulated studies, how many support each hypothesis and then each claim."""
        found = np.zeros(len(self.hypotheses) + len(self.claims))
        rng = np.random.default_rng(1)
        for differences in self.simulated(multiple, studies):
            flags, p = self.decided(differences, rng)
            of_claims = claims_supported(self.claims, self.hypotheses, flags, p)
            found += np.concatenate([flags.sum(axis=0), of_claims.sum(axis=0)])
        return found / studies

    def decided(self, differences: Floats, rng: np.random.Generator) -> tuple[Flags, Floats]:
        """Which hypotheses of simulated studies are supported, and by what p, as `supported`."""
        return supported(self.hypotheses, differences, self.multiplicity, _flips(self.seeds, rng))

    def simulated(self, multiple: float, studies: int) -> Iterator[Floats]:
        """Differences [some studies, hypotheses, seeds]; the same draws for every multiple."""
        signs_of = {"rises": 1.0, "differs": 1.0, "falls": -1.0, "holds": 0.0}
        stated = self.hypotheses.values()
        effects = multiple * np.array([signs_of[h.direction] * h.smallest_effect for h in stated])
        deviations = np.array([self.spread.deviations.get(name, 0.0) for name in self.hypotheses])
        values, vectors = np.linalg.eigh(self.spread.correlation)
        root = deviations[:, None] * (vectors * np.sqrt(np.maximum(values, 0)))
        yes_or_no = [i for i, one in enumerate(stated) if one.endpoint]
        rng = np.random.default_rng(0)
        for first in range(0, studies, _AT_ONCE):
            shape = (min(_AT_ONCE, studies - first), len(effects), self.seeds)
            differences = effects[:, None] + root @ rng.standard_normal(shape)
            for i in yes_or_no:
                happens = rng.random((shape[0], self.seeds)) < abs(effects[i])
                differences[:, i] = np.sign(effects[i]) * happens
            yield differences


def supported(
    hypotheses: Mapping[str, Hypothesis],
    differences: Floats,
    multiplicity: Multiplicity,
    flips: Floats | None = None,
) -> tuple[Flags, Floats]:
    """Which hypotheses `judge` finds supported, and the p that this rests on.

    All pairs are there, all gates are passed, and all controls that are declared differ.

    Args:
        hypotheses: what was claimed, by name.
        differences: shape [studies, hypotheses, seeds], arm minus against.
        multiplicity: how p-values are adjusted within a family.
        flips: as :func:`step_down_p` takes them.

    Returns:
        Both of shape [studies, hypotheses].
    """
    studies, count, n = differences.shape
    if n < FEWEST_SEEDS:
        return np.zeros((studies, count), dtype=np.bool_), np.ones((studies, count))
    stated = list(hypotheses.values())
    s, alpha = (np.array([getattr(h, f) for h in stated]) for f in ("smallest_effect", "alpha"))
    mean = differences.mean(axis=-1)
    error = differences.std(axis=-1, ddof=1) / math.sqrt(n)
    t = scipy.stats.t(n - 1)
    p, found = np.empty(mean.shape), np.empty(mean.shape, dtype=np.bool_)
    for i, one in enumerate(stated):
        if one.endpoint:
            p[:, i], found[:, i] = _of_outcomes(one, differences[:, i])
        elif one.direction == "holds":
            p[:, i] = tost_p(differences[:, i], one.smallest_effect)
            found[:, i] = True
        else:
            effect = {"rises": mean, "falls": -mean, "differs": np.abs(mean)}[one.direction][:, i]
            reach = error[:, i] * t.isf(alpha[i] / 2)
            found[:, i] = (effect - reach >= 0) & (effect >= s[i])
        if one.direction == "holds" and not one.control:
            found[:, i] = False
    for names in families_of(hypotheses):
        members = [i for i, name in enumerate(hypotheses) if name in names]
        if stated[members[0]].direction != "holds":
            family = [stated[i] for i in members]
            each = p[:, members]
            p[:, members] = _adjusted_p(family, differences[:, members], each, multiplicity, flips)
    return found & (p <= alpha), p


def claims_supported(
    claims: Mapping[str, Claim], hypotheses: Mapping[str, Hypothesis], found: Flags, p: Floats
) -> Flags:
    """Which claims `judge_claims` finds supported, [studies, claims], of what `supported` gives."""
    place = {name: i for i, name in enumerate(hypotheses)}
    result = np.empty((len(found), len(claims)), dtype=np.bool_)
    for i, claim in enumerate(claims.values()):
        if claim.rule == "any":
            result[:, i] = _any(claim, hypotheses, place, found, p)
        else:
            decide = claim.hypotheses if claim.rule == "all" else (claim.rule,)
            result[:, i] = found[:, [place[name] for name in decide]].all(axis=1)
    return result


def _any(
    claim: Claim,
    hypotheses: Mapping[str, Hypothesis],
    place: Mapping[str, int],
    found: Flags,
    p: Floats,
) -> Flags:
    """Whether one is supported by its p adjusted over what could each make it so, [studies]."""
    names = list(dict.fromkeys(claim.hypotheses))
    places = [place[name] for name in names]
    adjusted = holm_over_groups(p[:, places], alternatives(names, hypotheses))
    alpha = np.array([hypotheses[name].alpha for name in names])
    return np.asarray((found[:, places] & (adjusted <= alpha)).any(axis=1))


def _adjusted_p(
    family: Sequence[Hypothesis],
    differences: Floats,
    each: Floats,
    multiplicity: Multiplicity,
    flips: Floats | None,
) -> Floats:
    """Adjusted p of one family's hypotheses, [studies, members] of [studies, members, seeds].

    `each` has the p of end points that are a yes or no.
    """
    by = "benjamini-hochberg" if family[0].secondary else multiplicity.by
    if by == "max-t" and all(one.by_signs for one in family):
        return step_down_p(differences, flips)
    p = [
        each[:, i]
        if one.endpoint
        else step_down_p(differences[:, [i]], flips)[:, 0]
        if one.by_signs
        else scipy.stats.ttest_1samp(differences[:, i], 0.0, axis=1).pvalue
        for i, one in enumerate(family)
    ]
    adjust = {"benjamini-hochberg": benjamini_hochberg, "fixed-sequence": fixed_sequence}
    return adjust.get(by, holm_p)(np.stack(p, axis=1))


def _of_outcomes(hypothesis: Hypothesis, differences: Floats) -> tuple[Floats, Flags]:
    """p, not adjusted, and whether share and interval suffice, [studies], of a yes/no end point.

    Where it happens in one arm only, all follows from how often.
    """
    counts = np.abs(differences.sum(axis=1)).astype(int)
    p, suffices = _by_count(
        hypothesis.direction,
        hypothesis.smallest_effect,
        hypothesis.alpha,
        hypothesis.paired,
        len(hypothesis.contrast) > 1,
        differences.shape[-1],
    )
    return p[counts], suffices[counts]


@functools.lru_cache(maxsize=64)
def _by_count(
    direction: Direction, s: float, alpha: float, paired: bool, is_pair: bool, n: int
) -> tuple[Floats, Flags]:
    """The same for 0 to n seeds of n at which it happens, [n + 1]."""
    p, suffices = np.empty(n + 1), np.empty(n + 1, dtype=np.bool_)
    for count in range(n + 1):
        sides = [place < count for place in range(n)], [False] * n
        first, second = reversed(sides) if direction == "falls" else sides
        found = summarise_outcomes(
            first, second if is_pair else None, alpha=alpha, margin=s, paired=paired
        )
        assert found.mean is not None
        assert found.interval is not None
        assert found.interval_equivalence is not None
        assert found.p is not None
        assert found.p_equivalence is not None
        p[count] = found.p_equivalence if direction == "holds" else found.p
        label, _ = decide(
            direction=direction,
            smallest_effect=s,
            alpha=alpha,
            mean=found.mean,
            interval=found.interval,
            interval_equivalence=found.interval_equivalence,
            p_adjusted=0.0,
        )
        suffices[count] = label == "supported"
    return p, suffices


def _flips(n: int, rng: np.random.Generator) -> Floats:
    if 2 ** (n - 1) <= MOST_FLIPS:
        return signs(n)
    flips = rng.choice((-1.0, 1.0), size=(MOST_FLIPS, n))
    flips[0] = 1.0
    return flips


def _crossing(low: float, share: float, high: float, larger: float) -> float:
    """The effect between two whose power is POWER: its probit is about a line in log(effect)."""
    ends = scipy.stats.norm.ppf(np.clip([share, POWER, larger], 1e-4, 1 - 1e-4))
    way = (ends[1] - ends[0]) / (ends[2] - ends[0]) if share > 0 else 1.0
    return low * (high / low) ** way
