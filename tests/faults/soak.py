"""Faults of a cluster at random, one after another, for a quarter of an hour.

    python -m tests.faults.soak FOLDER [SECONDS [SEED]]

A little study runs on two machines (see `machines.py`) while, every few seconds, something that a
generator of that SEED picks goes wrong, and what a person would do is done: the machine is started
again, or the same command is given again. A round is over when the study is; it must then be equal
to an undisturbed one. Rounds are begun until the SECONDS (900) are over.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults import matrix
from tests.faults.machines import HEAD, OTHER, Machines
from tests.faults.matrix import Study, undisturbed

BETWEEN_S = (4.0, 20.0)
"""Seconds from one fault to the next, as drawn."""


class Longer(Study):
    """A study that meets several faults."""

    steps = 500


def worker_is_killed(study: Study, one: str) -> None:
    """Whatever trains on a machine, should something train there."""
    study.machines.signal(one, matrix.TRIAL, signal.SIGKILL)


FAULTS: dict[str, Callable[[Study], object]] = {
    "worker of the head killed": partial(worker_is_killed, one=HEAD),
    "worker of the other killed": partial(worker_is_killed, one=OTHER),
    "machine dies": matrix.machine_is_replaced,
    "link fails": matrix.link_fails_for_a_while,
    "driver killed": matrix.driver_is_killed,
    "GCS killed": matrix.gcs_is_killed,
    "head dies": matrix.head_dies,
    "root goes away": matrix.root_goes_away,
}

NEW_CLUSTER = ("GCS killed", "head dies")
"""After these nothing goes on until machines are started anew."""


class Driver:
    """A driver at work, whose output is read as it comes."""

    def __init__(self, study: Study) -> None:
        self.process, self.said = study.start(), ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line

    def ended(self, within_s: float) -> int | None:
        """Its exit code, if it ends so soon."""
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join()
        return self.process.returncode


def round_(study: Study, chance: random.Random) -> tuple[Counter[str], list[str]]:
    """Run it to its end under faults: how often each came, and what was said."""
    met: Counter[str] = Counter()
    driver, said = Driver(study), []
    until = time.monotonic() + matrix.LONGEST_S
    while (code := driver.ended(chance.uniform(*BETWEEN_S))) != 0:
        assert time.monotonic() < until, f"not over after {matrix.LONGEST_S} s: {driver.said}"
        if code is None:
            name = chance.choice(list(FAULTS))
            if name == "root goes away" and "registration" not in driver.said:
                # Who starts, and finds no root, makes one.
                continue
            met[name] += 1
            FAULTS[name](study)
            if name not in NEW_CLUSTER:
                continue
            driver.ended(matrix.LONGEST_S)
            for one in (HEAD, OTHER):
                study.machines.kill_all(one)
            for one in (HEAD, OTHER):
                study.machines.start(one)
        said.append(driver.said)
        driver = Driver(study)
        met["the same command"] += 1
    return met, [*said, driver.said]


def main(folder: Path, seconds: float, seed: int) -> int:
    """Rounds until the time is over; how many have ended otherwise than undisturbed."""
    folder.mkdir(parents=True, exist_ok=True)
    results, numbers = undisturbed(folder, Longer)
    until, wrong, rounds, all_met = time.monotonic() + seconds, 0, 0, Counter[str]()
    while time.monotonic() < until:
        with Machines() as machines:
            study = Longer(folder, machines)
            met, said = round_(study, random.Random(seed + rounds))
            problems = study.wrong(results)
            problems += ["MLflow differs"] * (study.numbers() != numbers)
            problems += ["a traceback"] * any("Traceback" in one for one in said)
        if problems:
            wrong += 1
            (folder / f"said-{rounds}.txt").write_text("\n--\n".join(said))
            study.root.rename(folder / f"root-{rounds}")
        rounds, all_met = rounds + 1, all_met + met
        print(f"round {rounds}: {dict(met)}; {'; '.join(problems) or 'equal'}", flush=True)
    print(f"{rounds} rounds, {rounds - wrong} equal: {dict(all_met)}")
    return wrong


if __name__ == "__main__":
    # So that what runs on the machines ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    where, *given = sys.argv[1:]
    limit, first = [*map(float, given), *(900.0, 0.0)[len(given) :]]
    sys.exit(bool(main(Path(where), limit, int(first))))
