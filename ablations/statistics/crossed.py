"""Held-out images as a second source of error, crossed with seeds.

Every seed is measured on the same images. An interval over seeds says what other seeds would show
on these images; one over both says what other seeds would show on other images of their kind.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ablations.statistics.effect_sizes import Interval
from ablations.statistics.flips import Floats


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """Where the error of a mean difference comes from, over seeds and images drawn at random.

    Variances are of one difference, in squared units of the metric, at least 0.
    """

    of_seeds: float
    """Variance between seeds, the same on every image."""
    of_images: float
    """Variance between images, the same at every seed."""
    of_both: float
    """What is left: a seed's own on an image."""
    share: float | None
    """Part of the squared error of the mean that images in common make, in [0, 1]; None if there is
    no error."""
    interval: Interval
    """Of the mean, for other seeds and other images, at level 1 - alpha."""


def crossed_error(differences: Floats, alpha: float) -> Crossed:
    """Components of variance of paired differences, [seeds, images], two or more of each.

    Difference = mean + seed + image + rest, all independent: the two-way random layout without
    repeats. Components are by the method of moments, those below 0 set to 0 (Henderson 1953); the
    degrees of freedom of the interval are those of Satterthwaite (1946).

    Raises:
        ValueError: if there are fewer than two seeds or images, or a difference is not finite.
    """
    seeds, images = differences.shape if differences.ndim == 2 else (0, 0)
    if min(seeds, images) < 2 or not np.isfinite(differences).all():
        raise ValueError(
            "differences must be finite numbers of two seeds or more (rows) on two images or more "
            f"(columns), got shape {differences.shape}"
        )
    mean = float(differences.mean())
    from_mean = differences - mean
    # Smaller ones are rounding.
    from_mean[np.abs(from_mean) <= 1e-12 * np.abs(differences).max()] = 0.0
    by_seed, by_image = from_mean.mean(axis=1), from_mean.mean(axis=0)
    rest = from_mean - by_seed[:, None] - by_image
    of_both = float((rest**2).sum()) / ((seeds - 1) * (images - 1))
    square_seeds = images * float(by_seed.var(ddof=1))
    square_images = seeds * float(by_image.var(ddof=1))
    in_common = max(0.0, square_images - of_both)
    # Squared error of the mean, times seeds * images: seeds alone, and what images add to it.
    error = square_seeds + in_common
    spread = square_seeds**2 / (seeds - 1)
    if in_common:
        spread += square_images**2 / (images - 1) + of_both**2 / ((seeds - 1) * (images - 1))
    freedom = error**2 / spread if spread else seeds - 1.0
    reach = -float(stdtrit(freedom, alpha / 2)) * (error / (seeds * images)) ** 0.5
    return Crossed(
        of_seeds=max(0.0, square_seeds - of_both) / images,
        of_images=in_common / seeds,
        of_both=of_both,
        share=in_common / error if error else None,
        interval=(mean - reach, mean + reach),
    )
