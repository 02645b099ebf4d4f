"""Which evaluations of a run keep maps of attention."""

from collections.abc import Sequence

from trainers.config.train import TrainConfig

MOST_MAP_STEPS = 6
"""Evaluations of a run that keep maps, at most."""


def map_steps(config: TrainConfig) -> list[int]:
    """The steps of those evaluations of a run in steps: the first, the last, and some between.

    The configuration alone says which, so that a run that goes on keeps those that it would have.
    """
    every = config.evaluation.every
    evaluations = range(-(-config.steps // every) + 1)
    return [min(one * every, config.steps) for one in evenly(evaluations, MOST_MAP_STEPS)]


def evenly(steps: Sequence[int], most: int) -> list[int]:
    """At most that many of `steps`, evenly among them, the first and the last too."""
    number = min(len(steps), most)
    return [steps[round(place * (len(steps) - 1) / max(number - 1, 1))] for place in range(number)]
