"""A small DINO for photographs without colour: its [CLS] learns what pixels do not tell.

    dinolab train equalised_tiny

Cost: about 2 minutes on one CPU thread. Expected: k-NN on [CLS] 0.58 to 0.63, from 0.29 to 0.36 at
step 0, where pixels are at 0.21 and mean colours and histograms at 0.09, which is chance (LOG.md).
It is `photographs_tiny` on an 8×8 grid of patches, twice as long, and without jitter, since grey
images have no colour.
"""

from ablations.recipes import photographs_tiny
from trainers.config import override

RECIPE = override(
    photographs_tiny.RECIPE,
    {
        "data.source": "photographs_equalised",
        "augment.global_size": 48,
        "augment.local_size": 24,
        "augment.jitter": 0.0,
        "augment.grayscale": 0.0,
        "model.patch_size": 6,
        "steps": 1000,
        "evaluation.every": 500,
    },
)
