"""DINO ViT-T/16 (5.5 M parameters) with the settings of the authors' vanilla ViT-S/16 run.

    torchrun --nproc-per-node 8 -m trainers dino_vit_tiny_16 --set data.source=/data/imagenet

Cost: not measured yet.
No number is published for this size.
"""

from ablations.recipes import dino_vit_small_16
from trainers.config import SIZES, override

RECIPE = override(
    dino_vit_small_16.RECIPE,
    {f"model.{name}": value for name, value in SIZES["tiny"].items()},
)
