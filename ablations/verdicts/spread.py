"""How far paired differences are expected to vary: as a pilot showed it, or as is assumed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.spec import Hypothesis
from ablations.statistics.flips import Floats
from ablations.statistics.power import upper_deviation
from ablations.verdicts.evidence import Run, pairs_of

ASSUMED_DEVIATION = 1.0
"""Standard deviation of paired differences where no pilot shows it, in smallest effects."""

FEWEST_PILOT_SEEDS = 2


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Deviations and correlations of the paired differences of hypotheses, in their order."""

    deviations: Mapping[str, float]
    """standard deviations, in each metric's units; a yes/no end point has none"""
    from_pilot: frozenset[str]
    """hypotheses whose deviation is the upper 80 % limit of what a pilot showed"""
    correlation: Floats
    """of the differences of hypotheses at one seed, [hypotheses, hypotheses]"""


def assumed(
    hypotheses: Mapping[str, Hypothesis], in_smallest_effects: float = ASSUMED_DEVIATION
) -> Spread:
    """The same deviation for all, in smallest effects, and no correlation."""
    return Spread(
        deviations={
            name: in_smallest_effects * one.smallest_effect
            for name, one in hypotheses.items()
            if one.metric
        },
        from_pilot=frozenset(),
        correlation=np.eye(len(hypotheses)),
    )


def of_pilot(
    hypotheses: Mapping[str, Hypothesis],
    runs: Mapping[tuple[str, int], Run],
    seeds: Sequence[int],
    in_smallest_effects: float = ASSUMED_DEVIATION,
) -> Spread:
    """As the runs of a pilot show it; as assumed for hypotheses without two complete pairs.

    A deviation is the upper 80 % limit of the one observed. Correlations are those observed at
    seeds that have all pairs, shrunk towards 0 as :func:`shrunk` does, and 0 with the others.
    """
    found = {
        name: np.array([math.nan if d is None else d for *_, d in pairs_of(one, runs, seeds)])
        for name, one in hypotheses.items()
        if one.metric
    }
    base = assumed(hypotheses, in_smallest_effects)
    whole = {
        name: d
        for name, differences in found.items()
        if len(d := differences[np.isfinite(differences)]) >= FEWEST_PILOT_SEEDS
    }
    deviations = {name: upper_deviation(float(d.std(ddof=1)), len(d)) for name, d in whole.items()}
    correlation = np.eye(len(hypotheses))
    complete = [name for name, d in found.items() if np.isfinite(d).all()]
    if len(seeds) >= FEWEST_PILOT_SEEDS and complete:
        places = [list(hypotheses).index(name) for name in complete]
        correlation[np.ix_(places, places)] = shrunk(np.array([found[n] for n in complete]))
    return Spread(
        deviations={**base.deviations, **deviations},
        from_pilot=frozenset(whole),
        correlation=correlation,
    )


def shrunk(values: Floats) -> Floats:
    """Correlations of rows, [rows, n >= 2] to [rows, rows], shrunk towards 0.

    Of independent rows their squares are 1 / (n - 1) on average. The share of the squares that this
    explains is taken away from all, so that of three seeds little is left, and what is left is
    always a matrix of correlations. Rows that do not vary are correlated with nothing.
    """
    rows, n = values.shape
    varies = values.std(axis=1) > 1e-12 * np.abs(values).max(axis=1)
    result = np.eye(rows)
    if varies.sum() < 2:
        return result
    observed = np.corrcoef(values[varies])
    squares = float((observed[np.triu_indices_from(observed, k=1)] ** 2).mean())
    kept = max(0.0, 1 - 1 / (n - 1) / squares) if squares else 0.0
    result[np.ix_(varies, varies)] = kept * observed
    np.fill_diagonal(result, 1.0)
    return result
