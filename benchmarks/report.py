"""What `dinolab report` costs: time and memory on a run root of many finished runs.

    python -m benchmarks.report                           # 37 arms x 8 seeds, as was published
    python -m benchmarks.report --arms 250 --seeds 20     # 5,000 runs

The runs are synthetic: every one records what a run of docs/why_cls_is_global-photographs recorded,
about 2,200 values, with noise of its own. Every arm but the first has a hypothesis. The report is
made twice: from records alone, and again when the values of every trial are kept, as those of a
trial are when it ends.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ablations.registration import LOCK, registration_key, study_folder, written
from dashboards.tables.values import VALUES
from trainers.runs.records import digest_of
from trainers.runs.stored_trial import TRIALS

PUBLISHED = Path(__file__).parents[1] / "docs" / "why_cls_is_global-photographs"
NAME = "synthetic"
SEGMENT = "metrics-000000000.jsonl"

_MEASURED = """
import contextlib, resource, sys
from orchestrator.cli.entry import main
with contextlib.suppress(SystemExit):
    main()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def recorded() -> dict[int, dict[str, float]]:
    """What one published run recorded: values by name, by step."""
    table = pq.read_table(PUBLISHED / "results.parquet")
    table = table.filter(pc.and_(pc.equal(table["arm"], "baseline"), pc.equal(table["seed"], 0)))
    steps: dict[int, dict[str, float]] = defaultdict(dict)
    for row in table.select(["step", "metric", "layer", "head", "value"]).to_pylist():
        place = "" if row["layer"] is None else f"@{row['layer']}"
        place += "" if row["head"] is None else f".{row['head']}"
        steps[row["step"]][row["metric"] + place] = row["value"]
    return steps


def statement(arms: int, seeds: int) -> dict[str, Any]:
    """The published statement, of as many arms and seeds as asked."""
    stated: dict[str, Any] = json.loads((PUBLISHED / LOCK).read_text())
    one = stated["resolved"]["hypotheses"]["less_bias_than_patches"]
    names = ["baseline", *(f"arm_{number:03d}" for number in range(1, arms))]
    ends = ("knn/cls_top1", "globality/cls/gyration", "shuffled/cls/positional_bias")
    stated["study"] = stated["resolved"]["name"] = NAME
    stated["resolved"] |= {
        "seeds": list(range(seeds)),
        "arms": {name: {} for name in names},
        "hypotheses": {
            f"{name}_rises": one
            | {"metric": ends[number % 3], "contrast": [name, "baseline"], "direction": "rises"}
            for number, name in enumerate(names[1:])
        },
        "gates": {"learns": stated["resolved"]["gates"]["baseline_learns"]},
        "claims": {},
    }
    stated["arms"] = dict.fromkeys(names, stated["arms"]["baseline"])
    stated["trials"] = [
        {"key": f"{arm:08x}{seed:08x}", "arm": name, "seed": seed}
        for arm, name in enumerate(names)
        for seed in range(seeds)
    ]
    return stated


def records_of(steps: dict[int, dict[str, float]], draw: random.Random) -> bytes:
    """The records of one run: those published, each value moved by about one part in a hundred."""
    lines = [
        {
            "step": step,
            "metrics": {name: x * (1 + 0.01 * draw.gauss(0, 1)) for name, x in values.items()},
        }
        for step, values in steps.items()
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def make(root: Path, arms: int, seeds: int) -> None:
    """A run root with one study, all of whose runs are finished."""
    steps, stated = recorded(), statement(arms, seeds)
    path = root / registration_key(NAME, 1)
    path.parent.mkdir(parents=True)
    path.write_bytes(written({**stated, "number": 1}))
    for trial in stated["trials"]:
        folder = root / TRIALS / trial["key"]
        attempt = folder / "attempts" / "0001"
        attempt.mkdir(parents=True)
        content = records_of(steps, random.Random(trial["key"]))
        (attempt / SEGMENT).write_bytes(content)
        result = {
            "status": "finished",
            "step": max(steps),
            "steps": max(steps),
            "attempt": 1,
            "files": {SEGMENT: digest_of(content)},
        }
        (folder / "result.json").write_text(json.dumps(result))


def reported(root: Path) -> str:
    """What one `dinolab report` took, in words."""
    started = time.monotonic()
    command = [sys.executable, "-c", _MEASURED, "report", str(root / study_folder(NAME))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return f"{time.monotonic() - started:.1f} s, {int(done.stderr.split()[-1]) / 1024:,.0f} MiB"


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arms", type=int, default=37)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--root", type=Path, help="keep the run root here, and use it again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = given.root or Path(scratch) / "root"
        if not root.exists():
            make(root, given.arms, given.seeds)
        print(f"{given.arms * given.seeds:,} runs")
        for path in root.glob(f"{TRIALS}/*/{VALUES}"):
            path.unlink()
        print(f"from records: {reported(root)}")
        print(f"again:        {reported(root)}")


if __name__ == "__main__":
    main()
