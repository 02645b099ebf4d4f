"""A trainer that only takes the time it is told to, in the place of the real one.

A step is a tenth of a second. All else of a trial is as it is: attempts, leases, records of as many
metrics as a real run has, checkpoints and the result.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.resources import Placement
from trainers.config import TrainConfig
from trainers.metrics import METRICS
from trainers.reported import why_missing
from trainers.training.loop import Result
from trainers.training.reporter import Reporter
from trainers.training.saving import Keeper

STEP_S = 0.1

CHECKPOINT_BYTES = 2**20

SPANS = "DINOLAB_BENCHMARK_SPANS"
"""Names a folder, in the environment, for the times of each trial."""


def step() -> None:
    """A tenth of a second in which the processor is left to others.

    Trials that compute would take it from each other, from Ray and from the driver, by as much as
    the machine is loaded: what is measured here is what a trial waits for.
    """
    time.sleep(STEP_S)


def train(
    config: TrainConfig,
    *,
    reporter: Reporter,
    checkpoints: Path,
    step_done: Callable[[], None],
    keeper: Keeper,
    **_: Any,
) -> Result:
    """As trainers.training.loop.train, with `config.steps` of the steps above."""
    _times.append(time.time())
    measured = {name: 0.5 for name in METRICS if not why_missing(name, config)}
    reporter.report(0, measured)
    for number in range(1, config.steps + 1):
        step()
        step_done()
        if number == config.steps:
            reporter.report(number, measured)
        elif number % config.log_every == 0:
            reporter.report(number, {"loss/total": 0.5})
        if number == config.steps or number % config.checkpoint_every == 0:
            keeper.begun(number)
            checkpoints.mkdir(parents=True, exist_ok=True)
            path = checkpoints / f"checkpoint-{number}.safetensors"
            path.write_bytes(bytes(CHECKPOINT_BYTES))
            keeper.keep(number, path, lambda _: False)
    _times.append(time.time())
    return Result(status="finished", reason="", step=config.steps, chain="0" * 64)


_times: list[float] = []


def run(parameters: Mapping[str, Any], placement: Placement) -> None:
    """As orchestrator.driver.worker.run, with the trainer above; writes down the times."""
    began = time.time()
    from orchestrator.driver import worker
    from trainers.runs import trial

    trial.train = train  # type: ignore[assignment]
    _times.clear()
    worker.run(dict(parameters), placement)
    written(began, *_times, time.time())


def written(*times: float) -> None:
    """Write down when a trial was entered, trained, had trained, and left."""
    with Path(os.environ[SPANS], str(os.getpid())).open("a", encoding="ascii") as file:
        file.write(json.dumps(times) + "\n")
