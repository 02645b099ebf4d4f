"""What Prometheus is told of a study, and the dashboard that shows it."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.driver.gauges import (
    NAMES,
    OF_ARMS,
    OPEN,
    STATES,
    TRIALS,
    VERDICTS,
    Gauges,
    arm_values,
)
from tests.orchestrator.conftest import environment
from tests.orchestrator.tracking.conftest import free_port
from trainers.metrics import METRICS

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dinolab.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
RAYS_OWN = {"ray_node_mem_used", "ray_node_gram_used"}
"""The second only where there are GPUs."""


def test_gauges_come_from_metrics_that_runs_have() -> None:
    assert OF_ARMS.keys() <= METRICS.keys()


def test_an_arm_has_one_value_however_many_of_its_runs_run() -> None:
    newest = [
        (("a", "b"), {"time/images_per_s": 10.0, "loss/total": 2.0, "memory/peak_gib": 1.0}),
        (("a",), {"time/images_per_s": 20.0, "loss/total": 4.0, "memory/peak_gib": 3.0}),
        (("a",), {"loss/total": float("nan")}),
    ]
    values = arm_values(newest)
    assert values["a", "time/images_per_s"] == 30.0
    assert values["a", "loss/total"] == 3.0
    assert values["a", "memory/peak_gib"] == 3.0
    assert values["b", "loss/total"] == 2.0


def test_metrics_that_cannot_be_set_stop_nothing() -> None:
    def broken() -> tuple[str, ...]:
        asked.append("verdicts")
        raise RuntimeError("no cluster")

    asked: list[str] = []
    gauges = Gauges("study", with_loss=True, verdicts=broken, clock=iter([0.0, 1.0, 9.0]).__next__)
    for _ in range(3):
        gauges.look(["key"], {"key": "running"})
    assert asked == ["verdicts"] * 2, "no oftener than every five seconds"


def test_gauges_that_ray_cannot_set_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        tried.append(arguments)
        raise RuntimeError("no cluster")

    tried: list[object] = []
    monkeypatch.setattr("ray.util.metrics.Gauge.set", broken)
    gauges = Gauges("study", with_loss=True, verdicts=tuple, clock=iter([0.0, 1.0, 9.0]).__next__)
    for _ in range(3):
        gauges.look(["key"], {"key": "running"})
    assert len(tried) == 2, "no oftener than every five seconds"


def test_what_several_drivers_tell_of_a_study_is_counted_once(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool on the PATH: apt-get install prometheus")
    told = {"running": (1, 2), "finished": (5, 5), "open": (4, 3)}
    trials, hypotheses = (
        next(one for one in EXPRESSIONS if name in one).replace("$study", "a")
        for name in (TRIALS[0], VERDICTS[0])
    )

    def found(expression: str, label: str, values: dict[str, int]) -> dict[str, Any]:
        samples = [
            {"labels": f'{{study="a", {label}="{name}"}}', "value": value}
            for name, value in values.items()
        ]
        return {"expr": expression, "eval_time": "0m", "exp_samples": samples}

    series = [
        {"series": f'ray_{name}{{study="a", {label}="{of}", driver="{driver}"}}', "values": value}
        for name, label in ((TRIALS[0], "state"), (VERDICTS[0], "verdict"))
        for of, values in told.items()
        for driver, value in enumerate(map(str, values))
    ]
    asked = [
        found(trials, "state", {"running": 3, "finished": 5, "open": 4}),
        found(hypotheses, "verdict", {"running": 2, "finished": 5, "open": 4}),
    ]
    file = tmp_path / "test.json"
    file.write_text(json.dumps({"tests": [{"input_series": series, "promql_expr_test": asked}]}))
    done = subprocess.run(
        [promtool, "test", "rules", file], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_shows_every_series_and_no_other() -> None:
    shown = {name for one in EXPRESSIONS for name in re.findall(r"\bray_\w+", one)}
    assert shown == {f"ray_{name}" for name in NAMES} | RAYS_OWN
    asked = {re.search(r"ray_\w+", one["query"])[0] for one in DASHBOARD["templating"]["list"]}
    assert asked <= shown
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)


def test_grafana_reads_the_dashboard() -> None:
    grafana = pytest.importorskip(
        "grafana_foundation_sdk.models.dashboard", reason="there is no grafana-foundation-sdk"
    )
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    read = grafana.Dashboard.from_json(DASHBOARD)
    written = json.loads(JSONEncoder().encode(read))
    kept_whole(DASHBOARD, written, "dashboard")


def kept_whole(ours: Any, theirs: Any, where: str) -> None:
    """Asserts that each field of ours is one that they know, and kept."""
    if isinstance(ours, dict):
        for name, value in ours.items():
            assert name in theirs, f"{where}.{name}"
            kept_whole(value, theirs[name], f"{where}.{name}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), where
        for one, other in zip(ours, theirs, strict=True):
            kept_whole(one, other, where)
    else:
        assert ours == theirs, where


HEAD = """
import select, sys, ray
from orchestrator.driver.gauges import Gauges
ray.init(num_cpus=1, include_dashboard=True, dashboard_port=0, _temp_dir=sys.argv[1],
         object_store_memory=100 * 2**20, log_to_driver=False)
