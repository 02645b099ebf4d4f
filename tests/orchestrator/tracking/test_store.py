"""The MLflow store: made whole or not at all, and what is wrong with one is a line."""

import logging
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from mlflow import MlflowClient

from orchestrator.tracking import store
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.store import check_store, in_time, tracking_uri
from tests.orchestrator.conftest import environment
from trainers.errors import InputError, StoreError
from trainers.system.store import LocalStore

pytestmark = pytest.mark.filterwarnings("ignore")

OPEN = """
import sys
from pathlib import Path
from orchestrator.tracking.mirror import Mirror
from trainers.system.store import LocalStore
Mirror("tiny", LocalStore(Path(sys.argv[1]), make=True), print).study_run()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run root whose store holds the run of one study, and an artifact of it."""
    root = tmp_path_factory.mktemp("made") / "runs"
    mirror = Mirror("tiny", LocalStore(root, make=True), print)
    note = root / "note.txt"
    note.write_text("here")
    mirror.client.log_artifact(mirror.study_run().run_id, str(note))
    return root


@pytest.fixture
def root(made, tmp_path):
    """A copy of that root, which may be spoiled."""
    return shutil.copytree(made, tmp_path / "a #1? %20é" / "runs")


def opening(root, **changes):
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, str(root)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(**changes),
    )  # fmt: skip


def change(root, statement):
    with sqlite3.connect(root / "mlflow.db") as database:
        database.execute(statement)
    database.close()


@pytest.mark.slow
def test_a_store_whose_maker_was_killed_is_not_there_and_two_makers_share_one(tmp_path):
    root = tmp_path / "runs"
    with opening(root, TMPDIR=str(tmp_path)) as killed:
        while killed.poll() is None and not any(tmp_path.glob("dinolab-*/mlflow.db")):
            time.sleep(0.001)
        killed.send_signal(signal.SIGKILL)
    assert not (root / "mlflow.db").exists()
    with opening(root) as one, opening(root) as other:
        said = [process.communicate()[0] for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], said
    (experiment,) = MlflowClient(tracking_uri=tracking_uri(root)).search_experiments(
        filter_string="name = 'tiny'"
    )
    assert experiment.artifact_location == (root / "mlflow-artifacts" / "tiny").as_uri()
    assert sorted(path.name for path in root.iterdir()) == ["mlflow.db", "root.json"]


@pytest.mark.slow
def test_a_half_made_store_is_set_aside(root):
    change(root, "DELETE FROM experiments")
    check_store(root)
    said = []
    mirror = Mirror("tiny", LocalStore(root), said.append)
    assert mirror.runs.runs == {}
    aside = root / "mlflow.db.half-made-1"
    assert said == [f"MLflow store {root / 'mlflow.db'} was never made whole: set aside as {aside}"]
    assert aside.exists()


def test_a_copied_root_has_its_artifacts_in_itself_and_makes_no_folder_beside(made, root):
    mirror = Mirror("tiny", LocalStore(root), print)
    run = mirror.client.get_run(mirror.study_run().run_id)
    here = (root / "mlflow-artifacts" / "tiny" / run.info.run_id / "artifacts").as_uri()
    assert run.info.artifact_uri == here
    (found,) = mirror.client.list_artifacts(run.info.run_id)
    assert found.path == "note.txt"
    assert [path.name for path in root.parent.parent.iterdir()] == [root.parent.name]


