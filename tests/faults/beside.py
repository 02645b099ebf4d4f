"""The usual recipe beside ours on the same faults of a cluster; prints a table.

    python -m tests.faults.beside FOLDER

Faults of `matrix.py`, each once, when half of the trials have ended and another has saved. FOLDER
holds how far it is: called again it goes on.
"""

import contextlib
import json
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from tests.faults.matrix import HALF, TRIALS, Study, read_rows, table, try_, undisturbed
from tests.reliability.checker import OF_THE_MACHINE

MET = (
    "a worker is killed",
    "a machine dies",
    "a machine dies, another comes",
    "the link between the machines fails",
    "the link fails for 2 s",
    "the driver is killed",
    "the head's GCS is killed",
    "the head dies, with the driver",
    "the run root goes away for 2 s",
    "the MLflow server dies, and is started again",
)
"""The faults that both meet."""


class Ours(Study):
    """By `dinolab run`."""

    saved = "trials/*/attempts/*/checkpoint-*.json"

    def wait_for(self, moment: str) -> None:
        """See Study; and for another checkpoint, so that a trial is under way."""
        super().wait_for(moment)
        before = set(self.root.glob(self.saved))
        while not set(self.root.glob(self.saved)) - before:
            time.sleep(0.005)


class Usual(Ours):
    """The same trials by the usual recipe."""

    saved = "usual/*/checkpoint_*"

    driver = "tests.faults.usual"
    moments: ClassVar = {HALF: ("marks/ended *", TRIALS // 2)}
    longest_s = 240

    def command(self) -> list[str]:
        """See Study."""
        return ["tests.faults.usual", str(self.study), str(self.root)]

    def attempts(self) -> int:
        """See Study."""
        return len(list(self.root.glob("marks/begun *")))

    def ended(self) -> dict[str, Any]:
        """See Study."""
        return Counter(_of(path.name) for path in self.root.glob("marks/ended *"))

    def numbers(self) -> Counter[Any]:
        """Every metric of a trial in MLflow; without steps, which are there counts of reports."""
        with contextlib.closing(sqlite3.connect(self.database)) as base:
            rows = base.execute(
                "select p.value, m.key, m.value from metrics m join params p using (run_uuid) "
                "where p.key = 'of' and m.key like '%/%'"
            ).fetchall()
        return Counter(row for row in rows if not row[1].startswith(OF_THE_MACHINE))

    def results(self) -> Any:
        """Nothing beside MLflow is compared."""

    def wrong(self, results: Any) -> list[str]:
        """Trials that have not ended."""
        missing = TRIALS - len(self.ended())
        return [f"{missing} trials have not ended"] * bool(missing)


def _of(mark: str) -> str:
    """The trial that a mark is of."""
    return mark.split(" ", 1)[1].rpartition(" ")[0]


def main(folder: Path) -> int:
    """Try what is left."""
    sides: dict[str, type[Study]] = {"ours": Ours, "usual": Usual}
    path = folder / "beside.jsonl"
    expected = {}
    for name, of in sides.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        expected[name] = undisturbed(folder / name, of)
    for fault in MET:
        for name, of in sides.items():
            rows = read_rows(path)
            if any((row["fault"], row["by"]) == (fault, name) for row in rows):
                continue
            row = {"by": name, **try_(fault, HALF, folder / name, expected[name], of)}
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"[{len(rows) + 1}/{len(MET) * len(sides)}] {json.dumps(row)}", flush=True)
    print(table(read_rows(path), "by"))
    return 0


if __name__ == "__main__":
    # So that what runs on the machines ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(Path(sys.argv[1])))
