"""Every knob as text, for lists that people read."""

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel

from trainers.config.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One knob: its dotted name, type, range, default, unit, meaning and source."""

    name: str
    type: str
    allowed: str
    default: object
    unit: str
    description: str
    source: str


def knobs(group: type[BaseModel] = TrainConfig, prefix: str = "") -> Iterator[Knob]:
    """Every knob of `group`, depth first, in the order in which the fields stand."""
    for name, field in group.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from knobs(annotation, f"{prefix}{name}.")
            continue
        notes = typing.cast(dict[str, str], field.json_schema_extra)
        yield Knob(
            name=prefix + name,
            type=_type_of(annotation),
            allowed=_range_of(annotation, field.metadata),
            default=field.default,
            unit=notes["unit"],
            description=field.description or "",
            source=notes["source"],
        )


def _type_of(annotation: Any) -> str:
    if typing.get_origin(annotation) is Annotated:
        return _type_of(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is Literal:
        return "choice"
    if typing.get_origin(annotation) is tuple:
        inside = typing.get_args(annotation)
        shown = [_type_of(part) for part in inside if part is not Ellipsis]
        return f"{shown[0]}, ..." if Ellipsis in inside else ", ".join(shown)
    return str(annotation.__name__)


def _range_of(annotation: Any, metadata: list[Any]) -> str:
    """What a value may be, as text: choices, or bounds such as `>= 0, < 1`."""
    if typing.get_origin(annotation) is Literal:
        return " | ".join(typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        inside = typing.get_args(annotation)[0]
        return _range_of(*_unpacked(inside))
    bounds = []
    for part in metadata:
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            if (bound := getattr(part, name, None)) is not None:
                bounds.append(f"{sign} {bound:g}")
    if annotation is bool:
        return "true | false"
    return ", ".join(bounds)


def _unpacked(annotation: Any) -> tuple[Any, list[Any]]:
    """An annotation without its `Annotated`, and pydantic's constraints in it."""
    if typing.get_origin(annotation) is not Annotated:
        return annotation, []
    inner, *extra = typing.get_args(annotation)
    return inner, [one for part in extra for one in getattr(part, "metadata", [part])]
