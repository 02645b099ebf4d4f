"""DINO ViT-S/16 in two stages: 75 of 100 epochs at half the crop sides, 112 and 48 pixels.

    torchrun --nproc-per-node 8 -m trainers dino_vit_small_16_two_stage \\
        --set data.source=/data/imagenet

Cost: not measured yet; 2.25 times fewer operations than `dino_vit_small_16`, by counting.
Expected on ImageNet-1k: not known. Zhang et al. 2025 (FastDINOv2) ran the two stages with DINOv2;
docs/recipes.md has what differs.
"""

from ablations.recipes import dino_vit_small_16
from trainers.config import override

RECIPE = override(dino_vit_small_16.RECIPE, {"augment.small_share": 0.75})
