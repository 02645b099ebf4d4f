"""What does it cost to have trials run by dinolab, rather than by a bare loop?

    python -m benchmarks.orchestration [--quick]

Trials of a known length (`benchmarks.pretended`), as many at once as there are processors, by three
contenders, each a command of its own: `dinolab run` on a Ray of its own, with records, checkpoints,
results, report and MLflow; a bare loop in as many processes; and the usual recipe, a Tune trial
that makes a TorchTrainer each, without MLflow. Then: the memory of a driver over thousands of
trials that end at once, and the time to plan a hundred thousand.
"""

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.flat_memory import resident
from benchmarks.pretended import CHECKPOINT_BYTES, SPANS, STEP_S, step, written

AT_ONCE = os.cpu_count() or 1


def ours(folder: Path, trials: int, seconds: float) -> None:
    """`dinolab run`, from its first import to its report."""
    from orchestrator.__main__ import main as dinolab
    from orchestrator.driver.cluster import Cluster

    connected = Cluster.connected

    def pretending(self: Cluster) -> Path:
        # Only now: a command imports what it needs when it needs it, and that is timed.
        from benchmarks import pretended
        from orchestrator.driver import worker

        worker.run = pretended.run  # type: ignore[assignment]
        return connected(self)

    Cluster.connected = pretending  # type: ignore[method-assign]
    study = {
        "name": "orchestration", "recipe": "digits_tiny", "seeds": trials, "arms": [],
        "hypotheses": {},
        "set": {"steps": _steps(seconds), "log_every": 20, "checkpoint_every": 200,
                "evaluation.every": _steps(seconds)},
    }  # fmt: skip
    path = folder / "study.yaml"
    path.write_text(json.dumps(study))
    sys.argv = ["dinolab", "run", str(path), "--root", str(folder / "root"), "--quiet"]
    dinolab()


