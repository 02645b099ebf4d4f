"""What a knob is: a checked field with its meaning, unit and source."""

import re
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

_YES_OR_NO = {"yes": True, "on": True, "no": False, "off": False}


def _yes_or_no(value: Any) -> Any:
    return _YES_OR_NO.get(value.lower(), value) if isinstance(value, str) else value


Switch = Annotated[bool, BeforeValidator(_yes_or_no)]
"""True or false, which may be written yes, no, on or off."""

_NUMBER = r"(\d+(?:\.\d*)?(?:e-?\d+)?|\.\d+)"
_EPOCHS = re.compile(rf"{_NUMBER} ?epochs?")
_PER_256 = re.compile(rf"{_NUMBER} ?per ?256")


class Epochs(str):
    """A length in passes over the training images, as `10 epochs`; no number of steps yet."""

    __slots__ = ()

    @property
    def number(self) -> float:
        """How many."""
        return float(self.split()[0])


class Per256(str):
    """A learning rate for a batch of 256 images, as `0.0005 per 256`; no rate of a step yet."""

    __slots__ = ()

    @property
    def number(self) -> float:
        """The rate for such a batch."""
        return float(self.split()[0])


def _epochs(value: Any, of_steps: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, str):
        return of_steps(value)
    if not (match := _EPOCHS.fullmatch(value)):
        raise ValueError("must be a whole number of steps, or written as `10 epochs`")
    number = float(match[1])
    if not number:
        return of_steps(0)
    return Epochs("1 epoch" if number == 1 else f"{number!r} epochs".replace(".0 ", " "))


def _per_256(value: Any, of_rate: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, str):
        return of_rate(value)
    if not (match := _PER_256.fullmatch(value)):
        raise ValueError("must be a number, or written as `0.0005 per 256`")
    number = float(match[1])
    return Per256(f"{number!r} per 256") if number else of_rate(number)


# As it is: pydantic warns of a text where the type says number.
_AS_IT_IS = PlainSerializer(lambda value: value)

IN_EPOCHS = WrapValidator(_epochs)
"""Of a number of steps: epochs will do too, until the data set is known."""

Steps = Annotated[int, Field(ge=1, le=10**9), IN_EPOCHS, _AS_IT_IS]
"""A number of steps above 0, or epochs."""

StepsOrNone = Annotated[int, Field(ge=0, le=10**9), IN_EPOCHS, _AS_IT_IS]
"""The same, or 0."""

LearningRate = Annotated[float, Field(gt=0), WrapValidator(_per_256), _AS_IT_IS]
"""A learning rate, or one for a batch of 256."""

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
