"""One measurement of a ViT -> a folder: `metrics.parquet`, `summary.json`, figures, `report.html`.

The folder appears whole or not at all. Nothing here needs Ray, MLflow, pandas or plotly.
"""

import base64
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from dashboards.figures.blocks import Series
from dashboards.measurement.figures import figures
from dashboards.measurement.maps import MAPS, content_of
from dashboards.measurement.table import (
    DRAWN,
    MEASURES,
    REPLACED,
    by_head,
    columns,
    flow_table,
    headline,
    honest_notes,
    number,
    of_blocks,
    replaced_table,
)
from dashboards.names import split_metric
from dashboards.page import rendered
from trainers.errors import InputError
from trainers.globality.measurable import Measurable
from trainers.globality.measurement import SHOWN, Measurement, Plan

METRICS, SUMMARY, REPORT = "metrics.parquet", "summary.json", "report.html"

_TEMPLATE = Path(__file__).with_name("report.html.jinja")

CAPTIONS = {
    "by_layer": "Attention by block: means over heads (lines) and the range of heads (bands). "
    "Dotted: on images whose patches are shuffled, where nothing is left but position and the "
    "content of single patches.",
    "heads": "Every head. Bottom left: on few patches close together; top left: on few patches far "
    "apart; top right: everywhere.",
    "distance": "Mean attention distance of every head by block (after Dosovitskiy et al. 2021, "
    "figure 11), over that of uniform attention, without attention to the query's own patch. "
    "Dashed: uniform attention.",
    "maps": "What {query} looks at: attention of the last blocks (mean over heads), rollout, and "
    "how much replacing each patch changes its output. The white line holds 60 % of a map. Colours "
    "go from the least to the largest weight of each map, or over the weight of uniform attention "
    "where they differ by less: compare shapes, not brightness.",
    "maps_of_heads": "What {query} looks at in each head of the final block, given that it looks "
    "at patches; drawn as above.",
    "tokens": "Patch tokens: their norms after the last blocks, each block on one scale for all "
    "images (from and to above it; tokens that stand out are outliers), and the three first "
    "principal components of what the network gives for the patches of all images, as red, green "
    "and blue: patches of one colour are alike.",
}


def check_folder(folder: Path) -> None:
    """Raise InputError when nothing can be written to `folder`: it is there and not empty."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"--out {folder}: there is a file; give a folder that is new or empty")
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"--out {folder}: the folder is not empty; give one that is new or empty")
    above = folder.absolute().parent
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise InputError(f"--out {folder}: {above} is no folder")
    try:
        with tempfile.TemporaryDirectory(dir=above):
            pass
    except OSError as error:
        raise InputError(f"--out {folder} cannot be written: {error.strerror or error}") from error


def write_measurement(
    folder: Path,
    model: Measurable,
    plan: Plan,
    found: Measurement,
    *,
    facts: Mapping[str, Any],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write everything to `folder`, which appears whole or not at all.

    `facts` go into `summary.json` as they are, and their leaves into the report. `check` is called
    now and then, and may raise to end the writing. Raises InputError when `folder` is not empty or
    cannot be written.
    """
    check_folder(folder)
    made = figures(
        found.metrics,
        found.maps,
        model=f"{model.name}, {model.weights}" + (": NOT TRAINED" if model.is_random else ""),
        primary=plan.primary,
        grid=plan.grid,
        patch_size=model.patch_size,
        check=check,
    )
    notes = honest_notes(model, plan, found.metrics)
    page = _page(model, plan, found, facts, notes, made)
    summary = {
        **facts,
        "notes": notes,
        "metrics": {
            name: None if math.isnan(value) else value
            for name, value in sorted(found.metrics.items())
            if "@" not in name
        },
    }
    folder = folder.absolute()
    staged = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        pq.write_table(long_table(model.name, found.metrics), staged / METRICS, compression="zstd")
        text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (staged / SUMMARY).write_text(text, encoding="utf-8")
        (staged / REPORT).write_text(page, encoding="utf-8")
        (staged / MAPS).write_bytes(content_of(found.maps, plan.grid))
        (staged / "figures").mkdir()
        for name, content in made.items():
            (staged / "figures" / f"{name}.png").write_bytes(content)
        check()
        staged.chmod(0o755)
        staged.rename(folder)
    except OSError as error:
        raise InputError(f"--out {folder} cannot be written: {error.strerror or error}") from error
    finally:
        if staged is not None and staged.exists():
            shutil.rmtree(staged, ignore_errors=True)


def long_table(model: str, metrics: Mapping[str, float]) -> pa.Table:
    """Every value as a row: model, metric, layer, head, token, value, named as in results.parquet.

    Rows are in order of metric, layer and head.
    """
    parts = [(*split_metric(name), value) for name, value in metrics.items()]
    parts.sort(key=lambda part: (part[0], part[1] or 0, part[2] or 0))
    schema = pa.schema(
        [
            pa.field("model", pa.string(), nullable=False),
            pa.field("metric", pa.string(), nullable=False),
            pa.field("layer", pa.int64()),
            pa.field("head", pa.int64()),
            pa.field("token", pa.string()),
            pa.field("value", pa.float64(), nullable=False),
        ]
    )
    filled = [[model] * len(parts), *(list(column) for column in zip(*parts, strict=True))]
    arrays = [pa.array(v, type=f.type) for v, f in zip(filled, schema, strict=True)]
    return pa.table(arrays, schema=schema)


def _page(
    model: Measurable,
    plan: Plan,
    found: Measurement,
    facts: Mapping[str, Any],
    notes: Sequence[str],
    made: Mapping[str, bytes],
) -> str:
    query = found.maps.query
    return rendered(
        _TEMPLATE,
        {"number": number},
        model=model,
        plan=plan,
        notes=notes,
        facts=_flat(facts),
        columns=columns(model),
        rows=headline(found.metrics),
        measures=MEASURES,
        flows=flow_table(found.metrics),
        replaced=replaced_table(found.metrics),
        replaced_caption=REPLACED,
        blocks=of_blocks(found.metrics),
        figures=[
            (
                name,
                CAPTIONS[name].format(query=query),
                Markup(base64.b64encode(content).decode("ascii")),
            )
            for name, content in made.items()
        ],
        drawn=DRAWN.values(),
        heads=by_head(Series(found.metrics)),
        shown=min(SHOWN, len(plan.places)),
    )  # fmt: skip


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in facts.items():
        title = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            found += _flat(value, f"{title}: ")
        elif isinstance(value, (list, tuple)):
            found.append((title, ", ".join(map(str, value))))
        else:
            found.append((title, str(value)))
    return found