def bare(folder: Path, trials: int, seconds: float) -> None:
    """One of the processes of a loop over trials; it has imported what training needs."""
    for _ in range(trials // AT_ONCE * _steps(seconds)):
        step()


def recipe(folder: Path, trials: int, seconds: float) -> None:
    """A Tune trial that makes a TorchTrainer of one worker each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray import tune

    ray.init(
        address="local",
        include_dashboard=False,
        object_store_memory=200 * 2**20,
        log_to_driver=False,
        _temp_dir=str(folder / "ray"),
    )
    kept = str(folder / "tune")

    def trial(parameters: dict[str, Any]) -> None:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from ray.tune.integration.ray_train import TuneReportCallback

        TorchTrainer(
            _recipes_worker,
            train_loop_config=parameters,
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.99}),
            run_config=RunConfig(
                name=f"trial-{parameters['seed']}",
                storage_path=kept,
                callbacks=[TuneReportCallback()],
            ),
        ).fit()

    tune.Tuner(
        tune.with_resources(trial, {"cpu": 0.001}),
        param_space={"seed": tune.grid_search(list(range(trials))), "steps": _steps(seconds)},
        tune_config=tune.TuneConfig(max_concurrent_trials=AT_ONCE),
        run_config=tune.RunConfig(storage_path=kept, verbose=0),
    ).fit()
    ray.shutdown()


def _recipes_worker(parameters: dict[str, Any]) -> None:
    import ray.train

    last, began = parameters["steps"], time.time()
    for number in range(1, last + 1):
        step()
        if number % 20 == 0 or number == last:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "state").write_bytes(bytes(CHECKPOINT_BYTES))
                saved = ray.train.Checkpoint.from_directory(folder) if number == last else None
                ray.train.report({"loss": 0.5, "step": number}, checkpoint=saved)
    ended = time.time()
    written(began, began, ended, ended)


def _steps(seconds: float) -> int:
    return round(seconds / STEP_S)


CONTENDERS: dict[str, Callable[[Path, int, float], None]] = {
    "ours": ours, "bare": bare, "recipe": recipe
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Took:
    """How long a contender took."""

    trials: int
    seconds: float
    """of a trial's own work"""
    wall_s: float
    spans: tuple[tuple[int, list[float]], ...]
    """of each trial, the process and when it was entered, trained, had trained, and left; seconds
    since the command began; of the usual recipe only when it trained, of a bare loop nothing"""

    @property
    def ideal_s(self) -> float:
        """Seconds if there were nothing but work."""
        return self.trials // AT_ONCE * self.seconds

    @property
    def over_s(self) -> float:
        """Seconds over the ideal, a trial, in the process that it runs in."""
        return (self.wall_s - self.ideal_s) * AT_ONCE / self.trials

    @property
    def working_s(self) -> float:
        """Seconds from the beginning of the first trial to the end of the last."""
        return max(s[3] for _, s in self.spans) - min(s[0] for _, s in self.spans)

    @property
    def between_s(self) -> float:
        """Mean seconds from the work of a trial to that of the next in its place."""
        rounds = self.trials // AT_ONCE
        return (self.working_s - self.ideal_s) / (rounds - 1) if rounds > 1 else 0.0


def timed(name: str, trials: int, seconds: float) -> Took:
    """Run a contender, as a command."""
    with tempfile.TemporaryDirectory(prefix="dinolab-") as folder:
        spans = Path(folder, "spans")
        spans.mkdir()
        command = [sys.executable, "-m", "benchmarks.orchestration", "--run", name, folder]
        began = time.time()
        processes = [
            subprocess.Popen(
                [*command, str(trials), str(seconds)],
                env={**_environment(), SPANS: str(spans)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(AT_ONCE if name == "bare" else 1)
        ]
        said = [process.communicate()[0] for process in processes]
        wall_s = time.time() - began
        if codes := [process.returncode for process in processes if process.returncode]:
            raise RuntimeError(f"{name} ended with {codes[0]}: {said[0][-3000:]}")
        read = tuple(
            (int(path.name), [when - began for when in json.loads(line)])
            for path in spans.iterdir()
            for line in path.read_text().splitlines()
        )
        return Took(trials=trials, seconds=seconds, wall_s=wall_s, spans=read)


def _environment() -> dict[str, str]:
    """This process's, without servers and clusters; workers are as nice as the loop, and ours."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "DINOLAB"))}
    here = str(Path(__file__).parents[1])
    return {**kept, "PYTHONPATH": here, "RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}


def parts(took: Took) -> list[str]:
    """Where the time of ours goes, lines."""
    first = min(span[0] for _, span in took.spans)
    last = max(span[3] for _, span in took.spans)
    of_process: dict[int, list[list[float]]] = {}
    for process, span in sorted(took.spans, key=lambda one: one[1][0]):
        of_process.setdefault(process, []).append(span)
    between = [
        after[0] - before[3]
        for spans in of_process.values()
        for before, after in itertools.pairwise(spans)
    ]
    found = {
        "before its training": [span[1] - span[0] for _, span in took.spans],
        "training, over its steps": [span[2] - span[1] - took.seconds for _, span in took.spans],
        "after its training": [span[3] - span[2] for _, span in took.spans],
        "from trial to trial": between,
    }
    return [
        f"  until the first trial {first:.1f} s, trials {last - first:.1f} s, after the last "
        f"{took.wall_s - last:.1f} s; {len(of_process)} processes",
        *(
            f"  {what}: median {statistics.median(times):.3f} s, most {max(times):.3f} s"
            for what, times in found.items()
            if times
        ),
    ]


def contest(trials: int, seconds: float, of_recipe: int) -> None:
    """The three contenders over trials of that length, in turn; prints what they took."""
    print(f"\n{trials} trials of {seconds:g} s, {AT_ONCE} at once; load {os.getloadavg()[0]:.0f}")
    took = {name: timed(name, trials, seconds) for name in ("bare", "ours")}
    if of_recipe:
        took["recipe"] = timed("recipe", of_recipe, seconds)
    for name, one in took.items():
        print(
            f"{name:>7}: {one.trials} trials in {one.wall_s:.1f} s, ideal {one.ideal_s:.1f} s, "
            f"{one.ideal_s / one.wall_s:.3f} of it; {one.over_s:.3f} s a trial over it",
            flush=True,
        )
    own = took["ours"]
    print("\n".join(parts(own)))
    print(f"  while trials run: {own.ideal_s / own.working_s:.3f} of the ideal")
    bare_s = took["bare"].over_s
    print(f"ours over the bare loop: {own.over_s - bare_s:.3f} s a trial")
    print(f"ours, start and end of the command apart: {own.between_s:.3f} s a trial")
    if "recipe" in took:
        between_s = took["recipe"].between_s
        print(
            f"the usual recipe, the same: {between_s:.3f} s a trial, "
            f"{between_s / own.between_s:.1f} times ours"
        )
    print(f"load {os.getloadavg()[0]:.0f}", flush=True)


def simulated(trials: int, rows: int = 5) -> None:
    """Let a driver see so many trials finish at once; prints the memory of its process."""
    from rich.console import Console

    from orchestrator.driver.progress import StudyProgress
    from orchestrator.driver.standings import Standings
    from orchestrator.driver.watcher import outcome, title_of
    from orchestrator.plan import make_plan
    from orchestrator.schedule import Launch
    from trainers.data.image_set import open_images
    from trainers.runs.attempt import claimed
    from trainers.runs.stored_trial import StoredTrial
    from trainers.system.store import open_store

    study = _study(arms=1, seeds=trials)
    images = open_images(study.base.data, None)
    plan = make_plan(study, images)
    print(f"\na driver over {trials:,} trials that end at once; load {os.getloadavg()[0]:.0f}")
    with tempfile.TemporaryDirectory(prefix="dinolab-") as folder:
        store = open_store(folder)
        console = Console(quiet=True)
        standings = Standings(plan.trials, store, "one", say=console.print, finished=lambda _: None)
        began, asked_s = time.perf_counter(), 0.0
        with StudyProgress(console, name="simulated", trials=trials, live=False) as progress:
            for done in range(trials + 1):
                if done % max(1, trials // rows) == 0:
                    print(
                        f"{done:>7,} trials  RssAnon {resident()['RssAnon']:>5} MiB  "
                        f"{time.perf_counter() - began:6.1f} s, {asked_s:.2f} s in the schedule",
                        flush=True,
                    )
                asked = time.perf_counter()
                decided = standings.decided()
                asked_s += time.perf_counter() - asked
                if not isinstance(decided, Launch):
                    break
                trial = decided.trials[0]
                assert standings.launch(trial)
                stored = StoredTrial(store, trial.key)
                attempt = claimed(stored, steps=1, driver="one", over=(), waits=False)
                assert attempt
                attempt.records.report(0, {"loss/total": 0.5})
                attempt.commit({"status": "finished", "reason": "", "step": 1, "steps": 1,
                                "resumed_at": 0, "wall_s": 0.0})  # fmt: skip
                attempt.end("finished")
                standings.ended(trial)
                progress.ended(title_of(trial), outcome(stored))


def planned(arms: int, seeds: int) -> None:
    """Plan so many arms of so many seeds; prints the time."""
    from orchestrator.plan import make_plan
    from trainers.data.image_set import open_images

    study = _study(arms, seeds)
    images = open_images(study.base.data, None)
    before, began, used = resident()["RssAnon"], time.perf_counter(), time.process_time()
    plan = make_plan(study, images)
    print(
        f"\nplan of {len(plan.trials):,} trials ({arms:,} arms): "
        f"{time.perf_counter() - began:.1f} s, {time.process_time() - used:.1f} s of processor, "
        f"{resident()['RssAnon'] - before} MiB; load {os.getloadavg()[0]:.0f}",
        flush=True,
    )


def _study(arms: int, seeds: int) -> Any:
    from ablations.study.loading import load_study

    rates = [{f"rate_{i}": {"optimizer.learning_rate": 0.001 + i * 1e-6}} for i in range(1, arms)]
    raw = {"name": "many", "recipe": "digits_tiny", "seeds": seeds, "arms": rates, "hypotheses": {}}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(json.dumps(raw))
        file.flush()
        return load_study(Path(file.name))


def main(words: Sequence[str] | None = None) -> None:
    """Everything, or one contender alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter trials")
    parser.add_argument(
        "--contest", nargs=3, action="append", type=float,
        metavar=("TRIALS", "SECONDS", "OF_RECIPE"),
        help="these contests instead: trials, seconds each, and trials of the usual recipe",
    )  # fmt: skip
    parser.add_argument("--simulate", type=int, metavar="TRIALS", help="trials of the simulation")
    parser.add_argument("--plan", type=int, nargs=2, metavar=("ARMS", "SEEDS"))
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.run:
        name, folder, trials, seconds = given.run
        CONTENDERS[name](Path(folder), int(trials), float(seconds))
        return
    everything = not (given.contest or given.simulate or given.plan)
    full, quick = [(8, 30.0, 4), (200, 2.0, 8)], [(4, 6.0, 2), (20, 1.0, 4)]
    usual = (quick if given.quick else full) if everything else []
    for trials, seconds, of_recipe in given.contest or usual:
        contest(int(trials), seconds, int(of_recipe))
    if given.simulate or everything:
        simulated(given.simulate or (500 if given.quick else 5000))
    if given.plan or everything:
        planned(*(given.plan or ((10, 100) if given.quick else (1000, 100))))


if __name__ == "__main__":
    main()
