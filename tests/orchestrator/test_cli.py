"""The command line: help that is enough, one line for bad input."""

import json
import sys

import pytest

from ablations.study import StudyFile
from orchestrator import cli

COMMANDS = ["run", "plan", "report", "list", "train", "ui", "schema", "ingest"]


@pytest.fixture
def dinolab(monkeypatch, capsys):
    """Runs `dinolab` in this process: exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["dinolab", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(dinolab, command):
    code, out, _ = dinolab(command, "--help")
    assert code == 0
    assert f"Usage: dinolab {command}" in out
    assert len(out) > 200


def test_help_names_every_command_and_the_exit_codes(dinolab):
    code, out, _ = dinolab("--help")
    assert code == 0
    assert all(command in out for command in COMMANDS)
    assert "130 interrupted" in out


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("ablations", ["cls_position_tied", "loss_on_patches"]),
        ("recipes", ["digits_tiny"]),
        ("datasets", ["digits", "1,797"]),
        ("metrics", ["globality/cls/gyration", "knn/patch_top1", "collapse/target_entropy"]),
        ("studies", ["demo.yaml"]),
        ("knobs", ["model.cls_position", "optimizer.learning_rate"]),
    ],
)
def test_lists_name_what_there_is(dinolab, what, names):
    code, out, _ = dinolab("list", what)
    assert code == 0
    assert all(name in out for name in names)


def test_the_schema_is_printed_for_editors(dinolab):
    code, out, _ = dinolab("schema")
    assert code == 0
    assert json.loads(out) == StudyFile.model_json_schema()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["list", "things"], "list things: no such list (allowed: ablations, recipes"),
        (["train", "digit_tiny"], "did you mean digits_tiny?"),
        (["train", "digits_tiny", "--set", "steps"], "must be KNOB=VALUE"),
        (["train", "digits_tiny", "--set", "step=4"], "step: no such knob; did you mean steps?"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(dinolab, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    code, out, err = dinolab(*arguments)
    assert code == 2
    assert line in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "line"),
    [("nowhere", "No such file"), ("file.txt", "Not a directory"), ("empty", "empty")],
)
def test_data_that_cannot_be_used_is_one_line(dinolab, mini, tmp_path, data, line):
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    code, _, err = dinolab("run", mini, "--root", tmp_path / "runs", "--data", tmp_path / data)
    assert code == 2
    assert line in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs" / "mini").exists()


def test_a_root_that_cannot_be_written_is_one_line(dinolab, mini, tmp_path):
    # Not a question of permissions, which do not bind everyone: a file stands in the way.
    (tmp_path / "runs").write_text("x")
    code, _, err = dinolab("run", mini, "--root", tmp_path / "runs")
    assert code == 2
    assert "cannot be written" in err
    assert len(err.strip().splitlines()) == 1


def test_workers_must_divide_the_batch(dinolab, mini, tmp_path):
    code, _, err = dinolab("run", mini, "--root", tmp_path / "runs", "--workers", 3)
    assert code == 2
    assert "batch_size 16 does not divide by 3 workers" in err


def test_a_plan_shows_everything_and_trains_nothing(dinolab, mini, tmp_path):
    code, out, _ = dinolab("plan", mini, "--root", tmp_path / "runs")
    assert code == 0
    for part in ("model.cls_position: learned → none", "loss.cls: 1.0 → 0.0", "parameters",
                 "6 runs, 0 finished, 6 to train: about", "none_is_equivalent"):  # fmt: skip
        assert part in out
    assert not (tmp_path / "runs" / "mini").exists()


@pytest.mark.filterwarnings("ignore")
def test_one_run_without_a_study_goes_on_where_it_stopped(dinolab, tmp_path):
    root = tmp_path / "runs"
    arguments = ["train", "digits_tiny", "--root", root, "--set", "steps=4",
                 "--set", "evaluation.every=4", "--set", "log_every=2"]  # fmt: skip
    code, out, err = dinolab(*arguments)
    assert code == 0, err
    assert "step 4/4  loss/total" in out
    (result,) = root.glob("train/trials/*/result.json")
    before = result.stat().st_mtime_ns
    code, out, _ = dinolab(*arguments)
    assert code == 0
    assert "finished already: nothing to train" in out
    assert result.stat().st_mtime_ns == before


def test_a_report_is_rebuilt_from_the_run_folder_alone(dinolab, finished, tmp_path):
    import shutil

    folder = tmp_path / "mini"
    shutil.copytree(finished[0] / "mini", folder)
    for name in ("report.html", "results.parquet", "verdicts.json"):
        (folder / name).unlink()
    code, out, _ = dinolab("report", folder)
    assert code == 0
    assert "INCONCLUSIVE" in out
    for name in ("report.html", "results.parquet", "verdicts.json"):
        assert (folder / name).exists()
    again = (folder / "results.parquet").read_bytes()
    assert again == (finished[0] / "mini" / "results.parquet").read_bytes()


def test_the_ui_needs_a_store(dinolab, tmp_path):
    code, _, err = dinolab("ui", "--root", tmp_path)
    assert code == 2
    assert "has no MLflow store yet" in err


def test_a_ray_job_writes_below_home_and_not_into_its_temporary_copy(monkeypatch, tmp_path, capsys):
    from pathlib import Path

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    console = cli._console()
    assert cli._root(Path("runs"), console) == tmp_path / "runs"
    assert f"run root {tmp_path / 'runs'}" in capsys.readouterr().out
    assert cli._root(Path("/shared"), console) == Path("/shared")
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    monkeypatch.chdir(tmp_path)
    assert cli._root(Path("here"), console) == tmp_path / "here"
