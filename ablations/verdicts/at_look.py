"""The statistics of one hypothesis at a look of a sequential design."""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ablations.design import Design, Spending
from ablations.spec import Hypothesis
from ablations.statistics.e_process import anytime_p
from ablations.statistics.sequential_p import (
    confidence_sequence,
    level,
    nominal_p,
    one_sided_level,
    one_sided_nominal_p,
    sign_flip_p,
)
from ablations.statistics.summary import Summary, t_interval_of
from ablations.verdicts.evidence import Pair, Run, pairs_of, same_trial
from ablations.verdicts.summaries import summary_of


class Seen(NamedTuple):
    """The statistics of the pairs of some seeds."""

    summary: Summary
    """where all pairs are there, valid over all looks"""
    alone: Mapping[str, float]
    """p-values of this look alone and the levels that they are held against, by field of Look"""
    least_p: float = 1.0
    """two-sided, over all looks, that so many signs can show"""


def at_look(
    hypothesis: Hypothesis,
    runs: Mapping[tuple[str, int], Run],
    seeds: tuple[int, ...],
    design: Design,
    *,
    inverted: bool = True,
) -> Seen:
    """What the first `seeds` show; `inverted` is as `summarise` takes it."""
    pairs = pairs_of(hypothesis, runs, seeds)
    if any(pair.difference is None for pair in pairs):
        return Seen(summary_of(hypothesis, pairs), {})
    same = same_trial(hypothesis, runs, seeds)
    known = _Known(hypothesis.model_dump_json(), hypothesis)
    return _statistics(known, pairs, same, inverted, design.looks, design.spending)


@dataclass(frozen=True)
class _Known:
    """A hypothesis by its JSON: it can hold a mapping, which has no hash."""

    json: str
    hypothesis: Hypothesis = field(compare=False)


@functools.lru_cache(maxsize=4096)
def _statistics(
    known: _Known,
    pairs: tuple[Pair, ...],
    same: bool,
    inverted: bool,
    looks: tuple[int, ...],
    spending: Spending,
) -> Seen:
    """The statistics of a hypothesis at the look of so many pairs.

    Its p-values are those of the design, and its intervals cover over all looks together (Jennison
    and Turnbull 1989).
    """
    hypothesis = known.hypothesis
    alpha, margin = hypothesis.alpha, hypothesis.smallest_effect

    def at(level: float) -> Summary:
        stated = hypothesis.model_copy(update={"alpha": level})
        return summary_of(stated, pairs, same_trial=same, inverted=inverted)

    d = np.array([pair.difference for pair in pairs])
    if spending == "e-process":
        plain = at(alpha)
        p = float(anytime_p(d))
        inside = abs(float(d.mean())) < margin
        # A shift to one side of the mean is rejected half as often.
        shifted = float(max(anytime_p(d - margin), anytime_p(d + margin))) / 2
        p_equivalence = shifted if inside else 1.0
        valid = dataclasses.replace(
            plain,
            interval=confidence_sequence(d, alpha),
            interval_equivalence=confidence_sequence(d, 2 * alpha),
            interval_inversion=None,
            p=p,
            p_equivalence=p_equivalence,
            p_equivalence_signflip=None,
        )
        least = float(anytime_p(np.ones(len(d))))
        return Seen(valid, _alone(p, alpha, p_equivalence, alpha), least)
    number = looks.index(len(d))
    wide = level(looks, number, alpha, spending)
    narrow = one_sided_level(looks, number, alpha, spending)
    plain = at(wide)
    assert plain.p is not None
    assert plain.p_equivalence is not None
    valid = dataclasses.replace(
        plain,
        # Student's t needs no other summary, whose exact tests take long.
        interval_equivalence=at(narrow).interval_equivalence
        if hypothesis.endpoint
        else t_interval_of(plain, 2 * narrow),
        p=sign_flip_p(d, looks, spending, alpha)
        if hypothesis.by_signs
        else nominal_p(plain.p, looks, number, spending),
        p_equivalence=one_sided_nominal_p(plain.p_equivalence, looks, number, spending),
        p_equivalence_signflip=None,
    )
    least = nominal_p(2 / 2 ** len(d), looks, number, spending)
    return Seen(valid, _alone(plain.p, wide, plain.p_equivalence, narrow), least)


def _alone(
    p: float, level: float, p_equivalence: float, level_equivalence: float
) -> dict[str, float]:
    return {
        "p": p,
        "level": level,
        "p_equivalence": p_equivalence,
        "level_equivalence": level_equivalence,
    }
