"""Commands on one network: train and eval."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from orchestrator import interrupt
from orchestrator.cli.exit_codes import FAILED, INTERRUPTED
from orchestrator.cli.options import (
    DEFAULT_ROOT,
    Device,
    DeviceOption,
    QuietOption,
    RootOption,
    absolute_root,
    at_home,
)
from orchestrator.cli.rendering import make_console, open_with_progress, show_metrics
from trainers.errors import ConfigError, InputError


def train(
    recipe_name: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A name from `dinolab list recipes`, or a .json or .py file."
        ),
    ],
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="KNOB=VALUE",
            help="Change a knob; may be given again.",
            default_factory=list,
            show_default=False,
        ),
    ],
    root: RootOption = DEFAULT_ROOT,
    device: DeviceOption = Device.AUTO,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    profile: Annotated[
        Path | None,
        typer.Option(
            callback=at_home,
            metavar="DIR",
            help="Writes what steps 4 to 6 take: a trace (Chrome format) and a table.",
        ),
    ] = None,
) -> None:
    """Train one run of a recipe, here and now: no study, no Ray.

    The run folder is ROOT/trials/KEY. The same command goes on after an interruption.
    """
    from dashboards.tables.root import SINGLE
    from orchestrator.driver.mirrored import Mirrored
    from orchestrator.tracking.store import check_store
    from orchestrator.tracking.where import folder_of
    from trainers.adapters.starting import pinned, starting_lines, starting_weights
    from trainers.adapters.timm_shapes import spelled
    from trainers.config import in_steps, override
    from trainers.config.recipe import knobs_given, recipe
    from trainers.config.size import share_problem
    from trainers.runs.console import Console as ConsoleReporter
    from trainers.runs.left_behind import left_behind
    from trainers.runs.stored_trial import StoredTrial
    from trainers.runs.trial import Asking, run_trial, trial_key
    from trainers.system.storage import absolute_source
    from trainers.system.store import open_store
    from trainers.system.world import World, chosen_device, make_reproducible
    from trainers.training import stopping
    from trainers.training.profile import check_folder, profiling

    console = make_console()
    config = override(recipe(recipe_name), spelled(knobs_given(set_)))
    config = override(config, {"data.source": absolute_source(config.data.source)})
    # Before anything is read or written.
    if problem := share_problem(config, 1):
        raise ConfigError(problem)
    if profile is not None:
        check_folder(profile)
    world = World.alone(chosen_device(device))
    root = absolute_root(root, console)
    check_store(folder_of(root))
    store = open_store(root, make=True)
    images = open_with_progress(config.data, root, console, console.is_terminal)
    config, starting = pinned(in_steps(config, len(images.train)))
    key = trial_key(config, images.digest)
    stored = StoredTrial(store, key)
    stored.set_aside_damaged(lambda line: console.print(f"note: {line}"))
    if starting is None and not stored.begun():
        starting = starting_weights(config)
    is_finished = stored.finished()
    if is_finished:
        console.print("finished already: nothing to train")
    elif left := left_behind([(key, config, images.digest)], store):
        console.print(f"note: {left.sentence(1)}")
    for line in () if is_finished else starting_lines(starting, config):
        console.print(line)
    if not is_finished and (squeezed := config.data.squeezing_note()):
        console.print(f"note: {squeezed}")
    make_reproducible(threads)
    stopping.listen()
    interrupt.give_time(signal.SIGTERM)
    try:
        with profiling(profile, lambda line: console.print(f"note: {line}")) as step_done:
            run_trial(
                stored,
                config,
                images=images,
                world=world,
                reporter=ConsoleReporter(sys.stdout, steps=config.steps),
                # Where every checkpoint is damaged it begins anew.
                starting=lambda: starting or starting_weights(config),
                step_done=step_done,
                asking=Asking(say=console.print),
            )
    except KeyboardInterrupt as ended:
        told = str(ended) or "interrupted: the same command goes on from the last checkpoint"
        interrupt.tell(told, console.print)
        raise typer.Exit(INTERRUPTED) from None
    with Mirrored(SINGLE, store, console) as mirrored:
        mirrored.sync(key, (recipe_name,), config.seed)
    result = stored.finished() or {}
    console.print(f"{result['status']} {result.get('reason', '')}".strip())
    console.print(f"run folder: {stored.shown}")
    if result["status"] != "finished":
        raise typer.Exit(FAILED)


def evaluate(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            callback=at_home,
            help="A checkpoint, its folder, or the folder of a run (its last checkpoint).",
            show_default=False,
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Measures on these images instead: `digits`, or a folder of images.",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KNOB=VALUE",
            help="Change a knob of the evaluation; may be given again.",
            show_default=False,
        ),
    ] = None,
    json_: Annotated[
        Path | None,
        typer.Option(
            "--json",
            callback=at_home,
            metavar="FILE",
            help="Writes every metric.",
            show_default=False,
        ),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    device: DeviceOption = Device.AUTO,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    quiet: QuietOption = False,
) -> None:
    """Measure a checkpoint: k-NN, linear and position probe, collapse panel, attention.

    Its configuration is the config.json beside it or one or two folders above. The table shows
    summaries; --json also writes each layer and head.
    """
    from trainers.config.recipe import knobs_given
    from trainers.runs.saved_run import evaluate_run, find_run
    from trainers.system.atomic import replace_json
    from trainers.system.storage import absolute_source
    from trainers.system.world import chosen_device, make_reproducible

    console = make_console()
    chosen = chosen_device(device)
    live = console.is_terminal and not quiet
    source = None if data is None else absolute_source(data)
    run = find_run(checkpoint, data=source, change=knobs_given(set_ or []))
    if json_ is not None:
        _check_file("--json", json_)
    root = absolute_root(root, console)
    images = open_with_progress(run.measured.data, root, console, live)
    make_reproducible(threads)
    console.print(
        f"step {run.step} of {run.trained.steps}, {run.measured.data.source}: {len(images)} "
        f"images, {len(images.test)} held out, on {chosen.type}",
    )
    with Progress(console=console, transient=True, disable=not live) as progress:
        task = progress.add_task("measuring images", total=None)
        metrics = evaluate_run(
            run,
            images,
            chosen,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    show_metrics(metrics, console)
    if json_ is not None:
        content = {
            "checkpoint": str(run.checkpoint.absolute()),
            "step": run.step,
            "data": {"source": run.measured.data.source, "digest": images.digest},
            "evaluation": run.measured.evaluation.model_dump(mode="json"),
            "metrics": metrics,
        }
        replace_json(json_, content)
        console.print(f"metrics: {json_}")


def _check_file(option: str, path: Path) -> None:
    """Raises InputError where no file can be written to `path`."""
    folder = path.absolute().parent
    if path.is_dir():
        raise InputError(f"{option} {path}: a folder is there; give the name of a file")
    if not folder.is_dir():
        raise InputError(f"{option} {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{option} {path}: folder {folder} cannot be written")
