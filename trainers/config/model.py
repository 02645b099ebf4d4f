"""Knobs of the networks: the vision transformer and the projection head."""

import types
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import model_validator

from trainers.config.knob import DINO, OURS, VIT, Coordinate, Knobs, Place, Switch, knob
from trainers.config.pin import pin_problem


class ModelConfig(Knobs):
    """The vision transformer (Dosovitskiy et al. 2021)."""

    weights: str = knob(
        "",
        "published weights that the backbone starts from, in student and teacher: `timm:NAME`, a "
        "folder of timm's or Hugging Face's, a file, or a run; empty: by chance",
        source=OURS,
    )
    patch_size: int = knob(4, "side of a patch", unit="pixels", source=VIT, ge=1, le=1024)
    width: int = knob(48, "features of a token", source=VIT, ge=8, le=20_000)
    depth: int = knob(3, "transformer blocks", source=VIT, ge=1, le=1000)
    heads: int = knob(3, "attention heads; divides width", source=VIT, ge=1, le=1000)
    mlp: Literal["gelu", "swiglu"] = knob(
        "gelu",
        "the MLP between its matrices: GELU, or a gate by SiLU with a third matrix",
        source=f"{VIT}; Shazeer 2020; Oquab et al. 2024 (DINOv2)",
    )
    mlp_ratio: float = knob(
        4.0,
        "hidden features of the MLP over width; a swiglu has two thirds of them, rounded up to 8",
        source=VIT,
        gt=0,
        le=100,
    )
    layer_scale: float = knob(
        0.0,
        "first factor of every feature that attention and MLP add, learned then; 0: no factors",
        source="Touvron et al. 2021 (CaiT), eq. 4; DINOv2's code: 1e-5",
        ge=0,
        le=100,
    )
    norm_epsilon: float = knob(
        1e-6,
        "what layer norms add to the variance of a token's features",
        source=f"{DINO}; DINOv3: 1e-5",
        gt=0,
        le=1,
    )
    drop_path: float = knob(
        0.0,
        "share of images that skip the last block's branches in training; rises from 0 by depth",
        source="Huang et al. 2016; " + DINO,
        ge=0,
        lt=1,
    )
    initial_deviation: float = knob(
        0.02,
        "standard deviation of initial matrices, tokens and positions",
        source=DINO,
        gt=0,
    )
    patch_position: Literal["learned", "sincos", "rotary", "none"] = knob(
        "learned",
        "position of patches: learned and added, fixed sine-cosine and added, rotated into "
        "queries and keys, or none",
        source=f"{VIT}; MoCo v3; DINOv3",
    )
    interpolation_offset: float = knob(
        0.0,
        "added to a crop's size when learned positions are interpolated for it; DINO's code: 0.1",
        unit="patches",
        source="facebookresearch/dino, issue 8",
        ge=0,
        lt=1,
    )
    rotary_base: float = knob(
        100.0, "longest period over the shortest, rotary positions only", source="DINOv3", gt=1
    )
    rotary_origin: Literal["centre", "corner"] = knob(
        "centre",
        "where coordinate 0 lies: an unrotated token attends as if it stood there",
        source="Siméoni et al. 2025 (DINOv3)",
    )
    cls: Switch = knob(True, "whether there is a [CLS] token", source=VIT)
    cls_position: Literal["learned", "none", "tied", "random", "sincos", "rotary"] = knob(
        "learned",
        "position of [CLS]: its own learned one, none, that of a patch, that of a random patch at "
        "each forward, sine-cosine or rotary at cls_coordinate",
        source="docs/small_studies.md, claim 1",
    )
    cls_tied_patch: Place = knob(
        (0, 0),
        "row and column of the patch whose position a tied [CLS] carries",
        source="docs/small_studies.md, claim 1",
    )
    cls_coordinate: tuple[Coordinate, Coordinate] = knob(
        (0.0, 0.0),
        "where a sincos or rotary [CLS] stands, down and right; ±1 are the image's borders",
        unit="half images from the centre",
        source="Siméoni et al. 2025 (DINOv3)",
    )
    registers: int = knob(
        0, "extra tokens without position", source="Darcet et al. 2024", ge=0, le=1000
    )
    patch_window: int = knob(
        0,
        "rows and columns away that a patch attends to at most: to itself and patches, no other "
        "token; 0: to all",
        unit="patches",
        source=OURS,
        ge=0,
        le=1000,
    )
    cls_window: int = knob(
        0,
        "the same for [CLS], counted from the middle of the grid",
        unit="patches",
        source=OURS,
        ge=0,
        le=1000,
    )
    patch_uniform: Switch = knob(
        False,
        "whether patches attend evenly to all that they may attend to: their queries are 0",
        source=OURS,
    )
    cls_uniform: Switch = knob(False, "the same of [CLS]", source=OURS)

    @property
    def mlp_hidden(self) -> int:
        """Hidden features of the MLP, for SwiGLU as in facebookresearch/dinov2, swiglu_ffn.py."""
        hidden = int(self.width * self.mlp_ratio)
        return hidden if self.mlp == "gelu" else (int(hidden * 2 / 3) + 7) // 8 * 8

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if problem := pin_problem(self.weights):
            raise ValueError(problem)
        if not self.mlp_hidden:
            raise ValueError(f"mlp_ratio {self.mlp_ratio} leaves the MLP no hidden feature")
        if self.width % self.heads:
            raise ValueError(f"heads must divide width, got {self.heads} and {self.width}")
        if "sincos" in (self.patch_position, self.cls_position) and self.width % 4:
            raise ValueError(f"sincos positions need a width divisible by 4, got {self.width}")
        if self.patch_position == "rotary" and self.width // self.heads % 4:
            raise ValueError(
                "rotary positions need width / heads divisible by 4, got "
                f"{self.width} / {self.heads}"
            )
        if self.cls_position == "rotary" and self.patch_position != "rotary":
            raise ValueError("cls_position rotary needs patch_position rotary")
        added = ("learned", "sincos")
        if self.cls_position in ("tied", "random") and self.patch_position not in added:
            raise ValueError(
                f"cls_position {self.cls_position} needs patch_position learned or sincos, "
                f"got {self.patch_position}"
            )
        return self


