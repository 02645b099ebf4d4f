"""Pure parts: what a trial gets, what an error leads to, what a plan holds."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import trainers.errors
from ablations.study.loading import load_study
from ablations.study.schema import Resources
from ablations.study.study import Study
from orchestrator.cost import Timing, cost_of, measure
from orchestrator.plan import make_plan
from orchestrator.registration import Statement
from trainers.config import override
from trainers.config.recipe import recipe
from trainers.data.image_set import open_images
from trainers.errors import (
    CheckpointError,
    DataError,
    InputError,
    StudyError,
)
from trainers.system.store import open_store

STUDY = """
name: small
recipe: digits_tiny
seeds: 3
set: {steps: 4, evaluation.every: 4}
arms:
  - cls_position_none
  - same_as_none: {model.cls_position: none}
hypotheses:
  none:
    metric: globality/contrast/gyration
    contrast: [cls_position_none, baseline]
    direction: holds
    smallest_effect: 0.05
"""


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(STUDY)
    return load_study(path)


@pytest.fixture
def images(study):
    return open_images(study.base.data, Path("unused"))


KINDS = [
    kind
    for kind in vars(trainers.errors).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_pickling(kind):
    again = pickle.loads(pickle.dumps(kind("one line")))
    assert type(again) is kind
    assert str(again) == "one line"


def test_every_kind_of_error_is_raised_somewhere_or_is_the_base_of_one_that_is():
    home = Path(trainers.errors.__file__).parent.parent
    source = "".join(
        path.read_text()
        for folder in ("trainers", "ablations", "dashboards", "orchestrator")
        for path in (home / folder).rglob("*.py")
    )
    bases = {base for kind in KINDS for base in kind.__bases__}
    unused = [kind.__name__ for kind in KINDS if f"raise {kind.__name__}" not in source]
    assert not set(unused) - {base.__name__ for base in bases}


def test_identical_arms_share_their_runs(study, images):
    plan = make_plan(study, images)
    assert len(plan.trials) == 2 * 3
    assert {trial.arms for trial in plan.trials} == {
        ("baseline",), ("cls_position_none", "same_as_none"),
    }  # fmt: skip
    assert [trial.seed for trial in plan.trials] == [0, 0, 1, 1, 2, 2]


def test_a_key_follows_configuration_seed_and_data_but_not_the_path(study, images, tmp_path):
    from trainers.runs.trial import trial_key

    base = study.config("baseline", 0)
    key = trial_key(base, images.digest)
    assert key == trial_key(override(base, {"data.source": "/moved"}), images.digest)
    assert key != trial_key(override(base, {"seed": 1}), images.digest)
    assert key != trial_key(override(base, {"optimizer.beta1": 0.8}), images.digest)
    assert key != trial_key(base, "other data")


def test_an_arm_in_epochs_has_the_runs_of_one_in_as_many_steps(study, images):
    epoch = len(images.train) / study.base.batch_size
    arms = {"epochs": {"steps": "0.5 epochs"}, "steps": {"steps": round(epoch / 2)}}
    plan = make_plan(replace(study, arms=arms), images)
    assert {trial.arms for trial in plan.trials} == {("epochs", "steps")}
    assert {trial.config.steps for trial in plan.trials} == {round(epoch / 2)}
    assert plan.arms["epochs"].gigaflops_per_step == plan.arms["steps"].gigaflops_per_step


def with_larger_images(study):
    """The study with one arm more, whose images are larger."""
    return replace(study, arms={**study.arms, "larger": {"data.image_size": 32}})


def test_an_arm_with_larger_images_has_runs_of_its_own_on_the_same_data(study, images):
    plan = make_plan(with_larger_images(study), images)
    assert [trial.arms for trial in plan.trials].count(("larger",)) == 3
    assert len(plan.trials) == 3 * 3
    assert {trial.digest for trial in plan.trials} == {images.digest}


@pytest.mark.slow
def test_each_size_of_image_is_opened_once_for_all_arms(study, images):
    opened = []

    def open_data(data):
        opened.append(data.image_size)
        return open_images(data, None)

    again = {**with_larger_images(study).arms, "again": {"data.image_size": 32, "steps": 5}}
    make_plan(replace(study, arms=again), images, open_data)
    assert opened == [32]


def test_confounds_are_counted(study, images):
    arms = make_plan(study, images).arms
    width = study.base.model.width
    assert arms["baseline"].parameters - arms["cls_position_none"].parameters == width
    assert arms["baseline"].gigaflops_per_image == arms["cls_position_none"].gigaflops_per_image
    assert arms["cls_position_none"].before == {"model.cls_position": "learned"}


def changed(images, change, confounds=()):
    """The baseline's cost and that of an arm."""
    base = recipe("digits_tiny")
    study = Study(
        name="two", recipe="digits_tiny", base=base, arms={"baseline": {}, "arm": change},
        seeds=(0,), hypotheses={}, gates={}, resources=Resources(),
        confounds={"arm": tuple(confounds)},
    )  # fmt: skip
    arms = make_plan(study, images).arms
    return arms["baseline"], arms["arm"]


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"model.registers": 1}, ["+48 parameters (+0.035 %)", "+1 token in a global crop",
                                  "training FLOPs a step: × 1.09"]),
        ({"model.registers": 4}, ["+192 parameters (+0.14 %)", "+4 tokens in a global crop",
                                  "training FLOPs a step: × 1.38"]),
        ({"augment.local_crops": 0}, ["crops a step: 96 → 64", "training FLOPs a step: × 0.891"]),
        ({"loss.cls": 0.5, "loss.patches": 0.5}, [
            "training FLOPs a step: × 1.37", "loss on: 1 cls → 0.5 cls + 0.5 patches"]),
        ({"loss.cls": 0.0}, ["training FLOPs a step: × 0", "loss on: 1 cls → nothing"]),
        ({"augment.shuffle": "pixels"}, []),
    ],
)  # fmt: skip
def test_what_else_differs_is_counted_then_declared(images, change, lines):
    base, arm = changed(images, change, ["the task changes"])
    assert arm.differences(base) == (*lines, "the task changes")
    assert base.differences(base) == ()


