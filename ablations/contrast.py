"""Contrasts: which arms are compared, and with what weights."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Tag

BASELINE = "baseline"
"""Name of the arm that changes nothing."""


def _form_of_contrast(contrast: Any) -> str | None:
    if isinstance(contrast, dict):
        weights = contrast.values()
        return "<weights>" if all(type(one) in (int, float) for one in weights) else None
    is_list = isinstance(contrast, (list, tuple))
    return "<arms>" if is_list and all(isinstance(one, str) for one in contrast) else None


def weights_of(contrast: tuple[str, ...] | dict[str, float]) -> dict[str, float]:
    """The weight of each arm: 1 of the first, -1 of the second, or as given."""
    if isinstance(contrast, dict):
        return dict(contrast)
    return dict(zip(contrast, (1.0, -1.0), strict=False))


def sides_of(weights: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """The arms whose weight is above 0, and those whose is below, with its size."""
    first = {arm: weight for arm, weight in weights.items() if weight > 0}
    return first, {arm: -weight for arm, weight in weights.items() if weight < 0}


def problem_of(contrast: tuple[str, ...] | dict[str, float]) -> str:
    """What is wrong with a contrast, in words that follow its name; empty if it is one."""
    named = tuple(contrast)
    if isinstance(contrast, dict):
        good = bool(named) and all(contrast.values())
        return "" if good else "must give each arm a weight other than 0"
    if len(named) not in (1, 2):
        return (
            "must be [arm], [arm, arm it is compared with] or {arm: weight}, got "
            f"{len(named)} arms"
        )
    return f"compares {named[0]!r} with itself" if len(set(named)) < len(named) else ""


def side_text(side: Mapping[str, float], *, cells: bool) -> str:
    """One side of a contrast in words; empty without arms."""
    if cells and side:
        # The level that all these cells share; the baseline's has no part in their names.
        shared = set.intersection(*(set(arm.split("+")) for arm in side))
        level = "+".join(sorted(shared - {BASELINE})) or BASELINE
        return f"{level}, mean of {len(side)} cells"
    if len(side) > 3 and len(set(side.values())) == 1:
        return f"mean of {len(side)} arms"
    return " + ".join(arm if w == 1 else f"{w:.3g} {arm}" for arm, w in side.items())


Contrast = Annotated[
    Annotated[tuple[str, ...], Tag("<arms>")] | Annotated[dict[str, float], Tag("<weights>")],
    Discriminator(
        _form_of_contrast,
        custom_error_type="contrast",
        custom_error_message="must be [arm, arm it is compared with], [arm] or {arm: weight}",
    ),
]


def _form_of_control(control: Any) -> str | None:
    return "<name>" if isinstance(control, str) else _form_of_contrast(control)


Control = Annotated[
    Annotated[str, Tag("<name>")]
    | Annotated[tuple[str, ...], Tag("<arms>")]
    | Annotated[dict[str, float], Tag("<weights>")],
    Discriminator(
        _form_of_control,
        custom_error_type="control",
        custom_error_message="must be an arm, [arm, arm it is compared with] or {arm: weight}",
    ),
]
