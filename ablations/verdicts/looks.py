"""A sequential design: what is decided at which look, and which runs are still needed for it.

A hypothesis is judged on its first n seeds at each look, by the rule of any study, with intervals
and p-values that hold over all looks together. What is decided stays so: later seeds of its arms
do not count for it. Everything follows from the runs that there are.

Hypotheses of a family are adjusted from the p-values of the design, so they are looked at together:
by Holm where max-T is asked for, which has no boundaries (Maurer and Bretz 2013: what one of them
has not used is spent by the others).
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.design import Design
from ablations.spec import Gate, Hypothesis, Multiplicity
from ablations.statistics.flips import EXACT_SEEDS
from ablations.statistics.sequential_p import level, sign_flip_p
from ablations.verdicts.at_look import Seen, at_look
from ablations.verdicts.evidence import Look, Run, run_of
from ablations.verdicts.families import adjusted, families_of
from ablations.verdicts.gates import NO_REFERENCES
from ablations.verdicts.judge import Looked, Verdict, judge

Runs = Mapping[tuple[str, int], Run]

_DEFAULT = Multiplicity()

_NOWHERE: Mapping[str, int] = types.MappingProxyType({})

DECIDING = ("supported", "refuted", "failed")
"""Labels that no later look of the same hypothesis could take back."""


@dataclass(frozen=True, kw_only=True)
class Followed:
    """A hypothesis as far as it has come."""

    verdict: Verdict
    """on the seeds of its newest look"""
    is_decided: bool
    wants: tuple[int, ...]
    """seeds that its arms are to have run, by now"""


def follow(
    hypotheses: Mapping[str, Hypothesis],
    gates: Mapping[str, Gate],
    runs: Runs,
    seeds: Sequence[int],
    design: Design,
    *,
    multiplicity: Multiplicity = _DEFAULT,
    references: Mapping[str, float] = NO_REFERENCES,
    advise: bool = True,
    stops: Mapping[str, int] = _NOWHERE,
) -> dict[str, Followed]:
    """Each hypothesis at the look that decides it, or at the first whose runs are not all there.

    A run that failed for good holds its own hypotheses up, and no others. `advise` is as `judge`
    takes it, and whether sign flips are inverted, as `summarise` does. `stops` are numbers of seeds
    by name, at which a hypothesis is decided by whatever label it has then.
    """
    by_rule = functools.partial(judge, gates=gates, references=references, advise=advise)
    see = functools.partial(at_look, inverted=advise)
    found: dict[str, Followed] = {}
    by = "holm" if multiplicity.by == "max-t" else multiplicity.by
    for names in families_of(hypotheses):
        family = {name: hypotheses[name] for name in names}
        method = multiplicity.model_copy(update={"by": by})
        found |= _follow_family(family, runs, seeds, design, method, by_rule, see, stops)
    return {name: found[name] for name in hypotheses}


def _follow_family(
    family: Mapping[str, Hypothesis],
    runs: Runs,
    seeds: Sequence[int],
    design: Design,
    multiplicity: Multiplicity,
    by_rule: Callable[..., dict[str, Verdict]],
    see: Callable[..., Seen],
    stops: Mapping[str, int],
) -> dict[str, Followed]:
    found: dict[str, Followed] = {}
    history: dict[str, list[Look]] = {name: [] for name in family}
    ps = dict.fromkeys(family, 1.0)
    undecided = list(family)
    for n in design.looks:
        first = tuple(seeds[:n])
        statuses = {name: _statuses(family[name], runs, first) for name in undecided}
        waits = any({"missing", "skipped"} & of_one for of_one in statuses.values())
        held_up = [name for name in undecided if waits or "failed" in statuses[name]]
        seen = {name: see(family[name], runs, first, design) for name in undecided}
        for name in undecided:
            if name not in held_up:
                ps[name] = min(ps[name], seen[name].summary.p or 1.0)

        looked = _looked(family, seen, ps, multiplicity)
        stated = {name: family[name] for name in seen}
        told = _stopped(stated, runs, first)
        verdicts = by_rule(stated, runs=told, seeds=first, looked=looked)
        failed = [name for name, verdict in verdicts.items() if verdict.label == "failed"]
        if failed:
            # The others must not gain from its failure.
            ps |= dict.fromkeys(failed, 1.0)
            looked = _looked(family, seen, ps, multiplicity)
            verdicts = by_rule(stated, runs=told, seeds=first, looked=looked)
        for name, verdict in verdicts.items():
            last = n in (design.looks[-1], stops.get(name))
            decided = name not in held_up and (last or _decides(verdict.label, design.futility))
            if name not in held_up:
                share = family[name].alpha / len(family)
                first_level = _level(design, n, share) if seen[name].alone else None
                history[name].append(_look(verdict, n, seen[name].alone, first_level))
            goes_on = tuple(seeds) if design.spending == "e-process" else first
            found[name] = Followed(
                verdict=_told(verdict, history[name], design, decided=decided),
                is_decided=decided,
                wants=first if decided else goes_on,
            )
        undecided = [n for n in undecided if not found[n].is_decided and n not in held_up]
        if not undecided:
            break
    return found


def _stopped(
    hypotheses: Mapping[str, Hypothesis], runs: Runs, seeds: Sequence[int]
) -> dict[tuple[str, int], Run]:
    """`runs`, where those of other arms that are not there are skipped.

    Their own hypotheses may be decided, and a verdict must not depend on whether that was noted.
    """
    arms = {arm for one in hypotheses.values() for arm in one.arms}
    others = {arm for arm, _ in runs} - arms
    return dict(runs) | {
        (arm, seed): dataclasses.replace(run, status="skipped")
        for arm in others
        for seed in seeds
        if (run := run_of(runs, arm, seed)).status == "missing"
    }


def _looked(
    family: Mapping[str, Hypothesis],
    seen: Mapping[str, Seen],
    ps: Mapping[str, float | None],
    multiplicity: Multiplicity,
) -> dict[str, Looked]:
    """What each of those `seen` at a look is judged by; `ps` are of the whole family."""
    by_name = adjusted(family, {}, ps, multiplicity)
    found = {}
    for name, one in seen.items():
        text = by_name[name].text
        text = f" over all looks{text and ','}{text}"
        found[name] = Looked(
            summary=one.summary, adjusted=by_name[name]._replace(text=text), least_p=one.least_p
        )
    return found


def _decides(label: str, futility: str) -> bool:
    return label in DECIDING or (label == "equivalent" and futility == "equivalence")


def _statuses(hypothesis: Hypothesis, runs: Runs, seeds: Sequence[int]) -> set[str]:
    return {run_of(runs, arm, seed).status for arm in hypothesis.arms for seed in seeds}


def _level(design: Design, seeds: int, alpha: float) -> float:
    """The boundary of a look for `alpha`."""
    if design.spending == "e-process":
        return alpha
    return level(design.looks, design.looks.index(seeds), alpha, design.spending)


def _look(
    verdict: Verdict, seeds: int, alone: Mapping[str, float], level_first: float | None
) -> Look:
    return Look(
        seeds=seeds,
        level_first=level_first,
        mean=verdict.mean,
        interval=verdict.interval,
        interval_equivalence=verdict.interval_equivalence,
        p_adjusted=verdict.p_adjusted,
        label=verdict.label,
        **alone,
    )


def _told(verdict: Verdict, history: Sequence[Look], design: Design, *, decided: bool) -> Verdict:
    """The verdict, with its looks, and in its reason which of them it is of."""
    of, all_ = len(design.looks), design.looks[-1]
    reason = verdict.reason
    if decided:
        k, n = len(history), len(verdict.seeds)
        stopped = f"stopped at look {k} of {of}, {n} of {all_} seeds"
        reason += f"; {stopped}" if k < of else f"; at the last of {of} looks"
    elif history:
        reason += f"; not decided after look {len(history)} of {of}"
    return dataclasses.replace(
        verdict, reason=reason, looks=tuple(history), looks_planned=of, seeds_planned=all_
    )


def unnamed(hypotheses: Mapping[str, Hypothesis], arms: Iterable[str]) -> list[str]:
    """The arms that no hypothesis needs: nothing decides them, so they run at all seeds."""
    named = {arm for one in hypotheses.values() for arm in one.arms}
    return [arm for arm in arms if arm not in named]


def told_apart(
    hypotheses: Mapping[str, Hypothesis],
    gates: Mapping[str, Gate],
    runs: Runs,
    arms: Sequence[str],
    seeds: Sequence[int],
    design: Design,
    *,
    multiplicity: Multiplicity = _DEFAULT,
    references: Mapping[str, float] = NO_REFERENCES,
) -> dict[tuple[str, int], Run]:
    """`runs`, where each that is not there is `skipped` once all that needs its arm is decided."""
    followed = follow(
        hypotheses, gates, runs, seeds, design, multiplicity=multiplicity, references=references
    )
    of_arm = {
        arm: [followed[name] for name, one in hypotheses.items() if arm in one.arms] for arm in arms
    }
    told = dict(runs)
    for (arm, seed), run in runs.items():
        if run.status != "missing" or not of_arm[arm]:
            continue
        if all(one.is_decided for one in of_arm[arm]):
            n = max(len(one.wants) for one in of_arm[arm])
            reason = f"all that needs it was decided at {n} of {len(seeds)} seeds"
            told[arm, seed] = dataclasses.replace(run, status="skipped", reason=reason)
    return told


def saved(runs: Runs) -> tuple[int, float]:
    """How many runs were skipped, and about how many hours they would have taken."""
    took: dict[str, list[float]] = {}
    for (arm, _), run in runs.items():
        if run.wall_s is not None:
            took.setdefault(arm, []).append(run.wall_s)
    every = [one for of_arm in took.values() for one in of_arm] or [0.0]
    skipped = [arm for (arm, _), run in runs.items() if run.status == "skipped"]
    seconds = sum(float(np.mean(took.get(arm, every))) for arm in skipped)
    return len(skipped), seconds / 3600


def saved_text(runs: Runs, design: Design) -> str:
    """The same in words, and of what design."""
    number, hours = saved(runs)
    spends = f"{design.spending} at {', '.join(map(str, design.looks))} seeds"
    text = f"sequential design ({spends}): {number} of {len(runs)} runs were not needed"
    return f"{text}, which saved about {hours:.2g} hours of runs" if hours else text


def design_notes(hypotheses: Mapping[str, Hypothesis], design: Design) -> list[str]:
    """What looks cost each family, in words: the boundaries, and looks that can support nothing."""
    if design.spending == "e-process":
        return [
            f"e-process: looks after every seed from {design.looks[0]} on; a family is adjusted by "
            "Holm, not max-T"
        ]
    notes: dict[str, list[str]] = {}
    for names in families_of(hypotheses):
        family = [hypotheses[name] for name in names]
        alpha, size = min(one.alpha for one in family), len(family)
        alone, first = (
            ", ".join(f"{_level(design, n, alpha / m):.2g}" for n in design.looks)
            for m in (1, size)
        )
        text = f"boundaries at {', '.join(map(str, design.looks))} seeds: {alone}"
        if size > 1:
            text += f"; for the first of {size}, by Holm and not max-T, {first}"
        exact = any(one.test == "signflip" and one.direction != "holds" for one in family)
        early = [
            n
            for n in design.looks
            if exact
            and n <= EXACT_SEEDS
            and sign_flip_p(np.ones(n), design.looks, design.spending, alpha) > alpha / size
        ]
        if early:
            text += f"; sign flips of {', '.join(map(str, early))} seeds cannot support it"
        notes.setdefault(text, []).append(names[0] if size == 1 else f"family of {names[0]}")
    return [f"{design.spending}, {text} ({', '.join(names)})" for text, names in notes.items()]
