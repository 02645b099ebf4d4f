"""Every knob is alive: another value makes another run.

A run is what it reports, the parameters it ends with, the operations and the sizes of tensors that
it takes, and the checkpoints it writes. A knob that changes none of these is dead, and fails here;
so does a new knob without an entry.

The same of a study: an arm that changes a knob has runs of its own with that knob, or is refused.
"""

import hashlib
import itertools
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

from ablations.spec import BASELINE, NOT_AN_ARMS
from ablations.study.loading import load_study
from orchestrator.plan import make_plan
from trainers.config import TrainConfig, diff, flatten, override
from trainers.config.idle import ALIVE_WITH, idle
from trainers.data.image_set import open_images
from trainers.errors import StudyError
from trainers.metrics import OF_THE_MACHINE
from trainers.runs.trial import trial_key
from trainers.system.world import World
from trainers.training.loop import train

BASE = override(
    TrainConfig(),
    {
        "steps": 4, "batch_size": 8, "log_every": 2, "checkpoint_every": 2,
        "model.width": 16, "model.heads": 2, "model.depth": 2, "model.initial_deviation": 0.1,
        "head.hidden": 8, "head.bottleneck": 8, "head.prototypes": 8,
        "optimizer.warmup_steps": 1, "optimizer.freeze_last_layer_steps": 1,
        "optimizer.clip_norm": 0.001, "evaluation.every": 4, "evaluation.causal_images": 0,
        "evaluation.globality_images": 8, "evaluation.globality_probe_images": 4,
        "evaluation.globality_layers": [1], "evaluation.probes": False,
        "targets.temperature_warmup_steps": 2, "targets.temperature_start": 0.06,
        "augment.global_crops": 3,
    },
)  # fmt: skip

ROTARY = {"model.patch_position": "rotary", "model.cls_position": "none"}

