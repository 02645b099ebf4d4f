"""The loop: same bits, resumed or not, alone or with others; honest ends."""

import os

import pytest
import torch

from trainers.config import override
from trainers.errors import CheckpointError, ConfigError
from trainers.metrics import OF_THE_MACHINE
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.loop import train
from trainers.training.state import TrainState

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def run(config, images, reporter, folder, resume_from=None, world=ALONE):
    result = train(
        config,
        images=images,
        world=world,
        reporter=reporter,
        checkpoints=folder,
        resume_from=resume_from,
    )
    return result


def without_times(records):
    return [
        (step, {k: v for k, v in metrics.items() if not k.startswith(OF_THE_MACHINE)})
        for step, metrics in records
    ]


class StopAt(Exception):  # noqa: N818
    """Stands for a kill."""


@pytest.mark.slow
def test_one_seed_gives_the_same_bits_twice(tiny, images, recorder, tmp_path):
    first, second = recorder(), recorder()
    results = [run(tiny, images, one, tmp_path / str(i)) for i, one in enumerate((first, second))]
    assert without_times(first.records) == without_times(second.records)
    assert results[0] == results[1]
    contents = [checkpoint.newest(tmp_path / str(i)).read_bytes() for i in range(2)]
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_another_seed_gives_other_crops_weights_and_losses(tiny, images, recorder, tmp_path):
    first, second = recorder(), recorder()
    one = run(tiny, images, first, tmp_path / "0")
    other = run(override(tiny, {"seed": 1}), images, second, tmp_path / "1")
    assert one.chain != other.chain
    assert first.records[-1][1]["loss/total"] != second.records[-1][1]["loss/total"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"targets.kind": "sinkhorn"},
        {
            "loss.masked": 0.5, "loss.labels": 0.1, "model.registers": 1, "model.drop_path": 0.3,
            "model.cls_position": "random", "augment.shuffle": "patches", "head.batch_norm": True,
            "head.norm_last_layer": False, "compute.precision": "bf16",
        },
    ],
    ids=["centering", "sinkhorn", "chance everywhere"],
)  # fmt: skip
@pytest.mark.parametrize("stop", [3, 4, 5])
def test_a_resumed_run_equals_one_that_never_stopped(
    tiny, images, recorder, tmp_path, change, stop
):
    config = override(tiny, change)
    whole = recorder()
    expected = run(config, images, whole, tmp_path / "whole")

    class Killed(recorder):
        def report(self, step, metrics, *, checkpoint=None):
            super().report(step, metrics, checkpoint=checkpoint)
            if step == stop:
                raise StopAt

    killed, rest = Killed(), recorder()
    with pytest.raises(StopAt):
        run(config, images, killed, tmp_path / "cut")
    saved = checkpoint.newest(tmp_path / "cut")
    step = checkpoint.saved_step(saved)
    assert step == 2 * ((stop - 1) // 2)
    resumed = run(config, images, rest, tmp_path / "cut", resume_from=saved)
    kept = [record for record in killed.records if record[0] <= step]
    assert without_times(kept + rest.records) == without_times(whole.records)
    assert resumed == expected
    ends = [checkpoint.file_of(tmp_path / name, 6).read_bytes() for name in ("cut", "whole")]
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_arms_of_one_seed_see_the_same_crops_at_each_step(tiny, images, recorder, tmp_path):
    changes = [
        {},
        {"model.cls_position": "tied"},
        {"model.cls_position": "none"},
        {"loss.cls": 0.0, "loss.patches": 1.0},
        {"targets.kind": "sinkhorn", "head.prototypes": 8, "model.depth": 3},
    ]
    chains = []
    for number, change in enumerate(changes):
        one = recorder()
        run(override(tiny, change), images, one, tmp_path / str(number))
        chains.append([m["data/chain"] for step, m in one.records if "data/chain" in m])
    assert len(chains[0]) == len(set(chains[0])) == tiny.steps
    assert all(chain == chains[0] for chain in chains)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size 8 does not divide by 3 workers"):
        World(rank=0, size=3, device=torch.device("cpu")).share(torch.arange(8))


class Infinite(torch.autograd.Function):
    """The identity, whose gradient is infinite."""

    @staticmethod
    def forward(_context, loss):
        return loss.clone()

    @staticmethod
    def backward(_context, gradient):
        return gradient * float("inf")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [(lambda loss: loss * float("nan"), "loss is nan"), (Infinite.apply, "gradient norm is nan")],
)
def test_what_is_not_finite_ends_the_run_as_diverged(
    tiny, images, recorder, tmp_path, monkeypatch, spoil, what
):
    from trainers.method import site

    whole = site.distillation
    calls = []

    def explode(*arguments):
        calls.append(1)
        loss = whole(*arguments)
        return spoil(loss) if len(calls) == 4 else loss

    monkeypatch.setattr(site, "distillation", explode)
    result = run(tiny, images, recorder(), tmp_path)
    assert result.status == "diverged"
    assert result.step == 3
    assert result.reason == f"{what} at step 4; last good checkpoint: step 2"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize(("at", "last"), [(6, "step 4"), (0, "none")])
