"""Proof that the verdicts of a study can fail: on mutants of its own data they must change.

A verdict that does not change as it must is a fault of the code that judges, or of what was judged.
docs/statistics.md says what is asked of each mutant.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import scipy.stats

from ablations.design import Design
from ablations.spec import Claim, Hypothesis, Multiplicity
from ablations.statistics.effect_sizes import Interval
from ablations.statistics.flips import SIGN_FLIPS
from ablations.verdicts.claims import ClaimVerdict, judge_claims
from ablations.verdicts.families import families_of
from ablations.verdicts.judge import Verdict, decisive_p
from ablations.verdicts.mutants import (
    EXPLAINED,
    LEAST_ALPHA,
    PLANTS,
    Mutant,
    Runs,
    has_sides,
    movable,
    mutated,
    planted,
    with_own_metrics,
)
from ablations.verdicts.other_looks import OF_LOOKS, at_other_looks, look_fault, void_look
from ablations.verdicts.rule import FEWEST_SEEDS

Outcome = Literal["as asked", "refused", "unchanged", "void"]
"""Changed as it must; `failed`, as it must be; a fault: not changed as it must; nothing asked."""

OF_CLAIMS: tuple[Mutant, ...] = ("copied", "null", "effect", "certain", "dropped")
"""Mutants of which something is asked of claims too."""

Judge = Callable[..., Mapping[str, Verdict]]
"""Verdicts on hypotheses from runs, with gates, seeds and the like as the study has them; and by a
sequential design, the third it is given, each at the look of its verdict at the latest."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a mutant made of a verdict."""

    outcome: Outcome
    before: str
    """Label as judged."""
    after: str
    """Label of the mutant."""
    text: str = ""
    """Why it is void, or what is wrong; else which number changed, where the label did not."""

    def to_json(self) -> dict[str, str]:
        """Fields as JSON has them."""
        return {
            "outcome": self.outcome, "from": self.before, "to": self.after, "text": self.text,
        }  # fmt: skip


def prove(
    hypotheses: Mapping[str, Hypothesis],
    claims: Mapping[str, Claim],
    runs: Runs,
    seeds: Sequence[int],
    verdicts: Mapping[str, Verdict],
    judge: Judge,
    multiplicity: Multiplicity,
    design: Design | None = None,
) -> dict[str, Any]:
    """What each mutant makes of each verdict and claim, as JSON types.

    Args:
        hypotheses: all of the study, by name.
        claims: what they decide together.
        runs: what happened, by (arm, seed).
        seeds: the planned seeds.
        verdicts: as judged.
        judge: what judged them. There are no runs that a mutant of a sequential design would still
            need: it is judged at the look of the verdict, or at an earlier one that decides it.
        multiplicity: how it adjusts p-values.
        design: the sequential design, of which there are mutants too.

    Returns:
        `asked`, {mutant: what}; `hypotheses`, {name: {mutant: proof}}; `claims`, the same; and
        `outcomes`, {outcome: how many}.
    """
    own, own_runs = with_own_metrics(hypotheses, runs)
    differences = {
        name: [pair.difference for pair in verdicts[name].pairs if pair.difference is not None]
        for name in movable(verdicts, hypotheses)
    }
    labels = {name: verdict.label for name, verdict in verdicts.items()}
    judged_claims = judge_claims(claims, hypotheses, labels, decisive_p(hypotheses, verdicts))
    of_hypotheses: dict[str, dict[str, Proof]] = {name: {} for name in hypotheses}
    of_claims: dict[str, dict[str, Proof]] = {name: {} for name in claims}
    after: Mapping[str, Verdict]
    asked = {**EXPLAINED, **(OF_LOOKS if design else {})}
    for mutant in asked:
        changed, changed_runs = mutated(mutant, own, own_runs, seeds, differences)
        if design and mutant in OF_LOOKS:
            after = at_other_looks(mutant, own, own_runs, verdicts, judge, design)
        else:
            given = [design] if design else []
            after = judge(changed, changed_runs, *given)
        case = _Case(mutant, hypotheses, verdicts, after, differences, multiplicity, design)
        for name in hypotheses:
            of_hypotheses[name][mutant] = case.proof(name, verdicts[name])
        again = judge_claims(
            claims, changed, {n: v.label for n, v in after.items()}, decisive_p(changed, after)
        )
        for name, claim in claims.items() if mutant in OF_CLAIMS else ():
            of_claims[name][mutant] = case.proof_of_claim(claim, judged_claims[name], again[name])
    counts = Counter(
        one.outcome
        for group in (of_hypotheses, of_claims)
        for of_one in group.values()
        for one in of_one.values()
    )
    return {
        "asked": asked,
        "hypotheses": _plain(of_hypotheses),
        "claims": _plain(of_claims),
        "outcomes": {outcome: counts[outcome] for outcome in get_args(Outcome)},
    }


