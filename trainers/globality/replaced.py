"""What the output needs of what [CLS] and registers hold: it is replaced by what others hold.

After every block but the last, by what such tokens hold in other images; never by zeros, which no
block has ever seen and which overstate (Parodi et al. 2026, arXiv 2604.14433). Attention to the
tokens stays possible, so what is lost is their content and not their place.
"""

import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainers.globality.instruments import Observable
from trainers.globality.tokens import Tokens
from trainers.model.vit import Features, Layer
from trainers.randomness.forward_draws import ForwardDraws

GROUP = "replaced"

IMAGES = 32
"""Images that are measured, the first ones."""

LEAST_APART = 1e-6
"""Mean distance, 1 - cosine, of outputs of different images: of less, no share can be told."""

_PLACES = 64
"""Places whose cosines are made together."""

KINDS = {"cls": "[CLS]", "register": "registers"}
"""Tokens that are replaced."""

STAND_INS = {"mean": "the mean over other images", "other": "another image's"}
"""What each of them is replaced with."""

OUTPUTS = {"cls": "[CLS]", "patch": "patches"}

DESCRIPTIONS = {
    f"{GROUP}/{kind}/{output}_{measure}_{stand_in}": text.format(
        output=OUTPUTS[output], kind=KINDS[kind], stand_in=STAND_INS[stand_in]
    )
    for kind in KINDS
    for stand_in in STAND_INS
    for output in OUTPUTS
    for measure, text in {
        "kept": "what {output} of the output keep of their image with {kind} replaced by "
        "{stand_in} after every block but the last; 1 all, 0 as much as outputs of other images",
        "found": "images whose {output} of the output, with {kind} replaced by {stand_in}, are "
        "nearest to those undisturbed of the same image, share",
    }.items()
}


class Replaced:
    """An observer of layers, which keeps what tokens hold after each block; then `metrics`."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.held: dict[int, list[Tensor]] = defaultdict(list)
        """by number of the block, of some images each [b, first, D]"""
        self.seen: list[tuple[Tensor, ForwardDraws]] = []
        self.outputs: list[Tensor] = []
        """[b, T, D], undisturbed"""

    @property
    def kinds(self) -> dict[str, slice]:
        """The places of each kind of token that there is."""
        found = {
            "cls": slice(0, int(self.tokens.has_cls)),
            "register": slice(int(self.tokens.has_cls), self.tokens.first),
        }
        return {kind: places for kind, places in found.items() if places.stop > places.start}

    def passes(self, images: int, depth: int) -> int:
        """How many images' passes `metrics` takes when `images` are measured, of `depth` blocks."""
        if images < 2 or depth < 2:
            return 0
        return len(self.kinds) * len(STAND_INS) * min(IMAGES, images)

    def __call__(self, layer: Layer) -> None:
        """Take one layer of a batch."""
        if not self.kinds:
            return
        held = self.held[layer.number]
        if (left := IMAGES - sum(map(len, held))) > 0:
            held.append(layer.tokens[:left, : self.tokens.first].clone())

    def see(self, crops: Tensor, draws: ForwardDraws, features: Features) -> None:
        """Take the images [B, 3, S, S] whose layers were observed, and what came out."""
        left = IMAGES - sum(map(len, self.outputs))
        if self.kinds and left > 0:
            rows = torch.arange(min(left, len(crops)), device=crops.device)
            self.seen.append((crops[rows], draws.rows(rows)))
            self.outputs.append(features.tokens[rows].clone())

    @torch.no_grad()
    def metrics(self, network: Observable, blocks: Sequence[nn.Module]) -> dict[str, float]:
        """By name, of DESCRIPTIONS; `network` has the `blocks`.

        Those of other images (the one before it, or the mean) are those that were seen,
        undisturbed, of the same place after the same block. Nothing of fewer than two images or
        blocks; what is not finite is left out.
        """
        held = [torch.cat(self.held[number]) for number in sorted(self.held)][:-1]
        if not held or len(held[0]) < 2:
            return {}
        own = torch.cat(self.outputs)
        self.outputs = [own]
        apart = {
            output: 1 - mean_cosines(own[:, places], own[:, places])
            for output, places in self._outputs.items()
        }
        found = {}
        for kind, places in self.kinds.items():
            for stand_in in STAND_INS:
                values = [_of_others(tokens[:, places], stand_in) for tokens in held]
                moved = self._moved(network, blocks, places, values, own)
                for output, distances in moved.items():
                    for measure, value in compared(apart[output], distances).items():
                        found[f"{GROUP}/{kind}/{output}_{measure}_{stand_in}"] = value
        return found

    @property
    def _outputs(self) -> dict[str, slice]:
        """The places of each kind of token of the output that there is."""
        cls = {"cls": slice(0, 1)} if self.tokens.has_cls else {}
        return cls | {"patch": slice(self.tokens.first, None)}

    def _moved(
        self,
        network: Observable,
        blocks: Sequence[nn.Module],
        places: slice,
        values: list[Tensor],
        own: Tensor,
    ) -> dict[str, Tensor]:
        """1 - cosines [n, n] of outputs and the undisturbed ones, `own` [n, T, D], by output.

        With tokens at `places` as in `values`, a block each [n, k, D].
        """
        rows_of: dict[str, list[Tensor]] = defaultdict(list)
        start = 0
        for crops, draws in self.seen:
            rows = slice(start, start := start + len(crops))
            with _replacing(blocks, places, [value[rows] for value in values]):
                changed = network(crops, draws).tokens
            for output, of in self._outputs.items():
                rows_of[output].append(1 - mean_cosines(changed[:, of], own[:, of]))
        return {output: torch.cat(parts) for output, parts in rows_of.items()}


