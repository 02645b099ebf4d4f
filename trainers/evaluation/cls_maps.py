"""What [CLS] attends to in a few held-out images: maps to show, of passes that are made anyway."""

from collections import defaultdict

import torch
from torch import Tensor
from torch.nn import functional

from trainers.config import TrainConfig
from trainers.data.augment import evaluation_crops
from trainers.data.image_set import ImageSet
from trainers.globality.causal import LEAST_RELIANCE
from trainers.globality.cls_maps import QueryMaps
from trainers.globality.instruments import of_first
from trainers.globality.rollout import rollout
from trainers.globality.tokens import Tokens
from trainers.model.vit import Layer, Observer
from trainers.system.world import World

MOST_HEADS = 16
"""Heads of the final block that have maps of their own."""

MOST_PIXELS = 96
"""A side of the images that are kept beside maps."""


class ClsMaps:
    """Maps of the first `evaluation.map_images` images, as this worker's passes see them.

    With `thorough`, rollout too. A network without [CLS] has none.
    """

    def __init__(self, tokens: Tokens, config: TrainConfig, *, thorough: bool) -> None:
        self.tokens, self.thorough = tokens, thorough
        self.images = config.evaluation.map_images
        self.memory = config.evaluation.attention_memory
        has_cls = tokens.has_cls
        self.blocks = config.model.depth * has_cls
        self.heads = min(config.model.heads, MOST_HEADS) * has_cls
        self.causal_images = 0
        self._attention = QueryMaps(0, tokens.first, memory=self.memory)
        self._passed: list[tuple[Tensor, Tensor]] = []
        self._allowed: Tensor | None = None
        self._parts: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        """by name, numbers of images [b] and their maps [..., b, N]"""

    def observers(self, done: int) -> list[Observer]:
        """For the teacher's pass over the images after the first `done`; `see` follows."""
        left = self.images - done
        if left <= 0 or not self.tokens.has_cls:
            return []
        return [of_first(left, self._attention, *([self._pass] if self.thorough else []))]

    def _pass(self, layer: Layer) -> None:
        self._passed.append((layer.queries, layer.keys))
        self._allowed = layer.allowed

    def see(self, done: int) -> None:
        """Take what was observed of the images after the first `done`."""
        if not (blocks := self._attention.kept):
            return
        numbers = torch.arange(done, done + len(blocks[0]))
        # A head that looks at no patch has no map.
        attention = torch.stack([maps_BHN.nanmean(1) for maps_BHN in blocks])
        self._parts["attention"].append((numbers, attention))
        self._parts["heads"].append((numbers, blocks[-1][:, : self.heads].transpose(0, 1)))
        if self.thorough:
            asked = torch.zeros(1, dtype=torch.int64, device=self._passed[0][0].device)
            rows_BT = rollout(self._passed, asked, self.memory, self._allowed)[:, 0]
            rows_BN = rows_BT[:, self.tokens.first :]
            self._parts["rollout"].append((numbers, rows_BN / rows_BN.sum(-1, keepdim=True)))
        self._attention.kept, self._passed = [], []

    def see_influence(self, causal_images: int, numbers: Tensor, influence_BN: Tensor) -> None:
        """Take how much each patch changes [CLS], of images of those numbers, int64 [B].

        All workers have measured it of the first `causal_images`.
        """
        if not self.tokens.has_cls:
            return
        self.causal_images = causal_images
        some = numbers < self.images
        strengths_BN = influence_BN[some.to(influence_BN.device)]
        reliance = strengths_BN.sum(-1, keepdim=True)
        known = torch.where(reliance < LEAST_RELIANCE, torch.nan, reliance)
        self._parts["influence"].append((numbers[some], strengths_BN / known))

    def of_all(self, held_out: int, world: World) -> dict[str, Tensor]:
        """What all workers of `world`, every one of which must ask, saw of that many images.

        On the CPU, float32: `attention` of each block, mean over heads, [L, b, rows, columns],
        `heads` of the final block, [H, b, rows, columns]; where they are known, `rollout` and
        `influence`, [b, rows, columns], the latter of as many images as it was measured on. Each
        map sums to 1 or is NaN. Without a [CLS], L and H are 0.
        """
        shown = min(self.images, held_out)
        sizes: dict[str, tuple[int, ...]] = {
            "attention": (self.blocks, shown),
            "heads": (self.heads, shown),
        }
        if self.thorough and self.tokens.has_cls:
            sizes["rollout"] = (shown,)
        if self.causal_images:
            sizes["influence"] = (min(shown, self.causal_images),)
        found = {}
        for name, size in sizes.items():
            whole = torch.zeros(*size, self.tokens.patches, device=world.device)
            for numbers, maps in self._parts[name]:
                whole[..., numbers.to(whole.device), :] = maps.to(whole.device)
            # Each image was seen by one worker.
            found[name] = world.sum(whole).cpu().unflatten(-1, self.tokens.grid)
        return found


def shown_pixels(images: ImageSet, places: Tensor, size: int) -> Tensor:
    """Evaluation crops of `size` pixels of the images at `places`, to be looked at.

    uint8 [b, S, S, 3], at most MOST_PIXELS a side.
    """
    return small(evaluation_crops(images.pixels(places), images.aspect(places), size).cpu())


def small(crops: Tensor) -> Tensor:
    """uint8 [b, 3, S, S], to be looked at: [b, S, S, 3], at most MOST_PIXELS a side."""
    if crops.shape[-1] > MOST_PIXELS:
        smaller = functional.interpolate(
            crops.float(), size=MOST_PIXELS, mode="bilinear", antialias=True
        )
        crops = smaller.round().clamp(0, 255).to(torch.uint8)
    return crops.movedim(1, -1).contiguous()
