"""What the verdicts on hypotheses say about the claims they were derived from."""

import types
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablations.spec import Claim, Hypothesis
from ablations.statistics.multiplicity import holm_over_groups
from ablations.verdicts.rule import Label

ALL: tuple[Label, ...] = (
    "refuted", "equivalent", "failed", "insensitive", "inconclusive", "supported",
)  # fmt: skip
"""Under `all` the first of these that a hypothesis has. One that is not so decides the claim,
whatever is unknown of the others."""

ANY: tuple[Label, ...] = (
    "supported", "failed", "insensitive", "inconclusive", "refuted", "equivalent",
)  # fmt: skip
"""The same under `any`: one that is so decides it, and it is not so only if none can be."""

_NONE: Mapping[str, float | None] = types.MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class ClaimVerdict:
    """The label of a claim, and the line that says why."""

    label: Label
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Fields by name."""
        return asdict(self)


def judge_claims(
    claims: Mapping[str, Claim],
    hypotheses: Mapping[str, Hypothesis],
    labels: Mapping[str, Label],
    p: Mapping[str, float | None] = _NONE,
) -> dict[str, ClaimVerdict]:
    """A verdict for each claim by its declared rule, from the labels of its hypotheses.

    `all`: the first of ALL that any has; no adjustment is needed, since every one must be
    supported. `any`: the first of ANY that one has, once p-values are adjusted over `alternatives`,
    what could each have made it supported. A name: the label of that hypothesis.

    Args:
        claims: what hypotheses decide together, by name.
        hypotheses: all of them, by name.
        labels: the label of each.
        p: what being supported rests on: for `holds` the p of equivalence, else the p adjusted
            within the family; None for one that failed, which counts as 1. Without it nothing is
            adjusted.
    """
    return {name: _verdict(claim, hypotheses, labels, p) for name, claim in claims.items()}


def _verdict(
    claim: Claim,
    hypotheses: Mapping[str, Hypothesis],
    labels: Mapping[str, Label],
    p: Mapping[str, float | None],
) -> ClaimVerdict:
    found = {name: labels[name] for name in claim.hypotheses}
    said: dict[str, str] = dict(found)
    adjusted, count = _adjusted(claim, hypotheses, p) if claim.rule == "any" else ({}, 0)
    for name, value in adjusted.items():
        if found[name] == "supported" and value > hypotheses[name].alpha:
            found[name] = "inconclusive"
            said[name] = f"supported alone, but p {value:.2g} after Holm over {count}"
    order = ALL if claim.rule == "all" else ANY
    if claim.rule in ("all", "any"):
        label = next(label for label in order if label in found.values())
    else:
        label = labels[claim.rule]
    holds = {name for name in found if hypotheses[name].direction == "holds"}
    return ClaimVerdict(
        label=label,
        reason="; ".join(
            f"{name} {text}" + (" (no change was predicted)" if name in holds else "")
            for name, text in said.items()
        ),
    )


def alternatives(names: Sequence[str], hypotheses: Mapping[str, Hypothesis]) -> list[list[int]]:
    """Places of `names` that are adjusted together: what could each make `any` of them so.

    A family is one, since its p-values are adjusted for all of it. Each that predicts no change is
    one, and each secondary one: Benjamini-Hochberg does not bound the chance of a single error.
    """
    groups: dict[tuple[bool, str], list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        one = hypotheses[name]
        alone = one.direction == "holds" or one.secondary
        groups[alone, name if alone else one.family].append(place)
    return list(groups.values())


def _adjusted(
    claim: Claim, hypotheses: Mapping[str, Hypothesis], p: Mapping[str, float | None]
) -> tuple[dict[str, float], int]:
    """p of each hypothesis that has one, adjusted over its claim's alternatives; how many."""
    names = [name for name in dict.fromkeys(claim.hypotheses) if name in p]
    if not names:
        return {}, 0
    groups = alternatives(names, hypotheses)
    adjusted = holm_over_groups([_p(p, name) for name in names], groups).tolist()
    return dict(zip(names, adjusted, strict=True)), len(groups)


def _p(p: Mapping[str, float | None], name: str) -> float:
    value = p[name]
    return 1.0 if value is None else value
