"""What a reader of the verdicts should know before anything runs."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ablations.contrast import sides_of
from ablations.spec import Hypothesis
from ablations.study.study import Study
from ablations.verdicts.evidence import Run, pairs_of
from ablations.verdicts.families import families_of
from ablations.verdicts.looks import design_notes
from ablations.verdicts.planning import fewest_seeds, holm_sizes, least_p
from ablations.verdicts.rule import FEWEST_SEEDS
from ablations.verdicts.sensitivity import largest_effect
from trainers.errors import listed


def lint(study: Study) -> list[str]:
    """What a reader of the verdicts should know before anything runs; warnings, not errors."""
    return [
        *_seeds(study),
        *_controls(study.hypotheses),
        *_alphas(study.hypotheses),
        *_split(study),
        *_symmetry(study.hypotheses),
        *_nothing(study),
        *(design_notes(study.hypotheses, study.design) if study.design else ()),
    ]


def lint_arms(
    study: Study, same: Sequence[tuple[str, ...]], confounded: Sequence[str]
) -> list[str]:
    """The same of arms that are known only with the images of a study.

    Args:
        study: what was declared.
        same: arms that are the same trial at every seed.
        confounded: arms that differ from the baseline in more than they change.
    """
    lines = []
    for arms in same:
        blind = [
            name
            for name, one in study.hypotheses.items()
            if one.over == "arms" and len(one.weights) > 1 and {*one.weights} <= {*arms}
        ]
        what = f", so {listed(blind)} can only show 0" if blind else ""
        lines.append(f"arms {' and '.join(arms)} are the same trials{what}")
    if confounded:
        lines.append(
            f"{listed(confounded)}: differ from the baseline in more than they change, see the "
            "confounds of `dinolab plan`"
        )
    return lines


def lint_effects(
    hypotheses: Mapping[str, Hypothesis], runs: Mapping[tuple[str, int], Run], seeds: Sequence[int]
) -> list[str]:
    """Smallest effects that no arm of a pilot reaches: nothing could be found, or told apart."""
    lines = []
    for name, one in hypotheses.items():
        differences = [p.difference for p in pairs_of(one, runs, seeds) if p.difference is not None]
        if len(differences) < len(seeds):
            continue
        largest = largest_effect(one, runs, seeds, own=sum(differences) / len(seeds))
        if largest.effect < one.smallest_effect:
            lines.append(
                f"{name}: smallest effect {one.smallest_effect:g} is more than anything in the "
                f"pilot moves {one.end_point}: {largest.of}, by {largest.effect:.2g}; state a "
                "smaller one, or add an arm that moves it"
            )
    return lines


def _seeds(study: Study) -> Iterator[str]:
    seeds = len(study.seeds)
    if seeds < FEWEST_SEEDS:
        yield (
            f"{seeds} seeds: every verdict will be inconclusive; {FEWEST_SEEDS} is the fewest, "
            "8 a good default"
        )
        return
    above: dict[str, list[str]] = defaultdict(list)
    sizes = holm_sizes(study.hypotheses, study.multiplicity)
    for name, one in study.hypotheses.items():
        if (least := least_p(one, seeds, sizes[name])) > one.alpha:
            holm = f" (Holm over {sizes[name]})" if sizes[name] > 1 else ""
            why = f"the least p of {seeds} seeds, {least:.2g}{holm}, is above alpha {one.alpha:g}"
            fewest = fewest_seeds(one, sizes[name])
            can = "no number of sign flips can" if fewest is None else f"{fewest} seeds can"
            above[f"{why}; {can}"].append(name)
    for why, names in above.items():
        yield f"{listed(names)}: {why}"


def _controls(hypotheses: Mapping[str, Hypothesis]) -> Iterator[str]:
    without = [n for n, one in hypotheses.items() if one.direction == "holds" and not one.control]
    if without:
        yield (
            f"{listed(without)}: can never be supported, since no change is predicted and no "
            "control is declared that would show one; add `control`"
        )


def _alphas(hypotheses: Mapping[str, Hypothesis]) -> Iterator[str]:
    for names in families_of(hypotheses):
        alphas = sorted({hypotheses[name].alpha for name in names})
        if len(alphas) > 1:
            yield (
                f"family {hypotheses[names[0]].family}: has hypotheses at alpha "
                f"{' and '.join(f'{one:g}' for one in alphas)}, so its error rate is neither; "
                "give them one"
            )


def _split(study: Study) -> Iterator[str]:
    for name, claim in study.claims.items():
        families = {
            study.hypotheses[one].family
            for one in claim.hypotheses
            if study.hypotheses[one].direction != "holds"
        }
        # Of a crossing both halves must be shown, so each is tested at alpha.
        if len(families) > 1 and claim.rule in ("all", "any") and not claim.crossing:
            yield (
                f"claim {name}: its hypotheses are in {len(families)} families "
                f"({', '.join(sorted(families))}), each adjusted alone; leave `family` out, or "
                "give them one"
            )


def _symmetry(hypotheses: Mapping[str, Hypothesis]) -> Iterator[str]:
    """Contrasts that are symmetric around 0 by no null hypothesis: alone, or with its own start."""
    alone: dict[bool, list[str]] = defaultdict(list)
    for name, one in hypotheses.items():
        tested = one.metric and one.test == "signflip" and one.direction != "holds"
        if tested and not all(sides_of(one.weights)):
            alone[one.minus_start].append(name)
    what = {False: "a value against 0", True: "a value against the same run's at step 0"}
    for since_start, names in alone.items():
        yield (
            f"{listed(names)}: {what[since_start]} is no pair of like with like, so nothing makes "
            "it symmetric around 0, which sign flips rest on; compare with an arm, or look at its "
            "skewness"
        )


def _nothing(study: Study) -> Iterator[str]:
    if not study.hypotheses:
        yield "no hypotheses: runs will be measured, and nothing decided"
    if squeezed := study.base.data.squeezing_note():
        yield squeezed