@pytest.mark.parametrize("of", ["teacher", "student"])
def test_weights_that_are_not_finite_at_an_evaluation_end_the_run_as_diverged(
    tiny, images, recorder, tmp_path, monkeypatch, bad, at, last, of
):
    from trainers.training import loop

    evaluate = loop.evaluate

    def spoiled(state, *arguments, **named):
        if state.step == at:
            with torch.no_grad():
                list(getattr(state, of).backbone.blocks[-1].parameters())[-1].fill_(bad)
        return evaluate(state, *arguments, **named)

    monkeypatch.setattr(loop, "evaluate", spoiled)
    one = recorder()
    result = run(override(tiny, {"evaluation.every": 2}), images, one, tmp_path)
    assert (result.status, result.step) == ("diverged", at)
    what = "the teacher's features" if of == "teacher" else "outputs"
    assert result.reason == f"{what} are not finite at step {at}; last good checkpoint: {last}"


@pytest.mark.slow
def test_a_network_that_tells_no_images_apart_ends_as_collapsed(tiny, images, recorder, tmp_path):
    # Learning nothing at a very soft temperature, every image keeps the uniform output.
    config = override(
        tiny, {"optimizer.learning_rate": 1e-12, "optimizer.learning_rate_end": 0.0,
               "targets.temperature": 1.0, "targets.temperature_start": 1.0}
    )  # fmt: skip
    result = run(config, images, recorder(), tmp_path)
    assert result.status == "collapsed"
    assert result.reason.startswith("at step 6: outputs are the same for every image, uniform")


@pytest.mark.slow
def test_evaluation_comes_at_step_0_at_the_cadence_and_at_the_end(tiny, images, recorder, tmp_path):
    one = recorder()
    run(override(tiny, {"evaluation.every": 4}), images, one, tmp_path)
    assert [step for step, m in one.records if "knn/cls_top1" in m] == [0, 4, 6]


@pytest.mark.slow
def test_the_first_step_moves_prototypes_only_when_they_are_not_frozen(
    tiny, images, tmp_path, recorder
):
    for frozen, moves in ((1, False), (0, True)):
        config = override(
            tiny, {"steps": 1, "optimizer.warmup_steps": 0,
                   "optimizer.freeze_last_layer_steps": frozen}
            if frozen == 0 else {"steps": 1, "optimizer.warmup_steps": 0}
        )  # fmt: skip
        folder = tmp_path / str(frozen)
        # One step ends at learning_rate_end, so give that step a rate to move with.
        config = override(config, {"optimizer.learning_rate_end": 1e-3})
        run(config, images, recorder(), folder)
        before = TrainState.fresh(config, ALONE).student.head.prototypes
        saved = checkpoint.load(checkpoint.newest(folder), config, ALONE)
        assert torch.equal(saved.student.head.prototypes, before) is not moves


class TestCheckpoint:
    def test_another_configuration_is_refused(self, tiny, tmp_path):
        state = TrainState.fresh(tiny, ALONE)
        saved = checkpoint.save(state, tiny, tmp_path, ALONE)
        with pytest.raises(CheckpointError, match="another configuration"):
            checkpoint.load(saved, override(tiny, {"seed": 9}), ALONE)

    def test_a_corrupt_file_is_refused(self, tiny, tmp_path):
        state = TrainState.fresh(tiny, ALONE)
        saved = checkpoint.save(state, tiny, tmp_path, ALONE)
        saved.write_bytes(saved.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoint.saved_step(saved)

    def test_a_save_that_fails_leaves_the_one_before(self, tiny, tmp_path, monkeypatch):
        state = TrainState.fresh(tiny, ALONE)
        saved = checkpoint.save(state, tiny, tmp_path, ALONE)
        before = saved.read_bytes()
        monkeypatch.setattr(os, "fsync", lambda _file: (_ for _ in ()).throw(OSError("disk full")))
        state.step = 5
        with pytest.raises(OSError, match="disk full"):
            checkpoint.save(state, tiny, tmp_path, ALONE)
        assert saved.read_bytes() == before
        assert list(tmp_path.iterdir()) == [saved]