def test_lengths_in_epochs_and_rates_per_256_that_a_batch_size_changes_are_said(
    study, images, tmp_path
):
    change = {"steps": "10 epochs", "evaluation.every": "1 epoch", "checkpoint_every": "1 epoch",
              "optimizer.learning_rate": "0.001 per 256"}  # fmt: skip
    arms = {"baseline": {}, "small": {"batch_size": 16, "evaluation.every": 100}}
    base = override(study.base, change)
    plan = make_plan(replace(study, base=base, arms=arms, hypotheses={}), images)
    base, small = plan.arms["baseline"], plan.arms["small"]
    said = ("steps: 450 → 899 (10 epochs)",
            "optimizer.learning_rate: 0.000125 → 6.25e-05 (0.001 per 256)")  # fmt: skip
    assert set(said) <= set(small.differences(base))
    assert not any(line.startswith(("evaluation.", "checkpoint")) for line in small.confounds)
    entry = Statement(plan, images, open_store(tmp_path)).register()
    assert entry.arms["small"].confounds == small.confounds
    assert base.confounds == ()


def test_flops_of_a_step_are_those_of_a_real_one(images):
    from torch.utils.flop_counter import FlopCounterMode

    from tests.trainers.method.test_sites import BASE, batch
    from trainers.system.world import World
    from trainers.training.state import TrainState
    from trainers.training.step import update

    alone = World(rank=0, size=1, device=torch.device("cpu"))
    for change in ({}, {"loss.cls": 0.0, "loss.dense": 1.0}, {"loss.cls": 0.0, "loss.labels": 1.0}):
        config = override(BASE, change)
        state = TrainState.fresh(config, alone, classes=10)
        with FlopCounterMode(display=False) as counter:
            update(state, batch(), config, alone)
        estimate = cost_of(config, 10)["gigaflops_per_step"] * 1e9
        # The first layer has no gradient of its input; matching patches is not counted.
        assert estimate == pytest.approx(counter.get_total_flops(), rel=0.08)


def test_attention_of_long_sequences_is_counted():
    # One layer's scores and mixing: 2 · 2 · tokens² · width.
    short, long = (
        cost_of(override(recipe("dino_vit_tiny_16"), {"model.depth": depth,
              "evaluation.globality_layers": [1]}), 2)["gigaflops_per_image"]
        for depth in (1, 2)
    )  # fmt: skip
    width, tokens = 192, 197
    products = 2 * tokens * width * (3 * width + width + 8 * width) + 4 * tokens**2 * width
    assert (long - short) * 1e9 == pytest.approx(products)


def test_an_arm_that_learns_labels_is_refused_without_them(images):
    images.labels = None
    with pytest.raises(StudyError, match=r"^arm: loss\.labels needs labels, and digits has none"):
        changed(images, {"loss.labels": 1.0})


def test_a_metric_that_needs_labels_is_refused_without_them(study, images, tmp_path):
    metric = {"metric": "knn/cls_top1"}
    hypothesis = study.hypotheses["none"].model_copy(update=metric)
    images.labels = None
    with pytest.raises(StudyError, match="the linear probe need labels"):
        make_plan(replace(study, hypotheses={"none": hypothesis}), images)


@pytest.mark.slow
def test_the_estimate_times_real_steps(study, images):
    timing = measure(study.base, images, threads=2, steps=4)
    assert torch.get_num_threads() == 2
    assert timing.step_s > 0
    assert timing.thorough_s > 0
    assert timing.between_s > 0
    known = Timing(step_s=0.5, thorough_s=2.0, between_s=0.25)
    assert known.trial_s(study.base) == pytest.approx(4.0 + 4 * 0.5 + 2 * 2.0)
    often = override(study.base, {"evaluation.every": 1})
    assert known.trial_s(often) == pytest.approx(4.0 + 4 * 0.5 + 2 * 2.0 + 3 * 0.25)


def test_errors_that_end_with_2_are_input_errors():
    assert issubclass(DataError, InputError)
    assert not issubclass(CheckpointError, InputError)
