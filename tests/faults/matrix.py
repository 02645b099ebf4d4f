"""Faults of a cluster at moments of a study, and what comes of each; prints a table.

    python -m tests.faults.matrix FOLDER

Each cell runs a little study of six trials on two machines (see `machines.py`), lets one thing go
wrong at one moment, does what a person would do (nothing, or the same command again), and compares
what is there then with an undisturbed run. FOLDER holds how far it is: called again it goes on.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.faults.machines import ADDRESSES, HEAD, OTHER, Machines
from tests.reliability.little import measured, write_study
from tests.reliability.soak import LONGEST_S, differing, mirrored, outcome

Row = dict[str, Any]

SEEDS, STEPS = 3, 100
TRIALS = 2 * SEEDS
LEASE_S = 5

TRIAL = "ray::ImplicitFunc.train"
_RAYLET = "/raylet/raylet"
_GCS = "/gcs_server"
_MLFLOW, _MLFLOW_PORT = "mlflow", 5000

NOTHING, SAME, NEW = "nothing", "the same command", "a new cluster, the same command"
"""What a person has to do."""

BEGUN, SAVED, HALF = "a trial has begun", "a checkpoint is there", "half of the trials have ended"
MOMENTS = (BEGUN, SAVED, HALF)


class Study:
    """A little study at work on two machines."""

    driver = "orchestrator"
    """in the command of who drives it"""
    moments: Mapping[str, tuple[str, int]] = {
        BEGUN: ("trials/*/attempts/*/lease.json", 1),
        SAVED: ("trials/*/attempts/*/checkpoint-*.json", 1),
        HALF: ("trials/*/result.json", TRIALS // 2),
    }
    """what is in the run root from each moment on: files, and how many"""
    steps = STEPS
    longest_s = LONGEST_S
    """for which a driver is waited for"""

    def __init__(self, folder: Path, machines: Machines, *, has_server: bool = False) -> None:
        self.machines = machines
        self.study = write_study(folder, SEEDS, steps=self.steps, checkpoint_every=20)
        self.root, self.served = folder / "root", folder / "served"
        self.database = self.root / "mlflow.db"
        self.tracking: dict[str, str] = {}
        self.said: list[str] = []
        for left in (self.root, self.served):
            shutil.rmtree(left, ignore_errors=True)
        if has_server:
            self.served.mkdir()
            self.database = self.served / "mlflow.db"
            self.serve()

    def serve(self) -> None:
        """Start an MLflow server on the head; returns once it answers."""
        where, uri = ADDRESSES[HEAD], f"sqlite:///{self.database}"
        arguments = ["--host", where, "--port", str(_MLFLOW_PORT), "--workers", "1",
                     "--allowed-hosts", "*", "--backend-store-uri", uri,
                     "--default-artifact-root", str(self.served / "artifacts")]  # fmt: skip
        command = [sys.executable, "-m", "mlflow", "server", *arguments]
        process = self.machines.run(HEAD, command, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
        assert process.stdout is not None
        assert any("running on" in line.lower() for line in process.stdout)
        # It writes a line for each request, and stops where nobody reads them.
        threading.Thread(target=process.communicate, daemon=True).start()
        self.tracking = {"MLFLOW_TRACKING_URI": f"http://{where}:{_MLFLOW_PORT}"}

    def command(self) -> list[str]:
        """What a person runs."""
        return ["orchestrator", "run", str(self.study), "--root", str(self.root)]

    def start(self) -> subprocess.Popen[str]:
        """Run it on the head."""
        command = [sys.executable, "-u", "-m", *self.command()]
        told = {
            "RAY_ADDRESS": self.machines.address,
            "DINOLAB_LEASE_S": str(LEASE_S),
            # Graphs take seconds to make, and nothing of them is compared.
            "DINOLAB_MLFLOW_TEACHERS": "none",
        }
        return self.machines.run(HEAD, command, **told, **self.tracking)

    def wait_for(self, moment: str) -> None:
        """Return as soon as it has come."""
        pattern, count = self.moments[moment]
        until = time.monotonic() + LONGEST_S
        while len(list(self.root.glob(pattern))) < count:
            assert time.monotonic() < until, f"no {count} {pattern}"
            time.sleep(0.005)

    def signal_worker(self, what: signal.Signals) -> list[int]:
        """Send a signal to whatever trains on the other machine, as soon as something does."""
        until = time.monotonic() + LONGEST_S
        while not (found := self.machines.signal(OTHER, TRIAL, what)):
            assert time.monotonic() < until, "nothing trains there"
        return found

    def end(self, driver: subprocess.Popen[str]) -> int:
        """Wait for a driver; its exit code."""
        code, output = outcome(driver, self.longest_s)
        self.said.append(output)
        return code

    def attempts(self) -> int:
        """How often a trial has begun."""
        return len(list(self.root.glob("trials/*/attempts/*")))

    def ended(self) -> dict[str, Any]:
        """Of each trial that has a result what changes should it run again."""
        return {
            path.parent.name: (path.read_bytes(), len(list(path.parent.glob("attempts/*"))))
            for path in self.root.glob("trials/*/result.json")
        }

    def numbers(self) -> Counter[Any]:
        """Every number in MLflow."""
        return Counter(mirrored(self.database))

    def results(self) -> Any:
        """What it has come to, beside that."""
        return measured(self.root)

    def wrong(self, results: Any) -> list[str]:
        """What differs from the results of an undisturbed one, or should not have been said."""
        problems = ["a traceback"] * any("Traceback" in one for one in self.said)
        return problems + differing(self.root, results)


def worker_is_killed(study: Study) -> None:
    study.signal_worker(signal.SIGKILL)


def worker_stands_still(study: Study) -> None:
    """Longer than its lease, and then it wakes."""
    stopped = study.signal_worker(signal.SIGSTOP)
    time.sleep(2 * LEASE_S)
    for number in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGCONT)


def raylet_is_killed(study: Study) -> None:
    study.machines.signal(OTHER, _RAYLET, signal.SIGKILL)


def machine_dies(study: Study) -> None:
    study.machines.kill_all(OTHER)


def machine_is_replaced(study: Study) -> None:
    study.machines.kill_all(OTHER)
    study.machines.start(OTHER)


def machine_stands_still(study: Study) -> None:
    study.machines.signal(OTHER, "", signal.SIGSTOP)


def disk_is_full(study: Study) -> None:
    study.machines.fill()


def link_fails_for_good(study: Study) -> None:
    study.machines.cut()


def link_fails_for_a_while(study: Study) -> None:
    study.machines.cut()
    time.sleep(2)
    study.machines.mend()


def driver_is_killed(study: Study) -> None:
    study.machines.signal(HEAD, study.driver, signal.SIGKILL)


def gcs_is_killed(study: Study) -> None:
    study.machines.signal(HEAD, _GCS, signal.SIGKILL)


def head_dies(study: Study) -> None:
    study.machines.kill_all(HEAD)


def root_goes_away(study: Study) -> None:
    away = study.root.with_name("away")
    study.root.rename(away)
    time.sleep(2)
    away.rename(study.root)


def mlflow_hangs(study: Study) -> None:
    study.machines.signal(HEAD, _MLFLOW, signal.SIGSTOP)
    time.sleep(5)
    study.machines.signal(HEAD, _MLFLOW, signal.SIGCONT)


def mlflow_dies(study: Study) -> None:
    study.machines.signal(HEAD, _MLFLOW, signal.SIGKILL)
    time.sleep(2)
    study.serve()


FAULTS: dict[str, tuple[Callable[[Study], None], str]] = {
    "a worker is killed": (worker_is_killed, NOTHING),
    "a worker stands still for two leases": (worker_stands_still, NOTHING),
    "the raylet of a machine is killed": (raylet_is_killed, NOTHING),
    "a machine dies": (machine_dies, NOTHING),
    "a machine dies, another comes": (machine_is_replaced, NOTHING),
    "a machine stands still for good": (machine_stands_still, NOTHING),
    "the disk of a machine is full": (disk_is_full, NOTHING),
    "the link between the machines fails": (link_fails_for_good, NOTHING),
    "the link fails for 2 s": (link_fails_for_a_while, NOTHING),
    "the driver is killed": (driver_is_killed, SAME),
    "the head's GCS is killed": (gcs_is_killed, NEW),
    "the head dies, with the driver": (head_dies, NEW),
    "the run root goes away for 2 s": (root_goes_away, NOTHING),
    "the MLflow server hangs for 5 s": (mlflow_hangs, NOTHING),
    "the MLflow server dies, and is started again": (mlflow_dies, NOTHING),
}
"""What goes wrong, and what a person has to do then."""


def main(folder: Path) -> int:
    """Try what is left; how many cells have ended badly."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = read_rows(folder / "cells.jsonl")
    expected = undisturbed(folder)
    for fault in FAULTS:
        for moment in MOMENTS:
            if not any((row["fault"], row["moment"]) == (fault, moment) for row in rows):
                row = try_(fault, moment, folder, expected)
                with (folder / "cells.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
                rows.append(row)
                print(f"[{len(rows)}/{len(FAULTS) * len(MOMENTS)}] {json.dumps(row)}", flush=True)
    print(table(rows))
    return sum(bool(row["problems"]) for row in rows)


def undisturbed(folder: Path, of: type[Study] = Study) -> tuple[Any, Counter[Any]]:
    """What the study comes to without a fault: what is measured, and every number in MLflow."""
    with Machines() as machines:
        study = of(folder, machines)
        code = study.end(study.start())
        assert code == 0, study.said
    return study.results(), study.numbers()


def try_(
    fault: str,
    moment: str,
    folder: Path,
    expected: tuple[Any, Counter[Any]],
    of: type[Study] = Study,
) -> Row:
    """Let that go wrong then; a row of the table, with `problems` where something is not equal."""
    began = time.monotonic()
    with Machines(own_disk="disk" in fault) as machines:
        study = of(folder, machines, has_server="MLflow" in fault)
        driver = study.start()
        study.wait_for(moment)
        ended = study.ended()
        fail, then = FAULTS[fault]
        fail(study)
        codes = [study.end(driver)]
        if then == NEW:
            for one in (HEAD, OTHER):
                machines.kill_all(one)
            for one in (HEAD, OTHER):
                machines.start(one)
        # After what it was killed by, or ended with in one line, the same command goes on.
        if then != NOTHING and codes[0]:
            codes.append(study.end(study.start()))
        problems = [] if codes[-1] == 0 else [f"exit {codes}: {study.said[-1][-500:]}"]
        problems += study.wrong(expected[0])
        numbers, now = study.numbers(), study.ended()
        again = [key for key, before in ended.items() if now.get(key) != before]
        attempts = study.attempts() - TRIALS
    lost, doubled = expected[1] - numbers, numbers - expected[1]
    problems += ["finished trials ran again"] * bool(again)
    problems += ["MLflow differs"] * bool(lost or doubled)
    if problems:
        (folder / "said.txt").write_text("\n--\n".join(study.said))
    return {
        "fault": fault, "moment": moment, "then": then, "exit": codes, "again": len(again),
        "attempts": attempts, "lost": lost.total(), "doubled": doubled.total(),
        "problems": problems, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def table(rows: list[Row], second: str = "moment") -> str:
    """A row for each cell; what tells those of a fault apart stands second."""
    columns = ("fault", second, "a person does", "exit codes", "attempts more",
               "finished trials run again", "metrics lost", "doubled", "outcome")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", f"| --- | --- | --- | --- |{' ---: |' * 4} --- |"]
    for row in rows:
        codes = ", ".join(map(str, row["exit"]))
        cells = [row["fault"], row[second], row["then"], codes, row["attempts"], row["again"],
                 row["lost"], row["doubled"], "; ".join(row["problems"]) or "equal"]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def read_rows(path: Path) -> list[Row]:
    """What has been tried so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    # So that what runs on the machines ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(bool(main(Path(sys.argv[1]))))
