"""The MLflow mirror, on SQLite and on a real server."""

import io
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest
from mlflow import MlflowClient
from rich.console import Console

from dashboards.tables.reading import read_study
from orchestrator.driver.mirrored import Mirrored
from orchestrator.plan import Trial
from orchestrator.tracking.mirror import Mirror
from tests.orchestrator.conftest import environment
from trainers.config import TrainConfig
from trainers.runs.trial import TrialFolder

pytestmark = pytest.mark.filterwarnings("ignore")


def tree(client, experiment):
    """Titles of all runs below the title of their parent."""
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    titles = {run.info.run_id: run.info.run_name for run in runs}
    return {
        run.info.run_name: titles.get(run.data.tags.get("mlflow.parentRunId", "")) for run in runs
    }, {run.info.run_name: run for run in runs}


def check_mirror(client):
    parents, runs = tree(client, "mini")
    arms = ("baseline", "cls_position_none", "loss_on_patches")
    expected = {"mini": None, **dict.fromkeys(arms, "mini")}
    expected |= {f"{arm} · seed {seed}": arm for arm in arms for seed in (0, 1)}
    assert parents == expected
    one = runs["baseline · seed 1"]
    assert one.info.status == "FINISHED"
    assert one.data.params["seed"] == "1"
    assert one.data.params["model.cls_position"] == "learned"
    history = client.get_metric_history(one.info.run_id, "knn/cls_top1")
    assert [metric.step for metric in history] == [0, 12, 24]
    assert not any("@" in name for name in one.data.metrics)
    seeds = [runs[f"baseline · seed {seed}"].data.metrics["knn/cls_top1"] for seed in (0, 1)]
    mean = runs["baseline"].data.metrics["knn/cls_top1/mean"]
    assert mean == pytest.approx(sum(seeds) / 2)
    names = {artifact.path for artifact in client.list_artifacts(runs["mini"].info.run_id)}
    assert {"report.html", "verdicts.json", "results.parquet", "study.lock.json"} <= names
    assert "figures" in names
    return runs


def test_a_study_is_one_tree_of_runs_in_sqlite(finished):
    root, _ = finished
    check_mirror(MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db"))


@contextmanager
def server(folder):
    """A real MLflow server on a free port."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    arguments += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    arguments += ["--default-artifact-root", str(folder / "artifacts")]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    try:
        # The server says so when it listens (its start-up completes before it does); anything
        # else is an end of its output.
        assert any("running on" in line.lower() for line in process.stdout)
        with urllib.request.urlopen(f"{uri}/health", timeout=30) as answer:
            assert answer.status == 200
        yield uri
    finally:
        process.terminate()
        process.communicate(timeout=30)


def sync_all(mirror, root):
    study = read_study(root / "mini")
    lock = study.lock.model_dump(mode="json")
    for trial in lock["trials"]:
        folder = TrialFolder(root / "mini" / "trials" / trial["key"])
        mirror.sync(trial["arm"], trial["seed"], folder)
    names = ("report.html", "verdicts.json", "results.parquet", "study.lock.json")
    files = [root / "mini" / name for name in names]
    figures = sorted((root / "mini" / "figures").glob("*.html"))[:1]
    mirror.finish(study.table, lock, [*files, *figures], True)


@pytest.mark.slow
def test_a_server_that_goes_away_stops_nothing_and_is_made_whole_later(
    finished, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    root, _ = finished
    folder = root / "mini"
    first, second = read_study(folder).lock.model_dump(mode="json")["trials"][:2]
    said = io.StringIO()

    def trial(locked):
        config = TrainConfig.model_validate_json(
            (folder / "trials" / locked["key"] / "config.json").read_text()
        )
        return Trial(
            key=locked["key"],
            arms=(locked["arm"],),
            seed=locked["seed"],
            config=config,
            digest="0" * 64,
        )

    with server(tmp_path) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mirrored = Mirrored("mini", root, Console(file=said, width=1000))
        mirrored.sync(trial(first), folder)
        assert said.getvalue() == ""
    for _ in range(2):
        mirrored.sync(trial(second), folder)
    (line,) = said.getvalue().splitlines()
    assert line.startswith(f"MLflow store {uri} takes nothing more: it does not answer (Conn")
    assert "training goes on, nothing is lost" in line
    with server(tmp_path) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        sync_all(Mirror("mini", root, print), root)
        # Once more: what is logged already is not logged again.
        sync_all(Mirror("mini", root, print), root)
        check_mirror(MlflowClient(tracking_uri=uri))
