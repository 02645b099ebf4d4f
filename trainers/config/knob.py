"""What a knob is: a checked field with its meaning, unit and source."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_YES_OR_NO = {"yes": True, "on": True, "no": False, "off": False}


def _yes_or_no(value: Any) -> Any:
    return _YES_OR_NO.get(value.lower(), value) if isinstance(value, str) else value


Switch = Annotated[bool, BeforeValidator(_yes_or_no)]
"""True or false, which may be written yes, no, on or off."""

Share = Annotated[float, Field(ge=0, le=1)]

Interval = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]

Place = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]

Coordinate = Annotated[float, Field(ge=-1, le=1)]

DINO = "Caron et al. 2021"

VIT = "Dosovitskiy et al. 2021"

OURS = "dinolab"


def knob(default: Any, meaning: str, *, unit: str = "", source: str, **constraints: Any) -> Any:
    """A field with its default, meaning, unit and source, and what pydantic checks of it."""
    notes: dict[str, Any] = {"unit": unit, "source": source}
    return Field(default, description=meaning, json_schema_extra=notes, **constraints)


class Knobs(BaseModel):
    """Base of every group of knobs: frozen, strict, no unknown names."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
