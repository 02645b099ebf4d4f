"""What is sent to a cluster so that it runs a study."""

import io
import os
import zipfile

import pytest

from orchestrator import submission
from orchestrator.submission import (
    PACKAGES,
    Submission,
    ablation_options,
    environment_passed,
    files_of,
    images_of,
)
from trainers.errors import InputError

OURS = "trainers/errors.py"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project as people have it, with a study and much that is not for the cluster."""
    for name in ("runs/trials/k/result.json", ".venv/lib/a.py", ".git/HEAD", "images/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("not for the cluster")
    (tmp_path / "study.yaml").write_text("name: study")
    own = tmp_path / "own"
    (own / "deeper").mkdir(parents=True)
    for name in ("mine.py", "_aside.py", ".hidden.py", "notes.txt", "deeper/other.py"):
        (own / name).write_text("ABLATION = None")
    (tmp_path / "recipe.py").write_text("RECIPE = None")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(files, **changes):
    given = {"study": "study", "root": "/shared/runs", "arguments": ("study.yaml",), **changes}
    return Submission(files=files, **given)


def test_a_job_gets_the_study_its_ablations_its_recipe_and_our_code_and_nothing_else(folder):
    files = files_of(folder / "study.yaml", [folder / "own"], "recipe.py")
    own = {name for name in files if name.split("/")[0] not in PACKAGES}
    assert own == {"study.yaml", "own_ablations/mine.py", "recipe.py"}
    assert list(files) == sorted(files)
    assert {"orchestrator/__main__.py", "ablations/studies/demo.yaml", OURS} < files.keys()
    assert any(name.endswith(".jinja") for name in files)
    assert not [name for name in files if "__pycache__" in name or "/." in name]
    with zipfile.ZipFile(io.BytesIO(made(files).archive())) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files


def test_code_that_is_sent_is_named_to_the_job_as_it_was_here(folder):
    own, recipe = folder / "own", folder / "recipe.py"
    for given, options in {
        (own,): ["--ablations", "own_ablations", "--ablations", "recipe.py"],
        (own, recipe): ["--ablations", "own_ablations", "--ablations", "recipe.py"],
        (recipe,): ["--ablations", "recipe.py"],
    }.items():
        files = files_of(folder / "study.yaml", given, "recipe.py")
        assert "own_ablations/recipe.py" not in files
        assert ablation_options(files, "recipe.py") == options
    assert ablation_options(files_of(folder / "study.yaml", (), "demo"), "demo") == []


def test_an_ablation_that_is_given_as_a_file_is_sent_alone(folder):
    files = files_of(folder / "study.yaml", [folder / "own" / "_aside.py"], "demo")
    assert [name for name in files if name.startswith("own_")] == ["own_ablations/_aside.py"]


def test_images_are_sent_with_the_folders_that_are_their_labels(folder):
    labelled = folder / "pictures"
    for name in ("cat/0.png", "dog/deeper/1.png"):
        (labelled / name).parent.mkdir(parents=True)
        (labelled / name).write_text(name)
    assert images_of(str(labelled)) == {
        "own_images/cat/0.png": b"cat/0.png",
        "own_images/dog/deeper/1.png": b"dog/deeper/1.png",
    }


@pytest.mark.parametrize("source", ["digits", "s3://bucket/pictures", "study.yaml"])
def test_only_a_folder_of_images_is_sent(folder, source):
    with pytest.raises(InputError, match=f"folder of this machine, which {source} is not; leave"):
        images_of(source)


def test_images_that_a_job_cannot_take_are_refused_before_they_are_read(folder):
    large = folder / "pictures" / "0.png"
    large.parent.mkdir()
    with large.open("wb") as file:
        file.truncate(submission.MOST_BYTES)
    with pytest.raises(InputError, match="pictures has 100 MiB, and a job takes less than 100 MiB"):
        images_of("pictures")


@pytest.mark.parametrize("recipe", ["/tmp/recipe.py", "../recipe.json", "trainers/recipe.py"])
def test_a_recipe_that_cannot_lie_in_the_folder_of_a_job_is_refused(folder, recipe):
    with pytest.raises(InputError, match="cannot be sent: give its path in the current folder"):
        files_of(folder / "study.yaml", [], recipe)


def test_equal_files_are_an_equal_archive_whenever_they_were_written(folder):
    first = made(files_of(folder / "study.yaml", [], "demo")).archive()
    os.utime(folder / "study.yaml", (1, 1))
    assert made(files_of(folder / "study.yaml", [], "demo")).archive() == first


def test_files_that_ray_does_not_take_are_refused_with_the_largest_named(monkeypatch):
    monkeypatch.setattr(submission, "MOST_BYTES", 2**20)
    fits = {"little.py": b"", "large.py": os.urandom(2**20 - 1000)}
    assert len(made(fits).archive()) < 2**20
    with pytest.raises(InputError, match=r"are 1 MiB, .* less than 1 MiB; the largest is large"):
        made({**fits, "large.py": os.urandom(2**20)}).archive()


def test_the_limit_is_that_of_the_dashboard():
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE

    assert submission.MOST_BYTES == DASHBOARD_CLIENT_MAX_SIZE


def test_jobs_of_the_same_study_options_and_root_have_one_identity_whatever_our_code_is():
    files = {"study.yaml": b"name: study", OURS: b"old"}
    identity = made(files).identity
    assert identity.startswith("dinolab-study-")
    assert made({**files, OURS: b"new"}).identity == identity
    others = {
        made(files, root="/shared/other").identity,
        made(files, arguments=("study.yaml", "--seeds", "0..1")).identity,
        made({**files, "study.yaml": b"name: study\nseeds: 3"}).identity,
        made({**files, "own_ablations/mine.py": b""}).identity,
    }
    assert len(others) == 4
    assert identity not in others


def test_an_identity_is_one_word_whatever_a_study_is_called():
    identity = made({}, study="größe of a/b?#").identity
    assert identity.rpartition("-")[0] == "dinolab-gr__e_of_a_b__"


def test_a_job_gets_storage_and_mlflow_and_what_is_named_and_nothing_else(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(submission.PASSED):
            monkeypatch.delenv(name)
    given = {
        "AWS_SECRET_ACCESS_KEY": "a", "MLFLOW_TRACKING_URI": "http://there", "MLFLOW_RUN_ID": "b",
        "AZURE_STORAGE_ACCOUNT_KEY": "c", "GOOGLE_APPLICATION_CREDENTIALS": "/d",
        "DINOLAB_LEASE_S": "9", "DINOLAB_ROOT": "/here", "AWS_CA_BUNDLE": "/here", "OTHER": "e",
        "HF_TOKEN": "f",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    left_out = {"MLFLOW_RUN_ID", "DINOLAB_ROOT", "AWS_CA_BUNDLE", "OTHER"}
    expected = {name: value for name, value in given.items() if name not in left_out}
    assert environment_passed(["HF_TOKEN"]) == expected
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert environment_passed([])["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_value_on_the_command_line_is_refused_and_not_repeated():
    with pytest.raises(InputError, match=r"--env HF_TOKEN=…: give the name alone") as caught:
        environment_passed(["HF_TOKEN=planted"])
    assert "planted" not in str(caught.value)
    with pytest.raises(InputError, match="--env NOT_SET_HERE: it is not set here"):
        environment_passed(["NOT_SET_HERE"])
