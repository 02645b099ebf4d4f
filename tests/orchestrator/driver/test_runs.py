"""Whole studies on real Ray clusters: finished, killed, interrupted, spread over workers."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.orchestrator.cli.conftest import dinolab as in_process
from tests.orchestrator.conftest import MINI, dinolab, start
from tests.registered import restated
from trainers.metrics import OF_THE_MACHINE
from trainers.runs.stored_trial import sealed

__all__ = ["in_process"]

ONLY_THE_BASELINE = MINI[: MINI.index("arms:")] + "arms: []\n"


def rows_without_times(root):
    table = pq.read_table(root / "studies" / "mini" / "results.parquet").to_pylist()
    return [row for row in table if not row["metric"].startswith(OF_THE_MACHINE)]


def results(root):
    return {path.parent.name: path.stat().st_mtime_ns for path in root.glob("trials/*/result.json")}


def test_a_study_ends_with_verdicts_a_report_and_the_command_for_the_ui(finished):
    root, output = finished
    assert "using the Ray cluster at" in output
    assert "none_is_equivalent: 2 seeds; 6 is the fewest" in output
    assert "INCONCLUSIVE" in output
    assert f"report: {root / 'studies' / 'mini' / 'report.html'}" in output
    assert f"MLflow UI: dinolab ui --root {root}" in output.replace(".venv/bin/", "")
    assert (root / "studies" / "mini" / "report.html").stat().st_size > 1e6
    verdicts = json.loads((root / "studies" / "mini" / "verdicts.json").read_text())
    label = verdicts["hypotheses"]["none_is_equivalent"]["verdict"]["label"]
    assert label == "inconclusive"
    rows = rows_without_times(root)
    assert {row["arm"] for row in rows} == {"baseline", "cls_position_none", "loss_on_patches"}
    assert {row["seed"] for row in rows} == {0, 1}
    assert {row["step"] for row in rows if row["metric"] == "knn/cls_top1"} == {0, 12, 24}


def test_every_result_names_the_registration_for_which_a_worker_trained_it(finished, in_process):
    root, _ = finished
    registration = (root / "studies" / "mini" / "registrations" / "0001.json").read_bytes()
    named = [
        json.loads(one.read_text())["registrations"] for one in root.glob("trials/*/result.json")
    ]
    assert named == [[hashlib.sha256(registration).hexdigest()]] * 6
    code, output, _ = in_process("verify", "mini", "--root", root)
    assert (code, output.rstrip().endswith("nothing is wrong")) == (0, True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_second_run_trains_nothing_and_says_so(finished, mini, in_process):
    root, _ = finished
    before = results(root)
    code, output, _ = in_process("run", mini, "--root", root)
    assert code == 0
    assert "all 6 runs are finished: nothing to train" in output
    assert results(root) == before
    assert len(before) == 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_another_study_takes_the_runs_that_this_root_has(finished, tmp_path, in_process):
    root, _ = finished
    study = tmp_path / "again.yaml"
    study.write_text(MINI.replace("name: mini", "name: again"))
    code, output, _ = in_process("run", study, "--root", root)
    assert code == 0
    assert "all 6 runs are finished: nothing to train" in output
    assert (root / "studies" / "again" / "report.html").is_file()


@pytest.mark.slow
def test_runs_that_other_code_finished_are_said_before_anything_trains(
    finished, mini, tmp_path, in_process
):
    root = tmp_path / "runs"
    shutil.copytree(finished[0], root)
    path = root / "studies" / "mini" / "registrations" / "0001.json"
    keys = {}
    for number, result_path in enumerate(sorted(root.glob("trials/*/result.json"))):
        # As other code would have left them: another version of a module, so another key.
        result = json.loads(result_path.read_text())
        result["code"]["trainers.training.step"] = "0" * 12
        del result["sha256"]
        result_path.write_bytes(sealed(result))
        keys[result_path.parent.name] = f"{number:016x}"
        result_path.parent.rename(result_path.parent.with_name(f"{number:016x}"))

    def by_other_code(stated):
        stated["git"] = {"commit": "0123456789abcdef", "dirty": True}
        for trial in stated["trials"]:
            trial["key"] = keys[trial["key"]]

    restated(path, by_other_code)
    code, output, _ = in_process("plan", mini, "--root", root, "--tflops", "1")
    assert code == 0, output
    assert (
        "note: other code (commit 0123456789ab, with changes that were not committed) has finished "
        "6 of the 6 runs to train; it differs in trainers.training.step."
    ) in output
    assert "6 runs, 0 finished" in output


def test_a_run_of_a_study_is_measured_on_its_held_out_images(finished, tmp_path, in_process):
    trial = next((finished[0] / "trials").iterdir())
    options = ["--limit", "12", "--causal-images", "2", "--threads", "1"]
    code, out, err = in_process("measure", trial, "--out", tmp_path / "out", *options)
    assert (code, err) == (0, "")
    assert "12 of 359 held-out images in digits" in out
    assert "step 24 of 24" in out


@pytest.mark.slow
def test_killed_and_interrupted_it_goes_on_to_the_bits_of_a_cluster(finished, mini, tmp_path):
    root = tmp_path / "runs"

    with start("run", mini, "--root", root) as process:
        for line in process.stdout:
            if line.startswith("[1/6]"):
                break
        process.send_signal(signal.SIGKILL)
        process.stdout.read()
    after_kill = results(root)
    assert 1 <= len(after_kill) < 6

    with start("run", mini, "--root", root) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("[1/"):
                process.send_signal(signal.SIGINT)
                break
        said.append(process.stdout.read())
    assert process.returncode == 130, said
    assert "runs are finished; the same command goes on from here" in said[-1]
    assert "Traceback" not in "".join(said)
    after_interrupt = results(root)
    assert len(after_kill) < len(after_interrupt)
    assert after_interrupt.items() >= after_kill.items()

    code, output = dinolab("run", mini, "--root", root)
    assert code == 0, output
    assert results(root).items() >= after_interrupt.items()
    assert rows_without_times(root) == rows_without_times(finished[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_our_own_ray_is_started_again_when_one_of_its_processes_is_killed(
    finished, mini, tmp_path, name
):
    root = tmp_path / "runs"
    with start("run", mini, "--root", root, DINOLAB_LEASE_S="5") as process:
        for line in process.stdout:
            if line.startswith("[1/6]"):
                break
        # Tune asks the head for the next trial at once: it would wait for ever.
        os.kill(child(process.pid, name), signal.SIGKILL)
        output = process.stdout.read()
    assert process.returncode == 0, output
    assert output.count(f"note: Ray has ended: its {name} was killed, or ran out of memory; ") == 1
    assert "trials go on from there" in output
    assert "Traceback" not in output
    assert rows_without_times(root) == rows_without_times(finished[0])


def child(parent, name):
    """The number of the process that one has started, by the name of its program."""
    (found,) = (
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if (process / "stat").read_text().rpartition(")")[2].split()[1] == str(parent)
        and (process / "cmdline").read_bytes().split(b"\0")[0].endswith(f"/{name}".encode())
    )
    return found


def test_a_pilot_is_a_study_of_its_own_and_grows(cluster, tmp_path):
    study = tmp_path / "mini.yaml"
    study.write_text(ONLY_THE_BASELINE)
    root = tmp_path / "runs"
    for seeds, trained in ((2, 2), (3, 1)):
        code, output = dinolab(
            "pilot", study, "--seeds", seeds, "--root", root, RAY_ADDRESS=cluster
        )
        assert code == 0, output
        assert "seeds 1000000, 1000001" in output
        assert "which never count in its verdicts" in output
        assert output.count(": finished (") == trained
    assert [path.name for path in (root / "studies").iterdir()] == ["mini-pilot"]


def test_two_workers_on_two_nodes_see_the_same_crops_as_one(finished, cluster, tmp_path):
    study = tmp_path / "mini.yaml"
    study.write_text(ONLY_THE_BASELINE.replace("seeds: 2", "seeds: 1"))
    root = tmp_path / "runs"
    code, output = dinolab("run", study, "--root", root, "--workers", "2", RAY_ADDRESS=cluster)
    assert code == 0, output
    found = {path.parent.name: json.loads(path.read_text())
             for path in root.glob("trials/*/result.json")}  # fmt: skip
    ((key, result),) = found.items()
    alone = json.loads((finished[0] / "trials" / key / "result.json").read_text())
    assert result["workers"] == 2
    assert result["chain"] == alone["chain"]


@pytest.mark.slow
def test_a_folder_of_mixed_images_works_and_says_what_it_skipped(cluster, tmp_path):
    generator = np.random.default_rng(0)

    def pixels(height, width, channels):
        return generator.integers(0, 256, (height, width, channels), dtype=np.uint8)

    for number, label in enumerate(["cats", "dogs"] * 6):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True, exist_ok=True)
        rgb = Image.fromarray(pixels(20 + 3 * number, 31, 3))
        for mode, suffix in (("RGB", "jpg"), ("L", "png"), ("P", "png"), ("CMYK", "jpg")):
            rgb.convert(mode).save(folder / f"{mode}{number}.{suffix}")
        Image.fromarray(pixels(17, 40, 4), "RGBA").save(folder / f"rgba{number}.png")
        deep = generator.integers(0, 65536, (25, 25), dtype=np.uint16)
        Image.fromarray(deep).save(folder / f"deep{number}.png")
    broken = tmp_path / "images" / "cats" / "broken.jpg"
    broken.write_bytes((tmp_path / "images" / "cats" / "RGB0.jpg").read_bytes()[:200])
    study = tmp_path / "photos.yaml"
    study.write_text(
        MINI.replace("name: mini", "name: photos").replace("seeds: 2", "seeds: 1")
        .replace("  - loss_on_patches\n", "").replace("checkpoint_every: 8", "checkpoint_every: 24")
    )  # fmt: skip
    root = tmp_path / "runs"
    code, output = dinolab(
        "run", study, "--root", root, "--data", tmp_path / "images", RAY_ADDRESS=cluster
    )
    assert code == 0, output
    assert "skipped 1 of 73 files" in output
    assert "cats/broken.jpg: broken:" in output
    stated = json.loads((root / "studies/photos/registrations/0001.json").read_text())
    assert stated["dataset"]["images"] == 72
    assert stated["dataset"]["labelled"] is True
    assert "cats/broken.jpg" in (root / "studies" / "photos" / "report.html").read_text()


@pytest.mark.slow
def test_an_unreachable_mlflow_server_is_one_line_before_anything_runs(
    mini, tmp_path, in_process, monkeypatch
):
    root = tmp_path / "runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, output, error = in_process("run", mini, "--root", root)
    assert code == 2, output
    assert "MLflow store http://127.0.0.1:9 cannot be used" in error
    assert len(error.splitlines()) == 1
    assert not root.exists()


@pytest.mark.slow
def test_two_drivers_share_the_trials_of_a_root_and_each_ends_with_all(
    finished, mini, cluster, tmp_path
):
    root = tmp_path / "runs"
    command = ("run", mini, "--root", root, "--max-concurrent", "1")
    with contextlib.ExitStack() as both:
        drivers = [both.enter_context(start(*command, RAY_ADDRESS=cluster)) for _ in range(2)]
        outputs = [driver.communicate(timeout=600)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], outputs
    assert any("another dinolab on" in output for output in outputs)
    committed = [json.loads(path.read_text()) for path in root.glob("trials/*/result.json")]
    assert len(committed) == 6
    # One was not waited for by the other: both have trained, and nothing twice.
    assert len(list(root.glob("trials/*/attempts/*"))) == 6
    drove = {
        json.loads(path.read_text())["driver"] for path in root.glob("trials/*/*/*/lease.json")
    }
    assert len(drove) == 2
    assert rows_without_times(root) == rows_without_times(finished[0])


@pytest.mark.slow
def test_a_worker_that_stands_still_for_good_is_ended_and_its_trial_goes_on(
    finished, cluster, tmp_path
):
    study = tmp_path / "mini.yaml"
    study.write_text(ONLY_THE_BASELINE.replace("seeds: 2", "seeds: 1"))
    root = tmp_path / "runs"
    with start("run", study, "--root", root, RAY_ADDRESS=cluster, DINOLAB_LEASE_S="2") as process:
        until = time.monotonic() + 120
        while not (leases := list(root.glob("trials/*/attempts/0001/lease.json"))):
            assert time.monotonic() < until
            time.sleep(0.01)
        os.kill(json.loads(leases[0].read_text())["holder"]["pid"], signal.SIGSTOP)
        output = process.stdout.read()
    assert process.returncode == 0, output
    said = "baseline seed 0: an attempt failed: its worker stands still: not heard of for 10 s"
    assert output.count(f"{said} (of the machines)") == 1, output
    whole = [
        row
        for row in rows_without_times(finished[0])
        if row["arm"] == "baseline" and row["seed"] == 0
    ]
    assert rows_without_times(root) == whole


@pytest.mark.slow
def test_an_attempt_over_its_time_limit_is_ended_counted_and_said(finished, cluster, tmp_path):
    study = tmp_path / "mini.yaml"
    study.write_text(ONLY_THE_BASELINE.replace("seeds: 2", "seeds: 1"))
    root = tmp_path / "runs"
    code, output = dinolab("run", study, "--root", root, "--time-limit", "1", RAY_ADDRESS=cluster)
    assert code == 3, output
    assert "Traceback" not in output
    limit = "came over its time limit of 1 s (resources.time_limit_s, --time-limit)"
    said = [line for line in output.splitlines() if f"{limit} (to be mended by you)" in line]
    assert len(said) == 3
    assert said[-1].startswith("[1/1] baseline seed 0: failed: ")
    assert limit in (root / "studies" / "mini" / "report.html").read_text()
    failures = [json.loads(path.read_text()) for path in root.glob("trials/*/*/*/failure.json")]
    assert [failure["kind"] for failure in failures] == ["user"] * 3
    leases = [json.loads(path.read_text()) for path in root.glob("trials/*/*/*/lease.json")]
    assert [lease["outcome"] for lease in leases] == ["failed"] * 3
    code, output = dinolab("run", study, "--root", root, RAY_ADDRESS=cluster)
    assert code == 0, output
    whole = [
        row
        for row in rows_without_times(finished[0])
        if row["arm"] == "baseline" and row["seed"] == 0
    ]
    assert rows_without_times(root) == whole