# knob: (another value, and what else must be set for it to matter)
CHANGES = {
    "seed": (1, {}),
    "steps": (5, {}),
    "batch_size": (4, {}),
    "log_every": (3, {}),
    "checkpoint_every": (1, {}),
    # At such a temperature an untrained network tells no images apart.
    "stop_when": ("collapsed", {
        "evaluation.every": 2, "targets.temperature": 1.0, "targets.temperature_start": 1.0,
    }),
    "checkpoints.keep_every": (3, {}),
    "checkpoints.keep_steps": ([0, 3], {}),
    "checkpoints.keep_best": ("knn/cls_top1", {}),
    "checkpoints.keep_best_is": ("lowest", {
        "checkpoints.keep_best": "collapse/rankme", "checkpoint_every": 4, "evaluation.every": 1,
    }),
    "data.source": ("digits", {}),
    "data.image_size": (12, {}),
    "data.test_share": (0.3, {}),
    "augment.global_crops": (2, {}),
    "augment.local_crops": (2, {}),
    "augment.global_size": (12, {}),
    "augment.local_size": (12, {}),
    "augment.small_share": (0.5, {}),
    "augment.global_scale": ([0.6, 1.0], {}),
    "augment.local_scale": ([0.1, 0.5], {}),
    "augment.aspect_ratio": ([0.9, 1.1], {}),
    "augment.flip": (0.0, {}),
    "augment.jitter": (0.1, {}),
    "augment.brightness": (0.1, {}),
    "augment.contrast": (0.1, {}),
    "augment.saturation": (0.9, {}),
    "augment.hue": (0.4, {}),
    "augment.grayscale": (1.0, {}),
    "augment.blur_first": (0.0, {}),
    "augment.blur_others": (0.9, {}),
    "augment.blur_local": (0.0, {}),
    "augment.blur_sigma": ([1.0, 2.0], {}),
    "augment.solarize": (0.9, {}),
    "augment.shuffle": ("patches", {}),
    "model.patch_size": (2, {}),
    "model.width": (24, {}),
    "model.depth": (3, {}),
    "model.heads": (4, {}),
    "model.mlp": ("swiglu", {}),
    "model.mlp_ratio": (2.0, {}),
    "model.layer_scale": (0.1, {}),
    "model.norm_epsilon": (0.01, {}),
    "model.drop_path": (0.5, {}),
    "model.initial_deviation": (0.05, {}),
    "model.patch_position": ("sincos", {}),
    "model.interpolation_offset": (0.1, {}),
    "model.rotary_base": (10.0, ROTARY),
    "model.rotary_origin": ("corner", ROTARY),
    "model.cls": (False, {"loss.cls": 0.0, "loss.patches": 1.0}),
    "model.cls_position": ("none", {}),
    "model.cls_tied_patch": ([1, 1], {"model.cls_position": "tied"}),
    "model.cls_coordinate": ([-1.0, -1.0], {"model.cls_position": "sincos"}),
    "model.registers": (2, {}),
    "model.patch_window": (1, {}),
    "model.cls_window": (1, {}),
    "model.patch_uniform": (True, {}),
    "model.cls_uniform": (True, {}),
    "head.layers": (2, {}),
    "head.hidden": (12, {}),
    "head.bottleneck": (12, {}),
    "head.prototypes": (12, {}),
    "head.patches": ("own", {"loss.masked": 0.5}),
    "head.norm_last_layer": (False, {}),
    "head.batch_norm": (True, {}),
    "loss.cls": (0.5, {}),
    "loss.patches": (0.5, {}),
    "loss.dense": (0.5, {}),
    "loss.register_token": (0.5, {"model.registers": 1}),
    "loss.fixed_patch": (0.5, {}),
    "loss.fixed_patch_place": ([-1.0, 1.0], {"loss.fixed_patch": 0.5}),
    "loss.masked": (0.5, {}),
    "loss.mask_kind": ("block", {"loss.masked": 0.5}),
    "loss.mask_share": ([0.8, 0.9], {"loss.masked": 0.5}),
    "loss.mask_probability": (1.0, {"loss.masked": 0.5}),
    "loss.labels": (0.5, {}),
    "loss.koleo": (0.5, {}),
    "loss.student_temperature": (0.2, {}),
    "targets.kind": ("sinkhorn", {}),
    "targets.sharpening": (False, {}),
    "targets.temperature": (0.05, {}),
    "targets.temperature_start": (0.05, {}),
    "targets.temperature_warmup_steps": (3, {}),
    "targets.patch_temperature": (0.07, {"loss.masked": 0.5}),
    "targets.patch_temperature_start": (
        0.06, {"loss.masked": 0.5, "targets.patch_temperature": 0.07}
    ),
    "targets.center_momentum": (0.5, {}),
    "targets.sinkhorn_iterations": (1, {"targets.kind": "sinkhorn"}),
    "teacher.kind": ("frozen", {}),
    "teacher.momentum": (0.9, {}),
    "teacher.momentum_end": (0.9, {}),
    "optimizer.learning_rate": (1e-3, {}),
    "optimizer.learning_rate_end": (1e-4, {}),
    "optimizer.warmup_steps": (2, {}),
    "optimizer.weight_decay": (0.2, {}),
    "optimizer.weight_decay_end": (0.1, {}),
    "optimizer.clip_norm": (0.01, {}),
    "optimizer.freeze_last_layer_steps": (3, {}),
    "optimizer.beta1": (0.5, {}),
    "optimizer.beta2": (0.9, {}),
    "compute.precision": ("bf16", {}),
    "compute.activation_checkpointing": (True, {}),
    "compute.accumulate": (2, {}),
    "compute.packed": (True, {}),
    "evaluation.every": (2, {}),
    "evaluation.batch_size": (7, {}),
    "evaluation.knn_neighbours": (5, {}),
    "evaluation.knn_temperature": (0.001, {}),
    "evaluation.probes": (True, {}),
    "evaluation.linear_blocks": (1, {"evaluation.probes": True}),
    "evaluation.linear_penalty": (1.0, {"evaluation.probes": True}),
    "evaluation.position_images": (10, {"evaluation.probes": True}),
    "evaluation.globality_images": (10, {}),
    "evaluation.globality_layers": ([1, 2], {}),
    "evaluation.globality_probe_images": (5, {}),
    "evaluation.causal_images": (2, {}),
    "evaluation.map_images": (0, {}),
    "evaluation.replacement": ("other", {"evaluation.causal_images": 2}),
    "evaluation.patch_queries": (10, {"augment.global_size": 60}),
    "evaluation.attention_memory": (0.001, {}),
}  # fmt: skip


