"""Are verdicts of sequential designs wrong as seldom as they promise, and found as planned?"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.random import Generator

from ablations.design import Design as Looks
from ablations.spec import Hypothesis
from ablations.statistics.flips import Floats
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import Verdict
from ablations.verdicts.looks import follow
from ablations.verdicts.sequential_power import STUDIES, SequentialDesign
from ablations.verdicts.spread import assumed
from benchmarks.simulated import ALPHA, Figure, hypothesis, normal, share

LOOKS = (6, 8, 10)
E_LOOKS = (7, 8, 9, 10)


def sequential(k: int, rng: Generator) -> Iterator[Figure]:
    """Studies that are followed from look to look: errors, and power as it is planned."""
    for spending in ("obf", "pocock", "e-process"):
        looks = E_LOOKS if spending == "e-process" else LOOKS
        design = Looks(looks=looks, spending=spending, futility="equivalence")
        n = looks[-1]
        nothing = [normal(rng, k, n) for _ in range(3)]
        found = followed(nothing[:1], hypothesis("arm", "differs", 1e-6), design)
        mean = np.mean([len(of[0].seeds) for of in found])
        hits = [of[0].label == "supported" for of in found]
        yield share(f"{spending}: supported, no effect, mean seeds {mean:.1f}", n, "≤", ALPHA, hits)
        found = followed(nothing, hypothesis("arm", "differs", 1e-6), design)
        hits = [any(one.label == "supported" for one in of) for of in found]
        yield share(f"{spending}: any of 3 supported, no effects", n, "≤", ALPHA, hits)
        stated = hypothesis("arm", "holds", 1.5)
        found = followed([one + 1.5 for one in nothing[:1]], stated, design)
        hits = [of[0].label == "supported" for of in found]
        yield share(f"{spending}: holds supported at the margin", n, "≤", ALPHA, hits)
        stated = hypothesis("arm", "rises", 1.0)
        found = followed([one + 1.0 for one in nothing[:1]], stated, design)
        hits = [of[0].label == "refuted" for of in found]
        yield share(f"{spending}: refuted, exactly the smallest effect", n, "≤", ALPHA, hits)
        yield from as_planned(k, rng, stated, design)


def as_planned(k: int, rng: Generator, stated: Hypothesis, looks: Looks) -> Iterator[Figure]:
    """The power that `dinolab plan` states for 1.5 smallest effects of one deviation each."""
    n = looks.looks[-1]
    plan = SequentialDesign(
        hypotheses={"h": stated}, claims={}, seeds=n, spread=assumed({"h": stated}),
        looks=looks, arms=("baseline", "arm", "control"),
    ).expected(1.5)  # fmt: skip
    found = [of[0] for of in followed([normal(rng, k, n) + 1.5], stated, looks)]
    power = plan.power.hypotheses["h"]
    assert power is not None
    error = math.sqrt(power * (1 - power) * (1 / k + 1 / STUDIES))
    hits = float(np.mean([one.label == "supported" for one in found]))
    what = f"{looks.spending}: supported, 1.5 smallest effects, as planned"
    yield Figure(what, n, "=", power, hits, error, k)
    used = np.array([len(one.seeds) for one in found])
    what = f"{looks.spending}: mean seeds, 1.5 smallest effects, as planned"
    error = float(used.std()) * math.sqrt(1 / k + 1 / STUDIES)
    yield Figure(what, n, "=", plan.seeds["h"], float(used.mean()), error, k)


def followed(arms: list[Floats], stated: Hypothesis, design: Looks) -> list[list[Verdict]]:
    """Of each study, the verdicts on a family: a hypothesis of each of these arms, [k, n]."""
    k, n = arms[0].shape
    found = []
    for i in range(k):
        runs = {
            (arm, seed): Run(status="finished", start={}, end={"metric": value})
            for seed in range(n)
            for arm, value in (
                ("baseline", 0.0),
                ("control", 50 * stated.smallest_effect),
                *((f"arm{j}", float(of[i, seed])) for j, of in enumerate(arms)),
            )
        }
        hypotheses = {
            f"h{j}": stated.model_copy(update={"contrast": (f"arm{j}", "baseline")})
            for j in range(len(arms))
        }
        of_study = follow(hypotheses, {}, runs, range(n), design, advise=False)
        found.append([one.verdict for one in of_study.values()])
    return found
