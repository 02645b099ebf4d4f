"""What a reader of the verdicts should know before anything runs."""

from ablations.statistics.power import POWER, effect_for, fewest_for_signs, t_power, tost_power
from ablations.study.study import Study
from ablations.verdicts.planning import family_sizes
from ablations.verdicts.rule import FEWEST_SEEDS


def lint(study: Study) -> list[str]:
    """What a reader of the verdicts should know before anything runs; warnings, not errors."""
    warnings = []
    seeds = len(study.seeds)
    if seeds < FEWEST_SEEDS:
        warnings.append(
            f"{seeds} seeds: every verdict will be inconclusive; {FEWEST_SEEDS} is the fewest, "
            "8 a good default"
        )
    elif study.hypotheses:
        warnings.append(_power_text(study))
    for family, size in family_sizes(study.hypotheses).items():
        tested = [
            h.alpha
            for h in study.hypotheses.values()
            if h.family == family and h.direction != "holds" and h.test == "signflip"
        ]
        needed = fewest_for_signs(min(tested) / size) if tested else 0
        if FEWEST_SEEDS <= seeds < needed:
            warnings.append(
                f"family {family}: {size} tests, by sign flips of {seeds} seeds, cannot reach "
                f"their alpha after Holm; {needed} seeds can"
            )
    if not study.hypotheses:
        warnings.append("no hypotheses: runs will be measured, and nothing decided")
    if squeezed := study.base.data.squeezing_note():
        warnings.append(squeezed)
    return warnings


def _power_text(study: Study) -> str:
    """The effect that has power at the strictest level of the study, in standard deviations."""
    seeds, sizes = len(study.seeds), family_sizes(study.hypotheses)
    found = [h for h in study.hypotheses.values() if h.direction != "holds"]
    start = f"{seeds} seeds: {100 * POWER:.0f} % power"
    if not found:
        level = min(h.alpha for h in study.hypotheses.values())
        margin = effect_for(tost_power, seeds, level)
        return (
            f"{start} to show that equal arms differ by less than {margin:.2f} standard deviations "
            f"of paired differences (two one-sided t tests at {level:.3g})"
        )
    strictest = min(found, key=lambda h: h.alpha / sizes[h.family])
    size = sizes[strictest.family]
    level = strictest.alpha / size
    adjusted = f", Holm's first step over {size} hypotheses" if size > 1 else ""
    return (
        f"{start} for a paired difference of {effect_for(t_power, seeds, level):.2f} standard "
        f"deviations (two-sided t test at {level:.3g}{adjusted})"
    )
