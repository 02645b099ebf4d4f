"""Two people, two studies, one cluster, one run root, one MLflow server."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest
from mlflow import MlflowClient

from tests.orchestrator.conftest import MINI, start
from tests.orchestrator.tracking.conftest import server
from trainers.metrics import OF_THE_MACHINE

pytestmark = pytest.mark.slow

ARMS = {"mini": {"cls_position_none", "loss_on_patches"}, "other": {"cls_window_1"}}
SEEDS = {"mini": 10, "other": 2}
TRIALS = 10 * 3 + 2
"""of both, whose first seeds of the baseline are the same"""

LONG = MINI.replace("seeds: 2", "seeds: 10")
SHORT = (
    MINI.replace("name: mini", "name: other")
    .replace("  - cls_position_none\n  - loss_on_patches\n", "  - cls_window_1\n")
    .replace("none_is_equivalent", "window_is_equivalent")
    .replace("contrast: [cls_position_none, baseline]", "contrast: [cls_window_1, baseline]")
)


@pytest.fixture(scope="module")
def both(cluster, tmp_path_factory):
    """Root of both, the server's address while it runs, and what each command came to.

    The second study is begun when the first has a result.
    """
    folder = tmp_path_factory.mktemp("both")
    root, served = folder / "runs", folder / "served"
    served.mkdir()
    (folder / "long.yaml").write_text(LONG)
    (folder / "short.yaml").write_text(SHORT)
    with server(served) as address:
        here = {"RAY_ADDRESS": cluster, "MLFLOW_TRACKING_URI": address}
        with start("run", folder / "long.yaml", "--root", root, **here) as one:
            begun = []
            for line in one.stdout:
                begun.append(line)
                if line.startswith("["):
                    break
            with start("run", folder / "short.yaml", "--root", root, **here) as two:
                short = two.stdout.read()
            long = "".join(begun) + one.stdout.read()
        yield root, address, [(one.returncode, long), (two.returncode, short)]
    shutil.rmtree(folder)


def rows(root: Path, study: str) -> list[dict[str, object]]:
    """What a study has come to, without its name and what is of the machine."""
    table = pyarrow.parquet.read_table(root / "studies" / study / "results.parquet").to_pylist()
    kept = [row for row in table if not row["metric"].startswith(OF_THE_MACHINE)]
    return [{name: value for name, value in row.items() if name != "study"} for row in kept]


def of_arm(table: list[dict[str, object]], arm: str) -> list[dict[str, object]]:
    """Without its name, of the seeds that both studies have."""
    found = [row for row in table if row["arm"] == arm and row["seed"] in (0, 1)]
    return [{name: value for name, value in row.items() if name != "arm"} for row in found]


def test_each_ends_with_its_own_verdicts_and_the_values_of_one_who_was_alone(both, finished):
    root, _, outcomes = both
    assert [code for code, _ in outcomes] == [0, 0], outcomes
    (_, long), (_, short) = outcomes
    assert "none_is_equivalent" in long
    assert "window_is_equivalent" not in long
    assert "window_is_equivalent" in short
    assert "none_is_equivalent" not in short
    alone, together = rows(finished[0], "mini"), rows(root, "mini")
    for arm in ("baseline", *ARMS["mini"]):
        assert of_arm(alone, arm)
        assert of_arm(together, arm) == of_arm(alone, arm)
    assert {row["arm"] for row in rows(root, "other")} == {"baseline", *ARMS["other"]}


def test_what_both_need_is_trained_once(both):
    root, _, _ = both
    short = rows(root, "other")
    assert of_arm(short, "baseline") == of_arm(rows(root, "mini"), "baseline")
    assert of_arm(short, "baseline") != of_arm(short, "cls_window_1")
    attempts = Counter(path.parts[-4] for path in root.glob("trials/*/attempts/*/lease.json"))
    assert len(attempts) == len(list(root.glob("trials/*/result.json"))) == TRIALS
    assert set(attempts.values()) == {1}


def test_the_second_does_not_wait_until_the_first_is_through(both):
    root, _, _ = both
    ended: dict[str, list[int]] = {}
    for path in root.glob("trials/*/attempts/*/lease.json"):
        driver = json.loads(path.read_text())["driver"]
        result = path.parents[2] / "result.json"
        ended.setdefault(driver, []).append(result.stat().st_mtime_ns)
    short, long = sorted(ended.values(), key=len)
    assert min(short) < max(long)


def test_each_has_an_experiment_of_its_own_with_its_runs_alone(both):
    _, address, _ = both
    client = MlflowClient(tracking_uri=address)
    for study, arms in ARMS.items():
        experiment = client.get_experiment_by_name(study)
        found = {run.info.run_name for run in client.search_runs([experiment.experiment_id])}
        seeds = {name for name in found if "seed" in name}
        assert len(seeds) == SEEDS[study] * (1 + len(arms)), found
        others = {arm for other, arms in ARMS.items() if other != study for arm in arms}
        assert not {name for name in found if any(arm in name for arm in others)}
