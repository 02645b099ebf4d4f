"""What is trained in a contest: one model, crops and batch, the same for every contender."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A vision transformer with its head, the crops of an image, and a batch."""

    name: str
    width: int
    depth: int
    heads: int
    patch: int
    global_size: int
    local_size: int
    local_crops: int
    batch: int
    hidden: int = 2048
    bottleneck: int = 256
    prototypes: int = 4096
    global_crops: int = 2
    mlp_ratio: int = 4
    precision: str = "float32"
    """of our matrix products; the peers have their own: float32 on a CPU, fp16 on a GPU"""

    def crops(self) -> tuple[Tensor, Tensor]:
        """Random uint8 crops, all views of a kind one after the other; always the same."""
        generator = torch.Generator().manual_seed(0)
        shapes = (
            (self.global_crops * self.batch, 3, self.global_size, self.global_size),
            (self.local_crops * self.batch, 3, self.local_size, self.local_size),
        )
        whole, part = (
            torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in shapes
        )
        return whole, part

    def operations_an_image(self) -> float:
        """Floating-point operations of one image's update in the standard model.

        The student goes forward and backward (twice the operations) over all crops, the teacher
        forward over the global ones; a multiplication and an addition count as two. Only matrix
        products are counted.
        """
        whole = self._operations_a_crop(self.global_size)
        part = self._operations_a_crop(self.local_size)
        student = self.global_crops * whole + self.local_crops * part
        return 3 * student + self.global_crops * whole

    def _operations_a_crop(self, size: int) -> float:
        patches = (size // self.patch) ** 2
        tokens, width = patches + 1, self.width
        embedding = patches * width * 3 * self.patch**2
        products = tokens * width**2 * (4 + 2 * self.mlp_ratio)
        attention = 2 * tokens**2 * width
        head = width * self.hidden + self.hidden**2 + self.hidden * self.bottleneck
        head += self.bottleneck * self.prototypes
        return 2 * (embedding + self.depth * (products + attention) + head)

    def matrix_shapes(self) -> list[tuple[int, int, int]]:
        """Rows, inner and columns of the products of one block forward, both kinds of crops."""
        rows = [
            count * self.batch * ((size // self.patch) ** 2 + 1)
            for count, size in (
                (self.global_crops, self.global_size),
                (self.local_crops, self.local_size),
            )
        ]
        width, hidden = self.width, self.width * self.mlp_ratio
        each = [(width, 3 * width), (width, width), (width, hidden), (hidden, width)]
        return [(row, inner, columns) for row in rows if row for inner, columns in each]


VIT_TINY = Setting(
    name="ViT-Ti/16",
    width=192,
    depth=12,
    heads=3,
    patch=16,
    global_size=224,
    local_size=96,
    local_crops=8,
    batch=16,
)
VIT_SMALL = Setting(
    name="ViT-S/16",
    width=384,
    depth=12,
    heads=6,
    patch=16,
    global_size=224,
    local_size=96,
    local_crops=8,
    batch=64,
    prototypes=65536,
    precision="bfloat16",
)
SMALL = Setting(
    name="width 64, depth 3",
    width=64,
    depth=3,
    heads=4,
    patch=4,
    global_size=16,
    local_size=8,
    local_crops=4,
    batch=64,
    hidden=128,
    bottleneck=64,
    prototypes=256,
)
LEAST = Setting(
    name="least",
    width=16,
    depth=2,
    heads=2,
    patch=4,
    global_size=16,
    local_size=8,
    local_crops=2,
    batch=4,
    hidden=32,
    bottleneck=16,
    prototypes=32,
)
SETTINGS = {"vit_tiny": VIT_TINY, "vit_small": VIT_SMALL, "small": SMALL, "least": LEAST}


def make_ceiling(setting: Setting, device: str) -> "Ceiling":
    """The ceiling as a contender of a contest."""
    return Ceiling(setting, torch.device(device))


class Ceiling:
    """Plain matrix products of a setting's shapes, into memory that is already there."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        kind = getattr(torch, setting.precision)
        self.shapes = setting.matrix_shapes()
        self.parts = [
            (
                torch.randn(rows, inner, device=device, dtype=kind),
                torch.randn(columns, inner, device=device, dtype=kind).t(),
                torch.empty(rows, columns, device=device, dtype=kind),
            )
            for rows, inner, columns in self.shapes
        ]

    def __call__(self, steps: int) -> float:
        """All products `steps` times; returns the floating-point operations done."""
        for _ in range(steps):
            for left, right, out in self.parts:
                torch.mm(left, right, out=out)
        return steps * sum(2.0 * rows * inner * columns for rows, inner, columns in self.shapes)
