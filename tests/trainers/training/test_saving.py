"""Checkpoints: whole or not there, written while training goes on, kept by a rule."""

import contextlib
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.trainers.training.workers import Job, run_group
from trainers.config import fingerprint, override
from trainers.errors import CheckpointError, ConfigError, DinolabError, UnwrittenError
from trainers.metrics import OF_THE_MACHINE
from trainers.runs.saved_run import evaluate_run, find_run, load_run, run_backbone
from trainers.system.sharded_files import ShardedWriter
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.loop import train
from trainers.training.saving import Saving
from trainers.training.state import TrainState

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
WITHOUT_EVALUATION = {"evaluation.every": 100, "evaluation.globality_images": 8,
                      "evaluation.causal_images": 0, "evaluation.probes": False}  # fmt: skip


class Gate:
    """Holds every write until it is opened, as a slow disk does."""

    def __init__(self, monkeypatch):
        self.opened, self.writes = threading.Event(), 0
        whole = safetensors.torch.save_file

        def slow(*arguments):
            self.writes += 1
            assert self.opened.wait(60)
            whole(*arguments)

        monkeypatch.setattr(safetensors.torch, "save_file", slow)


@pytest.fixture
def state(tiny):
    return TrainState.fresh(tiny, ALONE)


def change(state, step):
    """Another state, as an update leaves it: the same tensors with other numbers."""
    state.step = step
    with torch.no_grad():
        for parameter in state.student.parameters():
            parameter.add_(1.0)


def full_disk(*_arguments):
    raise OSError(28, "No space left on device")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestInTheBackground:
    def test_training_goes_on_while_a_checkpoint_is_written(
        self, tiny, state, recorder, tmp_path, monkeypatch
    ):
        gate, told = Gate(monkeypatch), recorder()
        with Saving(tiny, tmp_path, ALONE, told, None) as saved:
            change(state, 2)
            expected = {n: t.clone() for n, t in state.student.state_dict().items()}
            saved.after(state, None)
            change(state, 3)
            saved.after(state, None)
            assert told.checkpoints == []
            assert checkpoint.of_steps(tmp_path) == {}
            gate.opened.set()
        assert told.checkpoints == [checkpoint.file_of(tmp_path, 2)]
        assert checkpoint.saved_step(told.checkpoints[0]) == 2
        kept = safetensors.torch.load_file(told.checkpoints[0])
        assert all(torch.equal(kept[f"student.{n}"], tensor) for n, tensor in expected.items())

    def test_the_file_is_that_of_a_save_in_the_foreground(self, tiny, state, recorder, tmp_path):
        state.step = 2
        checkpoint.save(state, tiny, tmp_path / "foreground", ALONE)
        with Saving(tiny, tmp_path / "background", ALONE, recorder(), None) as saved:
            saved.after(state, None)
        one, other = (
            checkpoint.file_of(tmp_path / name, 2).read_bytes()
            for name in ("foreground", "background")
        )
        assert one == other

    def test_the_next_save_waits_for_the_one_before(
        self, tiny, state, recorder, tmp_path, monkeypatch
    ):
        gate = Gate(monkeypatch)
        with Saving(tiny, tmp_path, ALONE, recorder(), None) as saved:
            change(state, 2)
            saved.after(state, None)
            change(state, 4)
            second = threading.Thread(target=saved.after, args=(state, None))
            second.start()
            second.join(0.2)
            assert second.is_alive()
            assert gate.writes == 1
            gate.opened.set()
            second.join()
            saved.wait()
            assert gate.writes == 2
        assert names(tmp_path) == ["checkpoint-4.safetensors"]

    def test_what_could_not_be_written_ends_the_run_in_one_line(
        self, tiny, state, recorder, tmp_path, monkeypatch
    ):
        saved = Saving(tiny, tmp_path, ALONE, recorder(), None)
        change(state, 2)
        saved.after(state, None)
        saved.wait()
        monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
        change(state, 4)
        saved.after(state, None)
        with pytest.raises(UnwrittenError) as caught:
            saved.wait()
        (line,) = str(caught.value).splitlines()
        assert line.startswith("the checkpoint of step 4 could not be written into")
        assert "No space left on device" in line
        assert isinstance(caught.value, OSError)
        assert isinstance(caught.value, DinolabError)
        assert names(tmp_path) == ["checkpoint-2.safetensors"]
        assert checkpoint.saved_step(checkpoint.newest(tmp_path)) == 2

    def test_an_error_of_the_run_waits_for_the_write_and_is_not_hidden_by_its_error(
        self, tiny, state, recorder, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(safetensors.torch, "save_file", full_disk)

        def run():
            with Saving(tiny, tmp_path, ALONE, recorder(), None) as saved:
                state.step = 2
                saved.after(state, None)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError) as caught:
            run()
        assert "No space left on device" in caught.value.__notes__[0]

    def test_what_a_kill_left_half_written_goes(self, tiny, recorder, tmp_path):
        (tmp_path / ".checkpoint-2.safetensors.abc").write_bytes(b"half")
        (tmp_path / ".checkpoint-4").mkdir()
        (tmp_path / ".checkpoint-4" / "__0_0.distcp").write_bytes(b"half")
        Saving(tiny, tmp_path, ALONE, recorder(), None)
        assert names(tmp_path) == []


