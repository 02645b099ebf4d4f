"""What the verdicts on hypotheses say about the claims they were derived from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ablations.spec import Claim, Hypothesis
from ablations.verdicts.rule import Label


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
) -> dict[str, ClaimVerdict]:
    """A verdict for each claim by its declared rule, from the labels of its hypotheses.

    `all`: the first that is true of: failed, if any is; refuted, if any is; equivalent (no effect
    of the size claimed), if any that predicts an effect is; supported, if all are; inconclusive.
    `any`: supported, if any is; else failed, if any is; else inconclusive, if any is; else refuted,
    if any is; else equivalent. A name: the label of that hypothesis.
    """
    return {
        name: ClaimVerdict(
            label=_label(claim, labels),
            reason="; ".join(
                f"{one} {labels[one]}"
                + (" (no change was predicted)" if hypotheses[one].direction == "holds" else "")
                for one in claim.hypotheses
            ),
        )
        for name, claim in claims.items()
    }


def _label(claim: Claim, labels: Mapping[str, Label]) -> Label:
    found = [labels[name] for name in claim.hypotheses]
    order: tuple[Label, ...]
    if claim.rule == "all":
        order = ("failed", "refuted", "equivalent", "inconclusive", "supported")
    elif claim.rule == "any":
        order = ("supported", "failed", "inconclusive", "refuted", "equivalent")
    else:
        return labels[claim.rule]
    return next(label for label in order if label in found)