SIZES: Mapping[str, Mapping[str, int]] = types.MappingProxyType(
    {
        "tiny": {"width": 192, "depth": 12, "heads": 3},
        "small": {"width": 384, "depth": 12, "heads": 6},
        "base": {"width": 768, "depth": 12, "heads": 12},
        "large": {"width": 1024, "depth": 24, "heads": 16},
    }
)
"""Shapes of the published ViTs (Touvron et al. 2021 for tiny and small), as changes of a model."""


class HeadConfig(Knobs):
    """The projection head (Caron et al. 2021, appendix C)."""

    layers: int = knob(
        3, "linear layers of the MLP before the prototypes", source=DINO, ge=1, le=100
    )
    hidden: int = knob(128, "hidden features of the MLP", source=DINO, ge=1, le=100_000)
    bottleneck: int = knob(
        64, "features that meet the prototypes, unit norm", source=DINO, ge=1, le=100_000
    )
    prototypes: int = knob(256, "outputs K", source=DINO, ge=2, le=10**7)
    patches: Literal["shared", "own"] = knob(
        "shared",
        "whether losses with a row for each patch (masked, dense) share the head or have one of "
        "their own, of the same shape",
        source="Zhou et al. 2022 (iBOT); separate_head in facebookresearch/dinov2; "
        "Li et al. 2022 (EsViT)",
    )
    norm_last_layer: Switch = knob(
        True, "whether prototypes keep unit norm, or learn their norms too", source=DINO
    )
    batch_norm: Switch = knob(
        False, "whether hidden layers are normalised over the global batch", source=DINO
    )
