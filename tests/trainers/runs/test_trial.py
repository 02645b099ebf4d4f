"""A run that is not the one that was planned, and runs that other code has finished."""

import dataclasses
import json

import pytest
import torch

from tests.trainers.training.workers import run_group
from trainers import __main__ as command
from trainers.config import TrainConfig, override
from trainers.config.recipe import recipe
from trainers.errors import CheckpointError, InputError, PlanError
from trainers.runs.left_behind import left_behind
from trainers.runs.machine import machine_of
from trainers.runs.reporters import Fanout
from trainers.runs.saved_run import find_run
from trainers.runs.trial import (
    Planned,
    TrialFolder,
    _agreed,
    _checkpoint_of,
    run_trial,
    trial_key,
)
from trainers.runs.version import code_versions
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
def test_what_was_not_planned_is_refused_in_one_line_and_nothing_is_written(
    tiny, images, tmp_path, changes, says
):
    folder = TrialFolder(tmp_path / "trial")
    with pytest.raises(PlanError) as raised:
        run_trial(
            folder, tiny, images=images, world=World(rank=0, size=1, device=CPU),
            reporter=Fanout(), planned=planned(tiny, images, **changes),
        )  # fmt: skip
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not folder.path.exists()


def test_workers_that_would_make_different_runs_are_refused(tiny, images, tmp_path):
    class Elsewhere(World):
        def gather(self, rows):
            return torch.cat([rows, rows + 1])

    two = Elsewhere(rank=0, size=2, device=CPU)
    with pytest.raises(PlanError, match="not all the same data and code"):
        run_trial(
            TrialFolder(tmp_path / "trial"), tiny, images=images, world=two, reporter=Fanout()
        )


