"""The mirror beside training: whatever MLflow does, nothing waits for it and nothing is lost."""

import contextlib
import functools
import http.server
import queue
import shutil
import socket
import threading
import time

import pytest
from mlflow import MlflowClient
from rich.console import Console

from dashboards.tables.derived import judged
from orchestrator.driver import mirrored
from orchestrator.driver.mirrored import Mirrored
from orchestrator.tracking import store as tracking

# What the thread imports first; here it is not what is timed.
from orchestrator.tracking.mirror import Mirror
from tests.dashboards.kept_maps import keep, kept_maps
from tests.orchestrator.tracking.conftest import (
    Trial,
    client,
    curve,
    ended,
    free_port,
    held,
    new_root,
    server,
    store,
    study_of,
    template,
)
from trainers.system.store import LocalStore

pytestmark = pytest.mark.filterwarnings("ignore")

__all__ = ["client", "new_root", "store", "template"]


class Lines:
    """What a console prints, line by line, as it comes."""

    def __init__(self):
        self.lines = queue.Queue()

    def write(self, text):
        for line in filter(str.strip, text.splitlines()):
            self.lines.put(line)

    def flush(self):
        pass

    def next(self):
        return self.lines.get(timeout=60)

    def left(self):
        with contextlib.suppress(queue.Empty):
            while True:
                yield self.lines.get_nowait()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(mirrored, "EVERY_S", 0.01)
    monkeypatch.setattr(mirrored, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(mirrored, "LONGEST_PAUSE_S", 0.2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def said():
    return Lines()


@pytest.fixture
def beside(store, said):
    return Mirrored("mini", store, Console(file=said, width=1000, soft_wrap=True))


def wait_for(client, title):
    """Returns when that run has ended in MLflow."""
    ended = f"attributes.run_name = '{title}' and attributes.status = 'FINISHED'"
    while not (found := client.get_experiment_by_name("mini")) or not client.search_runs(
        [found.experiment_id], ended
    ):
        time.sleep(0.05)  # one question after another would take the store from its writer


def test_trials_and_means_are_there_when_it_is_closed(store, client, beside, said):
    with beside:
        for seed in (0, 1):
            Trial(store, f"key{seed}").finish(1, curve(5))
            beside.sync(f"key{seed}", ["baseline"], seed)
        study = study_of({("baseline", seed): ended(0.5) for seed in (0, 1)}, store)
        beside.finish(study, judged(study))
    found = held(client)
    assert found.keys() == {"mini", "baseline", "baseline · seed 0", "baseline · seed 1"}
    assert {one["status"] for one in found.values()} == {"FINISHED"}
    assert list(said.left()) == []


def test_nothing_waits_for_a_server_that_says_nothing(store, said, monkeypatch):
    Trial(store, "key").segment(1, curve(5))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mute.getsockname()[1]}")
        beside = Mirrored("mini", store, Console(file=said, width=1000, soft_wrap=True))
        began = time.monotonic()
        for _ in range(10_000):
            beside.sync("key", ["baseline"], 0)
        assert time.monotonic() - began < 2
        with pytest.raises(KeyboardInterrupt), beside:
            raise KeyboardInterrupt
        assert time.monotonic() - began < 5
    (line,) = said.left()
    assert line == "not in MLflow yet: 1 run; `dinolab mirror mini` writes what is missing"
    # The socket is closed by now, so whatever was asked of it has ended.
    beside._thread.join(60)
    assert not beside._thread.is_alive()


@pytest.mark.slow
def test_a_server_that_goes_away_in_the_middle_is_said_once_and_made_whole(
    store, said, tmp_path, monkeypatch
):
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    # A server beside other tests answers late.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    beside = Mirrored("mini", store, Console(file=said, width=1000, soft_wrap=True))
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{port}")
    for seed in range(8):
        Trial(store, f"key{seed}").finish(1, curve(30))
    with server(tmp_path, port):
        for seed in range(8):
            beside.sync(f"key{seed}", ["baseline"], seed)
        wait_for(client, "baseline · seed 0")
    line = said.next()
    assert line.startswith(f"MLflow store http://127.0.0.1:{port} cannot be used: it does not ans")
    for seed in range(8):
        beside.sync(f"key{seed}", ["baseline"], seed)
    with server(tmp_path, port):
        assert beside.close()
        lines = list(said.left())
        assert "MLflow answers again: what is missing is written now" in lines
        assert len(lines) == len(set(lines)) <= 4
        found = held(client)
    assert len(found) == 10
    for seed in range(8):
        one = found[f"baseline · seed {seed}"]
        assert one["status"] == "FINISHED"
        for name, values in one["metrics"].items():
            assert values == [(step, record[name]) for step, record in curve(30).items()]


def test_a_refused_login_is_one_line_that_says_how_to_log_in(store, said, monkeypatch):
    class Guarded(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_error(401)

        def do_GET(self):
            self.send_error(401)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as guard:
        threading.Thread(target=guard.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{guard.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@{address}")
        beside = Mirrored("mini", store, Console(file=said, width=1000, soft_wrap=True))
        Trial(store, "key").segment(1, curve(2))
        beside.sync("key", ["baseline"], 0)
        line = said.next()
        assert not beside.close(0.5)
        guard.shutdown()
    assert f"MLflow store http://{address} cannot be used: it refuses the login" in line
    assert "MLFLOW_TRACKING_USERNAME" in line
    assert "secret" not in line
    assert [one.partition(":")[0] for one in said.left()] == ["not in MLflow yet"]


def test_a_damaged_store_is_said_once_and_made_whole_when_it_is_mended(store, client, beside, said):
    file = store.root / "mlflow.db"
    whole = file.read_bytes()
    file.write_bytes(b"damaged" * 1000)
    Trial(store, "key").finish(1, curve(5))
    beside.sync("key", ["baseline"], 0)
    assert "file is not a database" in said.next()
    file.write_bytes(whole)
    assert said.next() == "MLflow answers again: what is missing is written now"
    assert beside.close()
    assert held(client)["baseline · seed 0"]["status"] == "FINISHED"


def test_a_store_that_is_deleted_in_the_middle_is_made_anew_with_all(store, client, beside, said):
    Trial(store, "one").finish(1, curve(5))
    Trial(store, "other").finish(1, curve(5))
    beside.sync("one", ["baseline"], 0)
    wait_for(client, "baseline · seed 0")
    (store.root / "mlflow.db").unlink()
    beside.sync("other", ["baseline"], 1)
    assert beside.close()
    again = MlflowClient(tracking_uri=tracking.tracking_uri(store.root))
    found = held(again)
    assert [found[f"baseline · seed {seed}"]["status"] for seed in (0, 1)] == ["FINISHED"] * 2
    (line,) = said.left()
    assert line == f"MLflow store {tracking.tracking_uri(store.root)} is gone: it is made anew"


@pytest.mark.slow
@pytest.mark.parametrize("write", ["create_experiment", "log_batch"])
def test_a_store_that_is_deleted_while_it_is_written_to_is_made_anew_with_all(
    store, client, beside, said, monkeypatch, write
):
    file, original = store.root / "mlflow.db", getattr(MlflowClient, write)

    def deleted_first(*arguments, **named):
        monkeypatch.setattr(MlflowClient, write, original)
        file.unlink()
        file.touch()  # as SQLite does, which opens it by its name once more
        return original(*arguments, **named)

    monkeypatch.setattr(MlflowClient, write, deleted_first)
    Trial(store, "key").finish(1, curve(5))
    beside.sync("key", ["baseline"], 0)
    assert beside.close()
    again = MlflowClient(tracking_uri=tracking.tracking_uri(store.root))
    assert held(again)["baseline · seed 0"]["status"] == "FINISHED"
    (line,) = said.left()
    assert line == f"MLflow store {tracking.tracking_uri(store.root)} is gone: it is made anew"
    assert not list(store.root.glob("mlflow.db.half-made-*"))


def test_an_experiment_that_is_deleted_in_the_middle_is_restored(store, client, beside, said):
    Trial(store, "one").finish(1, curve(5))
    Trial(store, "other").finish(1, curve(5))
    beside.sync("one", ["baseline"], 0)
    wait_for(client, "baseline · seed 0")
    client.delete_experiment(client.get_experiment_by_name("mini").experiment_id)
    beside.sync("other", ["baseline"], 1)
    assert beside.close()
    assert len(held(client)) == 4
    assert "MLflow experiment mini had been deleted: it is restored" in list(said.left())


def test_a_patient_end_waits_for_what_takes_longer_than_it_waits_for_the_next(
    store, client, beside, said, monkeypatch
):
    begun, calls, wait = threading.Event(), [], threading.Thread.join

    def slow(mirror, key, arms):
        begun.set()
        assert may_end.wait(60)

    def join(thread, within_s):
        calls.append(within_s)
        if len(calls) == 5:
            may_end.set()
        wait(thread, within_s)

    may_end = threading.Event()
    Trial(store, "key").finish(1, curve(5))
    monkeypatch.setattr(Mirror, "log_pictures", slow)
    beside.sync("key", ["baseline"], 0)
    assert begun.wait(60)
    monkeypatch.setattr(beside._thread, "join", functools.partial(join, beside._thread))
    assert beside.close(0.1, patient=True)
    assert len(calls) >= 5
    assert list(said.left()) == []


def test_a_store_that_takes_no_file_gets_every_number(store, client, beside, said):
    for seed in (0, 1):
        Trial(store, f"key{seed}").finish(1, curve(5))
        keep(store.root / "trials" / f"key{seed}", {5: kept_maps(0)})
    # No folder can be made there, as on a full disk.
    shutil.rmtree(store.root / tracking.ARTIFACTS, ignore_errors=True)
    (store.root / tracking.ARTIFACTS).write_text("")
    for seed in (0, 1):
        beside.sync(f"key{seed}", ["baseline"], seed)
    for seed in (0, 1):
        wait_for(client, f"baseline · seed {seed}")
        assert len(held(client)[f"baseline · seed {seed}"]["metrics"]["loss/total"]) == 6
    assert not beside.close(0.5)
    assert list(said.left())[-1].startswith("not in MLflow yet: ")


@pytest.mark.parametrize("name", ["config.json", "result.json", "attempts/0001/metrics-000000000"])
def test_a_damaged_file_of_a_trial_is_one_line_and_keeps_back_that_trial_alone(
    store, client, beside, said, name
):
    Trial(store, "bad").segment(1, curve(5))
    Trial(store, "good").finish(1, curve(5))
    damaged = f"trials/bad/{name}" + (".jsonl" if "metrics" in name else "")
    store.put(damaged, b"damaged\n")
    for _ in range(2):
        beside.sync("bad", ["baseline"], 1)
    beside.sync("good", ["baseline"], 0)
    assert not beside.close()
    first, last = said.left()
    assert first.startswith(f"not in MLflow yet: {store.shown}/{damaged} is damaged: ")
    assert last.startswith("not in MLflow yet: 1 run; ")
    assert held(client)["baseline · seed 0"]["status"] == "FINISHED"


def test_a_root_on_object_storage_has_no_mirror_unless_its_place_is_given(
    store, said, tmp_path, monkeypatch, template
):
    Trial(store, "key").finish(1, curve(3))
    remote = LocalStore(store.root)
    remote.local = None
    console = Console(file=said, width=1000, soft_wrap=True)
    with Mirrored("mini", remote, console) as beside:
        beside.sync("key", ["baseline"], 0)
    (line,) = said.left()
    assert line.startswith("no mirror in MLflow: a run root on object storage")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{template}/mlflow.db")
    with Mirrored("remote", remote, console) as beside:
        beside.sync("key", ["baseline"], 0)
        study = study_of({("baseline", 0): ended(0.5)}, store)
        beside.finish(study, judged(study))
    assert list(said.left()) == []
    given = MlflowClient(tracking_uri=tracking.tracking_uri(None))
    assert held(given, "remote")["baseline · seed 0"]["status"] == "FINISHED"
