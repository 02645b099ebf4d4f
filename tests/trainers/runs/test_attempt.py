"""Attempts at a run: whatever dies and whatever is damaged, one result, and no record lost."""

import json
import random
import shutil
import time

import pytest
import torch

from tests.trainers.system.injecting import OPERATIONS, Injecting, StoppedError
from trainers.config import override
from trainers.errors import InputError
from trainers.metrics import OF_THE_MACHINE
from trainers.runs.attempt import claimed
from trainers.runs.by_image import AT_START, BY_IMAGE
from trainers.runs.records import is_segment
from trainers.runs.reporters import Fanout
from trainers.runs.saved_run import find_run
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import Asking, run_trial
from trainers.system.store import Entry, checked, open_store
from trainers.system.world import World

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
SMALL = {
    "steps": 4, "checkpoint_every": 2, "checkpoints.keep_steps": [1], "evaluation.every": 100,
    "evaluation.globality_images": 2, "evaluation.globality_probe_images": 2,
    "evaluation.causal_images": 0, "evaluation.probes": False,
}  # fmt: skip


class Kill(BaseException):
    """Stands for a kill."""


class Memory:
    """A store elsewhere: no file of it is on this machine."""

    shown, local = "memory://root", None

    def __init__(self):
        self.objects = {}

    def get(self, key):
        return self.objects.get(checked(key))

    def put(self, key, content, *, if_absent=False):
        if if_absent and key in self.objects:
            return False
        self.objects[checked(key)] = bytes(content)
        return True

    def put_file(self, key, path):
        self.put(key, path.read_bytes())

    def get_file(self, key, path):
        if key in self.objects:
            path.write_bytes(self.objects[key])
        return key in self.objects

    def delete(self, key):
        self.objects.pop(key, None)

    def names(self, prefix=""):
        start = prefix and f"{prefix}/"
        return sorted({k[len(start) :].split("/")[0] for k in self.objects if k.startswith(start)})

    def list(self, prefix=""):
        start = prefix and f"{prefix}/"
        found = [(k, c) for k, c in self.objects.items() if k.startswith(start)]
        return [Entry(k, len(c), 0.0) for k, c in sorted(found)]


class KillAt:
    """Ends a run when it reports the checkpoint of a step."""

    def __init__(self, step):
        self.step = step

    def report(self, step, metrics, *, checkpoint=None):
        if checkpoint is not None and step == self.step:
            raise Kill


@pytest.fixture(scope="module")
def config(tiny):
    return override(tiny, SMALL)


@pytest.fixture(params=["on this machine", "elsewhere"])
def store(request, tmp_path):
    return Memory() if request.param == "elsewhere" else open_store(tmp_path)


def run(store, config, images, *, reporter=None, over=()):
    trial = StoredTrial(store, "trial")
    given = {"images": images, "world": ALONE, "reporter": reporter or Fanout()}
    assert run_trial(trial, config, asking=Asking(over=over), **given)
    return trial


def killed_at(step, store, config, images, over=()):
    with pytest.raises(Kill):
        run(store, config, images, reporter=KillAt(step), over=over)


def measured(trial):
    """The records of a run as JSON, but for what they say of the machine."""
    records = [
        (step, {name: value for name, value in metrics.items()
                if not name.startswith(OF_THE_MACHINE)})
        for step, metrics in trial.records()
    ]  # fmt: skip
    return json.dumps(records).encode()


def left(trial):
    """What a run has come to: its records, its end, and bytes of its checkpoints by step."""
    result = trial.finished()
    saved = {
        step: trial.store.get(f"{trial.folder}/{name}")
        for step, name in sorted(result["checkpoints"].items())
    }
    saved["of images"] = trial.store.get(f"{trial.attempt_folder(result['attempt'])}/{BY_IMAGE}")
    for key in sorted(trial.of_images(result), key=lambda key: key.rpartition("/")[2]):
        saved[key.rpartition("/")[2]] = trial.store.get(key)
    return measured(trial), [result[n] for n in ("status", "step", "steps", "chain")], saved


@pytest.fixture(scope="module")
def whole(config, images, tmp_path_factory):
    """What an undisturbed run comes to, and how many operations of the store it takes."""
    torch.set_num_threads(1)
    store = Injecting(open_store(tmp_path_factory.mktemp("whole")))
    trial = run(store, config, images)
    counted = len(store.operations)
    return left(trial), counted


def test_an_undisturbed_run_has_one_attempt_and_all_that_its_result_names(whole):
    (records, ended, saved), _ = whole
    assert [step for step, _ in json.loads(records)] == [0, 1, 2, 3, 4]
    assert ended[1:3] == [4, 4]
    of_images = ["by_image-0.safetensors", "maps-0.safetensors", "maps-4.safetensors"]
    assert list(saved) == ["1", "4", "of images", *of_images]
    assert all(saved.values())


