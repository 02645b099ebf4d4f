"""A study that is submitted to a head that Ray's own command has started."""

import contextlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute
import pyarrow.parquet
import pytest
from PIL import Image

from orchestrator.driver import arrival, jobs
from orchestrator.submission import Submission
from tests.orchestrator.conftest import dinolab, environment, start
from tests.orchestrator.tracking.conftest import free_port
from trainers.config import DataConfig
from trainers.data.digits import digits
from trainers.data.image_set import open_images
from trainers.errors import InputError

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
SECRET = "planted-8d1f"


def test_the_shell_of_a_job_becomes_the_driver_and_words_stay_whole():
    submission = Submission(
        study="a", root="/r", arguments=("a b.yaml", "--root", "/r; rm"), files={}
    )
    said = jobs.entrypoint(submission)
    assert said.endswith(" && exec python -m orchestrator run 'a b.yaml' --root '/r; rm'")


@contextlib.contextmanager
def another_server(code: int) -> Iterator[str]:
    """Address of something that is no Ray and answers everything with `code`."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:6379", "it is no http:// or https:// address"),
        ("ray://127.0.0.1:10001", "it is no http:// or https:// address"),
        ("http://127.0.0.1:9", r"nothing answers there \(Connection refused\)"),
        ("http://a..b:8265", "no Ray|nothing answers"),
        ("http://127.0.0.1:nine", "no Ray|nothing answers"),
    ],
)
def test_an_address_without_a_dashboard_is_one_line(address, said):
    with pytest.raises(InputError, match=said) as caught:
        jobs.Jobs(address)
    assert str(caught.value).startswith(f"--address {address} cannot be used: ")
    assert "give http://HOST:8265" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("code", "said"), [(404, r"no Ray \(HTTP 404\)"), (200, "no Ray")])
def test_a_server_that_is_no_ray_is_one_line(code, said):
    with another_server(code) as address, pytest.raises(InputError, match=said):
        jobs.Jobs(address)


def test_an_address_that_says_nothing_is_one_line(monkeypatch):
    monkeypatch.setattr(jobs, "ANSWER_WITHIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(InputError, match=r"nothing answers within 0\.2 s"):
            jobs.Jobs(address)


def test_what_of_ray_is_missing_is_said(monkeypatch):
    found = {"aiohttp": None, "requests": object()}
    monkeypatch.setattr("importlib.util.find_spec", found.get)
    with pytest.raises(InputError, match=r"jobs need aiohttp, .*: pip install 'ray\[default\]'"):
        jobs.Jobs("http://127.0.0.1:8265")


def test_other_versions_than_where_it_was_submitted_are_one_line():
    here = {"python": "3.12.1", "torch": "2.11.0", "ray": "2.60.0"}
    assert arrival.differing(here, arrival.as_text(here)) == ""
    assert arrival.differing(here, "") == ""
    said = arrival.differing(here, "python=3.11.4 torch=2.11.0 ray=2.59.0")
    assert said.startswith("note: ")
    assert "python 3.12.1 (there 3.11.4), ray 2.60.0 (there 2.59.0);" in said
    assert "torch" not in said


def test_a_python_that_cannot_run_a_study_says_what_it_lacks_and_imports_none_of_it():
    here = arrival.versions_here()
    assert arrival.missing(here) == ""
    said = arrival.missing({name: of for name, of in here.items() if name not in ("ray", "torch")})
    assert "has no ray, torch: install" in said
    loaded = "import orchestrator.driver.arrival, sys; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"ray", "torch", "numpy", "typer", "pydantic"} & set(modules)


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, Path]]:
    """Address of a head's dashboard, which asks for a token, and the folder of its logs."""
    # A short path, since sockets lie in it.
    scratch, port = tempfile.mkdtemp(prefix="dl-"), free_port()
    python = Path(sys.executable).parent
    process = subprocess.Popen(
        [
            sys.executable, "-W", "ignore", "-m", "ray.scripts.scripts", "start", "--head",
            "--block", "--num-cpus=2", "--port=0", f"--dashboard-port={port}",
            f"--dashboard-agent-listen-port={free_port()}",
            f"--ray-client-server-port={free_port()}", f"--temp-dir={scratch}",
            "--include-dashboard=true", "--object-store-memory=104857600",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(PATH=f"{python}:{os.environ['PATH']}", **TOKEN),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert any("This command will now block" in line for line in process.stdout)
        yield f"http://127.0.0.1:{port}", Path(scratch) / "session_latest" / "logs"
    finally:
        # It takes what it has started with it.
        process.terminate()
        process.communicate(timeout=60)
        shutil.rmtree(scratch, ignore_errors=True)


def measured(root: Path) -> list[dict[str, object]]:
    """What a study has come to, without what is of the machine."""
    table = pyarrow.parquet.read_table(root / "studies" / "mini" / "results.parquet")
    rows = [row for row in table.to_pylist() if row["metric"].split("/")[0] not in OF_MACHINE]
    return sorted(rows, key=str)


OF_MACHINE = ("time", "memory")


def finished_in(root: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in root.glob("trials/*/result.json")}


def files_that_hold(text: str, folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.name for path in found if text.encode() in path.read_bytes()}


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A study that was submitted, followed, submitted once more while it ran, and stopped."""

    root: Path
    variables: dict[str, str]
    """of whoever submits"""
    job: str
    said: str
    """by who followed it"""
    followed: int
    """exit code of following"""
    again: tuple[int, str]
    stop: tuple[int, str]
    finished: dict[str, int]


@pytest.fixture(scope="module")
def stopped(
    mini: Path, head: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Stopped:
    root = tmp_path_factory.mktemp("submitted") / "runs"
    here = {**TOKEN, "RAY_API_SERVER_ADDRESS": head[0], "AWS_SECRET_ACCESS_KEY": SECRET}
    submit = ("submit", mini, "--root", root)
    with start(*submit, "--follow", **here) as following:
        try:
            assert following.stdout is not None
            said = []
            for line in following.stdout:
                said.append(line)
                if line.startswith("[1/6]"):
                    break
            again = dinolab(*submit, **here)
            stop = dinolab("job", "stop", "mini", **here)
            # Not by communicate(), which knows nothing of what was read ahead of that line.
            rest = following.stdout.read()
            following.wait(timeout=60)
        finally:
            following.kill()
    return Stopped(
        root=root, variables=here, job=said[1].split()[4].rstrip(","), said="".join(said) + rest,
        followed=following.returncode, again=again, stop=stop, finished=finished_in(root),
    )  # fmt: skip


@pytest.fixture(scope="module")
def resumed(mini: Path, stopped: Stopped) -> tuple[int, str]:
    """Exit code and output of the same command after the stop."""
    submit = ("submit", mini, "--root", stopped.root, "--follow")
    return dinolab(*submit, **stopped.variables)


@pytest.mark.slow
def test_a_study_that_is_submitted_twice_is_one_job_and_stops_as_by_an_interrupt(stopped):
    assert stopped.job.endswith("-1")
    assert "AWS_SECRET_ACCESS_KEY" in stopped.said.splitlines()[0]
    code, said = stopped.again
    assert (code, f"as job {stopped.job}: joined" in said) == (0, True), said
    code, said = stopped.stop
    assert (code, f"job {stopped.job}: stopped" in said) == (0, True), said
    assert stopped.followed == 130
    assert "of 6 runs are finished; the same command goes on from here" in stopped.said
    assert stopped.finished
    code, said = dinolab("job", "logs", stopped.job, **stopped.variables)
    assert code == 0
    assert said.splitlines()[-1].startswith("interrupted: ")
    assert said in stopped.said, "what is followed is what the driver has printed, once"


@pytest.mark.slow
def test_a_stopped_study_that_is_submitted_again_trains_only_the_rest(stopped, resumed):
    code, said = resumed
    assert code == 0, said
    assert f"is job {stopped.job.removesuffix('1')}2, run root {stopped.root}" in said
    after = finished_in(stopped.root)
    assert stopped.finished.items() <= after.items()
    assert len(after) == 6


@pytest.mark.slow
def test_a_submitted_study_comes_to_the_values_of_one_that_was_run(stopped, resumed, finished):
    assert resumed[0] == 0
    assert measured(stopped.root) == measured(finished[0])


@pytest.mark.slow
def test_who_follows_a_job_ends_with_the_code_of_its_driver(mini, stopped):
    wrong = ("submit", mini, "--root", stopped.root, "--data", "nowhere", "--follow")
    code, said = dinolab(*wrong, **stopped.variables)
    assert code == 2, said
    assert f"{Path('nowhere').absolute()}" in said
    code, said = dinolab("job", "status", "mini", **stopped.variables)
    assert code == 0
    assert "exit code 2: bad input" in said
    assert "stopped" in said


@pytest.mark.slow
def test_images_of_this_machine_are_sent_and_seen_by_the_workers(mini, stopped, tmp_path):
    pictures, study = tmp_path / "pictures", tmp_path / "shipped.yaml"
    levels, labels = digits()
    for number, (pixels, label) in enumerate(zip(levels[:48], labels[:48], strict=True)):
        path = pictures / str(int(label) % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    study.write_text(mini.read_text().replace("name: mini", "name: shipped"))
    root = tmp_path / "runs"
    given = ("--data", pictures, "--ship-data", "--only", "baseline", "--seeds", "0")
    submitted = dinolab("submit", study, "--root", root, *given, **stopped.variables)
    assert submitted[0] == 0, submitted[1]
    # Nothing on the cluster can see them here from now on.
    pictures.rename(tmp_path / "elsewhere")
    code, said = dinolab("job", "logs", "shipped", "--follow", **stopped.variables)
    assert (code, "baseline seed 0: finished" in said) == (3, True), said
    data = {json.loads(path.read_text())["data"] for path in root.glob("trials/*/result.json")}
    found = open_images(DataConfig(source=str(tmp_path / "elsewhere")), tmp_path / "index")
    assert data == {found.digest}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("token", "words"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "asks for a token (401): set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_TOKEN": "b" * 64}, "does not take this token (403): set RAY_AUTH_TOKEN"),
    ],
)
def test_a_head_that_lets_nobody_in_is_one_line(head, token, words):
    address, _ = head
    code, said = dinolab("job", "status", "--address", address, **{**TOKEN, **token})
    assert code == 2
    assert words in said
    assert len(said.splitlines()) == 1, said


@pytest.mark.slow
def test_a_secret_is_in_nothing_that_is_kept(stopped, head):
    assert files_that_hold(SECRET, stopped.root) == set()
    # Ray's own, of every job: docs/cluster.md says so.
    logs = {name.split(".")[0] for name in files_that_hold(SECRET, head[1])}
    assert logs == {"runtime_env_agent"}
