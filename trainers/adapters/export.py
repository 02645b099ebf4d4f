"""A trained backbone for other programs: a folder of timm's or Hugging Face's, or our own file."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch

from trainers.adapters.backbone_file import SavedBackbone, content_of, is_backbone_file
from trainers.adapters.hugging_face_models import WEIGHTS
from trainers.adapters.translation import for_hugging_face, for_timm, no_counterpart
from trainers.errors import CheckpointError, InputError, printable
from trainers.runs.saved_run import find_run, run_backbone
from trainers.system.atomic import replace

Form = Literal["timm", "huggingface", "safetensors"]

CARD = "README.md"
SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    path: Path
    origin: str
    """which network of which run, in words"""
    opens: str
    """a line of Python that opens it"""


def export(
    run: Path, form: Form, out: Path, network: Literal["teacher", "student"] = "teacher"
) -> Exported:
    """Write the backbone of a run, or of one of its checkpoints, to `out`, whole or not at all.

    `out` becomes a folder; with the form `safetensors` and a name that ends so, a file. Raises
    InputError, one line, when there is no such run, when `out` is there and not empty or cannot be
    written, when the backbone has parts that the form has not, or when the checkpoint is damaged.
    """
    check_out(out, form)
    if is_backbone_file(run) or is_backbone_file(run / WEIGHTS[0]):
        raise InputError(f"{run} is an exported backbone already: export the run that it came from")
    found = find_run(run)
    config = found.trained
    if form != "safetensors" and (problem := no_counterpart(config.model, form)):
        raise InputError(
            f"{run}: {problem}; --to safetensors keeps every part, and dinolab opens it"
        )
    try:
        backbone = run_backbone(found, network)
    except CheckpointError as error:
        raise InputError(printable(str(error))) from error
    origin = f"{network} of {found.name}, step {found.step} of {config.steps}"
    size = config.augment.global_size
    if form == "safetensors":
        saved = SavedBackbone(
            backbone=backbone,
            image_size=size,
            seed=config.seed,
            fixed_patch_place=config.loss.fixed_patch_place if config.loss.fixed_patch else None,
            origin=origin,
        )
        content = content_of(saved)
        if out.suffix == SUFFIX:
            with _explained(out):
                replace(out, content)
        else:
            with _whole_folder(out) as folder:
                replace(folder / WEIGHTS[0], content)
        file = out if out.suffix == SUFFIX else out / WEIGHTS[0]
        return Exported(path=out, origin=origin, opens=f'safetensors.torch.load_file("{file}")')
    tensors, files = (for_timm if form == "timm" else for_hugging_face)(
        backbone, size, config.data.resampled
    )
    opens = {
        "timm": f'timm.create_model("local-dir:{out}", pretrained=True)',
        "huggingface": f'transformers.AutoModel.from_pretrained("{out}")',
    }[form]
    with _whole_folder(out) as folder:
        content = safetensors.torch.save(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, {"format": "pt"}
        )
        replace(folder / WEIGHTS[0], content)
        for name, value in files.items():
            replace(folder / name, (json.dumps(value, indent=2) + "\n").encode())
        replace(folder / CARD, _card(origin, opens, size, form).encode())
    return Exported(path=out, origin=origin, opens=opens)


def check_out(out: Path, form: Form) -> None:
    """Raise InputError when nothing can be written to `out`: something is there."""
    if form == "safetensors" and out.suffix == SUFFIX:
        if out.exists() or out.is_symlink():
            raise InputError(f"--out {out}: it is there; give the name of a new file")
    elif out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"--out {out}: there is a file; give a folder that is new or empty")
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out}: the folder is not empty; give one that is new or empty")


def _card(origin: str, opens: str, size: int, form: Form) -> str:
    tokens = {
        "timm": "`model.forward_features(images)` gives",
        "huggingface": "`model(images).last_hidden_state` holds",
    }[form]
    pooler = (
        "\nIts pooler, if the class has one, is not trained: use the tokens, or open it with "
        "`add_pooling_layer=False`.\n"
        if form == "huggingface"
        else ""
    )
    return (
        f"# A vision transformer trained with DINO\n\n{origin}, exported by dinolab.\n\n"
        f"```python\nmodel = {opens}\n```\n\n"
        f"{tokens} [CLS] (if there is one), registers and patches, behind the last norm. Images: "
        f"the centred square at {size}×{size} pixels, standardised by ImageNet's mean and "
        f"deviation.\n{pooler}"
    )


@contextlib.contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder to be filled that becomes `out` when the block ends, and is gone after an error."""
    out = out.absolute()
    with _explained(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            yield staged
            staged.chmod(0o755)
            staged.rename(out)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


@contextlib.contextmanager
def _explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror or error}") from error
