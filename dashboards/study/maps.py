"""Where [CLS] looks: maps of the same images for every arm of a study, and over training."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dashboards.figures import tiles
from dashboards.figures.sheets import Band, Column, Sheet
from dashboards.figures.tiles import Map
from dashboards.tables.maps import StudyMaps
from trainers.runs.maps import KeptMaps

FEW, MANY = 4, 2
"""Images that are shown of at most FEW_ARMS arms, and of more; over training half as many."""

FEW_ARMS = 12

Of = Callable[[KeptMaps], Map | None]
"""Some maps of those that a run has kept, [b, rows, columns]; None if it has none of that kind."""

COLUMNS = (
    "arm",
    "at",
    "image",
    "patches",
    f"that hold {tiles.MASS:.0%} of the map",
    "largest weight, uniform = 1",
)
"""Of the table that has the numbers of a sheet."""


def every_sheet(maps: StudyMaps | None) -> dict[str, Sheet]:
    """All sheets by name, in the order in which a report shows them; none without maps."""
    if maps is None:
        return {}
    few = FEW if len(maps.arms) <= FEW_ARMS else MANY
    sheets = {
        "attention_by_arm": _by_arm(
            maps, few, "Attention of the last block",
            "What [CLS] attends to in the last block, mean over heads.", attention,
        ),
        "attention_over_training": _over_training(maps, few // 2),
        "rollout_by_arm": _by_arm(
            maps, few, "Rollout",
            "What [CLS] attends to through all blocks, by attention rollout.",
            lambda kept: kept.rollout,
        ),
        "influence_by_arm": _by_arm(
            maps, few, "Influence",
            "How much replacing each patch changes the output of [CLS].",
            lambda kept: kept.influence,
        ),
    }  # fmt: skip
    return {name: sheet for name, sheet in sheets.items() if len(sheet.pixels)}


def attention(kept: KeptMaps) -> Map | None:
    """That of the last block, [b, rows, columns]; None without a [CLS]."""
    return kept.attention[-1] if len(kept.attention) else None


def rows_of(sheet: Sheet) -> list[list[str | int | float | None]]:
    """The numbers of a sheet, a row for each map; columns as COLUMNS."""
    return [
        [
            column.arm,
            column.at,
            number,
            values.size,
            tiles.holding(values) if tiles.is_map(values) else None,
            float(values.max() * values.size) if tiles.is_map(values) else None,
        ]
        for band in sheet.bands
        for column in band.columns
        for number, values in enumerate(column.maps, 1)
    ]


def shown_sheets(sheets: Mapping[str, Sheet]) -> dict[str, dict[str, Any]]:
    """Sheets as the page shows them: small files in place of maps, and words for each column."""
    return {
        name: {
            "title": sheet.title,
            "caption": sheet.caption,
            "numbers": range(1, len(sheet.pixels) + 1),
            "bands": [
                {"name": band.name, "columns": [_shown(one, sheet) for one in band.columns]}
                for band in sheet.bands
            ],
        }
        for name, sheet in sheets.items()
    }


def photographs(sheets: Mapping[str, Sheet]) -> list[tuple[str, str]]:
    """The images in colour, and in grey to lie under maps, as addresses; each is there once."""
    return [
        (_address("webp", tiles.picture(one)), _address("webp", tiles.picture(tiles.grey(one))))
        for one in max((sheet.pixels for sheet in sheets.values()), key=len, default=())
    ]


def heat() -> str:
    """The colours of maps from the least to the most, as a gradient of CSS."""
    return ", ".join(tiles.colours())


def _by_arm(maps: StudyMaps, few: int, title: str, caption: str, of: Of) -> Sheet:
    """A column for each arm, at its newest step."""
    columns = [
        _column(arm, arm, max(steps), steps[max(steps)], of, few, maps.notes[arm])
        if steps
        else Column(arm, arm, "", (), maps.notes[arm])
        for arm, steps in maps.arms.items()
    ]
    return _sheet(maps, title, caption, [Band("", columns)])


def _over_training(maps: StudyMaps, few: int) -> Sheet:
    """A band for each arm, a column for each step."""
    bands = []
    for arm, steps in maps.arms.items():
        note = maps.notes[arm]
        columns = [
            _column(f"step {step}", arm, step, kept, attention, few, "")
            for step, kept in steps.items()
        ] or [Column("", arm, "", (), note)]
        bands.append(Band(f"{arm} ({note})" if steps and note else arm, columns))
    caption = "What [CLS] attends to in the last block, mean over heads, as each arm is trained."
    return _sheet(maps, "Over training", caption, bands)


def _column(
    name: str, arm: str, step: int, kept: KeptMaps, of: Of, few: int, note: str
) -> Column:  # fmt: skip
    found = of(kept)
    if found is None:
        why = "not measured" if len(kept.attention) else "no [CLS]"
        note = f"{note}, {why}" if note else why
    return Column(name, arm, f"step {step}", () if found is None else tuple(found[:few]), note)


def _sheet(maps: StudyMaps, title: str, caption: str, bands: Sequence[Band]) -> Sheet:
    # Influence is measured of fewer images than others.
    shown = max(len(column.maps) for band in bands for column in band.columns)
    return Sheet(title, caption, tuple(maps.pixels[:shown]), bands)


def _shown(column: Column, sheet: Sheet) -> dict[str, Any]:
    """Of a column its name, the files of its maps, and what a person who sees none is told."""
    files = [
        _address("png", tiles.overlay(values)) if tiles.is_map(values) else ""
        for values in column.maps
    ]
    held = [tiles.holding(values) for values in column.maps if tiles.is_map(values)]
    said = f"{column.arm}, {column.at}" if column.at else column.arm
    if held:
        said += (
            f": {tiles.MASS:.0%} of the map lies on {', '.join(map(str, held))} of "
            f"{column.maps[0].size} patches"
        )
    return {
        "name": column.name,
        "arm": column.arm,
        "note": column.note,
        "said": f"{said}: {column.note}" if column.note else said,
        "files": [*files, *[""] * (len(sheet.pixels) - len(files))] if held else [],
    }


def _address(kind: str, content: bytes) -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")
