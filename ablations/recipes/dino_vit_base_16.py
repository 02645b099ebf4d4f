"""DINO ViT-B/16 (85.8 M parameters) as published: 100 epochs of ImageNet-1k in batches of 1,024.

    torchrun --nproc-per-node 8 -m trainers dino_vit_base_16 --set data.source=/data/imagenet

Cost: not measured yet.
Expected on ImageNet-1k after 400 epochs: k-NN 76.1 %, linear 78.2 % (set steps accordingly).
For patches of 8 pixels: --set model.patch_size=8. For other data sets set steps, warm-ups and
frozen steps in proportion to the number of images; for other batches the learning rate too (0.0005
for 256).
"""

from ablations.recipes import dino_vit_small_16
from trainers.config import SIZES, override

RECIPE = override(
    dino_vit_small_16.RECIPE,
    {f"model.{name}": value for name, value in SIZES["base"].items()},
)
