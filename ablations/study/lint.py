"""What a reader of the verdicts should know before anything runs."""

import math

from statsmodels.stats.power import TTestPower

from ablations.spec import Hypothesis
from ablations.study.study import Study
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
        effect = TTestPower().solve_power(nobs=seeds, alpha=0.05, power=0.8)
        warnings.append(
            f"{seeds} seeds: 80 % power for a paired difference of {effect:.2f} standard "
            "deviations (two-sided t test at 0.05, before adjustment)"
        )
    families: dict[str, list[Hypothesis]] = {}
    for hypothesis in study.hypotheses.values():
        if hypothesis.direction != "holds" and hypothesis.test == "signflip":
            families.setdefault(hypothesis.family, []).append(hypothesis)
    for family, members in families.items():
        needed = 1 + math.ceil(math.log2(len(members) / min(h.alpha for h in members)))
        if seeds < needed and seeds >= FEWEST_SEEDS:
            warnings.append(
                f"family {family}: {len(members)} sign-flip tests at {seeds} seeds cannot reach "
                f"their alpha after Holm; {needed} seeds can"
            )
    if not study.hypotheses:
        warnings.append("no hypotheses: runs will be measured, and nothing decided")
    return warnings
