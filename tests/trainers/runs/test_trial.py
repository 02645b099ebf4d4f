"""A run that is not the one that was planned, and runs that other code has finished."""

import dataclasses
import json

import pytest
import torch

from tests.trainers.training.workers import run_group
from trainers import __main__ as command
from trainers.config import TrainConfig, override
from trainers.config.recipe import recipe
from trainers.errors import CheckpointError, DinolabError, PlanError, StoreError
from trainers.runs import trial as trials
from trainers.runs.attempt import claimed
from trainers.runs.left_behind import left_behind
from trainers.runs.machine import machine_of
from trainers.runs.origin import Origin
from trainers.runs.reporters import Fanout
from trainers.runs.saved_run import find_run
from trainers.runs.stored_trial import StoredTrial, sealed
from trainers.runs.trial import (
    Asking,
    Planned,
    _claimed,
    _origin,
    run_trial,
    trial_key,
)
from trainers.runs.version import code_versions
from trainers.system.store import open_store
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.state import TrainState

CPU = torch.device("cpu")
SMALL = [
    "--set", "steps=2", "--set", "model.depth=2", "--set", "evaluation.globality_layers=[1]",
    "--set", "evaluation.causal_images=0", "--set", "evaluation.globality_images=8",
    "--set", "evaluation.globality_probe_images=8",
]  # fmt: skip


class StopError(Exception):
    """Stands for a kill."""


class Stop:
    """Stops a run at its first checkpoint."""

    def report(self, step, metrics, *, checkpoint=None):
        if checkpoint is not None:
            raise StopError


def stored(root, key="trial"):
    return StoredTrial(open_store(root, make=True), key)


def planned(tiny, images, **changes):
    key = trial_key(tiny, images.digest)
    return dataclasses.replace(
        Planned(key=key, digest=images.digest, code=dict(code_versions())), **changes
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"digest": "f" * 64}, "planned on data ffffffffffff, but this worker finds"),
        ({"code": {**code_versions(), "trainers.grid": "0"}}, "which differs in trainers.grid;"),
        ({"code": {}}, "more; install one version of dinolab on every node"),
        ({"key": "0" * 16}, "planned as run 0000000000000000, but this worker makes"),
    ],
)
def test_what_was_not_planned_is_refused_in_one_line_and_nothing_is_trained(
    tiny, images, tmp_path, changes, says
):
    trial = stored(tmp_path)
    with pytest.raises(PlanError) as raised:
        run_trial(
            trial, tiny, images=images, world=World(rank=0, size=1, device=CPU),
            reporter=Fanout(), planned=planned(tiny, images, **changes),
        )  # fmt: skip
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    # But for who tried it, and why it failed.
    left = [entry.key.rpartition("/")[2] for entry in trial.store.list()]
    assert left == ["failure.json", "lease.json", "log.txt"]
    assert says in trial.failed().message
    assert trial.lease(1).outcome == "failed"


def test_workers_that_would_make_different_runs_are_refused(tiny, images, tmp_path):
    class Elsewhere(World):
        def gather(self, rows):
            return torch.cat([rows, rows + 1])

        def told(self, value):
            return value

    two = Elsewhere(rank=0, size=2, device=CPU)
    with pytest.raises(PlanError, match="not all the same data and code"):
        run_trial(stored(tmp_path), tiny, images=images, world=two, reporter=Fanout())


