"""A very small DINO for the 3,008 embedded crops of two photographs: 8×8 patches, three blocks.

    dinolab train photographs_tiny

Cost and k-NN: see LOG.md. The schedule and the head are those of `digits_tiny`; colours are
jittered as in DINO, but not turned grey, and crops are flipped.
"""

from ablations.recipes.digits_tiny import RECIPE as DIGITS
from trainers.config import override

RECIPE = override(
    DIGITS,
    {
        "data.source": "photographs",
        "data.image_size": 32,
        "augment.global_size": 32,
        "augment.local_size": 16,
        "augment.flip": 0.5,
        "augment.jitter": 0.8,
    },
)
