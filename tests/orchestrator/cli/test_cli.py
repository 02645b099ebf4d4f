"""The command line: help that is enough, one line for bad input."""

import inspect
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer

from ablations.study.loading import load_study
from ablations.study.schema import StudyFile
from orchestrator.cli import entry
from tests.orchestrator.conftest import HARDLY_EVALUATED

EXAMPLE = Path(__file__).parent.parent.parent.parent / "examples" / "my_ablation"


@pytest.mark.parametrize("command", entry.COMMANDS)
def test_every_command_explains_itself(dinolab, command):
    code, out, _ = dinolab(command, "--help")
    assert code == 0
    assert f"Usage: dinolab {command}" in out
    purpose = inspect.getdoc(entry.COMMANDS[command]).splitlines()[0]
    assert " ".join(purpose.split()[:4]) in " ".join(out.split())
    for parameter in typer.main.get_command(entry.app).commands[command].params:
        assert getattr(parameter, "help", None) or parameter.name in ("name", "what"), parameter


def test_help_names_every_command_and_the_exit_codes(dinolab):
    code, out, _ = dinolab("--help")
    assert code == 0
    for name, command in entry.COMMANDS.items():
        purpose = inspect.getdoc(command).splitlines()[0].split()
        assert re.search(rf"│ {name} +{re.escape(' '.join(purpose[:3]))}", out), name
    assert "130 interrupted" in out


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("ablations", ["cls_position_tied", "loss_on_patches"]),
        ("recipes", ["digits_tiny"]),
        ("datasets", ["digits", "1,797", "Where an image is transparent it is white."]),
        ("metrics", ["globality/cls/gyration", "knn/patch_top1", "collapse/target_entropy"]),
        ("studies", ["demo", "The whole path, small", "why_cls_is_global"]),
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
        (["run", "demos"], "no packaged study of that name; did you mean demo? (allowed: a YAML"),
        (["run", "."], "study . cannot be read: a folder, and no packaged study of that name"),
        (["new", "study", "train"], "new study train: a run root has such a folder"),
        (["run"], "dinolab run: Missing argument 'study'"),
        (
            ["run", "demo", "--scle", "x"],
            "No such option: --scle (Possible options: --scale, --seeds)",
        ),
        (["rnu", "demo"], "dinolab: No such command 'rnu'. Did you mean 'run'?"),
        (
            ["train", "digits_tiny", "--threads", "0"],
            "dinolab train: Invalid value for '--threads'",
        ),
        (["list", "things"], "'things' is not one of 'ablations', 'recipes'"),
        (["list", "recipe"], "; did you mean recipes? (`dinolab list --help` says more)"),
        (["list", "knobs", "--recipe", "digit_tiny"], "did you mean digits_tiny?"),
        (["list", "metrics", "--recipe", "digits_tiny"], "--recipe belongs to `list knobs` alone"),
        (["list", "runs"], "runs is not there: give another --root, or run a study first"),
        (["train", "digit_tiny"], "did you mean digits_tiny?"),
        (["train", "digits_tiny", "--set", "steps"], "must be KNOB=VALUE"),
        (["train", "digits_tiny", "--set", "step=4"], "step: no such knob; did you mean steps?"),
        (["train", "digits_tiny", "--profile", __file__], "a file; give a folder, new or not"),
        (
            ["report", "nowhere"],
            "(allowed: a YAML file, a run folder, demo, ladder, ladder_cluster, why_cls_is_global)",
        ),
        (["eval", "nowhere"], "nowhere is not there: give a checkpoint"),
        (["eval", "."], "holds no checkpoint"),
        (["new", "ablation", "My-Own"], "new ablation My-Own: a name is lower-case letters"),
        (["new", "ablation", "sinkhorn"], "new ablation sinkhorn: the catalogue has one"),
        (["new", "recipe", "mine"], "'recipe' is not one of 'ablation', 'study'"),
        (["new", "stdy", "mine"], "did you mean study?"),
        (["new", "study", "My-Own"], "new study My-Own: a name is lower-case letters"),
        (["new", "study", "null"], "and no word that YAML reads as a value"),
        (["new", "study", "demo"], "demo.yaml has the name; choose another"),
        (["list", "ablations", "--ablations", "nowhere"], "--ablations nowhere is no .py file"),
        (["list", "knobs", "--ablations", "."], "--ablations belongs to `list ablations` alone"),
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
    [
        ("nowhere", "cannot be read: No such file or directory"),
        ("file.txt", "cannot be read: Not a directory"),
        ("empty", "holds no images, nor do the folders in it; give a folder of AVIF, BMP"),
    ],
)
def test_data_that_cannot_be_used_is_one_line(dinolab, mini, tmp_path, data, line):
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    code, _, err = dinolab("run", mini, "--root", tmp_path / "runs", "--data", tmp_path / data)
    assert code == 2
    assert line in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "runs" / "studies").exists()


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