def test_a_deleted_experiment_is_restored_with_its_runs(root):
    before = Mirror("tiny", LocalStore(root), print)
    before.client.delete_experiment(before.runs.experiment)
    said = []
    after = Mirror("tiny", LocalStore(root), said.append)
    assert said == ["MLflow experiment tiny had been deleted: it is restored"]
    assert after.runs.runs.keys() == before.runs.runs.keys() != set()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "mlflow.db").write_text("damaged"), "file is not a database"),
        (
            lambda root: change(root, "UPDATE alembic_version SET version_num = '7f2a7d5fae7d'"),
            r"another version of MLflow \(schema 7f2a7d5fae7d",
        ),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line_and_stays_as_it_is(root, spoil, said):
    spoil(root)
    before = (root / "mlflow.db").read_bytes()
    for look in (check_store, lambda root: Mirror("tiny", LocalStore(root), print)):
        with pytest.raises(InputError, match=said) as caught:
            look(root)
        assert "\n" not in str(caught.value)
        assert "move that file away: the next run writes a new one" in str(caught.value)
    assert (root / "mlflow.db").read_bytes() == before


def test_a_given_database_of_another_version_of_mlflow_is_one_line(root, tmp_path, monkeypatch):
    change(root, "UPDATE alembic_version SET version_num = '7f2a7d5fae7d'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(root))
    with pytest.raises(InputError, match=r"another version of MLflow \(.*7f2a7d5fae7d") as caught:
        Mirror("tiny", LocalStore(tmp_path / "other", make=True), print)
    assert "\n" not in str(caught.value)
    assert "mlflow db upgrade" in str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("./mlruns", "MLflow writes to no folder"),
        ("file:///no/mlruns", "MLflow writes to no folder"),
        ("localhost:5000", "give http://localhost:5000"),
        ("sqlite:mlflow.db", "write sqlite:///FILE"),
        ("nothing://x", "give http://SERVER"),
        ("http://me:secret@127.0.0.1:9", r"http://127.0.0.1:9 .* does not answer \(Connection ref"),
    ],
)
def test_an_address_that_is_no_store_is_one_line(tmp_path, monkeypatch, address, said):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        check_store(tmp_path)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_server_that_takes_calls_and_says_nothing_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ANSWER_WITHIN_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(InputError, match="no answer within 1 s; start that server"):
            check_store(tmp_path)


def test_of_a_file_that_is_slow_nobody_is_told_to_move_it_away(root, monkeypatch):
    monkeypatch.setattr(store, "ANSWER_WITHIN_S", 0.01)
    over = threading.Event()
    with pytest.raises(InputError, match=r"no answer within 0 s: .* too busy, .* given later"):
        store.in_time(tracking_uri(root), over.wait)
    over.set()


def test_home_and_relative_files_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for address in ("sqlite:///~/store.db", "sqlite:///store.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert tracking_uri(tmp_path / "runs") == f"sqlite:///{tmp_path}/store.db"


def test_what_a_store_that_is_there_refuses_is_not_called_silence(root):
    mirror = Mirror("tiny", LocalStore(root), print)
    with pytest.raises(InputError, match=r"it refuses \(.*no-such-run") as caught:
        in_time(mirror.uri, lambda: mirror.client.get_run("no-such-run"))
    assert "does not answer" not in str(caught.value)


def test_a_run_root_that_has_gone_away_is_not_made_anew(root):
    kept = LocalStore(root)
    root.rename(root.with_name("away"))
    with pytest.raises(StoreError, match="is gone: bring it back") as caught:
        Mirror("tiny", kept, print)
    assert "\n" not in str(caught.value)
    assert not root.exists()


def test_nor_is_one_that_goes_away_while_its_store_is_made(tmp_path, monkeypatch):
    kept = LocalStore(tmp_path / "runs", make=True)

    def made(root):
        root.rename(root.with_name("away"))
        return b"a store"

    monkeypatch.setattr(store, "_new_store", made)
    with pytest.raises(InputError, match="No such file or directory"):
        Mirror("tiny", kept, print)
    assert [path.name for path in tmp_path.iterdir()] == ["away"]


def test_mlflow_logs_nothing_when_its_store_is_opened_again(tmp_path, capfd):
    store.open_store(tmp_path, print)
    logging.getLogger("mlflow").setLevel(logging.INFO)  # as Ray leaves it
    store.open_store(tmp_path, print)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("mlflow").level == logging.CRITICAL
