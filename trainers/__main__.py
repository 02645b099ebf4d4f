"""Training without Ray or MLflow: `python -m trainers RECIPE --set KNOB=VALUE`.

Several processes of one machine or more train one model when started by PyTorch's own launcher:
`torchrun --nproc-per-node 8 -m trainers RECIPE`. They index its images together. A worker that is
late for a sum over workers by more than DINOLAB_GROUP_TIMEOUT_S seconds (1800) ends the run.
"""

import argparse
import os
import sys
from pathlib import Path

from trainers.adapters.starting import pinned, starting_lines, starting_weights
from trainers.adapters.timm_shapes import spelled
from trainers.config import in_steps, override
from trainers.config.recipe import knobs_given, recipe, recipe_names
from trainers.config.size import share_problem
from trainers.data.cache import cache_in
from trainers.data.image_set import open_images
from trainers.errors import ConfigError, DinolabError, InputError
from trainers.runs.console import Console
from trainers.runs.left_behind import left_behind
from trainers.runs.reporters import Fanout
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import Asking, run_trial, trial_key
from trainers.system.storage import absolute_source
from trainers.system.store import open_store
from trainers.system.world import World, chosen_device, launched_workers, make_reproducible
from trainers.training import stopping
from trainers.training.profile import check_folder, profiling

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainers", description=__doc__)
    names = ", ".join(recipe_names())
    parser.add_argument("recipe", metavar="RECIPE", help=f"{names}, or a .json or .py file")
    parser.add_argument(
        "--set", metavar="KNOB=VALUE", action="append", default=[], dest="knobs",
        help="change a knob; may be given again",
    )  # fmt: skip
    parser.add_argument("--root", default="runs", help="default: %(default)s")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto",
        help="auto: a GPU a worker if PyTorch finds one; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default: %(default)s")
    parser.add_argument(
        "--profile", metavar="DIR", type=Path,
        help="write what steps 4 to 6 take: a trace (Chrome format) and a table",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _at_home(path: Path) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 (a Path raises for unknown ~name)


def _note(line: str) -> None:
    print(f"note: {line}")


def run(arguments: list[str] | None = None) -> int:
    """Train one run to its end and return the exit code; the same command goes on after a stop."""
    given = _arguments(arguments)
    root = given.root if "://" in given.root else str(_at_home(Path(given.root)))
    profile = None if given.profile is None else _at_home(given.profile)
    config = override(recipe(given.recipe), spelled(knobs_given(given.knobs)))
    config = override(config, {"data.source": absolute_source(config.data.source)})
    # Before anything is waited for or read.
    if problem := share_problem(config, launched_workers()):
        raise ConfigError(problem)
    if profile is not None:
        check_folder(profile)
    device = chosen_device(given.device)
    make_reproducible(given.threads)
    stopping.listen()
    with World.launched(device) as world:
        store = open_store(root, make=True)
        images = open_images(config.data, cache_in(root))
        world.wait()  # for those whose machine takes longer
        config, starting = pinned(in_steps(config, len(images.train)))
        key = trial_key(config, images.digest)
        trial = StoredTrial(store, key)
        if world.is_first:
            trial.set_aside_damaged(_note)
        world.wait()
        if starting is None and not trial.begun():
            starting = starting_weights(config)
        if world.is_first and not trial.finished():
            left = left_behind([(key, config, images.digest)], trial.store)
            if left:
                _note(left.sentence(1))
            for line in starting_lines(starting, config):
                print(line)
            if squeezed := config.data.squeezing_note():
                _note(squeezed)
        shown = Console(sys.stdout, steps=config.steps)
        with profiling(profile if world.is_first else None, _note) as step_done:
            run_trial(
                trial,
                config,
                images=images,
                world=world,
                reporter=shown if world.is_first else Fanout(),
                # Where every checkpoint is damaged it begins anew.
                starting=lambda: starting or starting_weights(config),
                step_done=step_done,
                asking=Asking(say=_note),
            )
        result = world.told(trial.finished() if world.is_first else None) or {}
        if world.is_first:
            print(f"{result['status']} {result['reason']}".strip())
            print(f"run folder: {trial.shown}")
    return DONE if result["status"] == "finished" else FAILED


def main() -> int:
    """The exit code of a run; errors are one line on standard error, not a traceback."""
    try:
        return run()
    except InputError as error:
        # All workers of a machine refuse the same knobs.
        if not isinstance(error, ConfigError) or os.environ.get("LOCAL_RANK", "0") == "0":
            print(error, file=sys.stderr)
        return BAD_INPUT
    except DinolabError as error:
        print(error, file=sys.stderr)
        return FAILED
    except stopping.Interrupted as told:
        print(told, file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
