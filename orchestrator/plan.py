"""A study becomes trials, one for each different (configuration, seed); with their cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.study.checks import needs_labels
from ablations.study.study import Study
from orchestrator.cost import ArmCost, cost_of
from trainers.config import TrainConfig, flatten
from trainers.data.image_set import ImageSet
from trainers.errors import StudyError
from trainers.runs.trial import TrialFolder, trial_key


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run to be made; identical arms share one."""

    key: str
    arms: tuple[str, ...]
    seed: int
    config: TrainConfig


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that `dinolab run` would do."""

    study: Study
    trials: tuple[Trial, ...]
    arms: Mapping[str, ArmCost]

    def missing(self, folder: Path) -> list[Trial]:
        """Trials without a result in the study's run folder."""
        return [
            trial
            for trial in self.trials
            if TrialFolder(folder / "trials" / trial.key).finished() is None
        ]

    def operations(self, trials: Sequence[Trial]) -> float:
        """Floating-point operations of all training steps of `trials`."""
        return sum(
            1e9 * self.arms[trial.arms[0]].gigaflops_per_step * trial.config.steps
            for trial in trials
        )


def make_plan(study: Study, images: ImageSet) -> Plan:
    """The trials of a study, seed by seed so that early seeds of all arms come first.

    Raises StudyError when the study asks for what the data set does not have.
    """
    if images.labels is None and (unlabelled := needs_labels(study)):
        raise StudyError(
            f"{', '.join(unlabelled)}: k-NN, gaps and the linear probe need labels, and "
            f"{study.base.data.source} has none; "
            "put the images into one sub-folder a label, or use another metric"
        )
    learns = [arm for arm in study.arms if study.config(arm, study.seeds[0]).loss.labels]
    if images.labels is None and learns:
        raise StudyError(
            f"{', '.join(learns)}: loss.labels needs labels, and {study.base.data.source} has "
            "none; put the images into one sub-folder a label, or leave the arm out"
        )
    trials: dict[str, Trial] = {}
    for seed in study.seeds:
        for arm in study.arms:
            config = study.config(arm, seed)
            key = trial_key(config, images.digest)
            arms = (*trials[key].arms, arm) if key in trials else (arm,)
            trials[key] = Trial(key=key, arms=arms, seed=seed, config=config)
    before = flatten(study.base)
    return Plan(
        study=study,
        trials=tuple(trials.values()),
        arms={
            arm: ArmCost(
                change=change,
                before={knob: before[knob] for knob in change},
                confounds=study.confounds.get(arm, ()),
                **cost_of(study.config(arm, study.seeds[0]), len(images.class_names)),
            )
            for arm, change in study.arms.items()
        },
    )