def kept_of(config, images, recorder, folder):
    """Names of what a run leaves in its folder of checkpoints, and its result."""
    told = recorder()
    result = train(
        config, images=images, world=ALONE, reporter=told, checkpoints=folder, resume_from=None
    )
    return names(folder), result, told


class TestWhatStays:
    def test_given_steps_and_every_kth_stay_and_the_last_is_there(
        self, tiny, images, recorder, tmp_path
    ):
        config = override(
            tiny,
            {**WITHOUT_EVALUATION, "checkpoints.keep_steps": [0, 1], "checkpoints.keep_every": 3},
        )
        found, _, told = kept_of(config, images, recorder, tmp_path)
        kept = [checkpoint.file_of(tmp_path, step) for step in (0, 1, 3, 6)]
        assert found == [path.name for path in kept]
        assert [checkpoint.saved_step(path) for path in kept] == [0, 1, 3, 6]
        assert checkpoint.newest(tmp_path) == kept[-1]
        assert [path.name for path in told.checkpoints if path in kept] == found
        assert find_run_beside(config, kept[1]).step == 1
        first = checkpoint.load(kept[0], config, ALONE)
        fresh = TrainState.fresh(config, ALONE)
        assert all(
            torch.equal(one, other)
            for one, other in zip(
                first.teacher.parameters(), fresh.teacher.parameters(), strict=True
            )
        )

    @pytest.mark.parametrize(("which", "step"), [("highest", 2), ("lowest", 1)])
    def test_the_best_stays(self, tiny, state, recorder, tmp_path, which, step):
        config = override(
            tiny, {"checkpoints.keep_best": "knn/cls_top1", "checkpoints.keep_best_is": which}
        )
        with Saving(config, tmp_path, ALONE, recorder(), None) as saved:
            for number, value in enumerate((0.3, 0.1, 0.7, 0.7, 0.2)):
                state.step = number
                saved.after(state, {"knn/cls_top1": value})
        assert list(checkpoint.of_steps(tmp_path).values()) == [step, 4]

    def test_the_best_is_remembered_over_a_kill_and_later_ones_come_again(
        self, tiny, state, recorder, tmp_path
    ):
        config = override(
            tiny, {"checkpoints.keep_best": "knn/cls_top1", "checkpoints.keep_steps": [3, 4]}
        )
        with Saving(config, tmp_path, ALONE, recorder(), None) as saved:
            for step, value in ((1, 0.7), (3, 0.1)):
                state.step = step
                saved.after(state, {"knn/cls_top1": value})
        first = checkpoint.file_of(tmp_path, 1)
        with Saving(config, tmp_path, ALONE, recorder(), first) as saved:
            assert list(checkpoint.of_steps(tmp_path)) == [first]
            state.step = 4
            saved.after(state, {"knn/cls_top1": 0.6})
            assert saved.step == 4
        assert list(checkpoint.of_steps(tmp_path)) == [first, checkpoint.file_of(tmp_path, 4)]
        Saving(config, tmp_path, ALONE, recorder(), None)
        assert checkpoint.of_steps(tmp_path) == {}

    @pytest.mark.parametrize("moment", range(3))
    def test_the_best_stays_wherever_a_kill_comes_while_it_is_saved(
        self, tiny, state, recorder, tmp_path, monkeypatch, moment
    ):
        config = override(tiny, {"steps": 30, "checkpoints.keep_best": "knn/cls_top1"})
        values = {10: 0.1, 20: 0.9, 30: 0.5}

        def run(start, *steps):
            with Saving(config, tmp_path, ALONE, recorder(), start) as saved:
                for step in steps:
                    state.step = step
                    saved.after(state, {"knn/cls_top1": values[step]})

        run(None, 10)
        done = []

        def killed(act):
            def acted(path, *arguments, **options):
                name = (*arguments, path)[0].name
                if name.startswith("checkpoint-"):
                    if len(done) == moment:
                        raise KeyboardInterrupt
                    done.append(name)
                return act(path, *arguments, **options)

            return acted

        # The file of the step comes into being by its name, and then the one before goes.
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed(Path.replace))
            patch.setattr(Path, "unlink", killed(Path.unlink))
            with contextlib.suppress(UnwrittenError):
                run(checkpoint.file_of(tmp_path, 10), 20)
        assert done == ["checkpoint-20.safetensors", "checkpoint-10.safetensors"][:moment]
        newest = checkpoint.newest(tmp_path)
        run(newest, *(step for step in values if step > checkpoint.saved_step(newest)))
        assert list(checkpoint.of_steps(tmp_path).values()) == [20, 30]

    def test_a_metric_that_is_not_reported_is_refused_with_the_nearest(
        self, tiny, images, recorder, tmp_path
    ):
        config = override(tiny, {"checkpoints.keep_best": "knn/cls_topl"})
        with pytest.raises(ConfigError, match=r"did you mean knn/cls_top1\?"):
            kept_of(config, images, recorder, tmp_path)

    def test_a_step_after_the_last_is_refused(self, tiny):
        with pytest.raises(ConfigError, match=r"checkpoints\.keep_steps must be 0\.\.6 \(steps\)"):
            override(tiny, {"checkpoints.keep_steps": [0, 7]})

    def test_how_often_a_run_saves_is_no_part_of_what_it_is_and_what_stays_is(self, tiny):
        assert fingerprint(override(tiny, {"checkpoint_every": 5})) == fingerprint(tiny)
        for knob, value in (("keep_every", 2), ("keep_steps", [0]), ("keep_best", "loss/total")):
            kept = override(tiny, {f"checkpoints.{knob}": value})
            assert fingerprint(kept) != fingerprint(tiny)


