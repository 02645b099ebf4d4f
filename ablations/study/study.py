"""A checked study: what runs, and what is expected of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ablations.design import Design
from ablations.spec import Claim, Gate, Hypothesis, Multiplicity
from ablations.study.schema import Change, Resources
from trainers.config import TrainConfig, override


@dataclass(frozen=True, kw_only=True)
class Study:
    """A checked study: what runs, and what is expected of it."""

    name: str
    recipe: str
    base: TrainConfig
    arms: Mapping[str, Change]
    """of each arm, what it changes in the base; the baseline comes first and changes nothing"""
    seeds: tuple[int, ...]
    hypotheses: Mapping[str, Hypothesis]
    gates: Mapping[str, Gate]
    resources: Resources
    claims: Mapping[str, Claim] = field(default_factory=dict)
    multiplicity: Multiplicity = field(default_factory=Multiplicity)
    cells: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """of each arm of the factorial, its level of each factor"""
    confounds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """of each arm, what it is declared to change beside what it is about"""
    design: Design | None = None
    """None: all seeds run, and are looked at once"""

    def config(self, arm: str, seed: int) -> TrainConfig:
        """The whole configuration of one run."""
        return override(self.base, {**self.arms[arm], "seed": seed})

    def to_json(self) -> dict[str, Any]:
        """The resolved study in JSON types."""
        return {
            "name": self.name,
            "recipe": self.recipe,
            "seeds": list(self.seeds),
            "arms": {arm: dict(change) for arm, change in self.arms.items()},
            "hypotheses": {i: h.model_dump(mode="json") for i, h in self.hypotheses.items()},
            "claims": {i: c.model_dump(mode="json") for i, c in self.claims.items()},
            "multiplicity": self.multiplicity.model_dump(mode="json"),
            "gates": {i: g.model_dump(mode="json") for i, g in self.gates.items()},
            "design": self.design and self.design.model_dump(mode="json"),
            "resources": self.resources.model_dump(mode="json"),
        }