def _plain(proofs: Mapping[str, Mapping[str, Proof]]) -> dict[str, dict[str, dict[str, str]]]:
    return {
        name: {mutant: proof.to_json() for mutant, proof in of_one.items()}
        for name, of_one in proofs.items()
    }


@dataclass(frozen=True)
class _Case:
    """One mutant of a study, judged."""

    mutant: Mutant
    hypotheses: Mapping[str, Hypothesis]
    before: Mapping[str, Verdict]
    after: Mapping[str, Verdict]
    differences: Mapping[str, Sequence[float]]
    """as they were, of the hypotheses whose values were moved"""
    multiplicity: Multiplicity
    design: Design | None

    def proof(self, name: str, before: Verdict) -> Proof:
        """What it made of a hypothesis."""
        after, void = self.after[name], self._void(name, before)
        if void:
            return Proof(outcome="void", before=before.label, after=after.label, text=void)
        changes = _changes(self.hypotheses[name], before, after)
        fault = self._fault(name, before, after)
        if not changes and self.mutant not in ("copied", "unreachable"):
            fault = fault or "nothing changed"
        outcome: Outcome = "refused" if self.mutant == "dropped" else "as asked"
        return Proof(
            outcome="unchanged" if fault else outcome,
            before=before.label,
            after=after.label,
            text=fault or ("" if before.label != after.label else changes),
        )

    def _void(self, name: str, before: Verdict) -> str:
        """Why nothing is asked of a hypothesis; empty if something is."""
        one, mutant = self.hypotheses[name], self.mutant
        if mutant == "copied":
            return ""
        if before.label == "failed":
            return "its data are not all there"
        if mutant == "dropped":
            return ""
        if before.n < 2:
            return "one seed has no statistics"
        if mutant == "alpha" and one.alpha <= LEAST_ALPHA:
            return "its alpha is the least there is"
        decided = before.label == "supported" and before.p_equivalence != 0
        if mutant == "alpha" and not decided and not before.standard_deviation:
            return "its differences are equal, and their interval can be the same at any alpha"
        if mutant in OF_LOOKS:
            assert self.design is not None
            return void_look(mutant, before, self.design)
        if self.after[name].seeds != before.seeds and mutant not in ("certain", "unreachable"):
            return "its design stops elsewhere"
        if mutant == "relabelled" and not has_sides(one):
            return "it is compared with nothing"
        if mutant == "relabelled" and abs(before.mean or 0.0) <= _nothing(one):
            return "its mean is 0, which is its own mirror image"
        if mutant in PLANTS:
            if name not in self.differences:
                return "how a run ends is not moved by an amount"
            given = self.differences[name]
            moves = [new - old for new, old in zip(planted(mutant, one, given), given, strict=True)]
            if mutant != "unreachable" and max(map(abs, moves)) <= _nothing(one):
                return "its data are so already"
        return ""

    def _fault(self, name: str, before: Verdict, after: Verdict) -> str:
        """What is not as asked, in words; empty if nothing is."""
        one = self.hypotheses[name]
        s, holds = one.smallest_effect, one.direction == "holds"
        match self.mutant:
            case "copied":
                same = before.tags == after.tags and not _changes(one, before, after)
                return "" if same else "judged otherwise"
            case "dropped":
                return "" if after.label == "failed" else "a run is missing, and it is not failed"
            case "look added" | "looks dropped":
                return look_fault(self.mutant, before, after)
            case "edited":
                assert before.mean is not None
                moved = _near(after.mean, before.mean + s / before.n, _nothing(one))
                return "" if moved else "the mean is not that of the edited values"
            case "relabelled":
                return _mirror_fault(one, before, after, adjusted_alike=self._stop_alike(name))
            case "alpha":
                return _alpha_fault(one, before, after)
            case "unreachable":
                reachable = holds and 0.5**after.n <= LEAST_ALPHA
                fault = after.label == "supported" and not reachable
                # A t test of differences that are equal but for rounding can have any p.
                known = one.by_signs or holds or (after.p_adjusted or 0.0) > LEAST_ALPHA
                return "supported, though its p cannot be alpha" if fault and known else ""
        if after.n < FEWEST_SEEDS:
            return "" if after.label == "inconclusive" else "it is not inconclusive"
        return self._planted_fault(name, after)

    def _planted_fault(self, name: str, after: Verdict) -> str:
        """The same of a planted mean, on enough seeds."""
        one, mutant, n = self.hypotheses[name], self.mutant, after.n
        s, holds = one.smallest_effect, one.direction == "holds"
        differences = planted(mutant, one, self.differences[name])[:n]
        error = statistics.stdev(differences) / math.sqrt(n)
        look = after.looks[-1] if after.looks else None
        level = one.alpha if look is None else look.level or 0.0
        level_equivalence = one.alpha if look is None else look.level_equivalence or 0.0
        wide = float(scipy.stats.t.isf(level / 2, n - 1)) * error
        narrow = float(scipy.stats.t.isf(level_equivalence, n - 1)) * error
        # The intervals of an e-process are not those of t.
        exact = self.design is None or self.design.spending != "e-process"
        shown = 2 / 2**n <= level
        is_null = mutant == "null"
        against = mutant == "opposite" and one.direction != "differs"
        if holds if is_null else not (holds or against):
            if is_null:
                told = after.control is not None and after.control.found == "differs"
                seen = (after.sensitivity or 0.0) >= 1 and 0.5**n <= level_equivalence
                must = exact and told and seen and narrow < s * (1 - 1e-9)
            else:
                must = exact and wide < 2 * s * (1 - 1e-9) and self._least(name) <= one.alpha
            if must and after.label != "supported":
                return "it is not supported"
            open_ = ("inconclusive", "insensitive") if is_null else ("inconclusive",)
            return "" if after.label in ("supported", *open_) else f"it is {after.label}"
        if after.label == "supported":
            return "it is supported"
        refuted = exact and shown and not is_null and wide < (s if holds else 3 * s) * (1 - 1e-9)
        return "" if after.label == "refuted" or not refuted else "it is not refuted"

    def _family(self, name: str) -> list[str]:
        return next(names for names in families_of(self.hypotheses) if name in names)

    def _stop_alike(self, name: str) -> bool:
        """Whether all of its family stop where they did: an adjusted p is of what they saw."""
        return all(self.after[n].seeds == self.before[n].seeds for n in self._family(name))

    def _least(self, name: str) -> float:
        """What the adjusted p of a planted effect is at most, whatever the method makes of it."""
        one = self.hypotheses[name]
        names = self._family(name)
        there = [other for other in names if self.after[other].label != "failed"]
        ps = [self.after[other].p or 1.0 for other in there]
        n, size, by = self.after[name].n, len(names), self.multiplicity.by
        least = max(2 / 2**n, 4 / SIGN_FLIPS)
        certain = self.mutant == "certain"
        if self.design:
            # Over looks p-values are adjusted by Holm, and each is of all looks so far.
            known = by == "fixed-sequence" and not one.secondary
            return 1.0 if known else size * (self.after[name].p or 1.0)
        if by == "fixed-sequence" and not one.secondary:
            return max(ps) if len(there) == size else 1.0
        if by == "max-t" and all(self.hypotheses[other].by_signs for other in there):
            if certain and all(other in self.differences for other in there):
                return least * size / len(there)
            return size * max(ps)
        return size * (least if certain else self.after[name].p or 1.0)

    def proof_of_claim(self, claim: Claim, before: ClaimVerdict, after: ClaimVerdict) -> Proof:
        """What it made of a claim, all of whose hypotheses were changed."""
        mutant, labels = self.mutant, {self.after[name].label for name in claim.hypotheses}
        named = claim.hypotheses if claim.rule in ("all", "any") else (claim.rule,)
        wrong = [
            one in self.differences
            and (self.hypotheses[one].direction == "holds") != (mutant == "null")
            for one in named
        ]
        fault, void = "", ""
        if before.label == "failed":
            void = "the data of its hypotheses are not all there"
        elif mutant == "copied":
            fault = "" if before.label == after.label else "judged otherwise"
        elif mutant == "dropped":
            fault = "" if after.label == "failed" else "runs are missing, and it is not failed"
        else:
            excluded = all(wrong) if claim.rule == "any" else any(wrong)
            if excluded:
                fault = "it is supported" if after.label == "supported" else ""
            elif labels == {"supported"} and claim.rule != "any":
                fault = "" if after.label == "supported" else "it is not supported"
            else:
                void = "its hypotheses are not all supported"
        outcome: Outcome = "refused" if mutant == "dropped" else "as asked"
        return Proof(
            outcome="void" if void else "unchanged" if fault else outcome,
            before=before.label,
            after=after.label,
            text=void or fault,
        )


