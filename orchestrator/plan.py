"""A study becomes trials, one for each different (configuration, seed); with their cost."""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ablations.spec import not_an_arms
from ablations.study.checks import needs_labels
from ablations.study.study import Study
from orchestrator.cost import ArmCost, cost_of
from trainers.adapters.starting import pinned, read_starting
from trainers.config import DataConfig, TrainConfig, diff, flatten, in_steps
from trainers.data.image_set import ImageSet, open_images
from trainers.errors import StudyError
from trainers.runs.stored_trial import TRIALS, StoredTrial
from trainers.runs.trial import trial_keys
from trainers.system.store import AT_ONCE, Store


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run to be made; identical arms share one."""

    key: str
    arms: tuple[str, ...]
    seed: int
    config: TrainConfig
    digest: str
    """of its data"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that `dinolab run` would do."""

    study: Study
    trials: tuple[Trial, ...]
    arms: Mapping[str, ArmCost]

    def missing(self, store: Store, damaged: Collection[str] = ()) -> list[Trial]:
        """Trials without a result, or with a `damaged` one.

        Raises InputError, one line, when the result of another is damaged.
        """
        begun = set(store.names(TRIALS)).difference(damaged)
        known = [trial for trial in self.trials if trial.key in begun]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = pool.map(lambda trial: StoredTrial(store, trial.key).finished(), known)
            finished = {trial.key for trial, found in zip(known, results, strict=True) if found}
        return [trial for trial in self.trials if trial.key not in finished]

    def operations(self, trials: Sequence[Trial]) -> float:
        """Floating-point operations of all training steps of `trials`."""
        return sum(
            1e9 * self.arms[trial.arms[0]].gigaflops_per_step * trial.config.steps
            for trial in trials
        )


def _open_anew(data: DataConfig) -> ImageSet:
    return open_images(data, None)


def make_plan(
    study: Study, images: ImageSet, open_data: Callable[[DataConfig], ImageSet] = _open_anew
) -> Plan:
    """The trials of a study, seed by seed so that early seeds of all arms come first.

    `images` are those of the base. An arm may have them at another `data.image_size`: `open_data`
    opens each size once. Raises StudyError when the study asks for what a data set does not have.
    """
    configs = {arm: study.config(arm, study.seeds[0]) for arm in study.arms}
    opened = {study.base.data: images}
    images_of = {}
    for arm, config in configs.items():
        if config.data not in opened:
            opened[config.data] = open_data(config.data)
        images_of[arm] = opened[config.data]
    _refuse_without_labels(study, images_of)
    resolved = {arm: in_steps(configs[arm], len(seen.train)) for arm, seen in images_of.items()}
    read = functools.cache(read_starting)
    pinned_of = {arm: pinned(config, read)[0] for arm, config in resolved.items()}
    # An arm is resolved once: only the seed differs between its runs.
    keys_of = {
        arm: trial_keys(config, images_of[arm].digest, study.seeds)
        for arm, config in pinned_of.items()
    }
    trials: dict[str, Trial] = {}
    for seed in study.seeds:
        for arm, of_arm in pinned_of.items():
            key = next(keys_of[arm])
            arms = (*trials[key].arms, arm) if key in trials else (arm,)
            config = of_arm.model_copy(update={"seed": seed})
            digest = images_of[arm].digest
            trials[key] = Trial(key=key, arms=arms, seed=seed, config=config, digest=digest)
    before, base = flatten(study.base), in_steps(study.base, len(images.train))

    return Plan(
        study=study,
        trials=tuple(trials.values()),
        arms={
            arm: ArmCost(
                change=change,
                before={knob: before[knob] for knob in change},
                confounds=(
                    *_implied(change, before, base, resolved[arm]),
                    *study.confounds.get(arm, ()),
                ),
                **cost_of(resolved[arm], len(images_of[arm].class_names)),
            )
            for arm, change in study.arms.items()
        },
    )


def _implied(
    change: Mapping[str, Any], given: Mapping[str, Any], base: TrainConfig, own: TrainConfig
) -> Iterator[str]:
    """Lengths and rates that differ without being changed: given in epochs, or per 256 images."""
    before = flatten(base)
    for knob, value in diff(base, own).items():
        if knob not in change and not not_an_arms([knob]):
            yield f"{knob}: {before[knob]:.6g} → {value:.6g} ({given[knob]})"


def _refuse_without_labels(study: Study, images_of: Mapping[str, ImageSet]) -> None:
    without = {arm for arm, images in images_of.items() if images.labels is None}
    if not without:
        return
    configs = {arm: study.config(arm, study.seeds[0]) for arm in study.arms if arm in without}
    sources = ", ".join(dict.fromkeys(config.data.source for config in configs.values()))
    on_them = replace(
        study,
        hypotheses={i: h for i, h in study.hypotheses.items() if without & set(h.weights)},
        gates={i: g for i, g in study.gates.items() if without & set(g.arms)},
    )
    if unlabelled := needs_labels(on_them):
        raise StudyError(
            f"{', '.join(unlabelled)}: k-NN, gaps and the linear probe need labels, and "
            f"{sources} has none; "
            "put the images into one sub-folder a label, or use another metric"
        )
    if learns := [arm for arm, config in configs.items() if config.loss.labels]:
        raise StudyError(
            f"{', '.join(learns)}: loss.labels needs labels, and {sources} has "
            "none; put the images into one sub-folder a label, or leave the arm out"
        )
