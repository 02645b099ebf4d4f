"""A sequential design: when hypotheses are looked at before all seeds are there."""

from typing import Annotated, Literal

from pydantic import Field

from ablations.spec import Declared

Spending = Literal["obf", "pocock", "e-process"]


class Design(Declared):
    """A sequential design: at how many seeds hypotheses are looked at, and what each look costs."""

    looks: Annotated[tuple[int, ...], Field(min_length=1)] = Field(
        description="numbers of seeds, ascending; the last is all of them"
    )
    spending: Spending = Field(
        description="how alpha is spent over the looks; e-process: valid however often is looked"
    )
    futility: Literal["", "equivalence"] = Field(
        "", description="equivalence: what is shown to be equivalent at a look is decided by it"
    )
