"""What stands in the way of a study is one line, before anything of it is written."""

import shutil
import subprocess

import pytest

from orchestrator import registration
from tests.orchestrator import conftest
from tests.registered import restated


@pytest.fixture
def root(finished, tmp_path):
    """A copy of a finished study, in a root without a store."""
    root = tmp_path / "runs"
    shutil.copytree(finished[0], root, ignore=shutil.ignore_patterns("mlflow*"))
    return root


def contents(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_trial_that_fits_into_no_machine_leaves_the_root_empty(mini, cluster, tmp_path):
    study = tmp_path / "large.yaml"
    study.write_text(mini.read_text() + "resources: {cpus_per_worker: 10000}\n")
    root = tmp_path / "runs"
    code, output = conftest.dinolab("run", study, "--root", root, RAY_ADDRESS=cluster)
    assert code == 2, output
    refused = (
        "a trial needs 1 worker of 10000 CPUs, 0 GPUs, each on one machine, and the cluster has "
    )
    assert refused in output.splitlines()[-1]
    assert list(root.iterdir()) == []


@pytest.mark.slow
def test_other_hypotheses_are_refused_before_a_store_is_made(dinolab, mini, root, tmp_path):
    before = contents(root)
    looser = tmp_path / "looser.yaml"
    looser.write_text(mini.read_text().replace("smallest_effect: 0.05", "smallest_effect: 0.5"))
    code, _, err = dinolab("run", looser, "--root", root)
    assert code == 2
    assert "(registration 1): hypothesis none_is_equivalent: smallest_effect 0.05 -> 0.5" in err
    assert "dinolab amend STUDY --reason" in err
    assert len(err.splitlines()) == 1
    assert contents(root) == before


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("lost", ["everything", "hypotheses_sha256", "trials"])
def test_a_damaged_registration_is_one_line(dinolab, mini, root, command, lost):
    path = root / "studies" / "mini" / "registrations" / "0001.json"
    if lost == "everything":
        path.write_text("{")
    else:
        restated(path, lambda stated: stated.pop(lost))
    before = contents(root)
    code, _, err = dinolab(command, mini, "--root", root)
    assert code == 2
    assert f"{path} is damaged: " in err
    assert len(err.splitlines()) == 1
    assert contents(root) == before


def test_a_registration_that_says_nothing_of_its_data_is_not_taken_for_one_of_these(
    dinolab, mini, root
):
    path = root / "studies" / "mini" / "registrations" / "0001.json"
    restated(path, lambda stated: stated["dataset"].pop("digest"))
    code, _, err = dinolab("run", mini, "--root", root)
    assert code == 2
    assert "(registration 1): data: sha256 unknown -> " in err


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", "[]", '{"status": "won"}'])
def test_a_damaged_result_is_one_line(dinolab, mini, root, text):
    path = next(root.glob("trials/*/result.json"))
    path.write_text(text)
    before = contents(root)
    code, _, err = dinolab("plan", mini, "--root", root)
    assert code == 2
    assert f"{path} is damaged: " in err
    assert "restore the file, or run the same command again" in err
    assert len(err.splitlines()) == 1
    assert contents(root) == before


def test_a_package_inside_a_repository_of_somebody_else_has_no_commit(monkeypatch, tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)

    git("init")
    code = tmp_path / "site-packages" / "orchestrator" / "registration.py"
    code.parent.mkdir(parents=True)
    code.write_text("")
    (tmp_path / "own.txt").write_text("")
    git("add", "own.txt")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    git(*who, "commit", "-m", "own")
    monkeypatch.setattr(registration, "__file__", str(code))
    assert registration._git() == (b"", {})
    git("add", str(code))
    git(*who, "commit", "-m", "with the package")
    _, found = registration._git()
    assert len(found["commit"]) == 40
    assert found["dirty"] is False
