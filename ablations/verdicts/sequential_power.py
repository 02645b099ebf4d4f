"""Power of a sequential design, and how many seeds it is expected to need.

Whole studies are simulated as :mod:`ablations.verdicts.power` has them, and each is followed from
look to look as :func:`ablations.verdicts.looks.follow` follows it: the same tests at the same
levels, the same families, the same labels that decide. What an end point needs to be sensitive is
there.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.design import Design as Looks
from ablations.spec import Hypothesis, Multiplicity
from ablations.statistics.e_process import anytime_p
from ablations.statistics.flips import Floats, signs
from ablations.statistics.multiplicity import benjamini_hochberg, fixed_sequence, holm_p
from ablations.statistics.sequential_p import (
    nominal_p,
    one_sided_nominal_p,
    sign_flip_p,
)
from ablations.verdicts.claims import alternatives
from ablations.verdicts.families import families_of
from ablations.verdicts.planning import holm_sizes, least_p
from ablations.verdicts.power import Chances, Design, Flags, claims_supported
from ablations.verdicts.simulated_looks import Seen, test_of

STUDIES = 4_000
"""Simulated studies behind a power: its standard error is 0.8 percentage points at most."""

FLIPS = 2048
"""Patterns of signs of a simulated test: all where there are no more, else so many that have all
patterns of early looks equally often, where these are no more."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a sequential design can be expected to show, at one true effect."""

    power: Chances
    seeds: Mapping[str, float]
    """Mean number of seeds at which each hypothesis is decided, by name."""
    saved: float
    """Mean share of the runs of a study that are not needed, in [0, 1)."""


@dataclass(frozen=True, kw_only=True)
class SequentialDesign(Design):
    """A study that looks at its hypotheses before all of its `seeds` are there."""

    looks: Looks
    arms: Sequence[str]
    """All arms of the study; one that no hypothesis needs runs at all seeds."""
    searched: int = 500

    def expected(self, multiple: float, studies: int = STUDIES) -> Expected:
        """What to expect where effects are `multiple` smallest effects of interest."""
        names = list(self.hypotheses)
        found, needed = np.zeros(len(names) + len(self.claims)), np.zeros(len(names))
        used, rng = 0.0, np.random.default_rng(1)
        for differences in self.simulated(multiple, studies):
            flags, p, seeds = self.followed(differences, rng)
            of_claims = claims_supported(self.claims, self.hypotheses, flags, p)
            found += np.concatenate([flags.sum(axis=0), of_claims.sum(axis=0)])
            needed += seeds.sum(axis=0)
            used += sum(self._runs_of(arm, seeds) for arm in self.arms)
        shares = (found / studies).tolist()
        return Expected(
            power=self.named(shares),
            seeds=dict(zip(names, (needed / studies).tolist(), strict=True)),
            saved=1 - used / (studies * self.seeds * len(self.arms)),
        )

    def decided(self, differences: Floats, rng: np.random.Generator) -> tuple[Flags, Floats]:
        """As `Design.decided`, of the verdicts at the looks that decide."""
        flags, p, _ = self.followed(differences, rng)
        return flags, p

    def _runs_of(self, arm: str, seeds: Floats) -> float:
        """Runs of an arm in studies whose hypotheses are decided at these seeds, all together."""
        of_arm = [i for i, one in enumerate(self.hypotheses.values()) if arm in one.arms]
        if not of_arm:
            return float(self.seeds * len(seeds))
        return float(seeds[:, of_arm].max(axis=1).sum())

    def followed(
        self, differences: Floats, rng: np.random.Generator
    ) -> tuple[Flags, Floats, Floats]:
        """Supported or not, the p of that, and seeds at which decided: each [studies, hypotheses].

        A p is rounded up to the next level that it is compared with.
        """
        stated = list(self.hypotheses.values())
        flags = np.empty(differences.shape[:2], dtype=np.bool_)
        p, seeds = np.empty(flags.shape), np.empty(flags.shape)
        flips = _flips(self.looks.looks, rng)
        for names in families_of(self.hypotheses):
            members = [list(self.hypotheses).index(name) for name in names]
            family = [stated[i] for i in members]
            groups = max(
                (
                    len(alternatives(claim.hypotheses, self.hypotheses))
                    for claim in self.claims.values()
                    if claim.rule == "any" and {*claim.hypotheses} & {*names}
                ),
                default=1,
            )
            by = "benjamini-hochberg" if family[0].secondary else self.multiplicity.by
            walk = _Walk(family, self.looks, flips, by, groups)
            flags[:, members], p[:, members], seeds[:, members] = walk.follow(
                differences[:, members]
            )
        return flags, p, seeds