def moments(count, sample=6):
    """Some of the operations of a run, and on which side of them it is killed."""
    every = [(moment, after) for moment in range(1, count + 1) for after in (False, True)]
    return sorted(random.Random(0).sample(every, sample))


@pytest.mark.parametrize("part", range(3))
def test_a_kill_at_any_operation_of_the_store_leaves_what_ends_equal(
    config, images, whole, tmp_path, part
):
    expected, count = whole
    for moment, after in moments(count)[part::3]:
        ends_equal_after_a_kill(config, images, expected, tmp_path, moment, after=after)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_every_operation_of_the_store_leaves_what_ends_equal(
    config, images, whole, tmp_path, after
):
    expected, count = whole
    for moment in range(1, count + 1):
        ends_equal_after_a_kill(config, images, expected, tmp_path, moment, after=after)


def ends_equal_after_a_kill(config, images, expected, tmp_path, moment, *, after):
    root = tmp_path / f"{moment}{after}"
    store = open_store(root, make=True)
    with pytest.raises(StoppedError):
        run(Injecting(store, at=moment, after=after, of=OPERATIONS), config, images)
    trial = run(store, config, images, over={1})
    assert left(trial) == expected, (moment, after)
    assert store.names(trial.folder) == ["attempts", "config.json", "result.json"]
    # Names that begin with a dot are of writes that a kill cut off; the store shows none.
    assert len([one for one in store.list() if one.key.endswith("result.json")]) == 1
    assert find_run(root / trial.folder).step == 4


def test_a_run_that_is_killed_again_and_again_comes_to_the_same(config, images, whole, store):
    killed_at(1, store, config, images)
    killed_at(2, store, config, images, over={1})
    trial = run(store, config, images, over={2})
    assert left(trial) == whole[0]
    result = trial.finished()
    assert (result["attempt"], result["resumed_at"], result["damaged"]) == (3, 2, [])
    # What stays of earlier attempts is named where it lies.
    assert {step: name.split("/")[1] for step, name in result["checkpoints"].items()} == {
        "1": "0001", "4": "0003",
    }  # fmt: skip
    assert [trial.lease(3).from_attempt, trial.lease(3).from_step] == [2, 2]
    assert sorted(result["of_images"]) == [
        "attempts/0001/by_image-0.safetensors",
        "attempts/0001/maps-0.safetensors",
        "attempts/0003/maps-4.safetensors",
    ]
    # Its own folder holds every record.
    number, keys = trial.newest_segments()
    assert number == 3
    names = [key.rpartition("/")[2] for key in keys]
    assert names[0] == "metrics-000000000.jsonl"
    assert set(names) == {name for name in result["files"] if is_segment(name)}


def flipped(content):
    """The same with 100 bytes changed in the middle."""
    start = (len(content) - 100) // 2
    middle = bytes(byte ^ 0xFF for byte in content[start : start + 100])
    return content[:start] + middle + content[start + 100 :]


DAMAGES = {"flipped": flipped, "cut": lambda content: content[: len(content) // 2],
           "empty": lambda _: b"", "missing": None}  # fmt: skip


def damage(store, key, how):
    content = store.get(key)
    assert content
    store.delete(key)
    if how:
        store.put(key, how(content))


@pytest.mark.parametrize(
    ("part", "how"),
    [("checkpoint-2.safetensors", how) for how in DAMAGES]
    + [("checkpoint-2.json", how) for how in ("flipped", "cut", "empty")]
    + [("metrics-000000002.jsonl", how) for how in ("flipped", "missing")],
)
def test_a_checkpoint_that_is_damaged_or_lacks_records_is_passed_over(
    config, images, whole, store, part, how
):
    killed_at(2, store, config, images)
    trial = StoredTrial(store, "trial")
    damage(store, f"{trial.attempt_folder(1)}/{part}", DAMAGES[how])
    run(store, config, images, over={1})
    assert left(trial) == whole[0]
    (line,) = trial.finished()["damaged"]
    assert line.startswith(f"{store.shown}/{trial.attempt_folder(1)}/{part} is ")
    assert "\n" not in line
    assert trial.finished()["resumed_at"] == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b'{"status": "finished", "step": 4}', b"null"]
)
def test_a_damaged_result_is_one_line_and_set_aside_it_comes_again(
    config, images, whole, tmp_path, content
):
    store = open_store(tmp_path)
    trial = StoredTrial(store, "trial")
    store.put(trial.result_key, content)
    for ask in (trial.finished, trial.records, lambda: run(store, config, images)):
        with pytest.raises(InputError, match="is damaged") as caught:
            ask()
        assert str(caught.value).startswith(f"{store.shown}/trials/trial/result.json")
        assert "\n" not in str(caught.value)
    said = []
    trial.set_aside_damaged(said.append)
    assert len(said) == 1
    assert said[0].endswith("set aside as " + f"{trial.shown}/damaged/0001/result.json")
    assert store.get("trials/trial/damaged/0001/result.json") == content
    assert trial.finished() is None