gauges = Gauges("a study", with_loss=True, verdicts=lambda: ["open", "supported", "open"])
gauges.moved("k1", ("baseline",), {"time/images_per_s": 100.0, "loss/total": 2.5,
                                   "time/data_wait": 0.25, "memory/peak_gib": 1.5})
gauges.moved("k2", ("baseline",), {"time/images_per_s": 50.0})
print("set", flush=True)
while not select.select([sys.stdin], [], [], 1)[0]:
    gauges.look(["k1", "k2", "k3"], {"k1": "running", "k2": "running"})
ray.shutdown()
"""


@pytest.mark.slow
def test_prometheus_finds_the_series_of_a_ray_head(tmp_path: Path) -> None:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("there is no prometheus on the PATH: apt-get install prometheus")
    scratch = tmp_path_of_sockets()
    try:
        with process(sys.executable, "-W", "ignore", "-c", HEAD, scratch) as head:
            assert head.stdout is not None
            assert "set\n" in iter(head.stdout.readline, "")
            found = asked_of_prometheus(prometheus, scratch, tmp_path)
            head.communicate(timeout=120)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    assert found("ray_dinolab_images_per_second")[0]["value"][1] == "150"
    assert found("ray_dinolab_loss")[0]["value"][1] == "2.5"


def tmp_path_of_sockets() -> Path:
    """A folder with a short path, which Ray's sockets need."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix="dl-"))


def process(*command: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )


def asked_of_prometheus(prometheus: str, scratch: Path, folder: Path) -> Callable[[str], list[Any]]:
    """What our Prometheus configuration has found of each expression of the dashboard."""
    config = folder / "prometheus.yml"
    said = (DEPLOY / "prometheus.yml").read_text()
    discovery = "/tmp/ray/prom_metrics_service_discovery.json"
    assert discovery in said
    said = said.replace(discovery, str(scratch / Path(discovery).name)).replace("15s", "1s")
    config.write_text(said)
    port = free_port()
    server = process(
        prometheus, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )  # fmt: skip
    results: dict[str, list[Any]] = {}
    names = [f"ray_{name}" for name in NAMES] + ["ray_node_mem_used"]
    shown = [one.replace("$study", "a study").replace("$arm", ".*") for one in EXPRESSIONS]
    wanted = [*names, *(one for one in shown if "gram" not in one)]
    until = time.monotonic() + 120
    try:
        while len(results) < len(wanted) and time.monotonic() < until:
            for expression in wanted:
                asked = urllib.parse.quote(expression)
                address = f"http://127.0.0.1:{port}/api/v1/query?query={asked}"
                try:
                    with urllib.request.urlopen(address, timeout=10) as answer:
                        if result := json.loads(answer.read())["data"]["result"]:
                            results[expression] = result
                except OSError:  # it is starting
                    pass
            time.sleep(0.5)
    finally:
        server.terminate()
        server.communicate(timeout=30)
    assert results.keys() == set(wanted)
    labels = {one["metric"]["state"] for one in results["ray_dinolab_trials"]}
    assert labels == {*STATES}
    verdicts = {
        one["metric"]["verdict"]: one["value"][1] for one in results["ray_dinolab_hypotheses"]
    }
    assert verdicts == {OPEN: "2", "supported": "1"}
    return results.__getitem__
