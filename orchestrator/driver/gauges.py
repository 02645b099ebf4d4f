"""RAY: what Prometheus is told of a study at work, through Ray's own metrics.

All of it is set in the driver, and labelled by study and arm alone: a series for each arm, however
many seeds it has. Ray adds its own labels, such as the machine.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from orchestrator.schedule import Standing
from trainers.errors import InputError, StoreError

OF_ARMS = {
    "time/images_per_s": (
        "dinolab_images_per_second",
        "images a second of all runs of an arm that run now, summed",
    ),
    "loss/total": (
        "dinolab_loss",
        "training loss, nats: the newest of each run of an arm that runs now, averaged; only of "
        "studies where that tells nothing of an end point",
    ),
    "time/data_wait": (
        "dinolab_data_wait_ratio",
        "share of time in which a run waits for images, 0 to 1, averaged over runs of an arm",
    ),
    "memory/peak_gib": (
        "dinolab_memory_peak_gib",
        "most memory that a run of an arm has held, GiB: of the GPU's where there is one, else of "
        "the machine's",
    ),
}
"""Gauges labelled by study and arm: the metric of a run that they come from, name, meaning."""

TRIALS = (
    "dinolab_trials",
    "trials of a study that this driver is to see finished, by state: open, running, held by "
    "another driver, resting after a failure, failed, finished",
)
VERDICTS = (
    "dinolab_hypotheses",
    "hypotheses of a study by verdict; open while its design does not allow to look",
)

NAMES = (*(name for name, _ in OF_ARMS.values()), TRIALS[0], VERDICTS[0])
"""Every gauge; Ray puts `ray_` before each."""

RUNNING, OPEN = "running", "open"
STATES = (OPEN, *get_args(Standing))

SET_EVERY_S = 5.0
"""No oftener, and no seldomer: Ray forgets a value once it has been scraped."""


class Gauges:
    """The gauges of one study. Nothing here raises, or waits for anything."""

    def __init__(
        self,
        study: str,
        *,
        with_loss: bool,
        verdicts: Callable[[], Iterable[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`verdicts` gives the label of each hypothesis as far as it may be seen, else `open`."""
        self._study, self._verdicts, self._clock = study, verdicts, clock
        self._metrics = [one for one in OF_ARMS if with_loss or not one.startswith("loss/")]
        self._made: dict[str, Any] = {}
        self._newest: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {}
        self._arms: set[str] = set()
        self._labels: set[str] = set()
        self._set_at = -math.inf

    def moved(self, key: str, arms: tuple[str, ...], metrics: Mapping[str, float]) -> None:
        """The newest metrics of the run of a trial."""
        known = self._newest.setdefault(key, (arms, {}))[1]
        known.update((name, metrics[name]) for name in self._metrics if name in metrics)

    def look(self, trials: Iterable[str], standings: Mapping[str, Standing]) -> None:
        """Set all of them, if that has not just been done."""
        now = self._clock()
        if now - self._set_at < SET_EVERY_S:
            return
        self._set_at = now
        try:
            self._set_all([standings.get(key, OPEN) for key in trials], standings)
        except Exception as error:  # noqa: BLE001 (whatever Ray raises, training goes on)
            logging.getLogger(__name__).debug("metrics are not set: %s", error)

    def _set_all(self, states: list[str], standings: Mapping[str, Standing]) -> None:
        for key in [one for one in self._newest if standings.get(one) != RUNNING]:
            del self._newest[key]
        values = arm_values(self._newest.values())
        for arm in self._arms - {arm for arm, _ in values}:
            values[arm, "time/images_per_s"] = 0.0
        for (arm, metric), value in values.items():
            self._arms.add(arm)
            self._gauge(*OF_ARMS[metric], "arm").set(value, self._tags(arm=arm))
        counts = Counter(states)
        for state in STATES:
            self._gauge(*TRIALS, "state").set(counts[state], self._tags(state=state))
        try:
            labels = Counter(self._verdicts())
        except (InputError, StoreError):
            return  # the run root says so elsewhere
        self._labels |= labels.keys()
        for label in self._labels:
            self._gauge(*VERDICTS, "verdict").set(labels[label], self._tags(verdict=label))

    def _tags(self, **tags: str) -> dict[str, str]:
        return {"study": self._study, **tags}

    def _gauge(self, name: str, meaning: str, label: str) -> Any:
        if name not in self._made:
            from ray.util.metrics import Gauge

            self._made[name] = Gauge(name, description=meaning, tag_keys=("study", label))
        return self._made[name]


def arm_values(
    newest: Iterable[tuple[tuple[str, ...], Mapping[str, float]]],
) -> dict[tuple[str, str], float]:
    """By arm and metric, over its runs: images a second summed, memory at most, others averaged."""
    found: dict[tuple[str, str], list[float]] = {}
    for arms, metrics in newest:
        for arm in arms:
            for metric, value in metrics.items():
                if math.isfinite(value):
                    found.setdefault((arm, metric), []).append(value)
    over: dict[str, Callable[[list[float]], float]] = {
        "time/images_per_s": math.fsum,
        "memory/peak_gib": max,
    }
    return {
        (arm, metric): over.get(metric, _mean)(values) for (arm, metric), values in found.items()
    }


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
