"""How the mathematics is computed changes its cost, not what it says."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch
from torch import nn

from tests.trainers.method.test_sites import BASE, batch
from tests.trainers.training.workers import Job, records_and_held, run_group
from trainers.config import override
from trainers.metrics import OF_THE_MACHINE
from trainers.model.vit import Placed
from trainers.system.sharded_files import shapes
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.loop import train
from trainers.training.state import TrainState
from trainers.training.step import update

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
EVERYTHING = {
    "loss.patches": 0.5, "loss.dense": 0.3, "loss.masked": 0.4, "loss.fixed_patch": 0.2,
    "loss.register_token": 0.3, "model.registers": 2, "model.drop_path": 0.2,
    "model.cls_position": "random", "loss.labels": 0.1, "loss.mask_kind": "block",
    "head.patches": "own", "targets.patch_temperature": 0.07, "model.mlp": "swiglu",
    "model.layer_scale": 0.1,
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tiny):
    """One that is hardly evaluated: losses are what is compared."""
    return override(tiny, {"evaluation.causal_images": 0, "evaluation.globality_images": 8,
                           "evaluation.probes": False})  # fmt: skip


@pytest.fixture
def losses(images, recorder, tmp_path):
    """The records of each step of a run alone."""

    def of(config, name="run", resume_from=None):
        one = recorder()
        train(
            config,
            images=images,
            world=ALONE,
            reporter=one,
            checkpoints=tmp_path / name,
            resume_from=resume_from,
        )
        return of_steps(one.records)

    return of


def of_steps(records):
    return [metrics for _, metrics in records if "loss/total" in metrics]


def same_to_rounding(ours, theirs, relative=2e-5):
    assert len(ours) == len(theirs) > 0
    for one, two in zip(ours, theirs, strict=True):
        assert one["data/chain"] == two["data/chain"]
        for name in one:
            if name.startswith("loss/") and not name.endswith("_kl"):
                assert two[name] == pytest.approx(one[name], rel=relative, abs=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, EVERYTHING, {"targets.kind": "sinkhorn", **EVERYTHING}])
@pytest.mark.parametrize("parts", [2, 3])
def test_accumulated_gradients_are_those_of_the_whole_batch(tiny, losses, change, parts):
    config = override(tiny, change)
    whole = losses(config)
    same_to_rounding(whole, losses(override(config, {"compute.accumulate": parts}), "parts"))


@pytest.mark.slow
def test_accumulation_moves_center_and_teacher_once_a_step(tiny, losses, tmp_path):
    losses(tiny, "whole")
    losses(override(tiny, {"compute.accumulate": 4}), "parts")
    saved = [
        safetensors.torch.load_file(checkpoint.newest(tmp_path / name))
        for name in ("whole", "parts")
    ]
    for name, tensor in saved[0].items():
        torch.testing.assert_close(saved[1][name], tensor, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_activation_checkpointing_gives_the_same_bits(tiny, losses):
    config = override(tiny, EVERYTHING)
    changed = override(config, {"compute.activation_checkpointing": True})
    for one, two in zip(losses(config), losses(changed, "again"), strict=True):
        same = [name for name in one if not name.startswith(OF_THE_MACHINE)]
        assert {name: one[name] for name in same} == {name: two[name] for name in same}


@pytest.mark.slow
def test_bfloat16_is_close_and_keeps_weights_and_losses_in_float32(tiny, losses, tmp_path):
    config = override(tiny, {"compute.precision": "bf16", "targets.temperature": 0.1,
                             "targets.temperature_start": 0.1})  # fmt: skip
    exact = losses(override(config, {"compute.precision": "fp32"}))
    rough = losses(config, "bf16")
    assert [one["data/chain"] for one in exact] == [one["data/chain"] for one in rough]
    # Before any update: later steps drift apart.
    assert rough[0]["loss/total"] != exact[0]["loss/total"]
    assert rough[0]["loss/total"] == pytest.approx(exact[0]["loss/total"], rel=1e-2)
    saved = safetensors.torch.load_file(checkpoint.newest(tmp_path / "bf16"))
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}


def test_positions_blocks_and_heads_are_compiled_in_both_networks(tiny, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **options: compiled.append((self, options))
    )
    state = TrainState.fresh(override(tiny, {"compute.compile": True}), ALONE)
    parts = []
    for network in (state.student, state.teacher):
        backbone = network.backbone
        parts += [backbone.placed, *backbone.blocks, network.head]
    assert [part for part, _ in compiled] == parts
    assert all(options == {"dynamic": False} for _, options in compiled)


@pytest.mark.slow
def test_compiled_positions_and_masks_are_the_plain_ones_in_one_graph():
    patches, token, position = (
        torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
        for shape in ((2, 8, 3, 3), (1, 1, 8), (1, 9, 8))
    )
    mask = torch.arange(18).view(2, 9) % 3 == 0
    found = []
    for compiles in (False, True):
        placed = Placed()
        if compiles:
            placed.compile(dynamic=False, fullgraph=True)
        tokens = placed(patches, (mask, token), position)
        gradients = torch.autograd.grad(tokens.sin().sum(), (patches, token, position))
        found.append([tokens, *gradients])
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_blocks_are_compiled(tiny, losses):
    changes = {"steps": 1, "model.depth": 1, "augment.local_crops": 0, "compute.compile": True}
    changes |= {"model.mlp": "swiglu", "model.layer_scale": 0.1}
    config = override(tiny, changes)
    torch._dynamo.utils.counters.clear()
    compiled = losses(config, "compiled")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    same_to_rounding(losses(override(config, {"compute.compile": False})), compiled, relative=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("patches", ["own", "shared"])
def test_after_the_first_steps_nothing_is_compiled_anew(monkeypatch, patches):
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **how: compiled(self, backend="eager", **how)
    )
    change = {"loss.masked": 1.0, "loss.patches": 1.0, "head.patches": patches,
              "compute.compile": True, "compute.accumulate": 3}  # fmt: skip
    config = override(BASE, change)
    torch._dynamo.reset()
    state = TrainState.fresh(config, ALONE)
    counts = torch._dynamo.utils.counters
    counts.clear()
    graphs = []
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for step in range(16):
            seen = replace(batch(step), epochs=torch.full((8,), step))
            update(state, seen, config, ALONE)
            graphs.append(counts["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs[7] == graphs[-1], graphs


@pytest.mark.slow
def test_more_workers_see_the_same_data_and_lose_only_rounding(tiny, losses, tmp_path):
    whole_batch = {"head.batch_norm": True, "loss.koleo": 0.1}
    changes = [whole_batch, EVERYTHING, {"targets.kind": "sinkhorn"}]
    configs = [override(tiny, change) for change in changes]
    together = run_group(
        4, *(Job(config, tmp_path / str(number)) for number, config in enumerate(configs))
    )
    for number, (config, records) in enumerate(zip(configs, together, strict=True)):
        same_to_rounding(losses(config, f"alone{number}"), of_steps(records))


@pytest.mark.slow
def test_sharded_workers_hold_a_part_each(tiny, losses, tmp_path):
    config = override(tiny, {"compute.sharded": True, **EVERYTHING})
    alone = losses(config)
    (together, held) = run_group(2, Job(config, tmp_path / "sharded"), task=records_and_held)[0]
    same_to_rounding(alone, of_steps(together))
    whole = sum(p.numel() for p in TrainState.fresh(config, ALONE, 10).student.parameters())
    assert 0.4 * whole < held < 0.6 * whole
    one = safetensors.torch.load_file(checkpoint.newest(tmp_path / "run"))
    two = shapes(checkpoint.folder_of(tmp_path / "sharded", config.steps))
    assert {name: tuple(tensor.shape) for name, tensor in one.items()} == two


@pytest.mark.slow
def test_shared_parameters_in_bfloat16_take_the_gradients_of_all_parts(tiny, tmp_path):
    how = {"steps": 1, "compute.precision": "bf16", "compute.accumulate": 2}
    jobs = [
        Job(override(tiny, {**how, "compute.sharded": sharded}), tmp_path / str(sharded))
        for sharded in (False, True)
    ]
    (plain,), (shared,) = map(of_steps, run_group(2, *jobs))
    norm = "optimizer/gradient_norm"
    assert shared[norm] == pytest.approx(plain[norm], rel=1e-2)
    assert shared["loss/total"] == pytest.approx(plain["loss/total"], rel=1e-3)


class StopAt(Exception):  # noqa: N818
    pass


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_workers(tiny, losses, images, recorder, tmp_path):
    class Killed(recorder):
        def report(self, step, metrics, *, checkpoint=None):
            super().report(step, metrics, checkpoint=checkpoint)
            if checkpoint:
                raise StopAt

    whole, jobs = [], []
    for sharded in (False, True):
        config = override(tiny, {"checkpoint_every": 3, "compute.sharded": sharded})
        whole.append(losses(config, f"whole{sharded}"))
        cut = tmp_path / f"cut{sharded}"
        with pytest.raises(StopAt):
            train(
                config,
                images=images,
                world=ALONE,
                reporter=Killed(),
                checkpoints=cut,
                resume_from=None,
            )
        saved = checkpoint.file_of(cut, 3)
        assert checkpoint.saved_step(saved) == 3
        jobs.append(Job(config, tmp_path / f"rest{sharded}", saved))
    for expected, rest in zip(whole, run_group(2, *jobs), strict=True):
        same_to_rounding(expected[3:], of_steps(rest))


def test_a_fresh_state_is_the_same_for_every_world(tiny):
    first = TrainState.fresh(tiny, ALONE)
    second = TrainState.fresh(tiny, ALONE)
    for one, two in zip(first.student.parameters(), second.student.parameters(), strict=True):
        assert torch.equal(one, two)
