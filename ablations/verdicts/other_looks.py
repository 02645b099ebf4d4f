"""Mutants of a sequential design: a look that nobody planned, and looks that were not taken."""

import types
from collections.abc import Callable, Mapping

from ablations.design import Design
from ablations.spec import Hypothesis
from ablations.verdicts.judge import Verdict
from ablations.verdicts.mutants import Mutant, Runs

OF_LOOKS: Mapping[Mutant, str] = types.MappingProxyType(
    {
        "look added": "one look more before that of the verdict, which nobody planned: it is "
        "decided there, or its interval is wider",
        "looks dropped": "as if seeds had been looked at once, at the look of the verdict: its "
        "interval is narrower",
    }
)
"""The same of mutants of a sequential design."""


def void_look(mutant: Mutant, before: Verdict, design: Design) -> str:
    """Why nothing is asked of a hypothesis by other looks; empty if something is."""
    if design.spending == "e-process":
        return "an e-process is valid however often it looks"
    if mutant == "looks dropped" and len(design.looks) == 1:
        return "there is one look"
    if not before.standard_deviation:
        return "its differences are equal, and their interval can be the same at any level"
    return ""


def at_other_looks(
    mutant: Mutant,
    hypotheses: Mapping[str, Hypothesis],
    runs: Runs,
    verdicts: Mapping[str, Verdict],
    judge: Callable[..., Mapping[str, Verdict]],
    design: Design,
) -> dict[str, Verdict]:
    """Each hypothesis by looks of which one was added before that of its verdict, or all others
    dropped."""
    found: dict[str, Verdict] = {}
    for n in {len(verdict.seeds) for verdict in verdicts.values()}:
        looks = (n,) if mutant == "looks dropped" else _one_more(design, n)
        changed = judge(hypotheses, runs, design.model_copy(update={"looks": looks}))
        found |= {name: changed[name] for name in verdicts if len(verdicts[name].seeds) == n}
    return found


def _one_more(design: Design, before: int) -> tuple[int, ...]:
    """The looks of a design, and the last seed before a look that is none of them."""
    more = [n for n in range(2, before) if n not in design.looks][-1:]
    return tuple(sorted((*design.looks, *more)))


def look_fault(mutant: Mutant, before: Verdict, after: Verdict) -> str:
    """What is wrong with a verdict by other looks."""
    if before.seeds != after.seeds and mutant == "look added":
        return ""
    if before.interval is None or after.interval is None:
        return "it has no interval"
    (low, high), (lower, higher) = before.interval, after.interval
    if mutant == "looks dropped":
        (low, high), (lower, higher) = (lower, higher), (low, high)
    wider = lower <= low and higher >= high and higher - lower > high - low
    return "" if wider else f"its interval is not {'wider' if 'added' in mutant else 'narrower'}"
