"""Two drivers and three workers over one store, one operation at a time, in an order by seed.

Every operation of the store is a point at which another may go first, or its process may die. The
trainer is tiny; claiming, resuming, records, checkpoints, results and scheduling are the real ones.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from orchestrator import schedule
from trainers.config import TrainConfig
from trainers.runs import lease, records, trial
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import Asking, run_trial
from trainers.system.store import Entry
from trainers.system.world import World
from trainers.training.loop import Result

STEPS, SAVED_EVERY = 4, 2
ALONE = World(rank=0, size=1, device=torch.device("cpu"))


class KilledError(BaseException):
    """The process of an actor has died: nothing that it does afterwards happens."""


class Memory:
    """A Store in memory. `before` is called before every operation, `after` behind it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.shown, self.local = "memory", None
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    @contextmanager
    def _operation(self) -> Iterator[None]:
        self.before()
        yield
        self.after()

    def get(self, key: str) -> bytes | None:
        with self._operation():
            return self.files.get(key)

    def names(self, prefix: str = "") -> list[str]:
        with self._operation():
            start = f"{prefix}/" if prefix else ""
            found = (key for key in self.files if key.startswith(start))
            return sorted({key[len(start) :].split("/")[0] for key in found})

    def put(self, key: str, content: bytes, *, if_absent: bool = False) -> bool:
        with self._operation():
            if if_absent and key in self.files:
                return False
            self.files[key] = content
            return True

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def get_file(self, key: str, path: Path) -> bool:
        content = self.get(key)
        if content is not None:
            path.write_bytes(content)
        return content is not None

    def delete(self, key: str) -> None:
        with self._operation():
            self.files.pop(key, None)

    def list(self, prefix: str = "") -> list[Entry]:
        with self._operation():
            found = {k: c for k, c in self.files.items() if k.startswith(f"{prefix}/")}
            return [Entry(key, len(content), 0.0) for key, content in sorted(found.items())]


def value(key: str, step: int) -> dict[str, float]:
    """What the tiny trainer measures."""
    return {"loss/total": random.Random(f"{key} {step}").random()}


def of_images(key: str, step: int) -> tuple[Any, Any, Any]:
    """What it finds of three images: their names, values and maps."""
    found = torch.full((1, 3, 1, 2), value(key, step)["loss/total"])
    return torch.arange(3), {"loss/total": found[0, :, 0, 0]}, {"attention": found, "heads": found}


def undisturbed(key: str) -> list[tuple[int, dict[str, float]]]:
    """The records of a run that nothing happens to."""
    return [(step, value(key, step)) for step in range(STEPS + 1)]


def tiny_train(config: TrainConfig, **given: Any) -> Result:
    """In the place of `train`: reports each step, saves every second one."""
    key, keeper, reporter = config.data.source, given["keeper"], given["reporter"]
    start, folder = given["resume_from"], given["checkpoints"]
    if start is None:
        keeper.evaluated(0, *of_images(key, 0))
        reporter.report(0, value(key, 0))
    saved = start
    for step in range(0 if start is None else int(start.read_text()), STEPS):
        if step + 1 == STEPS:
            keeper.evaluated(STEPS, *of_images(key, STEPS))
        reporter.report(step + 1, value(key, step + 1))
        given["step_done"]()
        if (step + 1) % SAVED_EVERY == 0:
            keeper.begun(step + 1)
            folder.mkdir(exist_ok=True, parents=True)
            path = folder / f"checkpoint-{step + 1}.safetensors"
            path.write_text(str(step + 1))
            keeper.keep(step + 1, path, lambda _: False)
            if saved is not None and saved is not start:
                keeper.drop(saved)
            saved = path
    return Result(status="finished", reason="", step=STEPS, chain="")


@dataclass
class Driver:
    """A driver: what it has launched, and what it knows of its attempts."""

    name: str
    queue: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    alive: bool = True
    stopped: bool = False


