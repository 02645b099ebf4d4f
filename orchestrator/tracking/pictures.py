"""Pictures of what [CLS] attends to, in MLflow: one of each of some steps of a run.

MLflow names a picture anew each time it logs one, so that what is logged again is there twice. Here
the name is made of the run and the step: whoever logs it again writes the same file.
"""

import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES
from PIL import Image

from dashboards.figures import tiles
from dashboards.figures.tiles import Pixels
from dashboards.tables.maps import pixels_of
from orchestrator.tracking.runs import MlflowRun
from trainers.runs.maps import KeptMaps
from trainers.runs.stored_trial import StoredTrial

NAME = "cls_attention"

FOLDER = "images"
"""Of artifacts, in which MLflow looks for pictures by step."""

_SIDE, _GAP, _ACROSS = 96, 4, 4
"""pixels of a tile, and between two; images beside each other"""


def log_pictures(
    client: MlflowClient, run: MlflowRun, trial: StoredTrial, result: Mapping[str, Any] | None
) -> dict[str, str]:
    """Log pictures by step to a run that has a result; the tag that lets MLflow show them.

    Raises InputError, one line, when a file of maps is damaged.
    """
    maps = {} if result is None else trial.maps(result)
    shown = {step: one for step, one in maps.items() if len(one.attention)}
    if not shown:
        return {}
    first = next(iter(shown.values()))
    pixels = pixels_of(maps.values(), first.images.tolist())
    with tempfile.TemporaryDirectory(prefix="dinolab-") as scratch:
        for step, kept in shown.items():
            image = picture(pixels, kept)
            stem = f"{NAME}+step+{step}+timestamp+{run.started + step}+{_identity(step)}"
            image.save(Path(scratch, f"{stem}.png"))
            # What MLflow shows until somebody opens the picture.
            image.save(Path(scratch, f"{stem}+compressed.webp"), quality=80)
        client.log_artifacts(run.run_id, scratch, FOLDER)
    return {MLFLOW_LOGGED_IMAGES: "True"}


def picture(pixels: Pixels, maps: KeptMaps) -> Image.Image:
    """Each image, and below it what [CLS] attends to in the last block."""
    rows = []
    for start in range(0, len(pixels), _ACROSS):
        some = range(start, min(start + _ACROSS, len(pixels)))
        blank = [np.full((_SIDE, _SIDE, 3), tiles.PAPER, np.uint8)] * (_ACROSS - len(some))
        rows.append([tiles.sized(pixels[one], _SIDE) for one in some] + blank)
        looked = [tiles.tile(pixels[one], maps.attention[-1, one], _SIDE) for one in some]
        rows.append(looked + blank)
    return Image.fromarray(tiles.sheet(rows, _GAP))


def _identity(step: int) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{NAME} {step}")
