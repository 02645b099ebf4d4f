"""Images of several sizes through a vision transformer as one row of tokens.

Most of the work looks at one token alone: it is done once for all. Shapes as in
`trainers/model/vit.py`; T are the tokens of all images.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.grid import Grid
from trainers.model.attention import Rotation, Segments
from trainers.model.vit import Features, VisionTransformer
from trainers.randomness.forward_draws import ForwardDraws


def packed(
    backbone: VisionTransformer,
    groups: Sequence[tuple[Tensor, ForwardDraws]],
    *,
    only_first: bool = False,
) -> list[Features]:
    """The features of each group of images [B, 3, S, S] of one size, with their draws.

    `only_first` leaves out what the last block computes for patches alone.
    """
    embedded = [backbone.embed(images, draws) for images, draws in groups]
    segments = tuple((len(tokens), tokens.shape[1]) for tokens, _ in embedded)
    tokens_1TD = torch.cat([tokens.flatten(0, 1) for tokens, _ in embedded])[None]
    rotation = _rotation(backbone, segments, [grid for _, grid in embedded])
    windows = tuple(one for _, grid in embedded for one in backbone.windows(grid))
    keep = _keep([draws for _, draws in groups], segments)
    together = len(backbone.blocks) - only_first
    for number, block in enumerate(backbone.blocks[:together]):
        own = None if keep is None else keep[number]
        wanted = tokens_1TD.shape[1]
        tokens_1TD = backbone.through(
            block, tokens_1TD, rotation, own, wanted, number, segments=segments, windows=windows
        )
    sizes = [images * tokens for images, tokens in segments]
    found = []
    for part, segment, (_, draws), (_, grid) in zip(
        tokens_1TD.squeeze(0).split(sizes), segments, groups, embedded, strict=True
    ):
        tokens_BTD = part.unflatten(0, segment)
        if only_first:
            own = None if draws.keep is None else draws.keep[:, -1, :, None, None]
            first = backbone.config.cls + backbone.config.registers
            tokens_BTD = backbone.through(
                backbone.blocks[-1], tokens_BTD, backbone.rotation(grid), own, first, together,
                windows=backbone.windows(grid),
            )  # fmt: skip
        found.append(backbone.features(tokens_BTD, grid))
    return found


def _rotation(
    backbone: VisionTransformer, segments: Segments, grids: Sequence[Grid]
) -> Rotation | None:
    """Cosine and sine [T, K] of each token."""
    found = [backbone.rotation(grid) for grid in grids]
    cosines, sines = (
        [
            one[part].repeat(images, 1)
            for one, (images, _) in zip(found, segments, strict=True)
            if one is not None
        ]
        for part in (0, 1)
    )
    return (torch.cat(cosines), torch.cat(sines)) if cosines else None


def _keep(draws: Sequence[ForwardDraws], segments: Segments) -> Tensor | None:
    """Factors [depth, 1, 2, T, 1] of each block's branches for each token."""
    factors = [
        one.keep.repeat_interleave(tokens, dim=0)
        for one, (_, tokens) in zip(draws, segments, strict=True)
        if one.keep is not None
    ]
    return torch.cat(factors).permute(1, 2, 0)[:, None, :, :, None] if factors else None
