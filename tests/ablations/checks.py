"""What every ablation must do, whoever wrote it; tests call these with one ablation each."""

import functools
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

import ablations.recipes
from ablations.library import Known, names_in
from ablations.spec import Ablation
from trainers.config import TrainConfig, diff, fingerprint, override
from trainers.config.recipe import recipe
from trainers.data.image_set import ImageSet, open_images
from trainers.metrics import EVALUATED, OF_THE_MACHINE
from trainers.system.world import World
from trainers.training.loop import train

TINY = override(
    TrainConfig(),
    {
        "steps": 2, "batch_size": 4, "log_every": 1, "augment.local_crops": 1,
        "model.width": 24, "model.heads": 2, "model.depth": 2, "model.initial_deviation": 0.1,
        "head.hidden": 8, "head.bottleneck": 8, "head.prototypes": 8,
        "optimizer.warmup_steps": 0, "optimizer.freeze_last_layer_steps": 0,
        "evaluation.every": 2, "evaluation.probes": False, "evaluation.globality_images": 4,
        "evaluation.globality_layers": [1],
    },
)  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """What a run reported, without times, and the tensors that it ended with."""

    records: list[tuple[int, dict[str, str]]]
    tensors: dict[str, Tensor]

    def same_as(self, other: "Ran") -> bool:
        return (
            self.records == other.records
            and self.tensors.keys() == other.tensors.keys()
            and all(torch.equal(one, other.tensors[name]) for name, one in self.tensors.items())
        )


@functools.cache
def few_images() -> ImageSet:
    """Some digits of every label."""
    images = open_images(TINY.data, Path("unused"))
    images.train, images.test = images.train[:40], images.test[:12]
    return images


def run(config: TrainConfig, folder: Path) -> Ran:
    """Two real steps, with what is measured before and after them."""
    torch.set_num_threads(1)
    records = []

    class Reporter:
        def report(self, step, metrics, *, checkpoint=None):
            kept = {k: v for k, v in metrics.items() if not k.startswith(OF_THE_MACHINE)}
            # NaN is not itself; its text is.
            if kept:
                records.append((step, {name: repr(value) for name, value in kept.items()}))

    result = train(
        config,
        images=few_images(),
        world=World(rank=0, size=1, device=torch.device("cpu")),
        reporter=Reporter(),
        checkpoints=folder,
        resume_from=None,
    )
    assert result.step == config.steps, result.reason
    (saved,) = folder.glob("*.safetensors")
    return Ran(records, safetensors.torch.load_file(saved))


def check_declaration(found: Ablation, name: str) -> None:
    """It says what it claims and where from, one arm has its name, metrics are there."""
    assert found.claim
    assert found.source
    assert name in found.arms
    for arm in found.arms.values():
        assert all(one.metric in EVALUATED for one in arm.expectations)
        assert all(one.by > 0 for one in arm.expectations)
        assert all(text == text.strip().rstrip(".") != "" for text in arm.confounds)


def check_change(found: Ablation) -> None:
    """Every arm changes what it says and nothing else, in every recipe it can be used with."""
    for recipe_name in names_in(ablations.recipes):
        base = override(recipe(recipe_name), found.base)
        assert not found.missing(base)
        for arm in found.arms.values():
            assert diff(base, override(base, arm.change)) == dict(arm.change)


def base_of(found: Ablation) -> TrainConfig:
    """A very small base for which the ablation makes sense."""
    return override(TINY, found.base)


_BASELINES: dict[str, Ran] = {}


def baseline(found: Ablation, folder: Path) -> Ran:
    """The baseline's run; ablations with the same base share it."""
    config = base_of(found)
    key = fingerprint(config)
    if key not in _BASELINES:
        _BASELINES[key] = run(config, folder / "baseline")
    return _BASELINES[key]


def check_runs(found: Ablation, folder: Path) -> None:
    """Every arm trains two steps, and is not the baseline after them."""
    before = baseline(found, folder)
    for name, arm in found.arms.items():
        after = run(override(base_of(found), arm.change), folder / name)
        assert not after.same_as(before), f"{name} changes nothing"


def check(known: Known, folder: Path) -> None:
    """All of it."""
    found = known.load()
    check_declaration(found, known.name)
    check_change(found)
    check_runs(found, folder)
