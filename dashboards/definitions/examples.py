"""Made-up data of which each label, tag and word comes out; the rules that judge runs judge them.

All numbers are in smallest effects of interest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ablations.registration import ArmFacts, Entry, Place, Resolved
from ablations.spec import BASELINE, Direction, Hypothesis
from ablations.stated import Word, stated
from ablations.verdicts.evidence import Run
from ablations.verdicts.judge import Verdict, judge
from ablations.verdicts.rule import Label, Tag

METRIC = "knn/cls_top1"

OF_THE_CONTROL = (1.5, 1.9, 2.2, 1.7, 2.4, 1.6, 2.0, 1.8)
"""differences of a control that shows that the end point can move"""


@dataclass(frozen=True, kw_only=True)
class Example:
    """Paired differences of a hypothesis, one a seed, and what they are an example of."""

    direction: Direction
    differences: tuple[float | None, ...]
    """None: the run of the arm diverged"""
    control: tuple[float, ...] = ()
    """those of its control; none, if none is declared"""
    label: Label
    tags: tuple[Tag, ...] = ()

    def judged(self) -> Verdict:
        """Its verdict. Raises ValueError where label or tags are not those it is an example of."""
        hypothesis = Hypothesis(
            metric=METRIC,
            contrast=("arm", BASELINE),
            direction=self.direction,
            smallest_effect=1.0,
            control="control" if self.control else "",
        )
        seeds = range(len(self.differences))
        arms = {BASELINE: (0.0,) * len(seeds), "arm": self.differences, "control": self.control}
        runs = {
            (arm, seed): Run(status="diverged", start={}, end={})
            if value is None
            else Run(status="finished", start={}, end={METRIC: value})
            for arm, values in arms.items()
            for seed, value in enumerate(values)
        }
        verdict = judge({"example": hypothesis}, {}, runs, seeds)["example"]
        if (verdict.label, verdict.tags) != (self.label, self.tags):
            raise ValueError(
                f"an example of {self.label} {self.tags} is judged {verdict.label} {verdict.tags}: "
                f"{verdict.reason}"
            )
        return verdict


EXAMPLES: Mapping[str, tuple[Example, ...]] = MappingProxyType(
    {
        "failed": (
            Example(
                direction="rises",
                differences=(1.1, 1.9, 0.8, 1.5, None, 1.2, 2.1, 1.4),
                label="failed",
            ),
        ),
        "insensitive": (
            Example(
                direction="rises",
                differences=(-0.2, 0.3, 0.1, -0.4, 0.2, 0.5, -0.1, 0.0),
                control=(0.1, -0.3, 0.4, 0.6, -0.1, 0.3, 0.2, -0.2),
                label="insensitive",
            ),
        ),
        "supported": (
            Example(
                direction="rises",
                differences=(1.1, 1.9, 0.5, 1.6, 2.5, 1.2, 0.9, 1.8),
                label="supported",
            ),
            Example(
                direction="holds",
                differences=(-0.5, 0.4, 0.1, -0.7, 0.6, 0.2, -0.2, 0.5),
                control=OF_THE_CONTROL,
                label="supported",
            ),
        ),
        "equivalent": (
            Example(
                direction="rises",
                differences=(-0.5, 0.4, 0.1, -0.7, 0.6, 0.2, -0.2, 0.5),
                control=OF_THE_CONTROL,
                label="equivalent",
            ),
        ),
        "refuted": (
            Example(
                direction="rises",
                differences=(-1.9, 0.8, -0.9, 0.3, -2.3, -0.4, 0.6, -1.5),
                control=OF_THE_CONTROL,
                label="refuted",
            ),
            Example(
                direction="holds",
                differences=(1.9, 1.5, 1.3, 2.4, 1.7, 2.1, 1.2, 1.8),
                control=OF_THE_CONTROL,
                label="refuted",
            ),
        ),
        "inconclusive": (
            Example(
                direction="rises",
                differences=(-0.9, 1.8, 0.3, 2.3, -0.6, 1.4, -0.2, 0.9),
                control=OF_THE_CONTROL,
                label="inconclusive",
            ),
            Example(
                direction="holds",
                differences=(-0.9, 1.8, 0.3, 2.3, -0.6, 1.4, -0.2, 0.9),
                control=OF_THE_CONTROL,
                label="inconclusive",
            ),
        ),
        "strong": (
            Example(
                direction="rises",
                differences=(1.9, 1.5, 1.3, 2.4, 1.7, 2.1, 1.2, 1.8),
                label="supported",
                tags=("strong",),
            ),
        ),
        "negligible-but-nonzero": (
            Example(
                direction="rises",
                differences=(0.2, 0.5, 0.3, 0.6, 0.1, 0.4, 0.7, 0.3),
                control=OF_THE_CONTROL,
                label="equivalent",
                tags=("negligible-but-nonzero",),
            ),
        ),
        "opposite": (
            Example(
                direction="rises",
                differences=(-0.2, -0.5, -0.3, -0.6, -0.1, -0.4, -0.7, -0.3),
                control=OF_THE_CONTROL,
                label="equivalent",
                tags=("negligible-but-nonzero", "opposite"),
            ),
        ),
    }
)

Moment = Literal["stated", "changed", "results"]

MOMENTS: Mapping[str, tuple[Moment, ...]] = MappingProxyType(
    {
        "confirmatory": ("stated", "results"),
        "amended": ("stated", "changed", "results"),
        "exploratory": ("stated", "results", "changed"),
    }
)
"""What happened to a hypothesis of which a word is said, the first thing first."""


def word_of(moments: Sequence[Moment]) -> Word:
    """How a hypothesis was stated of which `moments` are all that happened."""
    trial = Place(key="trial", arm="arm", seed=0)
    chain: list[Entry] = []
    known: dict[str, str] = {}
    for moment in moments:
        if moment == "results":
            known = {trial.key: "0" * 64}
            continue
        hypothesis = Hypothesis(
            metric=METRIC,
            contrast=("arm",),
            direction="rises",
            smallest_effect=1.0 + len(chain),
        )
        resolved = Resolved(
            seeds=(trial.seed,), arms={trial.arm: {}}, hypotheses={"it": hypothesis}, gates={}
        )
        chain.append(
            Entry(
                study="example",
                number=len(chain) + 1,
                hypotheses_sha256="",
                resolved=resolved,
                arms={trial.arm: ArmFacts()},
                trials=(trial,),
                config={},
                known=known,
            )
        )
    return stated(chain)["it"].word
