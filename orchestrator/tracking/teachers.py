"""The teacher of a run as a model in MLflow: `mlflow.pytorch.load_model("runs:/RUN_ID/teacher")`.

It is a graph of PyTorch operations with its weights (torch.export), no pickle: it needs PyTorch and
MLflow where it is opened, runs no code from its file, and gives the features that the teacher gave.
"""

import functools
import io
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from mlflow import MlflowClient, pyfunc
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.export import save as save_program

from orchestrator.tracking.experiment import ROOT
from orchestrator.tracking.runs import ARM, ENDED, KEY, STUDY, TEACHER, MlflowRun, StudyRuns
from orchestrator.tracking.scratch import written_here
from trainers.config import ModelConfig, TrainConfig
from trainers.errors import first_line, printable
from trainers.model.vit import VisionTransformer
from trainers.runs.origin import whole
from trainers.runs.saved_run import SavedRun, run_backbone
from trainers.runs.stored_trial import StoredTrial
from trainers.system.memory import is_out_of_memory
from trainers.system.store import Store

if TYPE_CHECKING:
    from typing_extensions import Buffer

_NAME = "teacher"
"""of the model in its run"""
_DATA = "data"
_NOT_KEPT = "none: its last checkpoint was not kept"

# Of caches that are looked through while the graph is made, and are not used.
warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")


class Teacher(nn.Module):
    """Images [B, 3, S, S], standardised by ImageNet's mean and deviation, to features [B, D].

    Those of [CLS] behind the last norm, or without one their mean over patches.
    """

    def __init__(self, backbone: VisionTransformer) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.backbone(images).image


def log_teacher(
    client: MlflowClient, runs: StudyRuns, store: Store, key: str, lacking: Sequence[MlflowRun]
) -> None:
    """Log the teacher of a trial to those of its runs that lack it, where it has been kept.

    Raises InputError, one line, when the checkpoint is damaged or this machine has no memory or
    space, and whatever MLflow raises.
    """
    trial = StoredTrial(store, key)
    result = trial.finished()
    if result is None:
        return
    with tempfile.TemporaryDirectory(prefix="dinolab-") as scratch:
        folder = Path(scratch, _NAME)
        with written_here(f"the teacher of {trial.shown}"):
            saved = _last_checkpoint(trial, result, Path(scratch))
            problem = _NOT_KEPT if saved is None else _write_graph(saved, folder)
        for run in lacking:
            what = problem
            if saved is not None and not problem:
                what = _log_model(client, runs, run, saved, folder)
            runs.tag(run, {TEACHER: f"{run.end} {what}"})


def _last_checkpoint(
    trial: StoredTrial, result: Mapping[str, Any], folder: Path
) -> SavedRun | None:
    """That of the result; None where it was not kept. Fetched into `folder` if need be."""
    names = {int(step): name for step, name in result.get("checkpoints", {}).items()}
    if not names:
        return None
    step = max(names)
    state = trial.state(int(PurePath(names[step]).parent.name), step)
    config = TrainConfig.model_validate_json(trial.config() or b"")
    path = whole(trial, state, folder)
    return SavedRun(checkpoint=path, step=step, trained=config, measured=config)


def _write_graph(saved: SavedRun, folder: Path) -> str:
    """Write the graph into the folder of a model; returns why there can be none, in words."""
    config = saved.trained
    if config.model.cls_position == "random":
        return "none: where its [CLS] stands is drawn for each image"
    parameters = dict(run_backbone(saved).named_parameters())
    model = config.model.model_copy(update={"weights": ""})
    try:
        graph = _graph(model.model_dump_json(), config.augment.global_size, "mask" in parameters)
    except Exception as error:
        if isinstance(error, OSError) or is_out_of_memory(error):
            raise
        return f"none: torch.export refuses it ({printable(first_line(error))[:200]})"
    (folder / _DATA).mkdir(parents=True)
    own = {f"backbone.{name}": parameter for name, parameter in parameters.items()}
    graph.state_dict.update(own)
    with (folder / _DATA / "model.pt2").open("wb") as file:
        written = _Written(file)
        save_program(graph, written)
        written.close()
    graph.state_dict.update(dict.fromkeys(own, _NOTHING))
    return ""


