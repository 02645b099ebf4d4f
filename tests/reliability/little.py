"""A little study, and a driver of it without Ray: all that is real but who starts the trials."""

import functools
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image

from ablations.study.loading import load_study
from dashboards.tables.derived import write_results
from dashboards.tables.reading import read_study
from orchestrator import schedule
from orchestrator.driver.root import damaged_trials, set_aside_damaged
from orchestrator.plan import Plan, make_plan
from orchestrator.registration import Statement
from tests.reliability import checker
from tests.reliability.kills import Kills, changes
from trainers.data.digits import digits
from trainers.data.image_set import ImageSet, open_images
from trainers.runs.lease import Watch
from trainers.runs.reporters import Fanout
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import Asking, run_trial
from trainers.system.store import Store, open_store
from trainers.system.world import World

NAME = "little"

STUDY = """
name: little
recipe: digits_tiny
dataset: {images}
seeds: {seeds}
set:
  {{steps: {steps}, checkpoint_every: {checkpoint_every}, checkpoints.keep_steps: [1],
   log_every: 1, batch_size: 8,
   model.width: 24, model.heads: 2, model.depth: 1, augment.local_crops: 2,
   head.hidden: 16, head.bottleneck: 8, head.prototypes: 16,
   optimizer.warmup_steps: 2, optimizer.freeze_last_layer_steps: 1,
   evaluation.every: 100, evaluation.globality_images: 2, evaluation.globality_probe_images: 2,
   evaluation.causal_images: 0, evaluation.globality_layers: [1], evaluation.probes: false}}
arms:
  - cls_position_none
hypotheses:
  none_is_equivalent:
    metric: loss/total
    contrast: [cls_position_none, baseline]
    direction: holds
    smallest_effect: 0.05
"""

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def write_study(folder: Path, seeds: int, *, steps: int = 4, checkpoint_every: int = 2) -> Path:
    """The file of a study of two arms of that many seeds, and beside it its images."""
    levels, labels = digits()
    for number, (pixels, label) in enumerate(zip(levels[:24], labels[:24], strict=True)):
        path = folder / "images" / str(int(label) % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            Image.fromarray(pixels).save(path)
    study = folder / "little.yaml"
    study.write_text(
        STUDY.format(
            seeds=seeds,
            steps=steps,
            checkpoint_every=checkpoint_every,
            images=folder / "images",
        )
    )
    return study


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="little-")


@functools.cache
def planned(seeds: int) -> tuple[Plan, ImageSet]:
    """The plan of a study of twice as many trials, four updates each; and its images."""
    folder = Path(_folder().name)
    study = load_study(write_study(folder, seeds))
    images = open_images(study.base.data, folder / "index")
    images.pixels(torch.arange(len(images)))
    return make_plan(study, images), images


def drive(root: Path, seeds: int, say: Callable[[str], None] = lambda _: None) -> None:
    """Run what is missing, one trial after another; those that somebody else is at come later."""
    torch.set_num_threads(1)
    store = open_store(root, make=True)
    plan, images = planned(seeds)
    statement = Statement(plan, images, store)
    statement.refuse_unregistered()
    set_aside_damaged(damaged_trials(plan, store), store, say)
    registration = statement.register().digest
    watch = Watch()
    held: dict[str, schedule.Standing] = {}
    while not isinstance(
        step := schedule.next(plan.trials, _finished(plan, store) | held), schedule.Stop
    ):
        if isinstance(step, schedule.Launch):
            trial = step.trials[0]
            stored = StoredTrial(store, trial.key)
            driver, over = str(os.getpid()), _over(stored, watch)
            asking = Asking(
                driver=driver, registration=registration, over=over, waits=False, say=say
            )
            given = {"images": images, "world": ALONE, "reporter": Fanout()}
            if not run_trial(stored, trial.config, asking=asking, **given):
                held[trial.key] = "held"
        else:
            time.sleep(0.02)
            held.clear()
    write_results(read_study(store, NAME))


def _finished(plan: Plan, store: Store) -> dict[str, schedule.Standing]:
    missing = {trial.key for trial in plan.missing(store)}
    return {trial.key: "finished" for trial in plan.trials if trial.key not in missing}


def _over(trial: StoredTrial, watch: Watch) -> tuple[int, ...]:
    last = max(trial.attempts(), default=0)
    return (last,) if last and watch.is_over(f"{trial.key}/{last}", trial.lease(last)) else ()


def in_a_process(root: Path, seeds: int, kills: Kills | None = None) -> Any:
    """`drive`, begun in a process of its own that has everything imported, and its plan made."""
    process = _forks().Process(target=_driven, args=(root, seeds, kills))
    process.start()
    return process


def _driven(root: Path, seeds: int, kills: Kills | None) -> None:
    if kills is not None:
        kills.install()
    drive(root, seeds)


@functools.cache
def _forks() -> Any:
    # A process that trains nothing itself, so that what it forks may.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.reliability.warm"])
    return context


def undisturbed_study(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What the study of one seed comes to, and the changes of its root that it takes."""
    root, log = folder / "root", folder / "log"
    process = in_a_process(root, 1, Kills(root, log))
    process.join()
    assert process.exitcode == 0
    return measured(root), changes(log)


def files(root: Path) -> dict[str, bytes]:
    """Whatever counts in a root, by key: names that begin with a dot do not."""
    keys = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {key: keys[key].read_bytes() for key in sorted(keys) if "/." not in f"/{key}"}


def measured(root: Path) -> dict[str, Any]:
    """What a study has come to, without what is of the machine: equal for equal studies."""
    found = files(root)
    of_trials = {}
    for key, content in found.items():
        if not key.endswith("/result.json") or "/damaged/" in key:
            continue
        result, folder = json.loads(content), key.removesuffix("/result.json")
        lines = b"".join(
            found[f"{folder}/attempts/{result['attempt']:04d}/{name}"]
            for name in sorted(result["files"])
            if name.startswith("metrics-")
        )
        saved = {step: found[f"{folder}/{name}"] for step, name in result["checkpoints"].items()}
        ended = [result[name] for name in ("status", "reason", "step", "steps", "chain", "data")]
        of_images = {
            name.rpartition("/")[2]: found[f"{folder}/{name}"]
            for name in (
                f"attempts/{result['attempt']:04d}/by_image.safetensors",
                *result["of_images"],
            )
        }
        of_trials[folder.split("/")[1]] = (ended, checker.records(lines), saved, of_images)
    table = pq.read_table(pa.BufferReader(found[f"studies/{NAME}/results.parquet"]))
    for prefix in checker.OF_THE_MACHINE:
        table = table.filter(pc.invert(pc.starts_with(table["metric"], prefix)))
    sink = pa.BufferOutputStream()
    # Without how hypotheses were stated: one that is registered anew comes to the same values.
    pq.write_table(table.combine_chunks().replace_schema_metadata(), sink)
    return {"trials": of_trials, "results.parquet": sink.getvalue().to_pybytes()}


def wrong(root: Path, undisturbed: dict[str, Any]) -> list[str]:
    """What a study that has ended lacks of an undisturbed one, or has beyond it."""
    expected = {key: records for key, (_, records, *_) in undisturbed["trials"].items()}
    if found := checker.problems(files(root), expected):
        return found
    now = measured(root)
    return [
        *(
            f"trial {key} differs"
            for key in expected
            if now["trials"][key] != undisturbed["trials"][key]
        ),
        *(name for name in ["results.parquet"] if now[name] != undisturbed[name]),
    ]