def tensors_of(path, config):
    """Every tensor of a checkpoint, whole, as one worker reads it."""
    state = checkpoint.load(path, config, ALONE)
    tensors = {**{f"student.{n}": t for n, t in state.student.state_dict().items()},
               **{f"teacher.{n}": t for n, t in state.teacher.state_dict().items()},
               **{f"centers.{n}": t for n, t in state.centers.items()}}  # fmt: skip
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{n}": t for n, t in moments.items()}
    return tensors, state.chain


def same(one, other):
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())


def without_times(found):
    return [
        (step, {n: v for n, v in metrics.items() if not n.startswith(OF_THE_MACHINE)})
        for step, metrics in found
        if metrics
    ]


@pytest.mark.slow
def test_workers_that_share_a_state_write_their_parts_and_any_number_reads_them(
    tiny, images, recorder, tmp_path
):
    # Wide enough for matrices to outweigh vectors, each of which one worker writes whole.
    config = override(
        tiny, {"compute.sharded": True, "checkpoints.keep_steps": [3], "model.width": 96}
    )
    whole, rest = tmp_path / "checkpoint", tmp_path / "rest"
    middle, last = (checkpoint.folder_of(whole, step) for step in (3, 6))
    everything, resumed = run_group(2, Job(config, whole), Job(config, rest, middle))
    # Neither of the others stays, nor does a file of the whole.
    assert names(whole) == [middle.name, last.name]
    sizes = [path.stat().st_size for path in last.glob("*.distcp")]
    assert len(sizes) == 2
    assert all(0.4 < size / sum(sizes) < 0.6 for size in sizes)

    # As many workers as before: bit for bit.
    assert without_times(resumed) == [one for one in without_times(everything) if one[0] > 3]
    same(tensors_of(last, config), tensors_of(checkpoint.folder_of(rest, 6), config))

    # One worker: the same crops, and what it saves stands in the folder's place.
    told = recorder()
    result = train(
        config, images=images, world=ALONE, reporter=told, checkpoints=whole, resume_from=middle
    )
    assert bytes.fromhex(result.chain) == tensors_of(checkpoint.folder_of(rest, 6), config)[1]
    for (_, one), (_, other) in zip(without_times(resumed), told.records, strict=True):
        assert other["loss/total"] == pytest.approx(one["loss/total"], rel=2e-5)
    assert names(whole) == [middle.name, "checkpoint-6.safetensors"]

    # A file: two workers go on from that too, as one process measures the folder.
    (tmp_path / "config.json").write_text(config.model_dump_json())
    for path in (middle, rest / "checkpoint-6"):
        assert checkpoint.is_checkpoint(path)
    run = find_run(middle)
    assert (run.checkpoint, run.step) == (middle, 3)
    assert "knn/cls_top1" in evaluate_run(run, images, ALONE.device)
    assert find_run(whole).step == 6


