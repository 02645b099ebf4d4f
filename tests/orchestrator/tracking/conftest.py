"""Run roots written by hand, as trials leave them, and what MLflow has of them."""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from ablations.registration import entry_of, written
from ablations.verdicts.evidence import Run
from dashboards.tables.reading import StudyRun
from orchestrator.tracking.mirror import Mirror
from orchestrator.tracking.store import tracking_uri
from tests.orchestrator.conftest import environment
from trainers.config import TrainConfig
from trainers.system.store import LocalStore

Records = Mapping[int, Mapping[str, float]]


def curve(last: int, *, pace: float = 1.0, shift: float = 0.0) -> dict[int, dict[str, float]]:
    """A record at each of `last` + 1 steps; `pace` is the machine's, `shift` that of values."""
    return {
        step: {
            "loss/total": 3.0 / (1 + step) + shift,
            "knn/cls_top1": step / 7 + shift,
            "data/chain": float(step),
            "attention/entropy@layer1": 1.0,
            "time/step_s": pace + step / 1000,
        }
        for step in range(last + 1)
    }


class Trial:
    """A trial of a run root, which a test writes as an attempt would."""

    def __init__(self, store: LocalStore, key: str, seed: int = 0) -> None:
        self.store, self.key, self.seed = store, key, seed
        config = TrainConfig(seed=seed).model_dump_json()
        store.put(f"trials/{key}/config.json", config.encode(), if_absent=True)

    def segment(self, attempt: int, records: Records) -> str:
        """Put a segment of records; returns its key."""
        lines = [{"step": step, "metrics": metrics} for step, metrics in records.items()]
        name = f"metrics-{min(records):09d}.jsonl"
        key = f"trials/{self.key}/attempts/{attempt:04d}/{name}"
        self.store.put(key, "".join(json.dumps(line) + "\n" for line in lines).encode())
        return key

    def finish(self, attempt: int, records: Records, status: str = "finished", **more: Any) -> None:
        """Put all records in one segment, and the result."""
        key = self.segment(attempt, records)
        content = self.store.get(key) or b""
        digest = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        last = max(records)
        result = {
            "status": status, "reason": "", "step": last, "steps": last, "attempt": attempt,
            "files": {key.rpartition("/")[2]: digest}, **more,
        }  # fmt: skip
        self.store.put(f"trials/{self.key}/result.json", json.dumps(result).encode())

    def fail(self, attempt: int, message: str) -> None:
        """Put why an attempt ended without a result."""
        content = {"kind": "ours", "message": message, "traceback": ""}
        key = f"trials/{self.key}/attempts/{attempt:04d}/failure.json"
        self.store.put(key, json.dumps(content).encode())


def study_of(
    runs: Mapping[tuple[str, int], Run],
    store: LocalStore,
    hypotheses: Mapping[str, Any] | None = None,
    known: Mapping[str, str] | None = None,
    changes: Mapping[str, Any] | None = None,
    claims: Mapping[str, Any] | None = None,
) -> StudyRun:
    """A study named mini whose runs ended so, stated when those results were known."""
    arms = list(dict.fromkeys(arm for arm, _ in runs))
    seeds = sorted({seed for _, seed in runs})
    trials = [{"key": f"{arms.index(arm)}-{seed}", "arm": arm, "seed": seed} for arm, seed in runs]
    content = {
        "study": "mini", "hypotheses_sha256": "0" * 64, "config": {}, "trials": trials,
        "arms": {arm: {"change": (changes or {}).get(arm, {})} for arm in arms},
        "resolved": {"seeds": seeds, "arms": {arm: {"arm": arm} for arm in arms},
                     "hypotheses": dict(hypotheses or {}), "gates": {},
                     "claims": dict(claims or {})},
    }  # fmt: skip
    entry = entry_of(written({**content, "number": 1, "known": dict(known or {})}))
    return StudyRun(store=store, chain=(entry,), runs=dict(runs), table=pd.DataFrame())


def ended(value: float) -> Run:
    """A run that came to its last step with that accuracy."""
    end = {"knn/cls_top1": value, "data/chain": 5.0, "time/step_s": 1.0, "a@layer1": 2.0}
    return Run(status="finished", start={}, end=end)


