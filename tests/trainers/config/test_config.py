"""Configurations: what can be changed, and what is said when it cannot."""

import pytest
from pydantic import ValidationError

from trainers.config import TrainConfig, diff, fingerprint, flatten, override
from trainers.config.listing import knobs
from trainers.errors import ConfigError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.cls_positon": "tied"}, "no such knob; did you mean model.cls_position?"),
        ({"model.cls_position": "corner"}, "model.cls_position: input should be 'learned', 'none'"),
        ({"steps": 1.5}, "steps: input should be a valid integer (given: 1.5)"),
        ({"steps": "many"}, "a whole number of steps, or written as `10 epochs` (given: 'many')"),
        ({"batch_size": 0}, "batch_size: input should be greater than or equal to 1 (given: 0)"),
        ({"model.heads": 5}, "model: heads must divide width, got 5 and 48"),
        ({"augment.global_size": 18}, "augment.global_size must be a multiple of model.patch_size"),
        ({"augment.global_scale": [0.9, 0.5]}, "global_scale must rise"),
        ({"augment.global_scale": [0.5, 1.5]}, "must not exceed 1"),
        ({"augment.local_crops": 0, "augment.global_crops": 1}, "must be 2 or more"),
        ({"model.cls": False}, "loss.cls needs a [CLS] token"),
        ({"loss.register_token": 1.0}, "needs a register: set model.registers"),
        ({"loss.mask_share": [0.5, 0.2]}, "mask_share must rise"),
        ({"loss.koleo": 1.0, "compute.accumulate": 2}, "compute.accumulate must be 1"),
        ({"model.cls_position": "rotary"}, "needs patch_position rotary"),
        ({"model.patch_position": "none", "model.cls_position": "tied"}, "learned or sincos"),
        ({"model.patch_position": "rotary", "model.width": 18}, "divisible by 4, got 18 / 3"),
        ({"model.patch_position": "sincos", "model.width": 18}, "divisible by 4, got 18"),
        ({"evaluation.globality_layers": [7]}, "globality_layers must be 1..3"),
        ({"model.cls_tied_patch": [4, 0]}, "must lie in the 4×4 grid"),
        ({"model": {"width": 3}}, "model: no such knob"),
        ({"seed": float("nan")}, "seed"),
    ],
)
def test_a_bad_change_is_one_clear_line(change, message):
    with pytest.raises(ConfigError) as caught:
        override(TrainConfig(), change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_come_at_once():
    with pytest.raises(ConfigError) as caught:
        override(TrainConfig(), {"steps": 0, "batch_size": -1, "model.depth": "x"})
    assert len(str(caught.value).splitlines()) == 3


def test_diff_is_exactly_the_change():
    change = {"model.cls_position": "none", "augment.local_scale": [0.1, 0.3], "steps": 7}
    assert diff(TrainConfig(), override(TrainConfig(), change)) == change
    assert diff(TrainConfig(), override(TrainConfig(), {})) == {}


def test_a_configuration_cannot_be_changed_in_place():
    with pytest.raises(ValidationError, match="frozen"):
        TrainConfig().steps = 3  # type: ignore[misc]


def test_the_fingerprint_follows_every_knob():
    base = TrainConfig()
    assert fingerprint(base) == fingerprint(TrainConfig.model_validate_json(base.model_dump_json()))
    assert fingerprint(base) != fingerprint(override(base, {"optimizer.beta2": 0.99}))


def test_every_knob_says_what_it_means():
    described = list(knobs())
    assert {knob.name for knob in described} == set(flatten(TrainConfig()))
    assert [knob.name for knob in described if not knob.description] in ([], ["data"])
