"""DINO ViT-B/16 (85.8 M parameters) as published: 100 epochs of ImageNet-1k in batches of 1,024.

    torchrun --nproc-per-node 8 -m trainers dino_vit_base_16 --set data.source=/data/imagenet

Cost: not measured yet.
Expected on ImageNet-1k after 400 epochs: k-NN 76.1 %, linear 78.2 % (set steps accordingly).
For patches of 8 pixels: --set model.patch_size=8. For other data sets set steps, warm-ups and
frozen steps in proportion to the number of images; for other batches the learning rate too (0.0005
for 256).
"""

from trainers.config import SIZES, TrainConfig, override

RECIPE = override(
    TrainConfig(),
    {
        **{f"model.{name}": value for name, value in SIZES["base"].items()},
        "model.patch_size": 16,
        "model.drop_path": 0.1,
        "model.interpolation_offset": 0.1,
        "data.image_size": 256,
        "augment.global_size": 224,
        "augment.local_size": 96,
        "augment.local_crops": 8,
        "augment.global_scale": [0.4, 1.0],
        "augment.local_scale": [0.05, 0.4],
        "head.hidden": 2048,
        "head.bottleneck": 256,
        "head.prototypes": 65536,
        "batch_size": 1024,
        "steps": 125100,
        "log_every": 100,
        "checkpoint_every": 1251,
        "optimizer.learning_rate": 0.002,
        "optimizer.warmup_steps": 12510,
        "optimizer.freeze_last_layer_steps": 1251,
        "compute.precision": "bf16",
        "evaluation.every": 12510,
        "evaluation.globality_layers": [9, 10, 11],
    },
)
