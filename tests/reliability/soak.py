"""Kill the driver, or a worker, at every write of a whole little study on Ray; print a table.

    python -m tests.reliability.soak FOLDER [SECONDS]

FOLDER holds how far it is: called again it goes on, as long as the code is the same. Points come in
an order by chance, so that what was tried when the SECONDS are over is a sample of all.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.orchestrator.conftest import TWO_NODES, Nodes, environment
from tests.reliability.checker import OF_THE_MACHINE
from tests.reliability.kills import changes
from tests.reliability.little import measured, write_study, wrong
from trainers.runs.version import versions_below

SEEDS, LONGEST_S = 2, 600
CODE = ("ablations", "dashboards", "orchestrator", "trainers")


def main(folder: Path, seconds: float) -> int:
    """Try points until they or the time are over; how many have ended badly."""
    folder.mkdir(parents=True, exist_ok=True)
    soak, until = Soak(folder), time.monotonic() + seconds
    with soak.cluster():
        soak.begin()
        for point in soak.left():
            if time.monotonic() > until:
                break
            soak.try_(point)
            done, every = len(soak.rows()), len(soak.points)
            print(f"[{done}/{every}] {json.dumps(soak.rows()[-1])}", flush=True)
    print(soak.table())
    return sum(bool(row["problems"]) for row in soak.rows())


class Soak:
    """The points of a study, and what has come of those that were tried."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.told, self.address = folder, folder / "told.json", ""
        self.study = write_study(folder, SEEDS)
        self.points: list[tuple[int, bool]] = []
        self.expected: Any = None

    @contextlib.contextmanager
    def cluster(self) -> Iterator[None]:
        """A Ray cluster of two nodes, each process of which counts what it writes."""
        with Nodes(TWO_NODES, **self._changes()) as nodes:
            self.address = nodes.address
            yield

    def _changes(self) -> dict[str, str]:
        here = Path(__file__).parent
        path = f"{here / 'everywhere'}:{here.parent.parent}"
        return {"PYTHONPATH": path, "KILLS_TOLD": str(self.told), "DINOLAB_LEASE_S": "5"}

    def begin(self) -> None:
        """The undisturbed run, once for this code; from it come the points."""
        root, log = self.folder / "undisturbed", self.folder / "undisturbed.log"
        begun, code = self.folder / "begun", json.dumps(versions_below(CODE))
        if not begun.exists() or begun.read_text() != code:
            shutil.rmtree(root, ignore_errors=True)
            log.unlink(missing_ok=True)
            # Other code gives other trials: what was tried with it says nothing of this.
            (self.folder / "points.jsonl").unlink(missing_ok=True)
            ended, said = self.run(root, log)
            assert ended == 0, said
            begun.write_text(code)
        self.expected = measured(root), mirrored(root / "mlflow.db")
        self.points = [
            (at, after) for at in range(1, len(changes(log)) + 1) for after in (False, True)
        ]
        random.Random(0).shuffle(self.points)

    def run(self, root: Path, log: Path, at: int = 0, *, after: bool = False) -> tuple[int, str]:
        """Exit code and output of `dinolab run`, killed at a change or not."""
        told = {"root": str(root.absolute()), "log": str(log.absolute()), "at": at, "after": after}
        self.told.write_text(json.dumps(told))
        with subprocess.Popen(
            [sys.executable, "-u", "-m", "orchestrator", "run", self.study, "--root", root],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(**self._changes(), RAY_ADDRESS=self.address),
        ) as process:
            return outcome(process)

    def rows(self) -> list[dict[str, Any]]:
        """What has come of the points that were tried."""
        path = self.folder / "points.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def left(self) -> list[tuple[int, bool]]:
        """Points that were not tried."""
        tried = {(row["at"], row["after"]) for row in self.rows()}
        return [point for point in self.points if point not in tried]

    def try_(self, point: tuple[int, bool]) -> None:
        """Kill there, run again undisturbed, and note what has come of it."""
        at, after = point
        root, log = self.folder / "root", self.folder / "root.log"
        shutil.rmtree(root, ignore_errors=True)
        log.unlink(missing_ok=True)
        began = time.monotonic()
        code, said = self.run(root, log, at, after=after)
        found = changes(log)
        died = "driver" if code == -signal.SIGKILL else "worker" if len(found) >= at else "nobody"
        problems = [] if code in (0, -signal.SIGKILL) else [f"exit {code}: {said[-500:]}"]
        if code != 0:
            code, again = self.run(root, self.folder / "again.log")
            problems += [] if code == 0 else [f"then exit {code}: {again[-500:]}"]
            said += again
        problems += ["a traceback"] if "Traceback" in said else []
        problems += differing(root, self.expected[0])
        same = mirrored(root / "mlflow.db") == self.expected[1]
        problems += [] if same else ["MLflow differs"]
        row = {
            "at": at,
            "after": after,
            "change": found[at - 1] if len(found) >= at else "",
            "died": died,
            "problems": problems,
            "seconds": round(time.monotonic() - began, 1),
        }
        with (self.folder / "points.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        if problems:
            root.rename(self.folder / f"root-{at}-{after}")
            (self.folder / f"said-{at}-{after}.txt").write_text(said)

    def table(self) -> str:
        """How many points of each kind of change were tried, who died, and how many ended equal."""
        kinds: dict[str, Counter[str]] = {}
        for row in self.rows():
            counts = kinds.setdefault(kind(row["change"]), Counter())
            counts.update(["tried", row["died"], "not equal" if row["problems"] else "equal"])
        columns = ("tried", "driver", "worker", "nobody", "equal", "not equal")
        kinds["all"] = sum(kinds.values(), Counter())
        return "\n".join(
            [
                f"| killed before or after | {' | '.join(columns)} |",
                f"| --- |{' ---: |' * len(columns)}",
                *(
                    f"| {name} | {' | '.join(str(counts[one]) for one in columns)} |"
                    for name, counts in sorted(kinds.items())
                ),
            ]
        )


def kind(change: str) -> str:
    """`link trials/KEY/attempts/N/lease.json` and the like, one for all trials and steps."""
    change = re.sub(r"trials/[0-9a-f]{16}", "trials/KEY", change)
    change = re.sub(r"(?<=[-/])[0-9a-f]{32}", "ID", change)
    change = re.sub(r"/\.(\w+(?:-\d+)?\.\w+)\.\w+", r"/scratch of \1", change)
    return re.sub(r"(?<=[-/])\d+", "N", change) or "a change that was not reached"


def outcome(process: subprocess.Popen[str], longest_s: float = LONGEST_S) -> tuple[int, str]:
    """Exit code and output of a command, which is killed after so many seconds."""
    try:
        output, _ = process.communicate(timeout=longest_s)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        output += f"\nstill running after {longest_s} s"
    return process.returncode, output


def differing(root: Path, undisturbed: dict[str, Any]) -> list[str]:
    """What a study lacks of an undisturbed one, also where it did not come to its files."""
    try:
        return wrong(root, undisturbed)
    except (OSError, KeyError) as error:
        return [f"cannot be compared: {error!r}"]


def mirrored(database: Path) -> list[tuple[Any, ...]]:
    """Every metric in MLflow, of live runs, with the names of its experiment and run.

    None where there is no store.
    """
    if not database.exists():
        return []
    with contextlib.closing(sqlite3.connect(database)) as base:
        rows = base.execute(
            "select e.name, r.name, r.status, m.key, m.step, m.value from metrics m "
            "join runs r using (run_uuid) join experiments e using (experiment_id) "
            "where r.lifecycle_stage = 'active'"
        ).fetchall()
    return sorted(row for row in rows if not row[3].startswith(OF_THE_MACHINE))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    where, *limit = sys.argv[1:] or ["soak"]
    sys.exit(bool(main(Path(where), float(limit[0]) if limit else float("inf"))))
