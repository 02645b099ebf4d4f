"""p-values of several tests, adjusted for their number; each test is there with its own p only.

Tests on the same seeds lose less by :func:`ablations.statistics.max_t.step_down_p`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.stats

from ablations.statistics.flips import Floats


def holm_p(p: npt.ArrayLike) -> Floats:
    """p-values [..., m] adjusted by Holm (1979), in the order given, each at most 1.

    The chance that any true null has one <= alpha is at most alpha.
    """
    # statsmodels has it for one family, and collects garbage at each call: simulations need more.
    p = _checked(p)
    order = np.argsort(p, kind="stable")
    left = np.arange(p.shape[-1], 0, -1)
    steps = np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) * left, axis=-1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(steps, 1.0), axis=-1)
    return adjusted


def holm_over_groups(p: npt.ArrayLike, groups: Sequence[Sequence[int]]) -> Floats:
    """p-values [..., m], adjusted within each of these groups of their places, for all groups.

    A group leaves its share of alpha to the others once all of it is rejected: one rejection may
    leave true nulls in it, whose share is still needed. Holm's where each group is one.
    """
    p = _checked(p)
    worst = np.sort(np.stack([p[..., list(group)].max(axis=-1) for group in groups], -1))
    left = np.arange(len(groups), 0, -1)
    # What must be at most alpha for so many groups to be rejected whole.
    whole = np.maximum.accumulate(worst * left, axis=-1)
    whole = np.concatenate([np.zeros_like(whole[..., :1]), whole[..., :-1]], axis=-1)
    adjusted = np.maximum(whole[..., None, :], p[..., None] * left).min(axis=-1)
    return np.asarray(np.minimum(adjusted, 1.0))


def fixed_sequence(p: npt.ArrayLike) -> Floats:
    """p-values [..., m] of hypotheses tested in this order, each only if those before passed.

    The largest p so far. The error of the family is alpha at no price, for as long as all pass.
    """
    return np.asarray(np.maximum.accumulate(_checked(p), axis=-1))


def benjamini_hochberg(p: npt.ArrayLike) -> Floats:
    """p-values [..., m] adjusted by Benjamini & Hochberg (1995), in the order given.

    Of those that are <= q, a share of q at most is expected to be of true nulls; for independent
    tests, and for those that are positively dependent.
    """
    return np.asarray(scipy.stats.false_discovery_control(_checked(p), axis=-1, method="bh"))


def _checked(p: npt.ArrayLike) -> Floats:
    given = np.asarray(p, dtype=np.float64)
    if not ((given >= 0) & (given <= 1)).all():
        raise ValueError(f"p-values must be in [0, 1], got {given.tolist()}")
    return given
