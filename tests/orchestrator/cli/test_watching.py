"""The live board: 80 columns, whatever names it holds, and no longer than the study runs."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from rich.cells import cell_len
from rich.console import Console, Group

from ablations.registration import registration_key
from ablations.study.where import packaged_studies
from dashboards.tables.watched import Watched
from orchestrator.cli.watching import _looks, board_of, duration
from tests.dashboards.conftest import ARMS, SEEDS, maker
from tests.dashboards.tables.test_watched import at_work, left_failed, of_time
from tests.orchestrator.conftest import environment
from tests.registered import restated
from tests.trainers.system.object_server import credentials, object_server
from trainers.system.store import open_store

HOSTILE = (
    "[red]x[/red] :dog:",
    "a\nb\r\x1b[2J\x07",
    "n" * 300,
    "\u202ereversed",
    "宽" * 90,
    "../..",
)

HALF = {(arm, seed): "missing" for arm in ARMS for seed in SEEDS[2:]} | {
    ("baseline", 0): "failed", ("baseline", 1): "stopped",
}  # fmt: skip


@pytest.fixture
def half(tmp_path):
    """A study of which half has run."""
    made = maker(tmp_path / "runs")(HALF)
    left_failed(made, "baseline", 0)
    return made


def lines_of(seen, width=80, height=None):
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(Group(*board_of(seen, width, height)))
    return captured.get().splitlines()


def renamed(made, name):
    """Gives every arm but the baseline, and every hypothesis, a name that begins so."""

    def rename(stated):
        arms = {arm: arm if arm == "baseline" else f"{name}{n}" for n, arm in enumerate(ARMS)}
        resolved = stated["resolved"]
        resolved["arms"] = {arms[arm]: one for arm, one in resolved["arms"].items()}
        stated["arms"] = {arms[arm]: one for arm, one in stated["arms"].items()}
        for trial in stated["trials"]:
            trial["arm"] = arms[trial["arm"]]
        resolved["gates"] = {}
        some = {**next(iter(resolved["hypotheses"].values())), "control": ""}
        some["contrast"] = [arms["loss_on_patches"], "baseline"]
        resolved["hypotheses"] = {name: some}

    restated(made.registration, rename)


def test_a_board_half_way_says_state_step_speed_and_time_left(half):
    of_time(half)
    records = [(0, {"globality/cls/entropy": 0.9}), (50, {"loss/total": 1.25})]
    with at_work(half.store, half.trial("baseline", 2).key, *records):
        shown = lines_of(Watched(half.store, half.name).look())
    text = "\n".join(shown)
    assert shown[0] == "Study why_cls_is_global"
    assert "1 running" in text
    assert "1 failed (fail)" in text
    row = next(line for line in shown if "50/100" in line).split()
    assert row == ["baseline", "2", "50/100", "2", "25", "s", "1.2500", "0.9000"]
    assert "worker lost: <out of memory>" in text
    assert "baseline 1: collapsed: at step 240: outputs are the same for every image" in text
    assert "verdicts: none before all runs have ended" in text
    assert "baseline           fail  coll  50 %     ·     ·     ·" in shown


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("otherwise", ["missing", "finished"])
def test_names_that_are_hostile_stay_inside_the_board(tmp_path, name, otherwise):
    made = maker(tmp_path / "runs")(HALF if otherwise == "missing" else {})
    renamed(made, name)
    records = [(50, {"loss/total": 1.25})]
    if otherwise == "missing":
        with at_work(made.store, made.trial("loss_on_patches", 2).key, *records):
            shown = lines_of(Watched(made.store, made.name).look())
    else:
        shown = lines_of(Watched(made.store, made.name).look())
    assert max(map(cell_len, shown)) <= 80
    assert all(line.isprintable() for line in shown)
    begins = {"[": "[red]x[/red] :dog:", "a": r"a\nb\r\x1b[2J\x07"}.get(name[0])
    assert begins is None or any(line.startswith(begins) for line in shown)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 8, 24, None])
def test_a_board_keeps_to_its_width_and_of_its_arms_to_its_height(half, width, height):
    def add(stated):
        resolved = stated["resolved"]
        for n in range(40):
            resolved["arms"][f"arm_{n}"] = {}
            stated["arms"][f"arm_{n}"] = stated["arms"]["baseline"]
        keys = {(trial["arm"], trial["seed"]): trial for trial in stated["trials"]}
        resolved["seeds"] = list(range(100, 130))
        stated["trials"] = [
            {**keys.get((arm, seed - 100), {"key": f"{arm}-{seed}"}), "arm": arm, "seed": seed}
            for arm in resolved["arms"] for seed in resolved["seeds"]
        ]  # fmt: skip

    restated(half.registration, add)
    shown = lines_of(Watched(half.store, half.name).look(), width, height)
    assert max(map(cell_len, shown)) <= width
    if height == 24 and width >= 80:
        assert len(shown) <= height
        assert "other arms: dinolab status" in shown[-1]
    if height is None and width >= 80:
        assert all(any(line.startswith(f"arm_{n} ") for line in shown) for n in range(40))


def test_without_a_terminal_a_complete_study_is_printed_once_and_plainly(
    dinolab, tmp_path, monkeypatch
):
    made = maker(tmp_path / "runs")()
    code, out, err = dinolab("watch", made.name, "--root", made.root)
    assert (code, err) == (0, "")
    assert out.count("Study why_cls_is_global\n") == 1
    assert "\x1b" not in out
    assert "\ncls_needs_no_position: SUPPORTED (6 seeds, -0.003" in out
    assert "\nloss_on_cls_makes_it_us…: " in out
    assert max(map(cell_len, out.splitlines())) <= 80
    assert dinolab("watch", "--root", made.root)[:2] == (0, out)
    made.store.put(registration_key("damaged", 1), b"{")
    code, all_, _ = dinolab("watch", "--root", made.root)
    assert (code, all_.endswith(out)) == (0, True)
    assert "registrations/0001.json is damaged" in all_.splitlines()[0]


def test_a_study_over_with_a_failed_run_says_so_and_exits_as_run_does(dinolab, tmp_path):
    made = maker(tmp_path / "runs")({("baseline", 0): "failed"})
    left_failed(made, "baseline", 0)
    made.store.put("studies/why_cls_is_global/verdicts.json", b"{}")
    code, out, _ = dinolab("watch", made.name, "--root", made.root)
    assert code == 3
    assert "a run failed: dinolab report why_cls_is_global says what that means" in out
    assert "none before all runs" not in out
    assert "FAILED" in out
    compared = dinolab("compare", made.name, made.name, "--root", made.root)[1]
    assert "runs are missing" not in compared
    assert "FAILED" in compared


def test_a_complete_study_without_hypotheses_waits_for_nothing(dinolab, tmp_path):
    made = maker(tmp_path / "runs")(hypotheses={})
    code, out, _ = dinolab("watch", made.name, "--root", made.root)
    assert code == 0
    assert "none before all runs" not in out


def test_a_study_is_named_by_its_file_too(dinolab, tmp_path):
    made = maker(tmp_path / "runs")(name="demo")
    file = tmp_path / "another.yaml"
    file.write_text(packaged_studies()["demo"].read_text())
    for command in ("watch", "status"):
        by_name = dinolab(command, "demo", "--root", made.root)
        assert dinolab(command, file, "--root", made.root) == by_name
        assert by_name[0] == 0
    assert dinolab("compare", file, "demo", "--root", made.root)[0] == 0


def test_what_cannot_be_watched_is_one_line(dinolab, tmp_path):
    (tmp_path / "runs").mkdir()
    for arguments, line in (
        (("--root", tmp_path / "nowhere"), "nowhere is not there: give another --root"),
        (("--root", tmp_path / "runs"), "runs has no studies yet: run one first"),
        (("s\nt", "--root", tmp_path / "runs"), "is no study: it has no registration"),
        (("s", "--every", 0, "--root", tmp_path / "runs"), "Invalid value for '--every'"),
    ):
        code, out, err = dinolab("watch", *arguments)
        assert (code, out) == (2, "")
        assert line in err
        assert len(err.splitlines()) == 1


def in_terminal(root, until, **changes):
    """What `dinolab watch` writes to a terminal until `until` is there; then Ctrl-C. And its code.

    Nothing of Ray and MLflow can be imported.
    """
    program = (
        "import builtins, sys\n"
        "real = builtins.__import__\n"
        "def watched(name, *rest):\n"
        "    assert name.split('.')[0] not in ('ray', 'mlflow', 'torch'), name\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = watched\n"
        "from orchestrator.__main__ import main\n"
        "main()"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program, "watch", "--root", root],
        stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment(COLUMNS="80", LINES="40", TERM="xterm", **changes),
    )  # fmt: skip
    os.close(theirs)
    out, end = b"", time.monotonic() + 60
    asked = False
    with contextlib.suppress(OSError):  # the other end is closed
        while time.monotonic() < end:
            out += os.read(ours, 4096)
            if until in out and not asked:
                asked = True
                process.send_signal(signal.SIGINT)
    os.close(ours)
    return process.wait(60), out.decode()


def test_ctrl_c_ends_watching_without_a_word_and_gives_the_cursor_back(half):
    code, out = in_terminal(half.root, b"loss_on_patches")
    assert code == 130
    assert "interrupted" not in out
    assert "Traceback" not in out
    assert out.rfind("\x1b[?25h") > out.rfind("\x1b[?25l") > -1
    assert "\x1b[31m" in out


def test_with_no_color_there_are_plain_lines_in_a_terminal(half):
    code, out = in_terminal(half.root, b"loss_on_patches", NO_COLOR="1")
    assert code == 130
    assert "\x1b" not in out
    assert "interrupted" not in out


def test_a_root_that_is_away_for_a_while_is_noted_and_asked_again(half):
    looks = _looks([Watched(half.store, half.name)], every=0.01)
    seen, note = next(looks)
    away = half.root.rename(half.root.parent / "away")
    assert next(looks)[0] == seen
    assert str(half.root) in next(looks)[1]
    away.rename(half.root)
    assert (next(looks)[1], note) == ("", "")


@pytest.mark.slow
def test_a_root_on_object_storage_is_watched_like_a_folder(dinolab, tmp_path, monkeypatch):
    made = maker(tmp_path / "runs")()
    here = dinolab("watch", made.name, "--root", made.root)
    with object_server() as server:
        credentials(server, monkeypatch)
        there = open_store("s3://bucket/runs", make=True)
        for one in made.store.list():
            there.put(one.key, made.store.get(one.key))
        assert dinolab("watch", made.name, "--root", "s3://bucket/runs") == here


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (5340, "89 min"), (5400, "1 h 30"),
     (7170, "2 h 00"), (170000, "47 h 13"), (200000, "2 d 8 h")],
)  # fmt: skip
def test_times_are_short(seconds, said):
    assert duration(seconds) == said