def _of_others(tokens: Tensor, stand_in: str) -> Tensor:
    """What stands in for tokens [n, k, D] of each image, from those of the others."""
    if stand_in == "other":
        return tokens.roll(1, dims=0)
    return (tokens.sum(0) - tokens) / (len(tokens) - 1)


def compared(apart: Tensor, moved: Tensor) -> dict[str, float]:
    """What changed outputs keep of their image, and who is found.

    From distances [n, n], 1 - cosine, of undisturbed outputs of each two images, and of changed
    ones, the rows, to undisturbed ones. Nothing where outputs of different images are alike, or
    something is not finite.
    """
    images = len(apart)
    between = (apart.sum() - apart.trace()) / (images * (images - 1))
    if not (moved.isfinite().all() and between > LEAST_APART):
        return {}
    right = moved.argmin(1) == torch.arange(images, device=moved.device)
    return {
        "kept": float(1 - moved.diagonal().mean() / between),
        "found": float(right.double().mean()),
    }


def mean_cosines(one: Tensor, other: Tensor) -> Tensor:
    """Cosines of tokens [n, P, D] and [m, P, D] of each two images, mean over places: [n, m]."""
    total = one.new_zeros(len(one), len(other), dtype=torch.float64)
    # All places at once would be several copies of all tokens, in float64.
    for parts in zip(one.split(_PLACES, dim=1), other.split(_PLACES, dim=1), strict=True):
        unit, others = (functional.normalize(each.double(), dim=-1).flatten(1) for each in parts)
        total += unit @ others.T
    return total / one.shape[1]


@contextmanager
def _replacing(blocks: Sequence[nn.Module], places: slice, values: list[Tensor]) -> Iterator[None]:
    """Inside, tokens at `places` are `values` after each block that has some."""

    def put(stand_in: Tensor, _: Any, __: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, places] = stand_in
        return output

    with ExitStack() as hooks:
        for block, value in zip(blocks, values, strict=False):
            hooks.enter_context(block.register_forward_hook(functools.partial(put, value)))
        yield