class _Written(io.BytesIO):
    """What is written to it goes into `file`; an error of that comes when it is closed.

    PyTorch ends the whole process where a write fails, as on a full disk.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._error: OSError | None = None

    def write(self, content: "Buffer") -> int:
        """Never raises."""
        size = memoryview(content).nbytes
        try:
            if self._error is None:
                self._file.write(content)
        except OSError as error:
            self._error = error
        return size

    def close(self) -> None:
        """Raises the first OSError there was."""
        super().close()
        if self._error is not None:
            raise self._error


_NOTHING = nn.Parameter(torch.empty(0), requires_grad=False)


@functools.cache
def _graph(model: str, size: int, masks: bool) -> ExportedProgram:
    """The graph of all teachers of that architecture, for any number of images of `size` pixels.

    It has no weights yet: it takes seconds to make, and every seed has the same.
    """
    config = ModelConfig.model_validate_json(model)
    backbone = VisionTransformer(config, size, masks=masks).requires_grad_(False).eval()
    # Strict: the number of images is read as a number, which becomes a constant otherwise.
    graph = export(
        Teacher(backbone).eval(),
        (torch.zeros(2, 3, size, size),),
        dynamic_shapes=({0: Dim.DYNAMIC},),
        strict=True,
    )
    for parameter in backbone.parameters():
        parameter.data = torch.empty(0)
    return graph


def _log_model(
    client: MlflowClient, runs: StudyRuns, run: MlflowRun, saved: SavedRun, folder: Path
) -> str:
    """The address of the model, which is whole, and an output of the run."""
    model_id = _own_model(client, runs, run, saved).model_id
    with written_here("the description of a teacher"):
        _write_description(saved, folder, run.run_id, model_id)
    client.log_model_artifacts(model_id, os.fspath(folder))
    client.finalize_logged_model(model_id, "READY")
    outputs = client.get_run(run.run_id).outputs
    if outputs is None or model_id not in [one.model_id for one in outputs.model_outputs]:
        client.log_outputs(run.run_id, [LoggedModelOutput(model_id, saved.step)])
    return f"models:/{model_id}"


def _own_model(
    client: MlflowClient, runs: StudyRuns, run: MlflowRun, saved: SavedRun
) -> LoggedModel:
    """The model of a run, made if need be. Those of runs that it has replaced are deleted.

    Of two the one with the lesser identifier stays, as of runs: all drivers choose the same one.
    """
    arm, key = run.name
    while True:
        found = client.search_logged_models([runs.experiment], f"tags.`{KEY}` = '{key}'")
        of_arm = sorted(
            (one for one in found if one.tags.get(ARM) == arm), key=lambda one: one.model_id
        )
        own = [
            one
            for one in of_arm
            if one.source_run_id == run.run_id and one.tags.get(ENDED) == run.tags[ENDED]
        ]
        for other in of_arm:
            if other not in own[:1]:
                client.delete_logged_model(other.model_id)
        if own:
            return own[0]
        client.create_logged_model(
            runs.experiment,
            _NAME,
            run.run_id,
            tags={**{tag: run.tags[tag] for tag in (ROOT, STUDY, ENDED)}, ARM: arm, KEY: key},
            params={"arm": arm, "seed": str(saved.trained.seed), "step": str(saved.step)},
        )


def _write_description(saved: SavedRun, folder: Path, run_id: str, model_id: str) -> None:
    """What MLflow has to know to open the model, and to say of it."""
    config, size = saved.trained, saved.trained.augment.global_size
    number = np.dtype("float32")
    images = TensorSpec(number, (-1, 3, size, size))
    features = TensorSpec(number, (-1, config.model.width))
    model = Model(
        run_id=run_id,
        model_id=model_id,
        signature=ModelSignature(Schema([images]), Schema([features])),
        metadata={"images": "RGB, standardised by ImageNet's mean and deviation"},
    )
    model.add_flavor("pytorch", model_data=_DATA, pytorch_version=str(torch.__version__), code=None)
    # A graph stays where it was made, which is the CPU.
    pyfunc.add_to_model(
        model, loader_module="mlflow.pytorch", data=_DATA, model_config={"device": "cpu"}
    )
    model.save(os.fspath(folder / "MLmodel"))
    (folder / "requirements.txt").write_text(f"mlflow\ntorch=={torch.__version__}\n")
