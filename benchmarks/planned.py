"""Is the power that `dinolab plan` states of a sequential design what its judge finds?

    python -m benchmarks.planned [--studies 10000] [--spending obf pocock] [--multiples 1]

Studies are simulated apart from the plan, and each is followed from look to look by the code that
follows runs. They ask for two rises in a family by sign flips, a difference by t, and an
equivalence; deviations are DEVIATION smallest effects, and differences at a seed are correlated.
Each line is the share that was supported, as planned and as found, and how many points lie between.
The same studies are also decided as the plan decides its own: what then lies between is no chance
of the draws.
"""

import argparse
import itertools
import math
import sys
import time
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.random import Generator

from ablations.design import Design as Looks
from ablations.design import Spending
from ablations.spec import Claim
from ablations.verdicts.power import claims_supported
from ablations.verdicts.sequential_power import STUDIES, SequentialDesign
from ablations.verdicts.spread import Spread
from benchmarks.followed import studies_followed
from benchmarks.simulated import hypothesis

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
    ("e-process", (7, 8, 9, 10)),
)
MULTIPLES = (1.5, 1.0)


@dataclass(frozen=True)
class Row:
    """A share of k studies, or a mean number of seeds, beside what was planned."""

    what: str
    planned: float
    found: float
    error: float
    """standard error of what lies between"""
    paired: float
    """found, less what the plan decides of the same studies"""
    paired_error: float

    def is_within(self) -> bool:
        """Whether a share is as near to the plan as is asked for."""
        return 100 * abs(self.found - self.planned) <= POINTS


def as_planned(looks: Looks, multiple: float, k: int, rng: Generator) -> list[Row]:
    """What the judge finds in k studies: shares that are supported, and mean seeds."""
    n, count = looks.looks[-1], len(STATED)
    correlation = np.full((count, count), CORRELATION) + (1 - CORRELATION) * np.eye(count)
    plan = SequentialDesign(
        hypotheses=STATED, claims=CLAIMS, seeds=n, looks=looks,
        spread=Spread(deviations=dict.fromkeys(STATED, DEVIATION), from_pilot=frozenset(),
                      correlation=correlation),
        arms=("baseline", "control", *STATED),
    )  # fmt: skip
    expected = plan.expected(multiple)
    effects = np.array([0.0 if one.direction == "holds" else multiple for one in STATED.values()])
    root = DEVIATION * np.linalg.cholesky(correlation)
    differences = effects[:, None] + root @ rng.standard_normal((k, count, n))
    arms = {name: differences[:, i] for i, name in enumerate(STATED)}
    found = [
        [
            *(of[name].label == "supported" for name in STATED),
            *(of_claims[name] == "supported" for name in CLAIMS),
            *(len(of[name].seeds) for name in STATED),
        ]
        for of, of_claims in studies_followed(arms, STATED, CLAIMS, looks)
    ]
    flags, p, seeds = plan.followed(differences, rng)
    same = np.hstack([flags, claims_supported(CLAIMS, STATED, flags, p), seeds])
    numbers = np.array(found, dtype=np.float64)
    planned = {
        **expected.power.hypotheses,
        **{f"claim: {name}": power for name, power in expected.power.claims.items()},
        **{f"mean seeds: {name}": mean for name, mean in expected.seeds.items()},
    }
    rows = []
    for place, (name, value) in enumerate(planned.items()):
        assert value is not None
        ours, theirs = numbers[:, place], same[:, place]
        between = ours - theirs
        rows.append(
            Row(
                what=name,
                planned=value,
                found=float(ours.mean()),
                error=float(theirs.std()) * math.sqrt(1 / k + 1 / STUDIES),
                paired=float(between.mean()),
                paired_error=float(between.std()) / math.sqrt(k),
            )
        )
    return rows


def line(one: Row) -> str:
    """The rest of a row of the table."""
    if one.what.startswith("mean seeds"):
        return f"| {one.what} | {one.planned:.2f} | {one.found:.2f} | | | {one.paired:+.2f} |"
    points = 100 * (one.found - one.planned)
    kept = "yes" if one.is_within() else "**no**"
    same = f"{100 * one.paired:+.1f} ± {100 * one.paired_error:.1f}"
    return f"| {one.what} | {one.planned:.4f} | {one.found:.4f} | {points:+.1f} | {kept} | {same} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--spending", choices=get_args(Spending), nargs="*", help="only these")
    parser.add_argument("--multiples", type=float, choices=MULTIPLES, nargs="*", default=MULTIPLES)
    asked = parser.parse_args()
    print("| looks | effect | what | planned | found | points between | within 2 | same studies |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for number, (multiple, (spending, looks)) in enumerate(itertools.product(MULTIPLES, DESIGNS)):
        if (asked.spending and spending not in asked.spending) or multiple not in asked.multiples:
            continue
        before = time.process_time()
        design = Looks(looks=looks, spending=spending, futility="equivalence")
        start = f"| {spending} {', '.join(map(str, looks))} | {multiple:g} s "
        rng = np.random.default_rng([7, number])
        for one in as_planned(design, multiple, asked.studies, rng):
            print(start + line(one), flush=True)
        print(f"{time.process_time() - before:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
