"""Pictures of what [CLS] attends to, in MLflow: one of each of some steps of a run.

MLflow names a picture anew each time it logs one, so that what is logged again is there twice. Here
the name is made of the run and the step: whoever logs it again writes the same file.
"""

import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_IMAGES
from PIL import Image

from dashboards.figures import tiles
from dashboards.figures.tiles import Pixels
from dashboards.tables.maps import pixels_of
from orchestrator.tracking.runs import PICTURES, MlflowRun, StudyRuns
from orchestrator.tracking.scratch import written_here
from trainers.runs.maps import KeptMaps
from trainers.runs.stored_trial import StoredTrial

NAME = "cls_attention"

FOLDER = "images"
"""Of artifacts, in which MLflow looks for pictures by step."""

_SIDE, _GAP, _ACROSS = 96, 4, 4
"""pixels of a tile, and between two; images beside each other"""


def log_pictures(
    client: MlflowClient, runs: StudyRuns, trial: StoredTrial, lacking: Sequence[MlflowRun]
) -> None:
    """Log pictures by step to those runs of a trial that lack them, and that they are there.

    Raises InputError, one line, when a file of maps is damaged or this machine has no space, and
    whatever MLflow raises.
    """
    result = trial.finished()
    maps = {} if result is None else trial.maps(result)
    shown = {step: one for step, one in maps.items() if len(one.attention)}
    images = {}
    if shown:
        first = next(iter(shown.values()))
        pixels = pixels_of(maps.values(), first.images.tolist())
        images = {step: picture(pixels, kept) for step, kept in shown.items()}
    for run in lacking:
        if images:
            with tempfile.TemporaryDirectory(prefix="dinolab-") as scratch:
                with written_here(f"pictures of {trial.shown}"):
                    for step, image in images.items():
                        _save(image, Path(scratch), run, step)
                client.log_artifacts(run.run_id, scratch, FOLDER)
        shows = {MLFLOW_LOGGED_IMAGES: "True"} if images else {}
        runs.tag(run, {PICTURES: f"{run.end} {len(images)}", **shows})


def _save(image: Image.Image, folder: Path, run: MlflowRun, step: int) -> None:
    """Under the names by which MLflow shows it."""
    stem = f"{NAME}+step+{step}+timestamp+{run.started + step}+{_identity(step)}"
    image.save(folder / f"{stem}.png")
    # What MLflow shows until somebody opens the picture.
    image.save(folder / f"{stem}+compressed.webp", quality=80)


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
