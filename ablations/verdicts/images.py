"""How much of a hypothesis's error is the choice of held-out images; it decides no label."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ablations.hypothesis import Hypothesis
from ablations.statistics.crossed import crossed_error
from ablations.statistics.flips import Floats
from ablations.verdicts.evidence import Run, run_of


def measured_by_image(hypotheses: Mapping[str, Hypothesis], *, at_start: bool = False) -> set[str]:
    """Metrics whose values of each image `image_error` looks at: at the last step, or at step 0.

    Only of a metric has an image a value.
    """
    return {
        hypothesis.metric_of(arm)
        for hypothesis in hypotheses.values()
        if hypothesis.metric and (hypothesis.minus_start or not at_start)
        for arm in hypothesis.weights
    }


def image_error(
    hypothesis: Hypothesis,
    runs: Mapping[tuple[str, int], Run],
    seeds: Sequence[int],
    *,
    at_looks: bool = False,
) -> dict[str, Any] | None:
    """Fields of Crossed as JSON types, and `images`, their number; None where it is not measured.

    Differences are of the same seed on the same image, of changes since step 0 where the end point
    is one. The interval has the level of the one that
    decides, 1 - 2 alpha for `holds`, else 1 - alpha; after looks, at which that is another, it is
    None.
    """
    differences = _differences(hypothesis, runs, seeds)
    if differences is None or min(differences.shape) < 2 or not np.isfinite(differences).all():
        return None
    alpha = hypothesis.alpha * (2 if hypothesis.direction == "holds" else 1)
    found = asdict(crossed_error(differences, alpha))
    interval = None if at_looks else list(found["interval"])
    return {"images": differences.shape[1], **found, "interval": interval}


def _differences(
    hypothesis: Hypothesis, runs: Mapping[tuple[str, int], Run], seeds: Sequence[int]
) -> Floats | None:
    """Of each seed on each image, [seeds, images]; None if a run has not the same images."""
    if not hypothesis.metric:
        return None
    rows, names = [], None
    for seed in seeds:
        terms = []
        for arm, weight in hypothesis.weights.items():
            run, metric = run_of(runs, arm, seed), hypothesis.metric_of(arm)
            parts = [(weight, run.by_image)]
            if hypothesis.minus_start:
                parts.append((-weight, run.by_image_at_start))
            for factor, kept in parts:
                if kept is None or metric not in kept.values:
                    return None
                values = kept.values[metric]
                images = kept.images[: len(values)]
                names = images if names is None else names
                if not np.array_equal(images, names):
                    return None
                terms.append(factor * values.astype(np.float64))
        rows.append(np.sum(terms, axis=0))
    return np.stack(rows) if rows else None