MISSING = Run(status="missing", start={}, end={})


def held(client: MlflowClient, experiment: str = "mini") -> dict[str, dict[str, Any]]:
    """All that MLflow has of a study, by title of the run; every title is there once.

    But times, and the identities that MLflow draws.
    """
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    titles = {run.info.run_id: run.info.run_name for run in found}
    assert len(set(titles.values())) == len(titles)
    return {
        run.info.run_name: {
            "status": run.info.status,
            "parent": titles.get(run.data.tags.get("mlflow.parentRunId", "")),
            "parameters": run.data.params,
            "tags": {
                name: re.sub("models:/m-[0-9a-f]{32}", "models:/MODEL", text)
                for name, text in run.data.tags.items()
                if name.startswith("dinolab.")
            },
            "metrics": {
                name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            },
        }
        for run in found
    }


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run root with an empty store in MLflow, which takes seconds to make."""
    root = tmp_path_factory.mktemp("template") / "runs"
    Mirror("other", LocalStore(root, make=True), print)
    (root / "root.json").unlink()
    return root


@pytest.fixture
def new_root(template: Path, tmp_path: Path) -> Callable[[str], LocalStore]:
    """Makes another empty run root, of that name."""

    def make(name: str) -> LocalStore:
        return LocalStore(shutil.copytree(template, tmp_path / name))

    return make


@pytest.fixture
def store(new_root: Callable[[str], LocalStore]) -> LocalStore:
    """An empty run root."""
    return new_root("runs")


@pytest.fixture
def client(store: LocalStore) -> MlflowClient:
    """MLflow on the store of that root."""
    return MlflowClient(tracking_uri=tracking_uri(store.root))


class Killed(BaseException):
    """The driver is not there any more."""


WRITES = (
    "create_experiment", "create_run", "log_batch", "set_tag", "set_terminated", "delete_run",
    "set_experiment_tag", "log_inputs", "log_outputs", "create_logged_model",
    "log_model_artifacts", "finalize_logged_model", "delete_logged_model",
    "log_artifacts",
)  # fmt: skip
"""Methods of a client that change what MLflow has of trials."""

KilledAtWrite = Callable[[Callable[[], object], int, bool], bool]


@pytest.fixture
def killed_at_write(monkeypatch: pytest.MonkeyPatch) -> KilledAtWrite:
    """A function that does `work` up to its write to MLflow of that number, from 1.

    `is_done` says whether that one is done. Whether there are so many comes back.
    """

    def run(work: Callable[[], object], number: int, is_done: bool) -> bool:
        written = 0

        def counted(name: str) -> Callable[..., Any]:
            original = getattr(MlflowClient, name)

            def write(self: MlflowClient, *arguments: Any, **named: Any) -> Any:
                nonlocal written
                written += 1
                if written != number:
                    return original(self, *arguments, **named)
                if is_done:
                    original(self, *arguments, **named)
                raise Killed

            return write

        with monkeypatch.context() as patched:
            for name in WRITES:
                patched.setattr(MlflowClient, name, counted(name))
            try:
                work()
            except Killed:
                return True
        return False

    return run


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow beyond 100 bytes meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def server(folder: Path, port: int | None = None) -> Iterator[str]:
    """A real MLflow server, on a free port if none is given; yields its address."""
    port = port or free_port()
    uri = f"http://127.0.0.1:{port}"
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    arguments += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    arguments += ["--default-artifact-root", str(folder / "artifacts")]
    with subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        # It writes a line for each request, and stops where nobody reads them.
        rest = threading.Thread(target=process.stdout.read)
        try:
            # The server says so when it listens (its start-up completes before it does); anything
            # else is an end of its output.
            assert any("running on" in line.lower() for line in process.stdout)
            rest.start()
            with urllib.request.urlopen(f"{uri}/health", timeout=30) as answer:
                assert answer.status == 200
            yield uri
        finally:
            # Its workers too, in the middle of whatever they do.
            os.killpg(process.pid, signal.SIGKILL)
            if rest.ident is not None:
                rest.join()