@pytest.mark.slow
def test_a_folder_without_a_part_is_refused_in_one_line(tiny, tmp_path):
    config = override(tiny, {"compute.sharded": True})
    folder = checkpoint.folder_of(tmp_path, 3)
    run_group(1, (config, tmp_path), task=save_parts)
    assert find_run_beside(config, folder).step == 3
    run = find_run_beside(config, folder)
    expected = load_run(run, ALONE.device).teacher.backbone.state_dict()
    found = run_backbone(run).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    (part,) = folder.glob("*.distcp")
    part.write_bytes(part.read_bytes()[:500])
    for read in (lambda: load_run(run, ALONE.device), lambda: run_backbone(run)):
        with pytest.raises(CheckpointError, match="is damaged") as caught:
            read()
        assert "\n" not in str(caught.value)
    (folder / checkpoint.NOTES_NAME).unlink()
    assert not checkpoint.is_checkpoint(folder)
    assert checkpoint.newest(tmp_path) is None


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_of_a_checkpoint_a_backbone_needs_its_own_tensors_alone(tiny, tmp_path, state, network):
    change(state, 3)
    path = checkpoint.save(state, tiny, tmp_path, ALONE)
    with safetensors.safe_open(path, framework="pt") as opened:
        notes = opened.metadata()
    own = {
        name: tensor
        for name, tensor in safetensors.torch.load_file(path).items()
        if name.startswith(f"{network}.backbone.")
    }
    safetensors.torch.save_file(own, path, notes)
    found = run_backbone(find_run_beside(tiny, path), network).state_dict()
    expected = getattr(state, network).backbone.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def find_run_beside(config, path):
    (path.parent / "config.json").write_text(config.model_dump_json())
    return find_run(path)


def save_parts(job, world):
    config, folder = job
    state = TrainState.fresh(config, world)
    state.step = 3
    checkpoint.folder_writer(state, config, folder, world, ShardedWriter())()