def _mirror_fault(
    hypothesis: Hypothesis, before: Verdict, after: Verdict, *, adjusted_alike: bool
) -> str:
    """What is not as in a mirror; the adjusted p too, where it is `adjusted_alike`."""
    assert before.mean is not None
    within = _nothing(hypothesis)
    ends = (
        (before.interval, after.interval),
        (before.interval_equivalence, after.interval_equivalence),
    )
    mirrored = _near(after.mean, -before.mean, within) and all(
        _near_ends(new, None if old is None else (-old[1], -old[0]), within) for old, new in ends
    )
    if not mirrored:
        return "mean and intervals are not mirrored"
    same_adjusted = not adjusted_alike or _near(after.p_adjusted, before.p_adjusted)
    if not (_near(after.p, before.p) and same_adjusted):
        return "p is not the same"
    directed = hypothesis.direction in ("rises", "falls")
    both = before.label == after.label == "supported"
    return "supported in both directions" if directed and both else ""


def _alpha_fault(hypothesis: Hypothesis, before: Verdict, after: Verdict) -> str:
    """What is wrong with a verdict at the least alpha."""
    if before.interval is not None and after.interval is not None:
        (low, high), (lower, higher) = before.interval, after.interval
        if lower > low or higher < high:
            return "its interval is not wider"
    p = after.p_equivalence if hypothesis.direction == "holds" else after.p_adjusted
    above = p is not None and p > LEAST_ALPHA
    return "supported, though its p is above alpha" if above and after.label == "supported" else ""


def _changes(hypothesis: Hypothesis, before: Verdict, after: Verdict) -> str:
    """Which numbers that a verdict states have changed, and the label; empty if none."""
    within = _nothing(hypothesis)
    same = {
        "label": before.label == after.label,
        "mean": _near(before.mean, after.mean, within),
        "interval": _near_ends(before.interval, after.interval, within),
        "p": _near(before.p, after.p) and _near(before.p_adjusted, after.p_adjusted),
        "p of equivalence": _near(before.p_equivalence, after.p_equivalence),
    }
    return ", ".join(name for name, is_same in same.items() if not is_same)


def _near_ends(first: Interval | None, second: Interval | None, within: float) -> bool:
    if first is None or second is None:
        return first is second
    return all(_near(one, other, within) for one, other in zip(first, second, strict=True))


def _near(first: float | None, second: float | None, within: float = 1e-12) -> bool:
    """Whether two numbers are the same but for rounding."""
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=1e-9, abs_tol=within)


def _nothing(hypothesis: Hypothesis) -> float:
    """A change of the differences that is none."""
    return 1e-9 * hypothesis.smallest_effect