class Simulation:
    """The actors, each in a thread of its own that goes on only when it is its turn."""

    def __init__(self, seed: int, keys: list[str], deaths: float) -> None:
        self.random = random.Random(seed)
        self.keys, self.deaths = keys, deaths
        self.store = Memory()
        self.store.before = self.store.after = self._point
        self.turns: dict[threading.Thread, threading.Semaphore] = {}
        self.dead: set[threading.Thread] = set()
        self.back = threading.Semaphore(0)
        self.errors: list[BaseException] = []

    def _point(self) -> None:
        me = threading.current_thread()
        if me in self.dead:
            raise KilledError
        if me not in self.turns:
            return
        self.back.release()
        self.turns[me].acquire()
        if self.random.random() < self.deaths:
            self.dead.add(me)
            raise KilledError

    def run(self, actors: list[Callable[[], None]]) -> None:
        """Until every actor has ended, or died. Raises what one of them raised."""

        def act(actor: Callable[[], None]) -> None:
            self.turns[threading.current_thread()].acquire()
            try:
                actor()
            except KilledError:
                pass
            except BaseException as error:  # noqa: BLE001 (raised again below)
                self.errors.append(error)
            finally:
                del self.turns[threading.current_thread()]
                self.back.release()

        threads = [threading.Thread(target=act, args=(actor,), daemon=True) for actor in actors]
        for thread in threads:
            self.turns[thread] = threading.Semaphore(0)
            thread.start()
        while self.turns:
            self.turns[self.random.choice(list(self.turns))].release()
            self.back.acquire()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def driver(self, one: Driver) -> None:
        """Ask the schedule until it says stop."""
        trials = [SimpleNamespace(key=key) for key in self.keys]
        try:
            while True:
                standings: dict[str, schedule.Standing] = {}
                for key in self.keys:
                    found = StoredTrial(self.store, key)
                    if found.finished():
                        standings[key] = "finished"
                    elif key in one.running or key in one.queue:
                        standings[key] = "running"
                step = schedule.next(trials, standings)
                if isinstance(step, schedule.Stop):
                    break
                if isinstance(step, schedule.Launch):
                    one.queue.append(step.trials[0].key)
        finally:
            one.alive = threading.current_thread() not in self.dead
            one.stopped = True

    def worker(self, one: Driver) -> None:
        """Run what the driver launches; end with it."""
        while not one.stopped:
            self._point()
            if one.queue:
                key = one.queue.pop(0)
                one.running.add(key)
                try:
                    self.attempt(key, one.name)
                finally:
                    # Ray tells a driver that a worker has died.
                    one.running.discard(key)

    def attempt(self, key: str, driver: str) -> None:
        """The real thing, but for the trainer."""
        config = TrainConfig(steps=STEPS).model_copy(
            update={"data": TrainConfig().data.model_copy(update={"source": key})}
        )
        run_trial(
            StoredTrial(self.store, key),
            config,
            images=SimpleNamespace(digest="0"),  # type: ignore[arg-type]
            world=ALONE,
            reporter=SimpleNamespace(report=lambda *_, **__: None),
            asking=Asking(driver=driver, waits=False),
        )

    @contextmanager
    def adversary(self) -> Iterator[None]:
        """Any attempt that has not said how it ended may be taken for dead, at any look."""

        def is_over(_watch: object, _name: str, found: lease.Lease | None) -> bool:
            return found is None or bool(found.outcome) or self.random.random() < 0.4

        with (
            mock.patch.object(lease.Watch, "is_over", is_over),
            mock.patch.object(trial, "train", tiny_train),
            mock.patch.object(records, "_REMOTE_EVERY_S", 0.0),
            mock.patch.object(trial, "trial_key", return_value="0" * 16),
            mock.patch.object(trial.checkpoint, "refuse_another"),
        ):
            yield


def simulate(seed: int, trials: int = 3, deaths: float = 0.02) -> dict[str, bytes]:
    """The files of a root after two drivers and three workers, and one undisturbed driver more."""
    keys = [f"t{number}" for number in range(trials)]
    simulation = Simulation(seed, keys, deaths)
    with simulation.adversary():
        first, second = Driver("first"), Driver("second")
        simulation.run(
            [
                lambda: simulation.driver(first),
                lambda: simulation.driver(second),
                lambda: simulation.worker(first),
                lambda: simulation.worker(first),
                lambda: simulation.worker(second),
            ]
        )
        simulation.deaths = 0.0
        simulation.store.before = simulation.store.after = lambda: None
        for key in keys:
            while not StoredTrial(simulation.store, key).finished():
                simulation.attempt(key, "last")
    return simulation.store.files
