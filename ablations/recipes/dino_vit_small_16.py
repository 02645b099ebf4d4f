"""DINO ViT-S/16 (21.7 M parameters), the authors' vanilla run: 100 epochs in batches of 512.

    torchrun --nproc-per-node 8 -m trainers dino_vit_small_16 --set data.source=/data/imagenet

Cost: not measured yet; the authors took 1.75 days of 8 V100.
Expected on ImageNet-1k: k-NN 69.3 %, linear 74.0 %. docs/recipes.md has what differs from that run.
Lengths are in epochs and the rate is per 256 images, so other data sets and batches need no more
than `data.source` and `batch_size`. For patches of 8 pixels: --set model.patch_size=8.
"""

from trainers.config import SIZES, TrainConfig, override

RECIPE = override(
    TrainConfig(),
    {
        **{f"model.{name}": value for name, value in SIZES["small"].items()},
        "model.patch_size": 16,
        "model.drop_path": 0.1,
        "model.interpolation_offset": 0.1,
        "data.image_size": 0,
        "augment.global_size": 224,
        "augment.local_size": 96,
        "augment.local_crops": 8,
        "augment.global_scale": [0.4, 1.0],
        "augment.local_scale": [0.05, 0.4],
        "head.hidden": 2048,
        "head.bottleneck": 256,
        "head.prototypes": 65536,
        "batch_size": 512,
        "steps": "100 epochs",
        "log_every": 100,
        "checkpoint_every": "1 epoch",
        "optimizer.learning_rate": "0.0005 per 256",
        "optimizer.warmup_steps": "10 epochs",
        "optimizer.freeze_last_layer_steps": "1 epoch",
        "compute.precision": "bf16",
        "evaluation.every": "10 epochs",
        "evaluation.globality_layers": [9, 10, 11],
    },
)
