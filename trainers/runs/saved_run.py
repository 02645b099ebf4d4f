"""A run that is on disk, measured again: other evaluation knobs, or other images."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch
from pydantic import ValidationError

from trainers.config import TrainConfig, explain, fingerprint, override
from trainers.config.size import remedy_of_evaluation
from trainers.data.image_set import ImageSet
from trainers.errors import CheckpointError, ConfigError, InputError, first_line
from trainers.evaluation.evaluate import Metrics, Progress, evaluate
from trainers.model.vit import VisionTransformer
from trainers.runs.stored_trial import digest_of_file, read_manifest
from trainers.system.memory import memory_explained
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.state import TrainState

CONFIG_NAME = "config.json"
CHANGEABLE = "evaluation."
"""What the knobs begin with that may differ from those a checkpoint was trained with."""


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """A checkpoint, and how it was trained and is to be measured."""

    checkpoint: Path
    step: int
    """updates done when it was saved"""
    trained: TrainConfig
    measured: TrainConfig
    """the same but for the evaluation and the source of images"""

    @property
    def name(self) -> str:
        """Of its folder, or of that in which the checkpoint lies alone."""
        folder = self.checkpoint.absolute().parent
        return (folder.parent.parent if folder.parent.name == "attempts" else folder).name


def find_run(
    path: Path, *, data: str | None = None, change: Mapping[str, Any] | None = None
) -> SavedRun:
    """The run at `path`: a checkpoint, the folder it lies in, or the folder of the run.

    Of a folder with several checkpoints, it is the last.

    The configuration is read from the `config.json` beside the checkpoint, or one or two folders
    above.
    `data` replaces the source of images, `change` knobs of the evaluation. Raises InputError, one
    line, when there is no checkpoint or configuration, when they cannot be read or do not belong
    together; ConfigError for a knob that does not exist, does not fit or is not the evaluation's.
    """
    saved = _checkpoint_at(path)
    trained = _configuration_of(saved)
    try:
        belongs = checkpoint.saved_fingerprint(saved) == fingerprint(trained)
        step = checkpoint.saved_step(saved)
    except CheckpointError as error:
        raise InputError(f"checkpoint {saved} cannot be read: {error.__cause__}") from error
    _refuse_changed(saved)
    if not belongs:
        raise InputError(
            f"checkpoint {saved} was saved under another configuration than the {CONFIG_NAME} "
            "near it, or by another version of dinolab"
        )
    for name in change or {}:
        if not name.startswith(CHANGEABLE):
            raise ConfigError(
                f"{name}: a trained network can only be measured otherwise; "
                f"knobs of {CHANGEABLE}* may change"
            )
    source = {} if data is None else {"data.source": data}
    measured = override(trained, {**(change or {}), **source})
    return SavedRun(checkpoint=saved, step=step, trained=trained, measured=measured)


def evaluate_run(
    run: SavedRun, images: ImageSet, device: torch.device, progress: Progress | None = None
) -> Metrics:
    """Every metric of the run on held-out images, by name; probes too, whatever the step.

    `images` are those of `run.measured.data`; `progress` is called with images done and all.
    Raises CheckpointError when the tensors in the file are damaged.
    """
    state = load_run(run, device)
    with memory_explained("an evaluation", remedy_of_evaluation(run.measured.evaluation)):
        return evaluate(state, images, run.measured, progress=progress, thorough=True)


def load_run(run: SavedRun, device: torch.device) -> TrainState:
    """The networks of the run, on `device`. Raises CheckpointError when the file is damaged."""
    with _damage_explained(run):
        alone = World(rank=0, size=1, device=device)
        return checkpoint.load(run.checkpoint, run.trained, alone, _classes_in(run.checkpoint))


def run_backbone(
    run: SavedRun, network: Literal["teacher", "student"] = "teacher"
) -> VisionTransformer:
    """The backbone of one of the run's networks, frozen, on the CPU.

    Raises CheckpointError when the file is damaged.
    """
    config = run.trained
    with _damage_explained(run):
        state = checkpoint.backbone(run.checkpoint, config, network)
        masks = "mask" in state
        backbone = VisionTransformer(config.model, config.augment.global_size, masks=masks)
        backbone.load_state_dict(state)
    return backbone.requires_grad_(False).eval()


@contextlib.contextmanager
def _damage_explained(run: SavedRun) -> Iterator[None]:
    try:
        yield
    except (KeyError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"checkpoint {run.checkpoint} is damaged: {first_line(error)}"
        ) from error


def _checkpoint_at(path: Path) -> Path:
    if path.is_file() or checkpoint.is_checkpoint(path):
        return path
    found = checkpoints_in(path)
    if found:
        # Of those that cannot be read one, so that whoever opens it says what is wrong. Of one step
        # that of the last attempt: it passed over another if that is damaged.
        return max(reversed(found), key=_step_of)
    if not path.exists():
        raise InputError(f"{path} is not there: give a checkpoint, or the folder of a run")
    raise InputError(f"{path} holds no checkpoint, nor does {path / 'attempts'}")


def _refuse_changed(saved: Path) -> None:
    """Raises InputError where a manifest lies beside a checkpoint that is not what it says."""
    manifest = saved.with_suffix(".json")
    if not manifest.is_file():
        return
    state = read_manifest(0, manifest.read_bytes())
    if state is None or any(
        not (saved.parent / name).is_file() or digest_of_file(saved.parent / name) != digest
        for name, digest in state.files.items()
    ):
        raise InputError(
            f"checkpoint {saved} is damaged: it is not what {manifest.name} beside it says; "
            "restore the file, or give another checkpoint"
        )


def checkpoints_in(path: Path) -> list[Path]:
    """The checkpoints in a folder of them, or of all attempts where it is the folder of a run."""
    folders = (path, *sorted(path.glob("attempts/*")))
    return [one for folder in folders for one in checkpoint.of_steps(folder)]


def _step_of(path: Path) -> int:
    try:
        return checkpoint.saved_step(path)
    except CheckpointError:
        return -1


def _configuration_of(saved: Path) -> TrainConfig:
    folders = saved.absolute().parents[:3]
    for place in (folder / CONFIG_NAME for folder in folders):
        if place.is_file():
            try:
                return TrainConfig.model_validate_json(place.read_bytes())
            except ValidationError as error:
                raise InputError(f"{place}: {'; '.join(explain(error))}") from error
    raise InputError(
        f"no {CONFIG_NAME} in {folders[0]} or the two above it: a checkpoint needs its own"
    )


def _classes_in(saved: Path) -> int:
    """How many classes the saved classifier tells apart; 0 without one."""
    shape = checkpoint.saved_shape(saved, "student.classifier.weight")
    return 0 if shape is None else shape[0]
