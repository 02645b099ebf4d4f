"""Losses on each patch may have a head and a teacher temperature of their own."""

import pytest
import torch

from tests.trainers.method.test_sites import ALONE, BASE, batch
from trainers.config import override
from trainers.config.idle import idle
from trainers.evaluation.evaluate import _Panel
from trainers.training.operations import operations
from trainers.training.state import TrainState
from trainers.training.step import schedules, update

IBOT = override(BASE, {"loss.masked": 1.0, "loss.mask_probability": 1.0, "head.patches": "own"})


def moved(config, steps=1):
    """What an update gives, and the student's gradients."""
    state = TrainState.fresh(config, ALONE)
    for step in range(steps):
        made = update(state, batch(step), config, ALONE)
    return state, made, {name: p.grad for name, p in state.student.named_parameters()}


@pytest.mark.parametrize("site", ["masked", "dense"])
def test_losses_on_each_patch_move_their_own_head_alone(site):
    config = override(BASE, {"loss.cls": 0.0, f"loss.{site}": 1.0, "head.patches": "own"})
    _, _, gradients = moved(config)
    for name, gradient in gradients.items():
        if name.startswith("head."):
            assert gradient is None, name
        if name.startswith("patch_head."):
            assert gradient.abs().sum() > 0, name


@pytest.mark.parametrize("site", ["cls", "patches", "register_token", "fixed_patch"])
def test_losses_on_one_token_have_no_patch_head(site):
    config = override(BASE, {"loss.cls": 0.0, f"loss.{site}": 1.0, "head.patches": "own"})
    assert TrainState.fresh(config, ALONE).student.patch_head is None
    assert idle("head.patches", config) == "loss.masked is 0.0 and loss.dense is 0.0"
    assert idle("head.patches", IBOT) == ""


def test_both_heads_are_averaged_by_the_teacher_and_their_last_layers_kept_still_at_first():
    config = override(
        IBOT, {"optimizer.freeze_last_layer_steps": 2, "teacher.kind": "ema",
               "head.norm_last_layer": False},
    )  # fmt: skip
    start = TrainState.fresh(config, ALONE).student.state_dict()
    state, _, _ = moved(config, steps=2)
    for head in ("head", "patch_head"):
        for name in ("prototypes", "prototype_norms"):
            parameter = state.student.get_parameter(f"{head}.{name}")
            assert torch.equal(parameter, start[f"{head}.{name}"])
        weight = f"{head}.layers.0.weight"
        assert not torch.equal(state.student.get_parameter(weight), start[weight])
        assert not torch.equal(state.teacher.get_parameter(weight), start[weight])
    state, _, _ = moved(config, steps=3)
    for head in ("head", "patch_head"):
        parameter = state.student.get_parameter(f"{head}.prototypes")
        assert not torch.equal(parameter, start[f"{head}.prototypes"])
    assert not torch.equal(start["head.prototypes"], start["patch_head.prototypes"])


def test_collapse_is_judged_by_the_head_of_the_loudest_loss():
    loud = override(IBOT, {"loss.masked": 2.0, "targets.patch_temperature": 0.07})
    state = TrainState.fresh(loud, ALONE)
    assert _Panel(state, loud)._head(state.teacher) is state.teacher.patch_head
    quiet = override(IBOT, {"loss.masked": 0.5})
    assert _Panel(state, quiet)._head(state.teacher) is state.teacher.head


def test_a_second_head_has_parameters_and_no_operations_of_its_own():
    shared, own = operations(override(IBOT, {"head.patches": "shared"}), 4), operations(IBOT, 4)
    head = TrainState.fresh(IBOT, ALONE).student.head
    assert own.parameters - shared.parameters == sum(p.numel() for p in head.parameters())
    assert own.update == shared.update


def test_patch_targets_have_their_own_temperature_warmed_up_as_long():
    config = override(
        IBOT, {"targets.temperature_warmup_steps": 4, "targets.patch_temperature": 0.07}
    )
    found = [schedules(config, step) for step in range(6)]
    assert [values.temperature for values in found] == [0.04] * 6
    # bytedance/ibot, main_ibot.py: np.linspace(0.04, 0.07, warm-up), then 0.07.
    expected = [0.04, 0.05, 0.06, 0.07, 0.07, 0.07]
    assert [values.patch_temperature for values in found] == pytest.approx(expected)
    same = schedules(IBOT, 3)
    assert same.patch_temperature == same.temperature
    blunt = schedules(override(config, {"targets.sharpening": False}), 3)
    assert blunt.patch_temperature == blunt.temperature == 0.1


def test_a_patch_temperature_makes_targets_of_patches_alone_less_sure():
    before = moved(IBOT)[1].parts
    after = moved(override(IBOT, {"targets.patch_temperature": 0.4}))[1].parts
    assert after["loss/cls_target_entropy"] == before["loss/cls_target_entropy"]
    assert after["loss/masked_target_entropy"] > before["loss/masked_target_entropy"] + 0.1
