"""A root that is full, cannot be written, or goes away: one line, nothing lost, and it goes on."""

import errno
import itertools
import os
import time

import pytest

from tests.reliability.kills import Kills
from tests.reliability.little import drive, files, in_a_process, undisturbed_study, wrong
from trainers.errors import DinolabError, RootError, StoreError, UnwrittenError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the study comes to, and the changes of the root that it takes."""
    return undisturbed_study(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """A lease that its holder could not end any more is over soon, though this process lives."""
    monkeypatch.setenv("DINOLAB_LEASE_S", "1")


def troubled(root, monkeypatch, at, act, last=0):
    """The error with which a driver ends that has trouble at changes of its root."""
    kills = Kills(root, root.with_suffix(".log"), at, act=act, last=last)
    with monkeypatch.context() as patched:
        for name, call in kills.calls().items():
            patched.setattr(os, name, call)
        with pytest.raises(DinolabError) as raised:
            drive(root, 1)
    line = str(raised.value)
    assert "\n" not in line
    assert str(root) in line
    return raised.value


def fails_with(number):
    def act():
        raise OSError(number, os.strerror(number))

    return act


def leaving(root, away):
    """Moves a root away at once, as what is removed one by one is still written to."""
    rename = os.rename

    def goes():
        if root.is_dir():
            rename(root, away)

    return goes


def number_of(changed, text, which=0):
    return [n for n, one in enumerate(changed, start=1) if text in one][which]


WRITTEN = [
    "lease.json", "config.json", "metrics-", "checkpoint-1.safe", "checkpoint-2.json",
    "result.json", "results.parquet",
]  # fmt: skip


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "failing"])
@pytest.mark.parametrize("written", WRITTEN)
def test_a_disk_that_takes_nothing_more_is_a_line_and_once_it_does_the_run_goes_on(
    undisturbed, tmp_path, monkeypatch, written, number
):
    expected, changed = undisturbed
    root = tmp_path / "root"
    at = number_of(changed, written)
    error = troubled(root, monkeypatch, at, fails_with(number), last=10**6)
    assert isinstance(error, StoreError | UnwrittenError)
    assert os.strerror(number) in str(error)
    assert "run the same command again" in str(error)
    drive(root, 1)
    assert not wrong(root, expected)


def test_a_root_that_cannot_be_written_is_refused_before_anything_is(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.mkstemp", refused)
    with pytest.raises(RootError) as raised:
        drive(root, 1)
    assert str(raised.value) == (
        f"run root {root} cannot be written (Read-only file system); choose another with --root"
    )
    assert files(root) == {}


@pytest.mark.parametrize("written", WRITTEN[:-1])
def test_a_root_that_is_removed_is_a_line_and_not_made_again_by_what_runs(
    undisturbed, tmp_path, monkeypatch, written
):
    expected, changed = undisturbed
    root = tmp_path / "root"
    goes = leaving(root, tmp_path / "away")
    error = troubled(root, monkeypatch, number_of(changed, written), goes)
    assert "bring it back" in str(error)
    assert not root.exists()
    drive(root, 1)
    assert not wrong(root, expected)


@pytest.mark.parametrize("written", WRITTEN[:-1])
def test_a_root_that_goes_away_and_comes_back_loses_nothing(
    undisturbed, tmp_path, monkeypatch, written
):
    expected, changed = undisturbed
    root, away = tmp_path / "root", tmp_path / "away"
    goes = leaving(root, away)
    error = troubled(root, monkeypatch, number_of(changed, written, -1), goes)
    assert "bring it back" in str(error)
    assert not root.exists()
    away.rename(root)
    drive(root, 1)
    assert not wrong(root, expected)
    # The other trial was finished by then, or had not begun.
    again = {key.split("/")[1] for key in files(root) if key.endswith("0002/lease.json")}
    assert len(again) <= 1


class Backwards:
    """A clock that goes back an hour at each look; no decision asks it."""

    def install(self) -> None:
        hours = itertools.count()
        time.time = lambda: 2e9 - 3600.0 * next(hours)


def test_no_decision_asks_the_clock_of_the_wall(undisturbed, tmp_path):
    expected, changed = undisturbed
    root = tmp_path / "root"
    at = number_of(changed, "checkpoint-2.json")
    killed = in_a_process(root, 1, Kills(root, tmp_path / "log", at, after=True))
    killed.join()
    assert killed.exitcode < 0
    both = [in_a_process(root, 1, Backwards()), in_a_process(root, 1)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert not wrong(root, expected)
