"""Lengths in epochs and rates per 256 images."""

import json

import pytest

from trainers.config import TrainConfig, diff, flatten, in_steps, override
from trainers.errors import ConfigError


def test_epochs_become_steps_that_read_every_image_so_often():
    config = override(TrainConfig(), {"steps": "100 epochs", "batch_size": 512})
    # The vanilla run of DINO: 1,281,167 images, and a last batch of an epoch that is not full.
    assert in_steps(config, 1_281_167).steps == round(100 * 1_281_167 / 512)
    assert in_steps(config, 512).steps == 100
    assert in_steps(config, 768).steps == 150


@pytest.mark.parametrize("every", [1, 10, 0.5])
def test_a_run_of_whole_cadences_ends_with_one(every):
    sizes = {"steps": "100 epochs", "batch_size": 1024}
    config = override(TrainConfig(), {**sizes, "evaluation.every": f"{every} epochs"})
    found = in_steps(config, 1_281_167)
    assert found.evaluation.every == round(every * 1_281_167 / 1024)
    assert found.steps == found.evaluation.every * 100 / every
    # Where a cadence is a step or two, rounding it does not change how long a run is.
    assert in_steps(config, 1536).steps == pytest.approx(150, abs=1 + every)


def test_a_run_of_no_whole_cadences_keeps_its_length():
    change = {"steps": "100 epochs", "evaluation.every": "3 epochs", "batch_size": 1024}
    assert in_steps(override(TrainConfig(), change), 1_281_167).steps == 125_114


def test_a_short_length_is_a_step_at_the_least():
    config = override(TrainConfig(), {"steps": "0.001 epochs"})
    assert in_steps(config, 100).steps == 1


def test_a_rate_per_256_grows_with_the_batch():
    config = override(TrainConfig(), {"optimizer.learning_rate": "0.0005 per 256"})
    for batch, rate in ((256, 0.0005), (512, 0.001), (64, 0.000125)):
        sized = override(config, {"batch_size": batch})
        assert in_steps(sized, 10_000).optimizer.learning_rate == rate


def test_what_is_in_steps_already_stays():
    config = TrainConfig()
    assert in_steps(config, 1000) is config
    once = in_steps(override(config, {"steps": "3 epochs"}), 1000)
    assert in_steps(once, 50) is once
    assert once == override(config, {"steps": round(3 * 1000 / config.batch_size)})


@pytest.mark.parametrize(
    "knob",
    [
        "steps", "log_every", "checkpoint_every", "evaluation.every", "optimizer.warmup_steps",
        "optimizer.freeze_last_layer_steps", "targets.temperature_warmup_steps",
        "checkpoints.keep_every",
    ],
)  # fmt: skip
def test_every_length_may_be_in_epochs(knob):
    config = override(TrainConfig(), {knob: "2 epochs", "batch_size": 10})
    assert diff(TrainConfig(), config)[knob] == "2 epochs"
    assert flatten(in_steps(config, 100))[knob] == 20


def test_a_configuration_in_epochs_goes_through_json_and_back():
    change = {"steps": "2.5epochs", "optimizer.learning_rate": "1e-3per256"}
    config = override(TrainConfig(), {**change, "optimizer.warmup_steps": "1 epochs"})
    text = config.model_dump_json()
    assert TrainConfig.model_validate_json(text) == config
    assert json.loads(text)["steps"] == "2.5 epochs"
    assert json.loads(text)["optimizer"]["warmup_steps"] == "1 epoch"
    assert in_steps(TrainConfig.model_validate_json(text), 640).steps == 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "0 epochs"}, "steps: input should be greater than or equal to 1 (given: 0)"),
        ({"steps": "-1 epochs"}, "a whole number of steps, or written as `10 epochs`"),
        ({"steps": "ten epochs"}, "a whole number of steps, or written as `10 epochs`"),
        ({"evaluation.batch_size": "1 epochs"}, "input should be a valid integer"),
        ({"optimizer.learning_rate": "0 per 256"}, "input should be greater than 0"),
        ({"optimizer.learning_rate": "1 per 512"}, "a number, or written as `0.0005 per 256`"),
    ],
)
def test_what_is_neither_is_refused_in_a_line(change, message):
    with pytest.raises(ConfigError) as caught:
        override(TrainConfig(), change)
    assert message in str(caught.value)


def test_epochs_are_no_number_by_mistake():
    config = override(TrainConfig(), {"steps": "2 epochs"})
    with pytest.raises(TypeError):
        range(config.steps)
    assert in_steps(override(config, {"optimizer.warmup_steps": "0 epochs"}), 320).steps == 20
