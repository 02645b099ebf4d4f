"""DINO ViT-B/16 (85.8 M parameters), the run behind the published weights: 400 epochs, batch 1,024.

    torchrun --nproc-per-node 8 -m trainers dino_vit_base_16 --set data.source=/data/imagenet

Cost: not measured yet.
Expected on ImageNet-1k: k-NN 76.1 %, linear 78.2 %. docs/recipes.md has what differs from that run.
"""

from ablations.recipes import dino_vit_small_16_800
from trainers.config import SIZES, override

RECIPE = override(
    dino_vit_small_16_800.RECIPE,
    {
        **{f"model.{name}": value for name, value in SIZES["base"].items()},
        "steps": "400 epochs",
        "head.norm_last_layer": True,
        "targets.temperature_warmup_steps": "50 epochs",
        "optimizer.learning_rate": "0.00075 per 256",
        "optimizer.learning_rate_end": 2e-6,
        "optimizer.freeze_last_layer_steps": "3 epochs",
        "optimizer.clip_norm": 0.3,
        "evaluation.every": "25 epochs",
    },
)
