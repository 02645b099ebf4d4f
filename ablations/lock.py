"""What `study.lock.json` holds: what was stated before the first trial ran."""

from pathlib import PurePath
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ablations.spec import Claim, Gate, Hypothesis

LOCK = "study.lock.json"

STUDIES = "studies"
"""Folder of a run root that holds the folder of each study."""

MOST_PROBLEMS = 3
"""Problems that one line names; a lock that lost something has hundreds."""


class Stated(BaseModel):
    """Base of the parts of a lock: frozen, strict; what later versions add is kept."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")


class Place(Stated):
    """A trial, and an arm and a seed that it stands for; identical arms share one trial."""

    key: str
    arm: str
    seed: int

    @model_validator(mode="after")
    def _key_is_a_name(self) -> Self:
        if not self.key or PurePath(self.key).name != self.key:
            raise ValueError(f"not a trial key: {self.key!r}")
        return self


class ArmFacts(Stated):
    """What an arm changes, and what differs with it; None where that was not recorded.

    `confounds` are, in words, what lengths in epochs and rates per 256 images become, and what its
    ablation declares.
    """

    change: dict[str, Any] = Field(default_factory=dict)
    parameters: int | None = None
    gigaflops_per_image: float | None = None
    confounds: tuple[str, ...] = ()


class Resolved(Stated):
    """The study file with everything filled in."""

    recipe: str = "unknown"
    seeds: tuple[int, ...]
    arms: dict[str, dict[str, Any]]
    hypotheses: dict[str, Hypothesis]
    gates: dict[str, Gate]
    claims: dict[str, Claim] = Field(default_factory=dict)


class Lock(Stated):
    """A lock whose parts fit: every arm and seed has a trial, every name that is used is there."""

    study: str
    created: str = "unknown"
    hypotheses_sha256: str
    resolved: Resolved
    arms: dict[str, ArmFacts]
    trials: tuple[Place, ...]
    config: dict[str, Any]
    dataset: dict[str, Any] = Field(default_factory=dict)
    git: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        resolved = self.resolved
        places = {(trial.arm, trial.seed) for trial in self.trials}
        problems = [
            f"no trial for arm {arm!r}, seed {seed}"
            for arm in resolved.arms
            for seed in resolved.seeds
            if (arm, seed) not in places
        ]
        named: list[tuple[str, tuple[str, ...]]] = [
            (name, tuple(one.contrast)) for name, one in resolved.hypotheses.items()
        ]
        named += [(name, gate.arms) for name, gate in resolved.gates.items()]
        problems += [
            f"{name} names arm {arm!r}, which has no runs"
            for name, arms in named
            for arm in arms
            if arm not in resolved.arms
        ]
        problems += [
            f"claim {name} names hypothesis {one!r}, which is not there"
            for name, claim in resolved.claims.items()
            for one in claim.hypotheses
            if one not in resolved.hypotheses
        ]
        if problems:
            raise ValueError(shortened(problems))
        return self


def study_folder(name: str) -> str:
    """The folder of a study, as a prefix of keys in a run root."""
    return f"{STUDIES}/{name}"


def shortened(problems: list[str]) -> str:
    """The first problems in one line, and how many more there are."""
    more = len(problems) - MOST_PROBLEMS
    return "; ".join(problems[:MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
