"""A sequential study of 12 arms through the driver, without Ray: its trainer knows the truth.

Schedule, standings, attempts, records, results and verdicts are the real ones. It is also what the
processes of the test fork from: the plan is made once.
"""

import functools
import multiprocessing
import random
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from ablations.study.loading import load_study
from dashboards.tables.derived import judged, write_verdicts
from dashboards.tables.reading import read_study
from orchestrator.driver.needed import Needed
from orchestrator.driver.root import damaged_trials, set_aside_damaged
from orchestrator.driver.standings import Standings
from orchestrator.plan import Plan, make_plan
from orchestrator.registration import Statement
from orchestrator.schedule import Launch, Stop
from tests.reliability.kills import Kills
from trainers.data.image_set import ImageSet, open_images
from trainers.runs import trial as runs_trial
from trainers.runs.reporters import Fanout
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import Asking, run_trial
from trainers.system.store import open_store
from trainers.system.world import World
from trainers.training.loop import Result

NAME, SEEDS, SLOTS = "sequential", 16, 4
ALONE = World(rank=0, size=1, device=torch.device("cpu"))
METRIC = "knn/cls_top1"

TRUTH = {
    "rise": 0.25, "other_rise": 0.22, "fall": -0.25, "same": 0.0, "collapsing": 0.0, "broken": 0.0,
}  # fmt: skip
"""By the beginning of an arm's name, what it adds to the baseline; the last two collapse."""

ARMS = ("rise_1", "rise_2", "other_rise_1", "other_rise_2", "fall_1", "fall_2", "same_1", "same_2",
        "same_3", "collapsing_1", "broken_1")  # fmt: skip

LABELS = {
    "rise": "supported", "other_rise": "supported", "fall": "supported", "same": "equivalent",
    "collapsing": "supported", "broken": "failed",
}  # fmt: skip


def _study() -> str:
    lines = [f"name: {NAME}", "recipe: digits_tiny", f"seeds: {SEEDS}", "looks: [8, 12, 16]"]
    lines += ["spending: pocock", "futility: equivalence", "set: {steps: 2}", "arms:"]
    lines += [f"  - {arm}: {{teacher.momentum: {0.9 + n / 1000}}}" for n, arm in enumerate(ARMS)]
    lines += ["hypotheses:"]
    for name in TRUTH:
        arms = [arm for arm in ARMS if arm.startswith(f"{name}_")]
        weights = ", ".join(f"{arm}: {1 / len(arms)}" for arm in arms)
        predicted = name == "collapsing"
        contrast = f"[{arms[0]}, baseline]" if predicted else f"{{{weights}, baseline: -1}}"
        lines += [
            f"  {name}:",
            "    endpoint: collapsed" if predicted else f"    metric: {METRIC}",
            f"    contrast: {contrast}",
            f"    direction: {'falls' if name == 'fall' else 'rises'}",
            f"    smallest_effect: {0.5 if predicted else 0.1}",
            "    family: primary",
        ]
        lines += ["    control: rise_1"] if name == "same" else []
    return "\n".join(lines)


@functools.cache
def planned() -> tuple[Plan, ImageSet]:
    """The plan of the study, of 192 runs, and its images."""
    with tempfile.TemporaryDirectory(prefix="sequential-") as folder:
        path = Path(folder) / f"{NAME}.yaml"
        path.write_text(_study())
        study = load_study(path)
        images = open_images(study.base.data, Path(folder))
        return make_plan(study, images), images


def value(arm: str, seed: int) -> float:
    """What a run measures at its end: a part of its seed, which pairing takes out, and its own."""
    added = next((by for name, by in TRUTH.items() if arm.startswith(f"{name}_")), 0.0)
    common, own = random.Random(seed).gauss(0, 0.05), random.Random(f"{arm} {seed}").gauss(0, 0.04)
    return 0.5 + added + common + own


def _train(config: Any, **given: Any) -> Result:
    """In the place of `train`."""
    plan, _ = planned()
    key = given["checkpoints"].parents[1].name
    (one,) = (trial for trial in plan.trials if trial.key == key)
    collapses = one.arms[0].startswith(("collapsing", "broken"))
    given["reporter"].report(0, {METRIC: 0.1})
    for step in range(1, 1 + (1 if collapses else config.steps)):
        given["reporter"].report(step, {METRIC: value(one.arms[0], one.seed)})
        given["step_done"]()
    if collapses:
        return Result(status="collapsed", reason="all outputs alike", step=1, chain="")
    return Result(status="finished", reason="", step=config.steps, chain="")


def drive(root: Path, chance: random.Random) -> None:
    """Run what is needed, a few at a time, which end in any order; then judge."""
    plan, images = planned()
    store = open_store(root, make=True)
    statement = Statement(plan, images, store)
    statement.refuse_unregistered()
    registration = statement.register().digest
    set_aside_damaged(damaged_trials(plan, store), store, lambda _: None)
    missing = plan.missing(store)
    standings = Standings(
        missing, store, "this", say=lambda _: None, finished=lambda _: None,
        needed=Needed(plan, missing, store),
    )  # fmt: skip
    running: list[Any] = []
    with mock.patch.object(runs_trial, "train", _train):
        while not isinstance(decided := standings.decided(), Stop):
            if isinstance(decided, Launch) and len(running) < SLOTS:
                launched = standings.launch(decided.trials[0])
                if launched is not None:
                    running.append((decided.trials[0], launched))
                continue
            trial, launched = running.pop(chance.randrange(len(running)))
            asking = Asking(
                driver="this", registration=registration, over=launched.over, waits=False
            )
            given = {"images": images, "world": ALONE, "reporter": Fanout(), "asking": asking}
            assert run_trial(StoredTrial(store, trial.key), trial.config, **given)
            standings.ended(trial)
    study = read_study(store, NAME)
    write_verdicts(study, judged(study))


def in_a_process(root: Path, seed: int, kills: Kills | None = None) -> Any:
    """`drive`, begun in a process of its own; trials end in an order by `seed`."""
    process = _forks().Process(target=_driven, args=(root, seed, kills))
    process.start()
    return process


def _driven(root: Path, seed: int, kills: Kills | None) -> None:
    if kills is not None:
        kills.install()
    drive(root, random.Random(seed))


@functools.cache
def _forks() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.reliability.warm_sequential"])
    return context