@pytest.mark.slow
def test_a_result_says_on_what_and_from_what_it_was_made(tmp_path, capsys):
    assert command.run(["digits_tiny", *SMALL, "--root", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("trials/*/result.json")
    result = json.loads(path.read_text())
    assert {name: result[name] for name in machine_of(CPU)} == machine_of(CPU)
    assert result["device"] == "cpu"
    assert result["torch"] == torch.__version__
    assert result["earlier_machines"] == []
    assert result["code"] == code_versions()
    config = TrainConfig.model_validate_json((path.parent / "config.json").read_bytes())
    assert path.parent.name == trial_key(config, result["data"])

    # As if other code had made it: another hash of one module, and so another key.
    result["code"]["trainers.grid"] = "0" * 12
    del result["sha256"]
    path.write_bytes(sealed(result))
    path.parent.rename(path.parent.with_name("0" * 16))
    capsys.readouterr()
    assert command.run(["digits_tiny", *SMALL, "--root", str(tmp_path)]) == 0
    note = capsys.readouterr().out.splitlines()[0]
    assert note.startswith("note: other code has finished 1 of the 1 runs to train")
    assert "differs in trainers.grid." in note
    assert "check out the code of then" in note
    assert "another --root" in note
    assert len(list(tmp_path.glob("trials/*/result.json"))) == 2
    assert command.run(["digits_tiny", *SMALL, "--root", str(tmp_path)]) == 0
    assert "note:" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_went_on_elsewhere_says_where_it_began(tiny, images, tmp_path, monkeypatch):
    trial, alone = stored(tmp_path), World(rank=0, size=1, device=CPU)
    other = {**machine_of(CPU), "device": "cuda", "device_name": "a GPU"}
    with monkeypatch.context() as patch:
        patch.setattr(trials, "machine_of", lambda _device: other)
        with pytest.raises(StopError):
            run_trial(trial, tiny, images=images, world=alone, reporter=Stop())
    assert [state.machines for state in trial.states()] == [({**other, "workers": 1},)]
    run_trial(trial, tiny, images=images, world=alone, reporter=Fanout())
    result = trial.finished()
    assert result["device"] == "cpu"
    assert result["workers"] == 1
    assert result["earlier_machines"] == [{**other, "workers": 1}]


def test_a_root_that_goes_while_a_checkpoint_is_written_is_said_to_be_gone(
    tiny, images, tmp_path, monkeypatch
):
    root, make = tmp_path / "root", checkpoint.file_writer

    def file_writer(*arguments):
        write = make(*arguments)

        def leave_before(path):
            if path == checkpoint.file_of(path.parent, tiny.steps):
                root.rename(tmp_path / "away")
            return write(path)

        return leave_before

    trial, alone = stored(root), World(rank=0, size=1, device=CPU)
    monkeypatch.setattr(checkpoint, "file_writer", file_writer)
    with pytest.raises(StoreError, match=r"run root .* is gone: bring it back"):
        run_trial(trial, tiny, images=images, world=alone, reporter=Fanout())
    assert not root.exists()


@pytest.mark.slow
def test_a_run_whose_data_were_moved_goes_on_and_can_be_measured(tiny, images, tmp_path):
    trial, whole = stored(tmp_path), stored(tmp_path, "whole")
    alone = World(rank=0, size=1, device=CPU)
    with pytest.raises(StopError):
        run_trial(trial, tiny, images=images, world=alone, reporter=Stop())
    moved = override(tiny, {"data.source": "/elsewhere"})
    assert trial_key(moved, images.digest) == trial_key(tiny, images.digest)
    run_trial(trial, moved, images=images, world=alone, reporter=Fanout())
    assert find_run(tmp_path / trial.folder).trained == moved
    run_trial(whole, tiny, images=images, world=alone, reporter=Fanout())
    assert trial.finished()["resumed_at"]
    assert trial.finished()["chain"] == whole.finished()["chain"]


def test_a_checkpoint_of_another_configuration_leaves_the_run_as_it_is(tiny, images, tmp_path):
    trial, alone = stored(tmp_path), World(rank=0, size=1, device=CPU)
    with pytest.raises(StopError):
        run_trial(trial, tiny, images=images, world=alone, reporter=Stop())
    before = {entry.key: trial.store.get(entry.key) for entry in trial.store.list()}
    other = override(tiny, {"seed": 1})
    with pytest.raises(CheckpointError, match="belongs to another configuration"):
        run_trial(trial, other, images=images, world=alone, reporter=Fanout())
    assert {key: trial.store.get(key) for key in before} == before
    assert trial.finished() is None


ENDED = {"status": "finished", "step": 4, "steps": 4, "attempt": 1, "files": {}}


class TestLeftBehind:
    BASE = recipe("digits_tiny")

    def finish(self, root, name, config, **result):
        folder = root / "trials" / name
        folder.mkdir(parents=True)
        content = config if isinstance(config, dict) else config.model_dump(mode="json")
        (folder / "config.json").write_text(json.dumps(content))
        (folder / "result.json").write_text(json.dumps({**ENDED, **result}))

    def of(self, root, *configs):
        wanted = [(f"key{i}", config, "data") for i, config in enumerate(configs)]
        return left_behind(wanted, open_store(root))

    def test_nothing_is_left_behind_by_the_same_code(self, tmp_path):
        self.finish(tmp_path, "old", self.BASE, code=dict(code_versions()), data="data")
        assert self.of(tmp_path, self.BASE) is None

    def test_the_modules_that_differ_are_named(self, tmp_path):
        code = {**code_versions(), "trainers.grid": "0", "trainers.gone": "1"}
        self.finish(tmp_path, "old", self.BASE, code=code, data="data")
        found = self.of(tmp_path, self.BASE, override(self.BASE, {"seed": 1}))
        assert (found.wanted, found.found) == (("key0",), ("old",))
        assert found.modules == ("trainers.gone", "trainers.grid")
        sentence = found.sentence(2, "commit 0123")
        assert sentence.startswith("other code (commit 0123) has finished 1 of the 2 runs to train")

    def test_results_without_a_version_count_too(self, tmp_path):
        self.finish(tmp_path, "old", override(self.BASE, {"data.source": "/elsewhere"}))
        found = self.of(tmp_path, self.BASE)
        assert found.modules == ()
        assert "modules that it has not recorded" in found.sentence(1)

    @pytest.mark.parametrize("change", [{"seed": 1}, {"steps": 7}, {"optimizer.beta1": 0.8}])
    def test_another_configuration_is_another_run(self, tmp_path, change):
        self.finish(tmp_path, "old", override(self.BASE, change))
        assert self.of(tmp_path, self.BASE) is None

    def test_other_data_are_another_run(self, tmp_path):
        self.finish(tmp_path, "old", self.BASE, code={}, data="other")
        assert self.of(tmp_path, self.BASE) is None

    def test_knobs_that_one_code_alone_has_do_not_hide_it(self, tmp_path):
        content = self.BASE.model_dump(mode="json")
        del content["loss"]["koleo"]
        content["loss"]["forgotten"] = 1.0
        self.finish(tmp_path, "old", content)
        assert self.of(tmp_path, self.BASE).found == ("old",)

    @pytest.mark.parametrize("content", [b"", b'{"status": "fini', b"[1]", b"\xff", b"3", b"null"])
    @pytest.mark.parametrize("name", ["config.json", "result.json"])
    def test_a_damaged_run_does_not_hide_the_others(self, tmp_path, name, content):
        self.finish(tmp_path, "old", self.BASE)
        self.finish(tmp_path, "damaged", self.BASE)
        (tmp_path / "trials" / "damaged" / name).write_bytes(content)
        assert self.of(tmp_path, self.BASE).found == ("old",)

    def test_a_file_that_cannot_be_read_does_not_hide_the_others(self, tmp_path):
        self.finish(tmp_path, "old", self.BASE)
        self.finish(tmp_path, "damaged", self.BASE)
        (tmp_path / "trials" / "damaged" / "config.json").unlink()
        (tmp_path / "trials" / "damaged" / "config.json").mkdir()
        assert self.of(tmp_path, self.BASE).found == ("old",)


def decisions(job, world):
    """What a worker is told, who has a root of its own: workers may see other files."""
    trial, config = stored(job[0][world.rank]), job[1]
    try:
        attempt, claim = _claimed(trial, config, world, Asking())
        if claim.found != "ours":
            return claim.found
        if attempt is not None:
            attempt.end("interrupted")
        start, _ = _origin(trial, world, job[0][0])
        return -1 if start.state is None else start.state.step
    except DinolabError as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.slow
def test_what_is_finished_and_where_to_go_on_is_the_first_workers_to_say(tiny, tmp_path):
    empty, finished, saved, damaged = (tmp_path / str(number) for number in range(4))
    for root, content in ((finished, json.dumps(ENDED)), (damaged, "{")):
        trial = stored(root)
        trial.store.put(trial.result_key, content.encode())
    save(tiny, stored(saved), 4)
    jobs = [(empty, finished), (finished, empty), (saved, empty), (damaged, saved)]
    *found, refused = run_group(2, *((job, tiny) for job in jobs), task=decisions_of_both)
    assert found == [[-1, -1], ["finished"] * 2, [4, 4]]
    assert "is damaged" in refused[0]
    # What the first worker says alone decides whether the run is tried again.
    assert refused[1].startswith("LostWorkerError: the first worker cannot use")


def save(config, trial, step):
    """An attempt that has saved a checkpoint, and ended."""
    alone = World(rank=0, size=1, device=CPU)
    state = TrainState.fresh(config, alone)
    state.step = step
    attempt = claimed(trial, steps=6, driver="", over=(), waits=False)
    attempt.begin(Origin(state=None, records=b"", damaged=()), config, machine_of(CPU))
    attempt.begun(step)
    folder = trial.store.local / attempt.prefix
    attempt.keep(step, checkpoint.save(state, config, folder, alone), lambda _: True)
    attempt.end("interrupted")


def decisions_of_both(job, world):
    found = [None, None]
    torch.distributed.all_gather_object(found, decisions(job, world))
    return found


class SecondOf(World):
    """A worker that the first one tells to go on from where it has said."""

    def told(self, value):
        return self.said


def test_a_worker_that_finds_another_checkpoint_is_refused(tiny, tmp_path):
    trial = stored(tmp_path)
    save(tiny, trial, 4)
    (state,) = trial.states()
    second = SecondOf(rank=1, size=2, device=CPU)
    second.said = Origin(state=state, records=b"", damaged=())
    with pytest.raises(CheckpointError, match="goes on from step 4, but this one finds no"):
        _origin(trial, second, tmp_path / "elsewhere")
