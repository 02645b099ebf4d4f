"""Training without Ray or MLflow: `python -m trainers RECIPE --set KNOB=VALUE`.

Several processes of one machine or more train one model when started by PyTorch's own launcher:
`torchrun --nproc-per-node 8 -m trainers RECIPE`.
"""

import argparse
import os
import sys
from pathlib import Path

from trainers.config import in_steps, override
from trainers.config.recipe import knobs_given, recipe, recipe_names
from trainers.config.size import share_problem
from trainers.data.image_set import open_images
from trainers.errors import ConfigError, DinolabError, InputError
from trainers.runs.console import Console
from trainers.runs.left_behind import left_behind
from trainers.runs.reporters import Fanout
from trainers.runs.trial import TrialFolder, run_trial, trial_key
from trainers.system.storage import absolute_source
from trainers.system.world import World, make_reproducible

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainers", description=__doc__)
    names = ", ".join(recipe_names())
    parser.add_argument("recipe", metavar="RECIPE", help=f"{names}, or a .json or .py file")
    parser.add_argument(
        "--set", metavar="KNOB=VALUE", action="append", default=[], dest="knobs",
        help="change a knob; may be given again",
    )  # fmt: skip
    parser.add_argument("--root", type=Path, default=Path("runs"), help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default: %(default)s")
    return parser.parse_args(arguments)


def run(arguments: list[str] | None = None) -> int:
    """Train one run to its end and return the exit code; the same command goes on after a stop."""
    given = _arguments(arguments)
    root = Path(os.path.expanduser(given.root))  # noqa: PTH111 (a Path raises for unknown ~name)
    config = override(recipe(given.recipe), knobs_given(given.knobs))
    config = override(config, {"data.source": absolute_source(config.data.source)})
    make_reproducible(given.threads)
    with World.launched() as world:
        if problem := share_problem(config, world.size):
            raise ConfigError(problem)
        if not world.is_first:
            world.wait()  # for the first one to index the images
        images = open_images(config.data, root / "data")
        if world.is_first:
            world.wait()
        config = in_steps(config, len(images.train))
        key = trial_key(config, images.digest)
        folder = TrialFolder(root / "train" / "trials" / key)
        if world.is_first and not folder.finished():
            left = left_behind([(key, config, images.digest)], folder.path.parent)
            if left:
                print(f"note: {left.sentence(1)}")
        shown = Console(sys.stdout, steps=config.steps)
        run_trial(
            folder,
            config,
            images=images,
            world=world,
            reporter=shown if world.is_first else Fanout(),
        )
        world.wait()  # for the first one to write the result
        result = folder.finished() or {}
        if world.is_first:
            print(f"{result['status']} {result['reason']}".strip())
            print(f"run folder: {folder.path}")
    return DONE if result["status"] == "finished" else FAILED


def main() -> int:
    """The exit code of a run; errors are one line on standard error, not a traceback."""
    try:
        return run()
    except InputError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except DinolabError as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
