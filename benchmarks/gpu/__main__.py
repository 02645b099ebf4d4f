"""Everything that needs a GPU, in order of worth; what is found is on disk at once.

    python -m benchmarks.gpu --out DIR --original PATH --minutes 9

DIR gets figures.json, table.md (ready for benchmarks/README.md), trace-*.json.gz and, if something
failed, failures.txt. Without a GPU everything runs at toy size: its figures say nothing.
"""

import argparse
import datetime
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.contest import machine
from benchmarks.gpu.parts import GRACE, STEPS, run_step
from benchmarks.gpu.record import FAILURES, FIGURES, TABLE, Record
from benchmarks.gpu.task import Best, Task

BATCH = 256
"""Images a step to begin with."""


def main(arguments: list[str] | None = None) -> int:
    """Run the parts, print the table; 1 if a part failed or was cut."""
    given = _arguments(arguments)
    end = time.monotonic() + 60 * given.minutes - GRACE
    folder: Path = given.out
    folder.mkdir(parents=True, exist_ok=True)
    for name in (FIGURES, TABLE, FAILURES):
        (folder / name).unlink(missing_ok=True)
    device = "cuda" if torch.cuda.is_available() and not given.toy else "cpu"
    if device == "cpu":
        print("TOY SIZE, on a CPU: these figures say nothing about a GPU", flush=True)
    else:
        # Whoever asks whether there is a GPU before it is forked must not start CUDA by that.
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    record = Record(folder)
    record.write(
        {
            "machine": _machine(device),
            "toy": device == "cpu",
            "command": f"python -m benchmarks.gpu --minutes {given.minutes:g}",
            "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            "parts": {},
        }
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [step for step in STEPS if not given.only or step.name in given.only]
    wrong = False
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            for place, step in enumerate(chosen):
                share = step.weight / sum(other.weight for other in chosen[place:])
                task = Task(
                    device=device,
                    original=given.original,
                    scratch=Path(scratch),
                    folder=folder,
                    deadline=time.monotonic() + share * (end - time.monotonic()),
                    best=_best(record, given.batch),
                )
                wrong |= not run_step(step, task, record)
    finally:
        _tidy(folder)
        print((folder / TABLE).read_text(), flush=True)
    return int(wrong)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    names = [step.name for step in STEPS]
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the results")
    parser.add_argument("--original", metavar="PATH", help="folder of the original implementation")
    parser.add_argument("--minutes", type=float, default=9.0, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=BATCH, help="to begin with: %(default)s")
    parser.add_argument("--only", choices=names, action="append", help="a part; may be repeated")
    parser.add_argument("--toy", action="store_true", help="toy size on the CPU, as without a GPU")
    given = parser.parse_args(arguments)
    if given.original and not Path(given.original, "main_dino.py").is_file():
        parser.error(
            f"--original {given.original}: no main_dino.py there; give a clone of "
            "facebookresearch/dino"
        )
    if given.minutes <= 0 or given.batch < 1:
        parser.error("--minutes must be above 0 and --batch 1 or more")
    return given


def _best(record: Record, batch: int) -> Best:
    """What the step's part found so far."""
    found = record.read()["parts"].get("step", {}).get("figures", {})
    return Best(
        **{"knobs": {}, "batch": found.get("batch", batch), "rate": 0.0} | found.get("best", {})
    )


def _machine(device: str) -> str:
    """The card, its driver, and what runs on it."""
    if device == "cpu":
        return machine()
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(
            query, capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError):
        driver = "unknown"
    card = torch.cuda.get_device_properties(0)
    return (
        f"{card.name}, {card.total_memory / 2**30:.0f} GiB, driver {driver.splitlines()[0]}, "
        f"torch {torch.__version__}, {os.cpu_count()} CPU cores"
    )


def _tidy(folder: Path) -> None:
    """Remove an empty file of failures, and what a killed part had not finished writing."""
    failures = folder / FAILURES
    if failures.exists() and not failures.stat().st_size:
        failures.unlink()
    for name in (FIGURES, TABLE):
        for left in folder.glob(f".{name}.*"):
            left.unlink()


if __name__ == "__main__":
    sys.exit(main())
