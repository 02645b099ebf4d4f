"""DINO ViT-S/16 (21.7 M parameters), the run behind the published weights: 800 epochs, batch 1,024.

    torchrun --nproc-per-node 8 -m trainers dino_vit_small_16_800 --set data.source=/data/imagenet

Cost: not measured yet; some ten times that of `dino_vit_small_16`.
Expected on ImageNet-1k: k-NN 74.5 %, linear 77.0 %. docs/recipes.md has what differs from that run.
"""

from ablations.recipes import dino_vit_small_16
from trainers.config import override

RECIPE = override(
    dino_vit_small_16.RECIPE,
    {
        "batch_size": 1024,
        "steps": "800 epochs",
        "augment.local_crops": 10,
        "augment.global_scale": [0.25, 1.0],
        "augment.local_scale": [0.05, 0.25],
        "head.norm_last_layer": False,
        "targets.temperature": 0.07,
        "targets.temperature_warmup_steps": "30 epochs",
        "optimizer.learning_rate_end": 1e-5,
        # The run did not clip: no gradient is as long as this.
        "optimizer.clip_norm": 1e6,
        "compute.precision": "fp32",
        "evaluation.every": "50 epochs",
    },
)