def test_own_ablations_are_listed_with_where_they_come_from(dinolab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, _ = dinolab("new", "ablation", "mine", "--out", "own")
    assert code == 0
    code, out, err = dinolab("list", "ablations", "--ablations", "own")
    assert code == 0, err
    assert "own/mine.py" in out
    assert "catalogue" in out


def test_a_new_ablation_says_how_to_use_it_and_is_not_written_twice(dinolab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = dinolab("new", "ablation", "mine")
    assert code == 0
    assert "mine.py: change it, then name mine in a study and give --ablations mine.py" in out
    before = (tmp_path / "mine.py").read_text()
    code, out, err = dinolab("new", "ablation", "mine")
    assert code == 2
    assert "mine.py is there already" in err
    assert (tmp_path / "mine.py").read_text() == before


@pytest.mark.parametrize("command", ["plan", "run", "report"])
def test_a_broken_file_of_ablations_is_one_line(dinolab, tmp_path, command):
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_the_kind")
    study = tmp_path / "study.yaml"
    study.write_text("name: a\nrecipe: digits_tiny\nseeds: 6\narms: [broken]\n")
    code, out, err = dinolab(command, study, "--root", tmp_path / "runs", "--ablations", broken)
    assert code == 2
    assert f"{broken} cannot be imported: ModuleNotFoundError" in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in out + err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_one_run_without_a_study_goes_on_where_it_stopped(dinolab, tmp_path):
    root = tmp_path / "runs"
    arguments = ["train", "digits_tiny", *HARDLY_EVALUATED, "--root", root, "--set", "steps=4",
                 "--set", "evaluation.every=4", "--set", "log_every=2"]  # fmt: skip
    code, out, err = dinolab(*arguments)
    assert code == 0, err
    assert "step 4/4  loss/total" in out
    (result,) = root.glob("trials/*/result.json")
    before = result.stat().st_mtime_ns
    code, out, _ = dinolab(*arguments)
    assert code == 0
    assert "finished already: nothing to train" in out
    assert result.stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_without_a_study_is_profiled(dinolab, tmp_path):
    place = tmp_path / "profile"
    code, out, err = dinolab("train", "digits_tiny", *HARDLY_EVALUATED, "--root", tmp_path / "runs",
                             "--profile", place, "--set", "steps=6",
                             "--set", "evaluation.every=6")  # fmt: skip
    assert code == 0, err
    assert f"note: profile of steps 4 to 6 of this process: {place / 'trace.json'}" in out
    assert sorted(path.name for path in place.iterdir()) == ["operations.txt", "trace.json"]


@pytest.fixture
def saved(run):
    """The folder of a run that was saved at step 0."""
    return run({})


@pytest.mark.slow
def test_a_checkpoint_is_measured_and_explained(dinolab, saved, tmp_path):
    from trainers.metrics import EVALUATED

    arguments = ["--set", "evaluation.knn_neighbours=5", "--root", tmp_path / "runs"]
    code, out, err = dinolab("eval", saved, *arguments, "--json", tmp_path / "metrics.json")
    assert code == 0, err
    assert "step 0 of 600, digits: 1797 images, 359 held out, on " in out
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert {name for name in EVALUATED if "register" not in name} <= set(written["metrics"])
    assert "globality/cls/gyration@1.1" in written["metrics"]
    assert written["evaluation"]["knn_neighbours"] == 5
    for name in ("linear_probe/cls_top1", "position_probe/r2", "knn/cls_top1"):
        (line,) = (line for line in out.splitlines() if name in line)
        assert f"{written['metrics'][name]:.4f}" in line
    assert "share of the variance of row and column" in out


def test_a_checkpoint_is_measured_on_other_images(dinolab, saved, tmp_path):
    from PIL import Image

    for number in range(8):
        place = tmp_path / "images" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 14), (30 * number, 9, 99)).save(place / f"{number}.png")
    code, out, err = dinolab("eval", saved, "--data", tmp_path / "images", "--root", tmp_path / "r")
    assert code == 0, err
    assert "8 images, 2 held out" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--set", "evaluation.knn=3"], "evaluation.knn: no such knob"),
        (["--set", "model.depth=3"], "model.depth: a trained network can only be measured"),
        (["--set", "evaluation.knn_neighbours=0"], "greater than or equal to 1 (given: 0)"),
        (["--json", "nowhere/metrics.json"], "--json nowhere/metrics.json: there is no folder"),
        (["--json", "."], "--json .: a folder is there; give the name of a file"),
        (["--data", "nowhere"], "cannot be read: No such file or directory"),
    ],
)
def test_a_measurement_that_cannot_be_made_is_one_line(
    dinolab, saved, tmp_path, monkeypatch, arguments, line
):
    monkeypatch.chdir(tmp_path)
    code, out, err = dinolab("eval", saved, *arguments)
    assert code == 2
    assert line in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in out + err


