"""Is the power that `dinolab plan` states of a sequential design what its judge finds?

    python -m benchmarks.planned [--studies 10000]

Studies are simulated apart from the plan, and each is followed from look to look by the code that
follows runs. They ask for two rises in a family by sign flips, a difference by t, and an
equivalence; deviations are DEVIATION smallest effects, and differences at a seed are correlated.
Each line is the share that was supported, as planned and as found, and how many points lie between.
"""

import argparse
import itertools
import math
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.random import Generator

from ablations.design import Design as Looks
from ablations.design import Spending
from ablations.spec import Claim
from ablations.verdicts.sequential_power import STUDIES, SequentialDesign
from ablations.verdicts.spread import Spread
from benchmarks.followed import studies_followed
from benchmarks.simulated import Figure, hypothesis

POINTS = 2.0
"""How far from the plan a share may be, in percentage points."""

DEVIATION = 1.25
CORRELATION = 0.3

STATED = {
    "rises": hypothesis("rises", "rises", 1.0, family="one"),
    "rises too": hypothesis("rises too", "rises", 1.0, family="one"),
    "differs, t": hypothesis("differs, t", "differs", 1.0, test="t"),
    "holds": hypothesis("holds", "holds", 1.0),
}
CLAIMS = {
    "all": Claim(text="", hypotheses=("rises", "rises too", "holds")),
    "any": Claim(text="", hypotheses=("rises", "differs, t"), rule="any"),
}
DESIGNS: tuple[tuple[Spending, tuple[int, ...]], ...] = (
    ("obf", (8, 12, 16)),
    ("pocock", (8, 12, 16)),
    ("obf", (6, 8, 10)),
    ("pocock", (6, 8, 10)),
)
MULTIPLES = (1.5, 1.0)


def as_planned(looks: Looks, multiple: float, k: int, rng: Generator) -> Iterator[Figure]:
    """Shares of k studies that are supported, and mean seeds, beside those of the plan."""
    n, count = looks.looks[-1], len(STATED)
    spread = Spread(
        deviations=dict.fromkeys(STATED, DEVIATION), from_pilot=frozenset(),
        correlation=np.full((count, count), CORRELATION) + (1 - CORRELATION) * np.eye(count),
    )  # fmt: skip
    plan = SequentialDesign(
        hypotheses=STATED, claims=CLAIMS, seeds=n, spread=spread, looks=looks,
        arms=("baseline", "control", *STATED),
    ).expected(multiple)  # fmt: skip
    shared = math.sqrt(CORRELATION) * rng.standard_normal((k, n))
    own = math.sqrt(1 - CORRELATION)
    arms = {
        name: DEVIATION * (shared + own * rng.standard_normal((k, n)))
        + (0.0 if one.direction == "holds" else multiple)
        for name, one in STATED.items()
    }
    found = list(studies_followed(arms, STATED, CLAIMS, looks))
    planned = {**plan.power.hypotheses, **plan.power.claims}
    for name, power in planned.items():
        assert power is not None
        hits = [(v[name].label if name in v else of_claims[name]) == "supported"
                for v, of_claims in found]  # fmt: skip
        error = math.sqrt(power * (1 - power) * (1 / k + 1 / STUDIES))
        what = f"claim: {name}" if name in CLAIMS else name
        yield Figure(what, n, "=", power, float(np.mean(hits)), error, k)
    for name in STATED:
        used = np.array([len(v[name].seeds) for v, _ in found])
        error = float(used.std()) * math.sqrt(1 / k + 1 / STUDIES)
        what = f"mean seeds: {name}"
        yield Figure(what, n, "=", plan.seeds[name], float(used.mean()), error, k)


def line(one: Figure) -> str:
    """The rest of a row of the table."""
    if one.what.startswith("mean seeds"):
        return f"| {one.what} | {one.promise:.2f} | {one.found:.2f} | | |"
    points = 100 * (one.found - one.promise)
    kept = "yes" if abs(points) <= POINTS else "**no**"
    return f"| {one.what} | {one.promise:.4f} | {one.found:.4f} | {points:+.1f} | {kept} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--studies", type=int, default=10_000)
    asked = parser.parse_args()
    print("| looks | effect | what | planned | found | points between | within 2 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for number, (multiple, (spending, looks)) in enumerate(itertools.product(MULTIPLES, DESIGNS)):
        before = time.process_time()
        design = Looks(looks=looks, spending=spending, futility="equivalence")
        rng = np.random.default_rng([7, number])
        for one in as_planned(design, multiple, asked.studies, rng):
            print(
                f"| {spending} {', '.join(map(str, looks))} | {multiple:g} s {line(one)}",
                flush=True,
            )
        print(f"{time.process_time() - before:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
