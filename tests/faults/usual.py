"""The usual recipe: Ray Tune with its own checkpoints, retries, restore and MLflow logger.

    python -m tests.faults.usual STUDY ROOT

Trains what `dinolab run STUDY --root ROOT` would train, by the same trainer, as Tune's guides say
it is done. Each beginning and each end of a trial leaves a file in ROOT/marks, which is not part of
the recipe: by these the trials that ran again are counted.
"""

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback

from ablations.study.loading import load_study
from trainers.config import TrainConfig
from trainers.data.image_set import open_images
from trainers.system.world import World, make_reproducible
from trainers.training.loop import train

NAME, RETRIES = "usual", 3

REPORTED_EVERY, REPORTED = 10, ("loss/", "collapse/", "optimizer/", "data/")
"""Steps, and what names of metrics begin with. Each report holds up Tune's loop, since its logger
writes number by number to MLflow: with all of them six trials take four minutes."""


def main(study_file: Path, root: Path) -> int:
    """Train all, or go on with what is there; the exit code."""
    (root / "marks").mkdir(parents=True, exist_ok=True)
    study = load_study(study_file)
    configs = {
        f"{arm} seed {seed}": study.config(arm, seed).model_dump_json()
        for seed in study.seeds
        for arm in study.arms
    }
    ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False)
    trial = tune.with_resources(partial(one_trial, configs=configs, root=str(root)), {"CPU": 1})
    kept, server = str(root / NAME), os.environ.get("MLFLOW_TRACKING_URI")
    if tune.Tuner.can_restore(kept):
        tuner = tune.Tuner.restore(kept, trial, resume_errored=True, restart_errored=False)
    else:
        logger = MLflowLoggerCallback(
            tracking_uri=server or f"sqlite:///{root / 'mlflow.db'}", experiment_name=NAME
        )
        tuner = tune.Tuner(
            trial,
            param_space={"of": tune.grid_search(list(configs))},
            run_config=tune.RunConfig(
                name=NAME,
                storage_path=str(root),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[logger],
                verbose=0,
            ),
        )
    return int(bool(tuner.fit().num_errors))


class ToTune:
    """Reports records and checkpoints to Tune."""

    def report(
        self, step: int, metrics: Mapping[str, float], *, checkpoint: Path | None = None
    ) -> None:
        """See Reporter."""
        if metrics and step % REPORTED_EVERY == 0:
            told = {name: value for name, value in metrics.items() if name.startswith(REPORTED)}
            tune.report({"step": step, **told})
        if checkpoint:
            with tempfile.TemporaryDirectory() as folder:
                shutil.copy(checkpoint, folder)
                saved = tune.Checkpoint.from_directory(folder)
                tune.report({"step": step, "saved": step}, checkpoint=saved)


def one_trial(parameters: dict[str, Any], configs: Mapping[str, str], root: str) -> None:
    """Train, from Tune's last checkpoint of it."""
    make_reproducible(1)
    config = TrainConfig.model_validate_json(configs[parameters["of"]])
    mark = f"{parameters['of']} {secrets.token_hex(4)}"
    Path(root, "marks", f"begun {mark}").touch()
    with tempfile.TemporaryDirectory() as folder:
        last = None
        if saved := tune.get_checkpoint():
            saved.to_directory(folder)
            (last,) = Path(folder).glob("checkpoint-*")
        train(
            config,
            images=open_images(config.data, Path(root, "index")),
            world=World.alone(torch.device("cpu")),
            reporter=ToTune(),
            checkpoints=Path(folder),
            resume_from=last,
        )
    Path(root, "marks", f"ended {mark}").touch()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
