"""Which family a hypothesis is in."""

from collections.abc import Mapping

from ablations.spec import Claim, Hypothesis, Multiplicity

UNCLAIMED = "primary"
"""Family of hypotheses that no claim names."""

WHOLE_STUDY = "study"
"""Family of all hypotheses, where they are adjusted over the study."""


def in_families(
    hypotheses: Mapping[str, Hypothesis],
    claims: Mapping[str, Claim],
    multiplicity: Multiplicity,
) -> dict[str, Hypothesis]:
    """The same hypotheses, each with a family; one that the file gives is kept."""

    def family(name: str) -> str:
        if multiplicity.over == "study":
            return WHOLE_STUDY
        first = next((i for i, claim in claims.items() if name in claim.hypotheses), UNCLAIMED)
        # Both halves of a crossing must be shown, so that each is tested at alpha.
        return name if first in claims and claims[first].crossing else first

    return {
        name: one if one.family else one.model_copy(update={"family": family(name)})
        for name, one in hypotheses.items()
    }


def within_claims(
    hypotheses: Mapping[str, Hypothesis], claims: Mapping[str, Claim]
) -> dict[str, Hypothesis]:
    """The same hypotheses, where those that are in the family of the whole study are not."""
    freed = {
        name: one.model_copy(update={"family": ""}) if one.family == WHOLE_STUDY else one
        for name, one in hypotheses.items()
    }
    return in_families(freed, claims, Multiplicity(over="claim"))