@pytest.mark.parametrize("what", ["config", "other", "torn"])
def test_a_run_folder_that_is_broken_is_one_line(dinolab, saved, what):
    config = saved / "config.json"
    lines = {"config": "no config.json", "other": "another configuration", "torn": "cannot be read"}
    if what == "config":
        config.unlink()
    elif what == "other":
        config.write_text(config.read_text().replace('"seed":0', '"seed":1'))
    else:
        (saved / "attempts" / "0001" / "checkpoint-0.safetensors").write_bytes(b"torn")
    code, _, err = dinolab("eval", saved)
    assert code == 2
    assert lines[what] in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_report_is_rebuilt_from_the_run_folder_alone(dinolab, finished, tmp_path):
    import shutil

    shutil.copytree(finished[0], tmp_path / "runs")
    folder = tmp_path / "runs" / "studies" / "mini"
    for name in ("report.html", "results.parquet", "verdicts.json"):
        (folder / name).unlink()
    code, out, _ = dinolab("report", folder)
    assert code == 0
    assert "INCONCLUSIVE" in out
    for name in ("report.html", "results.parquet", "verdicts.json"):
        assert (folder / name).exists()
    again = (folder / "results.parquet").read_bytes()
    assert again == (finished[0] / "studies" / "mini" / "results.parquet").read_bytes()
    assert dinolab("report", "mini", "--root", tmp_path / "runs")[:2] == (code, out)


@pytest.mark.slow
def test_a_tilde_that_the_shell_left_is_home(dinolab, mini, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (home / "mini.yaml").write_text(mini.read_text())
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    ask = ["plan", "~/mini.yaml", "--tflops", "1", "--ablations", EXAMPLE, "--ablations"]
    code, _, err = dinolab(*ask, "~/none.py", "--root=~/given")
    assert (code, str(home / "none.py") in err) == (2, True)
    code, _, err = dinolab(*ask[:4], "--root=~/given")
    assert code == 0, err
    monkeypatch.setenv("DINOLAB_ROOT", "~/named")
    code, _, err = dinolab(*ask[:4])
    assert code == 0, err
    code, _, err = dinolab("new", "ablation", "mine", "--out", "~")
    assert code == 0, err
    assert {path.name for path in home.iterdir()} == {"mini.yaml", "given", "named", "mine.py"}
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_data_is_named_by_its_absolute_path_where_the_user_is(tmp_path, monkeypatch, mini):
    monkeypatch.chdir(tmp_path)
    assert load_study(mini, "pics").base.data.source == str(tmp_path / "pics")
    assert load_study(mini).base.data.source == "digits"
    study = tmp_path / "own.yaml"
    study.write_text(mini.read_text() + "dataset: ../pics\n")
    assert load_study(study).base.data.source == str(tmp_path.parent / "pics")


@pytest.mark.slow
def test_the_printed_command_for_the_ui_can_be_pasted(dinolab, finished, tmp_path):
    root = tmp_path / "my runs; #1's"
    shutil.copytree(finished[0], root)
    _, out, _ = dinolab("report", root / "studies" / "mini")
    (line,) = (line for line in out.splitlines() if line.startswith("MLflow UI: "))
    assert shlex.split(line)[-2:] == ["--root", str(root)]


def test_the_ui_needs_a_store(dinolab, tmp_path):
    code, _, err = dinolab("ui", "--root", tmp_path)
    assert code == 2
    assert "has no MLflow store yet" in err


def test_the_ui_of_a_server_that_does_not_answer_is_one_line(dinolab, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, out, err = dinolab("ui", "--root", tmp_path)
    assert (code, out) == (2, "")
    assert "MLflow store http://127.0.0.1:9 cannot be used: it does not answer" in err
    assert len(err.splitlines()) == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert "has no MLflow store yet" in dinolab("ui", "--root", tmp_path)[2]


@pytest.mark.slow
def test_the_ui_of_a_study_that_mlflow_does_not_have_is_one_line(dinolab, finished):
    code, _, err = dinolab("ui", "another", "--root", finished[0])
    assert code == 2
    assert "study another is not in MLflow; `dinolab mirror another` writes it there" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("moment", ["parse_args", "invoke"])
def test_an_interrupt_is_heard_while_the_words_of_a_command_are_read(dinolab, monkeypatch, moment):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(typer.core.TyperCommand, moment, interrupted)
    assert dinolab("list", "recipes") == (130, "", "interrupted\n")
