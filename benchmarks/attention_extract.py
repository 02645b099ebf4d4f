"""The peer of `benchmarks.measure`: timm's AttentionExtract, and NumPy on the maps it returns.

What someone writes who has neither: all maps of a batch are there, and each statistic is a line of
vectorised NumPy. The same statistics as ours but for those of tokens (outliers, norms, cosine),
which cost next to nothing, in float32.
"""

from collections import defaultdict

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.contest import Advance
from trainers.system.allocator import keep_freed_memory

NAME = "AttentionExtract + NumPy"

Array = NDArray[np.float32]


def make_measure(name: str, batch: int, device: str = "cpu") -> Advance:
    """Measures `batch` images a step with the timm model `name`; returns the images done."""
    from benchmarks.measure import pictures

    keep_freed_memory()
    measure = Measure(name, device)
    images = pictures(measure.side, batch, device)

    def advance(steps: int) -> float:
        for _ in range(steps):
            measure(images)
        return float(steps * batch)

    return advance


class Measure:
    """Sums of statistics by measure and layer, over the batches it is called with."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        import timm
        from timm.layers import set_fused_attn
        from timm.utils import AttentionExtract

        set_fused_attn(False)
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=0)
        self.side = model.patch_embed.img_size[0]
        self.grid = model.patch_embed.grid_size[0]
        self.extract = AttentionExtract(model.to(device), method="fx")
        self.images = 0
        self.values: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.sums: dict[tuple[str, int], Array | float] = defaultdict(float)
        line = np.arange(self.grid, dtype=np.float32)
        self.places = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
        apart = self.places[:, None] - self.places[None]
        self.distances = np.sqrt((apart**2).sum(-1))

    def __call__(self, images: torch.Tensor) -> None:
        """Measure a batch."""
        self.images += len(images)
        with torch.inference_mode():
            found = self.extract(images)
        for layer, attention in enumerate(found.values(), start=1):
            self._layer(layer, attention.cpu().numpy())

    def _layer(self, layer: int, attention: Array) -> None:
        tokens = attention.shape[-1]
        patches = tokens - 1
        self._keep("cls/self_mass", layer, _beyond(attention[:, :, 0, 0], tokens))
        self._maps("cls", layer, attention[:, :, 0, 1:], own=False)
        rows = attention[:, :, 1:]
        own = np.diagonal(rows[..., 1:], axis1=2, axis2=3).copy()
        self._keep("patch/self_mass", layer, _beyond(own, tokens))
        self._keep("patch/cls_mass", layer, _beyond(rows[..., 0], tokens))
        all_patches = rows[..., 1:] / rows[..., 1:].sum(-1, keepdims=True)
        baseline = self.distances.mean(0)
        locality = 1 - (all_patches * self.distances).sum((2, 3)) / (
            (all_patches @ baseline).sum(2)
        )
        self._keep("patch/locality", layer, locality)
        shared = all_patches.mean(2)
        of_keys = _entropy(shared)
        information = of_keys - _entropy(all_patches).mean(2)
        self._keep(
            "patch/mutual_information", layer, information / np.sqrt(of_keys * np.log(patches))
        )
        received = attention.sum(2)
        self._keep(
            "sink/concentration",
            layer,
            np.log(received.max(-1) / np.median(received, axis=-1)),
        )
        others = rows[..., 1:].copy()
        diagonal = np.arange(patches)
        others[:, :, diagonal, diagonal] = 0
        self._maps("patch", layer, others, own=True)

    def _maps(self, token: str, layer: int, weights: Array, *, own: bool) -> None:
        patches = weights.shape[-1]
        counted = patches - own
        mass = weights.sum(-1, keepdims=True)
        maps = weights / mass
        self._keep(f"{token}/patch_mass", layer, mass)
        entropies = _entropy(maps)
        self._keep(f"{token}/entropy", layer, entropies / np.log(counted))
        squares = (self.places**2).sum(-1)
        centre = maps @ self.places
        spread = maps @ squares - (centre**2).sum(-1)
        if own:
            inside = (self.grid**2 - 1) / 6
            away = ((self.places - (self.grid - 1) / 2) ** 2).sum(-1)
            uniform = (patches * inside - away * patches / counted) / counted
        else:
            uniform = np.float32((self.grid**2 - 1) / 6)
        self._keep(f"{token}/gyration", layer, np.sqrt(np.maximum(spread, 0) / uniform))
        ordered = np.sort(maps, axis=-1)[..., ::-1]
        reached = ordered.cumsum(-1)
        for name, share in (("coverage", 0.6), ("coverage_90", 0.9)):
            first = (reached < share).sum(-1, keepdims=True)
            beyond = np.take_along_axis(reached, first, -1) - share
            number = first + 1 - beyond / np.take_along_axis(ordered, first, -1)
            self._keep(f"{token}/{name}", layer, number / (share * counted))
        uniform = self.distances.mean(-1)
        if own:
            uniform = (self.distances.sum(-1) - self.distances) / counted
        from_each = maps @ self.distances / uniform
        self._keep(f"{token}/nearest_distance", layer, from_each.min(-1))
        if own:
            mean = self.distances.sum(-1) / counted
            self._keep(f"{token}/distance", layer, (maps * self.distances).sum(-1) / mean)
        self.sums[token, layer] += maps.sum(0, dtype=np.float64)
        self.sums[f"{token} nats", layer] += entropies.sum(0, dtype=np.float64)

    def _keep(self, name: str, layer: int, values: Array) -> None:
        self.values[name, layer].append(float(values.mean(dtype=np.float64)))

    def means(self, layers: tuple[int, ...]) -> dict[str, float]:
        """Of each measure the mean over batches, heads, queries and layers."""
        names = {name for name, _ in self.values}
        found = {
            name: float(np.mean([np.mean(self.values[name, layer]) for layer in layers]))
            for name in names
        }
        for token in ("cls", "patch"):
            both = np.mean([self._bias_and_content(token, layer) for layer in layers], axis=0)
            found[f"{token}/positional_bias"], found[f"{token}/content_dependence"] = both
        return found

    def _bias_and_content(self, token: str, layer: int) -> tuple[float, float]:
        """Positional bias and content dependence, means over heads and queries."""
        maps = self.sums[token, layer] / self.images
        nats = self.sums[f"{token} nats", layer] / self.images
        most = np.log(maps.shape[-1] - (token == "patch"))
        of_mean = _entropy(maps)
        return float(np.mean(1 - of_mean / most)), float(np.mean((of_mean - nats) / most))


def _entropy(maps: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(maps > 0, maps * np.log(maps), 0).sum(-1)


def _beyond(mass: Array, tokens: int) -> Array:
    return (mass - 1 / tokens) / (1 - 1 / tokens)
