"""What was stated, when, and knowing which results: the registrations of a study, in a chain.

Each registration is one file, which is written once; each but the first has the digest of the one
before. What a hypothesis is worth follows from the chain alone: see :mod:`ablations.stated`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import PurePath
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ablations.design import Design
from ablations.spec import Claim, Gate, Hypothesis, Multiplicity
from trainers.config import leaves
from trainers.runs.stored_trial import sealed

LOCK = "study.lock.json"
"""What studies of before had in place of registrations."""

STUDIES = "studies"
"""Folder of a run root that holds the folder of each study."""

REGISTRATIONS = "registrations"
"""Folder of a study that holds its registrations, `0001.json` and so on."""

MOST_PROBLEMS = 3
"""Problems that one line names; a registration that lost something has hundreds."""

MEASURES_NOTHING = ("data.source", "checkpoint_every")
"""Knobs that change nothing that a run measures: the digest of the data counts, not their path."""

COMPUTING = frozenset({"torch", "torchvision", "numpy", "scipy"})
"""Packages whose version can change a number."""


class Part(BaseModel):
    """Base of the parts of a registration: frozen, strict; what later versions add is kept."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")


class Place(Part):
    """A trial, and an arm and a seed that it stands for; identical arms share one trial."""

    key: str
    arm: str
    seed: int

    @model_validator(mode="after")
    def _key_is_a_name(self) -> Self:
        if not self.key or PurePath(self.key).name != self.key:
            raise ValueError(f"not a trial key: {self.key!r}")
        return self


class ArmFacts(Part):
    """What an arm changes, and what differs with it; None where that was not recorded.

    `confounds` are, in words, what lengths in epochs and rates per 256 images become, and what its
    ablation declares.
    """

    change: dict[str, Any] = Field(default_factory=dict)
    parameters: int | None = None
    gigaflops_per_image: float | None = None
    confounds: tuple[str, ...] = ()


class Resolved(Part):
    """The study file with everything filled in."""

    recipe: str = "unknown"
    seeds: tuple[int, ...]
    arms: dict[str, dict[str, Any]]
    hypotheses: dict[str, Hypothesis]
    gates: dict[str, Gate]
    claims: dict[str, Claim] = Field(default_factory=dict)
    multiplicity: Multiplicity = Multiplicity(by="holm")
    """what does not say it was stated when there was only Holm"""
    design: Design | None = None


class Entry(Part):
    """A registration whose parts fit: every arm and seed has a trial, every name is there."""

    study: str
    number: int = 0
    """from 1; 0: a `study.lock.json` of before, which does not say what was known"""
    parent: str | None = None
    """digest of the registration before; None in the first"""
    reason: str | None = None
    """why the study was changed; None in the first"""
    created: str = "unknown"
    hypotheses_sha256: str
    resolved: Resolved
    arms: dict[str, ArmFacts]
    trials: tuple[Place, ...]
    config: dict[str, Any]
    dataset: dict[str, Any] = Field(default_factory=dict)
    known: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each result that there was, by trial key, of trials that this registration or an
    earlier one names"""
    under_way: tuple[str, ...] = ()
    """keys of those of these trials that had recorded something, and had no result"""
    elsewhere: tuple[Place, ...] = ()
    """trials of other studies that had a result: of an arm that changes the same as one of these,
    at one of these seeds, on these data, with another base or other code"""
    root_results: int = 0
    """how many results the whole run root had"""
    results_name_it: bool = False
    """whether results of its trials say under which registration they were trained"""
    code: dict[str, str] = Field(default_factory=dict)
    """version of each module that a trial executes"""
    analysis: dict[str, str] = Field(default_factory=dict)
    """version of each module that judges"""
    git: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    digest: str = Field("", exclude=True)
    """SHA-256 of the bytes of its file; of the reader, not in the file"""

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
            (name, one.arms) for name, one in resolved.hypotheses.items()
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

    @property
    def computing(self) -> dict[str, str]:
        """Versions of the packages that compute numbers.

        Builds of one version (`+cu128`) do not differ: a trial says what it was computed with.
        """
        found = COMPUTING & self.packages.keys()
        return {name: self.packages[name].partition("+")[0] for name in sorted(found)}

    @property
    def versions(self) -> tuple[Mapping[str, str], ...]:
        """Of the code of trials, of the code that judges, and of the packages that compute."""
        return self.code, self.analysis, self.computing

    @property
    def trial_keys(self) -> set[tuple[str, int, str]]:
        """Arm, seed and key of each trial."""
        return {(trial.arm, trial.seed, trial.key) for trial in self.trials}

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The study file with everything filled in, as JSON types."""
        return self.resolved.model_dump(mode="json")

    @cached_property
    def knobs(self) -> dict[str, Any]:
        """The knobs of the base that change what a run measures."""
        return knobs_of(self.config)

    @property
    def of_all(self) -> dict[str, Any]:
        """What is said of the study as a whole, and bears on every hypothesis."""
        return {i: one for i, one in self.plain.items() if i not in (*GROUPS, *_UNSTATED)}

    @property
    def sequence(self) -> list[str]:
        """The hypotheses in their order, where p-values depend on it; else empty."""
        by = dict(self.of_all.get("multiplicity") or {}).get("by")
        return list(self.resolved.hypotheses) if by == "fixed-sequence" else []


GROUPS = {"arms": "arm", "hypotheses": "hypothesis", "claims": "claim", "gates": "gate"}
"""What a study names, and what one of them is called."""

_UNSTATED = ("name", "resources")
"""Fields of a study file that state nothing: where trials run changes no statement."""


def knobs_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of a configuration that change what a run measures."""
    return {knob: one for knob, one in leaves(config) if knob not in MEASURES_NOTHING}


def study_folder(name: str) -> str:
    """The folder of a study, as a prefix of keys in a run root."""
    return f"{STUDIES}/{name}"


def registration_key(name: str, number: int, ending: str = "json") -> str:
    """The key of a registration of a study, or of what lies beside it: `diff`, `witness`."""
    return f"{study_folder(name)}/{REGISTRATIONS}/{number:04d}.{ending}"


def shortened(problems: Sequence[str]) -> str:
    """The first problems in one line, and how many more there are."""
    more = len(problems) - MOST_PROBLEMS
    return "; ".join(problems[:MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def written(content: Mapping[str, Any]) -> bytes:
    """The bytes of the file of a registration, with a digest of themselves that shows damage."""
    return sealed(dict(content))


def entry_of(content: bytes) -> Entry:
    """The registration that a file holds, with its digest. Raises ValueError where it is damaged.

    Every byte counts: the file must be as `written` writes it.
    """
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    if written({name: value for name, value in found.items() if name != "sha256"}) != content:
        raise ValueError("its digest is another")
    entry = Entry.model_validate_json(content)
    return entry.model_copy(update={"digest": hashlib.sha256(content).hexdigest()})