@pytest.mark.slow
def test_a_result_says_on_what_and_from_what_it_was_made(tmp_path, capsys):
    assert command.run(["digits_tiny", *SMALL, "--root", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("train/trials/*/result.json")
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
    path.write_text(json.dumps(result))
    path.parent.rename(path.parent.with_name("0" * 16))
    capsys.readouterr()
    assert command.run(["digits_tiny", *SMALL, "--root", str(tmp_path)]) == 0
    note = capsys.readouterr().out.splitlines()[0]
    assert note.startswith("note: other code has finished 1 of the 1 runs to train")
    assert "differs in trainers.grid." in note
    assert "check out the code of then" in note
    assert "another --root" in note
    assert len(list(tmp_path.glob("train/trials/*/result.json"))) == 2
    assert command.run(["digits_tiny", *SMALL, "--root", str(tmp_path)]) == 0
    assert "note:" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_went_on_elsewhere_says_where_it_began(tiny, images, tmp_path):
    folder = TrialFolder(tmp_path / "trial")
    alone = World(rank=0, size=1, device=CPU)

    with pytest.raises(StopError):
        run_trial(folder, tiny, images=images, world=alone, reporter=Stop())
    assert json.loads(folder.machines.read_text()) == [machine_of(CPU)]
    assert folder.checkpoint_step()
    other = {**machine_of(CPU), "device": "cuda", "device_name": "a GPU"}
    folder.machines.write_text(json.dumps([other]))
    run_trial(folder, tiny, images=images, world=alone, reporter=Fanout())
    result = folder.finished()
    assert result["device"] == "cpu"
    assert result["earlier_machines"] == [other]


@pytest.mark.slow
def test_a_run_whose_data_were_moved_goes_on_and_can_be_measured(tiny, images, tmp_path):
    folder, whole = TrialFolder(tmp_path / "trial"), TrialFolder(tmp_path / "whole")
    alone = World(rank=0, size=1, device=CPU)
    with pytest.raises(StopError):
        run_trial(folder, tiny, images=images, world=alone, reporter=Stop())
    moved = override(tiny, {"data.source": "/elsewhere"})
    assert trial_key(moved, images.digest) == trial_key(tiny, images.digest)
    run_trial(folder, moved, images=images, world=alone, reporter=Fanout())
    assert find_run(folder.path).trained == moved
    run_trial(whole, tiny, images=images, world=alone, reporter=Fanout())
    assert folder.finished()["resumed_at"]
    assert folder.finished()["chain"] == whole.finished()["chain"]


def test_a_checkpoint_of_another_configuration_leaves_the_run_as_it_is(tiny, images, tmp_path):
    folder = TrialFolder(tmp_path / "trial")
    alone = World(rank=0, size=1, device=CPU)
    with pytest.raises(StopError):
        run_trial(folder, tiny, images=images, world=alone, reporter=Stop())
    before = {path: path.read_bytes() for path in folder.path.rglob("*.*")}
    other = override(tiny, {"seed": 1})
    with pytest.raises(CheckpointError, match="belongs to another configuration"):
        run_trial(folder, other, images=images, world=alone, reporter=Fanout())
    assert {path: path.read_bytes() for path in folder.path.rglob("*.*")} == before


@pytest.mark.parametrize("text", ["{", "{}", "[1]"])
def test_damaged_notes_of_earlier_machines_are_one_line(tmp_path, text):
    folder = TrialFolder(tmp_path)
    assert folder.machines_before() == []
    folder.machines.write_text(text)
    with pytest.raises(InputError, match="is corrupt: not a list of JSON objects") as raised:
        folder.machines_before()
    assert "\n" not in str(raised.value)


ENDED = {"status": "finished", "step": 4, "steps": 4}


class TestLeftBehind:
    BASE = recipe("digits_tiny")

    def finish(self, trials, name, config, **result):
        folder = trials / name
        folder.mkdir(parents=True)
        content = config if isinstance(config, dict) else config.model_dump(mode="json")
        (folder / "config.json").write_text(json.dumps(content))
        (folder / "result.json").write_text(json.dumps({**ENDED, **result}))

    def of(self, trials, *configs):
        return left_behind([(f"key{i}", c, "data") for i, c in enumerate(configs)], trials)

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
        (tmp_path / "damaged" / name).write_bytes(content)
        assert self.of(tmp_path, self.BASE).found == ("old",)

    def test_a_file_that_cannot_be_read_does_not_hide_the_others(self, tmp_path):
        self.finish(tmp_path, "old", self.BASE)
        self.finish(tmp_path, "damaged", self.BASE)
        (tmp_path / "damaged" / "config.json").unlink()
        (tmp_path / "damaged" / "config.json").mkdir()
        assert self.of(tmp_path, self.BASE).found == ("old",)


def decisions(job, world):
    """Where a worker would go on from, whose folder is its own: workers see other files."""
    folder = TrialFolder(job[world.rank])
    try:
        return _agreed(folder, world)
    except InputError as error:
        return str(error)


@pytest.mark.slow
def test_what_is_finished_and_where_to_go_on_is_the_first_workers_to_say(tiny, tmp_path):
    empty, finished, saved, damaged = (tmp_path / str(number) for number in range(4))
    for path in (empty, finished, saved, damaged):
        path.mkdir()
    (finished / "result.json").write_text('{"status": "finished", "step": 6, "steps": 6}')
    (damaged / "result.json").write_text("{")
    alone = World(rank=0, size=1, device=CPU)
    state = TrainState.fresh(tiny, alone)
    state.step = 4
    checkpoint.save(state, tiny, saved / "checkpoint", alone)
    jobs = [(empty, finished), (finished, empty), (saved, empty), (damaged, saved)]
    *found, refused = run_group(2, *jobs, task=decisions_of_both)
    assert found == [[-1, -1], [-2, -2], [4, 4]]
    assert "is corrupt" in refused[0]
    assert refused[1].startswith("the first worker cannot use")


def decisions_of_both(job, world):
    found = [None, None]
    torch.distributed.all_gather_object(found, decisions(job, world))
    return found


def test_a_worker_that_finds_another_checkpoint_is_refused(tiny, tmp_path):
    with pytest.raises(CheckpointError, match="goes on from step 4, but this one finds no"):
        _checkpoint_of(TrialFolder(tmp_path), tiny, 4)