# Knobs that need a compiler, several workers or files: their own tests show them alive.
ELSEWHERE = {
    "model.weights": "test_a_run_starts_from_the_weights_that_it_is_given",
    "loss.further": "test_a_site_is_added_in_one_file",
    "compute.compile": "test_compiled_blocks_are_compiled",
    "compute.sharded": "test_sharded_workers_hold_a_part_each",
    "evaluation.tf32": "test_only_an_evaluation_that_says_so_rounds_to_tf32",
}


class Work(TorchDispatchMode):
    """Counts operations, and notes how large the tensors are that they make."""

    def __init__(self):
        super().__init__()
        self.sizes = set()
        self.operations = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        self.operations += 1
        if isinstance(made, torch.Tensor):
            self.sizes.add(made.numel())
        return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small colour images in four labelled folders."""
    from PIL import Image

    home = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for number, label in itertools.product(range(30), "abcd"):
        pixels = torch.randint(0, 256, (20, 14, 3), generator=generator, dtype=torch.uint8)
        (home / label).mkdir(exist_ok=True)
        Image.fromarray(pixels.numpy()).save(home / label / f"{number}.png")
    return home


def left_by(config, tmp_path):
    """A hash of everything that a run reports and leaves behind."""
    torch.set_num_threads(1)
    seen = hashlib.sha256()

    class Hash:
        def report(self, step, metrics, *, checkpoint=None):
            kept = {k: v for k, v in metrics.items() if not k.startswith(OF_THE_MACHINE)}
            seen.update(repr((step, kept)).encode())
            if checkpoint:
                # Tensors alone: the notes in the file name the configuration itself.
                for name, tensor in sorted(safetensors.torch.load_file(checkpoint).items()):
                    seen.update(name.encode() + tensor.numpy().tobytes())

    train(
        config,
        images=open_images(config.data, tmp_path / "cache"),
        world=World(rank=0, size=1, device=torch.device("cpu")),
        reporter=Hash(),
        checkpoints=tmp_path / "checkpoint",
        resume_from=None,
    )
    return seen.hexdigest()


def trace(config, tmp_path):
    """That hash, and the operations and sizes of tensors that the run takes."""
    with Work() as work:
        left = left_by(config, tmp_path)
    return left, work.operations, sorted(work.sizes)


@pytest.fixture(scope="module")
def small(folder):
    """The base of all comparisons."""
    return override(BASE, {"data.source": str(folder)})


def test_every_knob_has_an_entry():
    assert set(CHANGES) | set(ELSEWHERE) == set(flatten(TrainConfig()))
    assert not set(CHANGES) & set(ELSEWHERE)


def test_knobs_shown_elsewhere_are_shown_there():
    tests = Path(__file__).parent.parent
    files = (
        tests / "trainers/training/test_compute.py",
        tests / "trainers/system/test_numbers.py",
        tests / "trainers/training/test_starting.py",
        tests / "contracts/test_loss_sites.py",
    )
    source = "".join(file.read_text() for file in files)
    for knob, test in ELSEWHERE.items():
        assert f"def {test}(" in source, knob


@pytest.mark.slow
def test_the_same_knobs_leave_the_same_and_make_the_same_trace(small, tmp_path):
    for taken in (left_by, trace):
        first, second = (taken(small, tmp_path / f"{taken.__name__} {n}") for n in (1, 2))
        assert first == second


_LEFT: dict[str, str] = {}


@pytest.mark.slow
@pytest.mark.parametrize("knob", list(CHANGES))
def test_a_knob_is_alive(knob, small, tmp_path):
    value, also = CHANGES[knob]
    base = override(small, also)
    key = base.model_dump_json()
    if key not in _LEFT:
        _LEFT[key] = left_by(base, tmp_path / "base")
    changed = override(base, {knob: value})
    if left_by(changed, tmp_path / "changed") == _LEFT[key]:
        # The runs above have made the tables that these find ready.
        assert trace(changed, tmp_path / "changed again") != trace(base, tmp_path / "base again")


IDLE = {
    "augment.local_crops": 0, "augment.jitter": 0.0, "model.patch_position": "none",
    "model.cls": False, "loss.cls": 0.0, "loss.patches": 1.0, "targets.kind": "none",
    "targets.temperature_warmup_steps": 0, "teacher.kind": "student",
}  # fmt: skip


@pytest.mark.slow
def test_a_knob_is_idle_where_it_is_said_to_be(small, tmp_path):
    base = override(small, IDLE)
    change = {knob: CHANGES[knob][0] for knob in ALIVE_WITH if knob != "model.cls_position"}
    change |= {"model.rotary_origin": "corner", "model.cls_position": "none"}
    assert all(idle(knob, base) for knob in change)
    left_by(base, tmp_path / "first")  # which makes the tables that later runs find ready
    changed = override(base, change)
    assert trace(changed, tmp_path / "changed") == trace(base, tmp_path / "base")


def test_an_arm_of_idle_knobs_alone_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"nothing while targets\.kind is 'centering'"):
        study_of({}, {"targets.sinkhorn_iterations": 1}, tmp_path)


ARMS = {**CHANGES, "compute.compile": (True, {}), "compute.sharded": (True, {})}


def study_of(also, arms, tmp_path):
    """The study of some arms, each named like the knob that it changes."""
    recipe = tmp_path / "base.json"
    recipe.write_text(override(BASE, also).model_dump_json())
    stated = {
        "name": "alive",
        "recipe": str(recipe),
        "seeds": [3],
        "arms": [{knob: {knob: value}} for knob, value in arms.items()],
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(stated))
    return load_study(path)


@pytest.mark.parametrize("also", [{}, *(also for _, also in ARMS.values() if also)], ids=str)
def test_an_arm_reaches_its_runs(also, tmp_path):
    arms = {
        knob: value
        for knob, (value, needed) in ARMS.items()
        if needed == also and knob not in NOT_AN_ARMS
    }
    study = study_of(also, arms, tmp_path)
    base = study.config(BASELINE, 3)
    for knob in arms:
        config = study.config(knob, 3)
        assert diff(base, config) == study.arms[knob] == {knob: flatten(config)[knob]}
        assert trial_key(config, "digest") != trial_key(base, "digest")


@pytest.mark.parametrize("knob", NOT_AN_ARMS)
def test_an_arm_that_cannot_reach_its_runs_is_refused(knob, tmp_path):
    value = {"data.source": "photographs"}.get(knob, ARMS[knob][0])
    with pytest.raises(StudyError) as caught:
        study_of({}, {knob: value}, tmp_path)
    (line,) = str(caught.value).splitlines()
    assert f"arm {knob}: {knob} is not an arm's to change: {NOT_AN_ARMS[knob]}" in line


def test_an_arm_that_is_measured_otherwise_says_so(tmp_path):
    arms = {"evaluation.knn_neighbours": 5, "data.image_size": 12, "steps": 5}
    study = study_of({}, arms, tmp_path)
    plan = make_plan(study, open_images(study.base.data, None))
    for trial in plan.trials:
        assert trial.config == study.config(trial.arms[0], 3)
    assert study.confounds["steps"] == ()
    for knob in ("evaluation.knn_neighbours", "data.image_size"):
        (said,) = study.confounds[knob]
        assert said == f"how it is measured: {knob}"
        assert said in plan.arms[knob].differences(plan.arms[BASELINE])
