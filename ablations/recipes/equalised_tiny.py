"""A small DINO for photographs without colour: learns what pixels do not tell, in a minute or two.

dinolab train equalised_tiny
"""

from ablations.recipes import photographs_tiny
from trainers.config import override

RECIPE = override(
    photographs_tiny.RECIPE,
    {
        "data.source": "photographs_equalised",
        "augment.global_size": 48,
        "augment.local_size": 24,
        "model.patch_size": 6,
        "steps": 1000,
        "evaluation.every": 500,
    },
)