@dataclass(frozen=True)
class _Walk:
    """A family, looked at together."""

    family: Sequence[Hypothesis]
    looks: Looks
    flips: Floats
    by: str
    groups: int
    """most alternatives of a claim that names one of them"""

    def follow(self, differences: Floats) -> tuple[Flags, Floats, Floats]:
        """The same of the members of the family."""
        holds = self.family[0].direction == "holds"
        shape = differences.shape[:2]
        supported = np.zeros(shape, dtype=np.bool_)
        open_ = ~supported
        p, told, seeds = np.ones(shape), np.empty(shape), np.empty(shape)
        tests = [
            test_of(one, self.looks, differences[:, i], self._levels(one), self.flips)
            for i, one in enumerate(self.family)
        ]
        for number, n in enumerate(self.looks.looks):
            last = number == len(self.looks.looks) - 1
            for i, test in enumerate(tests):
                rows = np.flatnonzero(open_[:, i])
                now = test.p_equivalence(number, rows) if holds else test.p(number, rows)
                p[rows, i] = now if holds else np.minimum(p[rows, i], now)
            adjusted = p if holds else self._adjusted(p)
            for i, (one, test) in enumerate(zip(self.family, tests, strict=True)):
                rows = np.flatnonzero(open_[:, i])
                yes, decides = _labelled(
                    one, test.seen(number, rows), adjusted[rows, i], self.looks.futility
                )
                stop = decides | last
                supported[rows, i] = yes
                told[rows, i] = adjusted[rows, i]
                seeds[rows[stop], i] = n
                open_[rows, i] = ~stop
        return supported, told, seeds

    def _levels(self, hypothesis: Hypothesis) -> Floats:
        """All that its p is compared with, descending."""
        alphas, size = {one.alpha for one in self.family}, len(self.family)
        if hypothesis.direction == "holds" or self.by == "fixed-sequence":
            shares = {1.0}
        elif self.by == "benjamini-hochberg":
            shares = {k / size for k in range(1, size + 1)}
        else:
            shares = {1 / k for k in range(1, size + 1)}
        groups = range(1, self.groups + 1)
        found = {a * share / k for a, share, k in itertools.product(alphas, shares, groups)}
        if hypothesis.by_signs:
            # A p is at most a level only if all shares of alpha above it cross too.
            own = hypothesis.alpha
            found |= {own / k for k in range(1, math.ceil(own / min(found)))}
        return np.array(sorted(found, reverse=True))

    def _adjusted(self, p: Floats) -> Floats:
        adjust = {"benjamini-hochberg": benjamini_hochberg, "fixed-sequence": fixed_sequence}
        return adjust.get(self.by, holm_p)(p)


def _labelled(hypothesis: Hypothesis, seen: Seen, p: Floats, futility: str) -> tuple[Flags, Flags]:
    """Which studies support it at a look, and which decide it, [studies] each."""
    equivalent = seen.small & bool(hypothesis.control)
    if hypothesis.direction == "holds":
        refuted = seen.outside & seen.shows
        return equivalent, equivalent | refuted
    supported = (p <= hypothesis.alpha) & seen.above & seen.reaches
    refuted = seen.below & seen.shows & ~equivalent & (hypothesis.direction != "differs")
    decides = supported | refuted
    return supported, decides | equivalent if futility else decides


def _flips(looks: Sequence[int], rng: np.random.Generator) -> Floats:
    n = looks[-1]
    if 2 ** (n - 1) <= FLIPS:
        return signs(n)
    flips = rng.choice((-1.0, 1.0), size=(FLIPS, n))
    if early := [look for look in looks if 2 ** (look - 1) <= FLIPS]:
        flips[:, : early[-1]] = np.tile(signs(early[-1]), (FLIPS // 2 ** (early[-1] - 1), 1))
    flips[0] = 1.0
    return flips


def holm_sizes_over_looks(
    hypotheses: Mapping[str, Hypothesis], multiplicity: Multiplicity
) -> dict[str, int]:
    """As `holm_sizes`; over looks there is no max-T, but Holm."""
    by = "holm" if multiplicity.by == "max-t" else multiplicity.by
    return holm_sizes(hypotheses, multiplicity.model_copy(update={"by": by}))


def least_p_at(hypothesis: Hypothesis, looks: Looks, size: int = 1) -> list[float]:
    """The least p over all looks that any differences can have at each, after Holm over `size`.

    For `holds` that of equivalence. 0 for a t test of differences, which has none.
    """
    found = []
    for number, n in enumerate(looks.looks):
        if looks.spending == "e-process":
            p = float(anytime_p(np.ones(n)))
            found.append(p / 2 if hypothesis.direction == "holds" else min(1.0, size * p))
        elif hypothesis.direction == "holds":
            least = least_p(hypothesis, n)
            found.append(one_sided_nominal_p(least, looks.looks, number, looks.spending))
        elif hypothesis.by_signs:
            p = sign_flip_p(np.ones(n), looks.looks, looks.spending, hypothesis.alpha)
            found.append(min(1.0, size * p))
        else:
            p = least_p(hypothesis, n)
            p = nominal_p(p, looks.looks, number, looks.spending) if p else 0.0
            found.append(min(1.0, size * p))
    return found