def test_one_changed_digit_of_a_result_is_damage(config, images, tmp_path):
    store = open_store(tmp_path)
    trial = run(store, config, images)
    content = store.get(trial.result_key)
    assert trial.finished()["attempt"] == 1
    store.put(trial.result_key, content.replace(b'"resumed_at": 0', b'"resumed_at": 1'))
    with pytest.raises(InputError, match="is damaged"):
        trial.finished()


WHOLE_BEFORE = {"metrics-000000000.jsonl": 0, "metrics-000000003.jsonl": 1, BY_IMAGE: 4,
                "maps-4.safetensors": 1, "maps-0.safetensors": 0, AT_START: 0}  # fmt: skip


@pytest.mark.parametrize(("part", "step"), WHOLE_BEFORE.items())
def test_a_run_whose_files_are_damaged_comes_again_from_where_they_are_whole(
    config, images, whole, tmp_path, part, step
):
    store, said = open_store(tmp_path), []
    trial = run(store, config, images)
    damage(store, f"{trial.attempt_folder(1)}/{part}", flipped)
    trial.set_aside_damaged(said.append)
    assert len(said) == 1
    assert f"{part} is damaged: its digest is another" in said[0]
    run(store, config, images)
    assert left(trial) == whole[0]
    assert trial.finished()["resumed_at"] == step
    trial.set_aside_damaged(said.append)
    assert len(said) == 1


class Overtaken:
    """At a step another attempt is made at the run, to its end; then this one goes on."""

    def __init__(self, store, config, images, at):
        self.store, self.config, self.images, self.at = store, config, images, at

    def report(self, step, metrics, *, checkpoint=None):
        if step == self.at and metrics:
            trial = run(self.store, self.config, self.images, over={1})
            self.others = self.outside(trial)
            self.then(trial)

    def outside(self, trial):
        """What is in the root but for the first attempt."""
        own = f"{trial.attempt_folder(1)}/"
        keys = [one.key for one in self.store.list() if not one.key.startswith(own)]
        return {key: self.store.get(key) for key in keys}

    def then(self, trial):
        pass


class OvertakenAndTold(Overtaken):
    """Its lease has been written since."""

    def then(self, trial):
        seen, until = trial.lease(1).beat, time.monotonic() + 30
        while trial.lease(1).beat < seen + 2:
            assert time.monotonic() < until


@pytest.mark.parametrize("at", [1, 3, 4])
def test_an_attempt_that_wakes_writes_in_its_own_folder_and_its_result_is_not_taken(
    config, images, whole, tmp_path, at
):
    reporter = Overtaken(open_store(tmp_path), config, images, at)
    trial = run(reporter.store, config, images, reporter=reporter)
    assert reporter.outside(trial) == reporter.others
    assert trial.finished()["attempt"] == 2
    assert trial.lease(1).outcome == "superseded"
    assert left(trial) == whole[0]


def test_an_attempt_ends_when_it_learns_that_another_has_begun(
    config, images, whole, tmp_path, monkeypatch
):
    monkeypatch.setenv("DINOLAB_LEASE_S", "1")
    reporter = OvertakenAndTold(open_store(tmp_path), config, images, 1)
    trial = run(reporter.store, config, images, reporter=reporter)
    assert reporter.outside(trial) == reporter.others
    assert trial.lease(1).outcome == "superseded"
    assert trial.lease(1).step == 2
    assert trial.failed() is None
    assert left(trial) == whole[0]


class OvertakenByOneThatEnds(OvertakenAndTold):
    """The other attempt ends without a result."""

    def report(self, step, metrics, *, checkpoint=None):
        trial = StoredTrial(self.store, "trial")
        if step == self.at and metrics and trial.attempts() == [1]:
            claimed(trial, steps=4, driver="", over={1}, waits=False).end("interrupted")
            self.then(trial)


def test_a_run_that_waits_for_others_goes_on_when_the_one_that_overtook_it_leaves_no_result(
    config, images, whole, tmp_path, monkeypatch
):
    monkeypatch.setenv("DINOLAB_LEASE_S", "1")
    reporter = OvertakenByOneThatEnds(open_store(tmp_path), config, images, 1)
    trial = run(reporter.store, config, images, reporter=reporter)
    assert trial.lease(1).outcome == "superseded"
    assert trial.finished()["attempt"] == 3
    assert left(trial) == whole[0]


class Removed:
    """The whole root is gone once training has begun."""

    def __init__(self, root):
        self.root = root

    def report(self, step, metrics, *, checkpoint=None):
        if step == 0 and metrics:
            shutil.rmtree(self.root)


def test_a_root_that_has_gone_away_is_not_made_again(config, images, tmp_path):
    root = tmp_path / "root"
    few = override(config, {"log_every": 100})
    with pytest.raises(OSError, match=r"could not be written|is gone"):
        run(open_store(root, make=True), few, images, reporter=Removed(root))
    assert not root.exists()
