"""Simulated studies of known truth, judged as those of runs are; and figures of what came out."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator

from ablations.spec import Claim, Hypothesis
from ablations.statistics.flips import Floats
from ablations.verdicts.claims import judge_claims
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import Verdict, decisive_p, judge
from ablations.verdicts.rule import Label

ALPHA = 0.05
AT_ONCE = 250
"""Studies in one call of `judge`."""

Kept = Literal["=", "≤", "≥"]


@dataclass(frozen=True)
class Figure:
    """A promise, and what was found of it in so many replicates."""

    what: str
    seeds: int
    kind: Kept
    promise: float
    found: float
    error: float
    """Standard error of `found` if the promise is kept to the letter; 0 if it is exact."""
    replicates: int

    def is_kept(self, errors: float = 3.0) -> bool:
        """Whether the promise is kept, within this many standard errors."""
        off = self.found - self.promise
        within = errors * self.error + 1e-12
        return {"=": abs(off) <= within, "≤": off <= within, "≥": -off <= within}[self.kind]


def share(what: str, seeds: int, kind: Kept, promise: float, hits: list[bool]) -> Figure:
    """The share of replicates that are hits, beside what was promised."""
    error = math.sqrt(promise * (1 - promise) / len(hits))
    return Figure(what, seeds, kind, promise, float(np.mean(hits)), error, len(hits))


# Simulated studies

Judged = tuple[dict[str, Verdict], dict[str, Label]]
"""The verdicts of one study, and the labels of its claims."""


def studies(
    baseline: Floats,
    arms: Mapping[str, Floats],
    stated: Mapping[str, Hypothesis],
    claims: Mapping[str, Claim] | None = None,
) -> Iterator[Judged]:
    """Each study judged: values of the baseline and of arms, [studies, seeds], on one metric."""
    for first in range(0, len(baseline), AT_ONCE):
        some = range(first, min(first + AT_ONCE, len(baseline)))
        runs = {
            (arm, seed): Run(
                status="finished", start={}, end={str(i): float(values[i, seed]) for i in some}
            )
            for arm, values in {"baseline": baseline, **arms}.items()
            for seed in range(baseline.shape[1])
        }
        hypotheses = {
            f"{i} {name}": one.model_copy(update={"metric": str(i), "family": f"{i} {one.family}"})
            for i in some
            for name, one in stated.items()
        }
        verdicts = judge(hypotheses, {}, runs, range(baseline.shape[1]), advise=False)
        labels = {name: verdict.label for name, verdict in verdicts.items()}
        of_claims = judge_claims(
            {
                f"{i} {name}": claim.model_copy(
                    update={
                        "hypotheses": tuple(f"{i} {one}" for one in claim.hypotheses),
                        "rule": claim.rule if claim.rule in ("all", "any") else f"{i} {claim.rule}",
                    }
                )
                for i in some
                for name, claim in (claims or {}).items()
            },
            hypotheses,
            labels,
            decisive_p(hypotheses, verdicts),
        )
        for i in some:
            yield (
                {name: verdicts[f"{i} {name}"] for name in stated},
                {name: of_claims[f"{i} {name}"].label for name in claims or {}},
            )


def hypothesis(arm: str, direction: str, s: float, **change: object) -> Hypothesis:
    """What is said of an arm; `control` differs by far."""
    return Hypothesis.model_validate(
        {
            "metric": "metric",
            "contrast": (arm, "baseline"),
            "direction": direction,
            "smallest_effect": s,
            "control": "control",
            **change,
        }
    )


def compared(differences: Floats, stated: Hypothesis) -> list[Verdict]:
    """The verdict on one hypothesis of an `arm`, in studies of these differences [k, n]."""
    baseline = np.zeros_like(differences)
    arms = {"arm": differences, "control": baseline + 50 * stated.smallest_effect}
    return [verdicts["h"] for verdicts, _ in studies(baseline, arms, {"h": stated})]


# Differences of arms that do not differ, [k, n]

Draw = Callable[[Generator, int, int], Floats]


def normal(rng: Generator, k: int, n: int) -> Floats:
    """Normal, of deviation 1."""
    return rng.standard_normal((k, n))


def t3(rng: Generator, k: int, n: int) -> Floats:
    """Student's t with three degrees of freedom: heavy tails."""
    return rng.standard_t(3, (k, n))


def heteroscedastic(rng: Generator, k: int, n: int) -> Floats:
    """Normal, of one arm that varies three times as much as the other, more at each seed."""
    spread = np.linspace(0.5, 3, n)
    return rng.standard_normal((k, n)) * 3 * spread - rng.standard_normal((k, n)) * spread


def knn(rng: Generator, k: int, n: int) -> Floats:
    """Accuracies of k-NN on 359 images, which seeds make easier or harder."""
    chance = rng.uniform(0.6, 0.9, (k, n))
    return np.asarray((rng.binomial(359, chance) - rng.binomial(359, chance)) / 359)


def ties(rng: Generator, k: int, n: int) -> Floats:
    """0, or one step up or down."""
    return rng.integers(-1, 2, (k, n)) / 100


def exponential(rng: Generator, k: int, n: int) -> Floats:
    """Skewed, of mean 0: what sign flips do not promise anything of."""
    return rng.exponential(size=(k, n)) - 1


CONTINUOUS: dict[str, Draw] = {"normal": normal, "t3": t3, "heteroscedastic": heteroscedastic}
DISCRETE: dict[str, Draw] = {"k-NN on 359 images": knn, "ties": ties}
