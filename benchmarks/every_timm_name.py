"""Every ViT that timm knows by name, opened at depth 1, and images of it turned into a grid.

``python -m benchmarks.every_timm_name [PART]`` opens those whose names contain PART, without their
weights, and prints what was refused and why. Of those whose shape ours can have (`model.timm=`),
ours with their weights is compared with them. About six minutes on one core, 3 GB; nothing is
downloaded. Names whose depth cannot be changed are opened whole. Exit code 1 if anything but one
line came out, or features differ.
"""

import sys
import time
import warnings
from collections import Counter

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from trainers.adapters.pretrained import load_backbone
from trainers.adapters.timm_models import TimmBackbone, open_timm
from trainers.adapters.timm_shapes import shape_of
from trainers.errors import InputError


def names() -> list[str]:
    """The names in timm's modules of ViTs, or in those that import one of their classes."""
    kinds = (VisionTransformer, Eva)
    modules = {
        name.removeprefix("timm.models.")
        for name, module in list(sys.modules.items())
        if name.startswith("timm.models.")
        and any(
            isinstance(kind, type) and issubclass(kind, kinds) for kind in vars(module).values()
        )
    }
    return sorted({name for module in modules for name in timm.list_models(module=module)})


def opened(name: str) -> TimmBackbone:
    """The model `name`, with one block where it can have one, its grids checked.

    Raises InputError when it is refused.
    """
    try:
        backbone = open_timm(name, options={"depth": 1})
    except InputError as error:
        if "depth" not in str(error):
            raise
        backbone = open_timm(name)
    own = min(backbone.image_size)
    if backbone.image_size == (own, own):
        backbone.check_size(own)
    patch = max(backbone.patch_size)
    backbone.check_size(2 * patch)
    with torch.no_grad():
        backbone(torch.zeros(1, 3, 3 * patch, 3 * patch), observe=lambda layer: None)
    return backbone


def difference(backbone: TimmBackbone) -> float:
    """Largest difference between features of `backbone`, its parameters shaken, and those of our
    ViT with its weights, over the largest feature.

    Raises InputError when ours cannot have its shape.
    """
    shape = shape_of(backbone.model)
    generator = torch.Generator().manual_seed(0)
    side = min(backbone.image_size)
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        ours = load_backbone(backbone.model.state_dict(), image_size=side, shape=shape).backbone
        images = torch.randn(1, 3, side, side, generator=generator)
        expected = backbone(images).tokens
        return float((ours(images).tokens - expected).abs().max() / expected.abs().max())


def main() -> int:
    """Print a line for each name that is refused, and how many of each kind there are."""
    warnings.simplefilter("ignore")
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    counts: Counter[str] = Counter()
    started = time.monotonic()
    for name in names():
        if part not in name:
            continue
        outcome = ""
        try:
            backbone = opened(name)
            outcome = "opened"
            apart = difference(backbone)
            outcome = "opened, and can be trained" if apart < 1e-5 else "computes otherwise here"
        except InputError as error:
            if outcome != "opened":
                lines = "many lines" if "\n" in str(error) else "one line"
                outcome = f"refused in {lines}"
            print(f"{name}: {outcome}: {error}", flush=True)
        except Exception as error:  # noqa: BLE001  # what this looks for
            outcome = "traceback"
            print(f"{name}: {outcome}: {type(error).__name__}: {error}", flush=True)
        counts[outcome] += 1
    print(f"{sum(counts.values())} names in {time.monotonic() - started:.0f} s")
    for outcome, count in counts.most_common():
        print(f"{count:5d} {outcome}")
    wrong = ("traceback", "refused in many lines", "computes otherwise here")
    return int(any(counts[outcome] for outcome in wrong))


if __name__ == "__main__":
    sys.exit(main())
