"""Are verdicts of sequential designs wrong as seldom as they promise, and found as planned?"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.random import Generator

from ablations.design import Design as Looks
from ablations.spec import Claim, Hypothesis
from ablations.statistics.flips import Floats
from ablations.verdicts.claims import judge_claims
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import Verdict, decisive_p
from ablations.verdicts.looks import follow
from ablations.verdicts.sequential_power import STUDIES, SequentialDesign
from ablations.verdicts.spread import assumed
from benchmarks.simulated import ALPHA, Figure, Judged, hypothesis, normal, share

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


def always_valid(k: int, rng: Generator) -> Iterator[Figure]:
    """What an e-process supports at any of its looks, where nothing is there."""
    design = Looks(looks=E_LOOKS, spending="e-process", futility="equivalence")
    n = E_LOOKS[-1]
    found = followed([normal(rng, k, n)], hypothesis("arm", "differs", 1e-6), design)
    hits = [of[0].label == "supported" for of in found]
    yield share("e-process followed: supported at any seed, no effect", n, "≤", ALPHA, hits)


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
    hypotheses = {
        f"h{j}": stated.model_copy(update={"contrast": (f"arm{j}", "baseline")})
        for j in range(len(arms))
    }
    values = {f"arm{j}": one for j, one in enumerate(arms)}
    return [[*of.values()] for of, _ in studies_followed(values, hypotheses, {}, design)]


def studies_followed(
    arms: Mapping[str, Floats],
    hypotheses: Mapping[str, Hypothesis],
    claims: Mapping[str, Claim],
    design: Looks,
) -> Iterator[Judged]:
    """Each study followed: values of arms, [k, n]; the baseline has 0, and a control is far off."""
    k, n = next(iter(arms.values())).shape
    far = 50 * max(one.smallest_effect for one in hypotheses.values())
    fixed = {"baseline": np.zeros((k, n)), "control": np.full((k, n), far)}
    for i in range(k):
        runs = {
            (arm, seed): Run(status="finished", start={}, end={"metric": float(of[i, seed])})
            for arm, of in {**fixed, **arms}.items()
            for seed in range(n)
        }
        found = follow(hypotheses, {}, runs, range(n), design, advise=False)
        verdicts = {name: one.verdict for name, one in found.items()}
        labels = {name: one.label for name, one in verdicts.items()}
        of_claims = judge_claims(claims, hypotheses, labels, decisive_p(hypotheses, verdicts))
        yield verdicts, {name: one.label for name, one in of_claims.items()}
