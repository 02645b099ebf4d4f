"""Knobs of what the networks see: which images, and how they are cut and changed."""

from typing import Literal, Self

from pydantic import model_validator

from trainers.config.knob import DINO, OURS, Interval, Knobs, Share, knob

LEAST_SQUARE = 4

SMALL_SQUARE = 64
"""Side up to which squares are cut between pixels: rounding a box would matter."""

EMBEDDED = ("digits", "photographs", "photographs_equalised", "scenes_far", "scenes_near")
"""Data sets that are named and lie nowhere."""

EMBEDDED_NAMES = ", ".join(f"`{name}`" for name in EMBEDDED)
"""The same in words for people."""


class DataConfig(Knobs):
    """Which images, at which resolution, and which of them are held out."""

    source: str = knob(
        "digits",
        f"{EMBEDDED_NAMES}, a folder of images, or what `dinolab ingest` made (path or URI)",
        source=OURS,
    )
    image_size: int = knob(
        16,
        "side of the square each image is squeezed to before crops are cut, bilinear and cheap; 0 "
        "cuts them from the image as it is, bicubic, as published. At 256, crops of photographs "
        "keep 0.5 to 0.8 of the published ones' detail (mean gradient)",
        unit="pixels",
        source=OURS,
        ge=0,
        le=4096,
    )
    test_share: float = knob(
        0.2,
        "images held out for evaluation where the data set has no split, the same in all arms",
        unit="share",
        source=OURS,
        gt=0,
        lt=1,
    )

    @model_validator(mode="after")
    def _squares_are_seen(self) -> Self:
        if 0 < self.image_size < LEAST_SQUARE:
            raise ValueError(
                f"image_size must be 0 (no squeezing) or {LEAST_SQUARE}..4096: {self.image_size}"
            )
        return self

    @property
    def resampled(self) -> Literal["bilinear", "bicubic"]:
        """The filter by which images become crops."""
        return "bilinear" if self.image_size else "bicubic"

    def squeezing_note(self) -> str:
        """What squeezing costs, as a line; empty where images are small or left as they are."""
        if self.image_size <= SMALL_SQUARE:
            return ""
        return (
            f"images are squeezed to squares of {self.image_size} pixels before crops are cut, "
            "which blurs them (at 256 to 0.5 to 0.8 of the mean gradient of published crops): "
            "data.image_size 0 cuts from the images themselves"
        )


class AugmentConfig(Knobs):
    """Multi-crop and photometric augmentation (Caron et al. 2021, appendix A)."""

    global_crops: int = knob(
        2, "global crops an image; the teacher sees these", source="SwAV; " + DINO, ge=1, le=100
    )
    local_crops: int = knob(
        4, "local crops an image; only the student sees them", source="SwAV; " + DINO, ge=0, le=100
    )
    global_size: int = knob(16, "side of a global crop", unit="pixels", source=DINO, ge=4, le=4096)
    local_size: int = knob(8, "side of a local crop", unit="pixels", source=DINO, ge=4, le=4096)
    small_share: Share = knob(
        0.0,
        "part of the run, from its start, in which crops have half their side; what is evaluated "
        "and the grid of learned positions stay full",
        unit="share of steps",
        source="Zhang et al. 2025, FastDINOv2",
    )
    global_scale: Interval = knob(
        (0.5, 1.0), "area of a global crop", unit="share of image", source=DINO
    )
    local_scale: Interval = knob(
        (0.2, 0.5), "area of a local crop", unit="share of image", source=DINO
    )
    aspect_ratio: Interval = knob(
        (0.75, 4 / 3), "width over height of a crop's box", source="Szegedy et al. 2015"
    )
    flip: Share = knob(0.5, "probability of a horizontal flip", source=DINO)
    jitter: Share = knob(0.8, "probability of colour jitter", source="BYOL; " + DINO)
    brightness: Share = knob(0.4, "jitter factor range, 1 ± this", source="BYOL; " + DINO)
    contrast: Share = knob(0.4, "jitter factor range, 1 ± this", source="BYOL; " + DINO)
    saturation: Share = knob(0.2, "jitter factor range, 1 ± this", source="BYOL; " + DINO)
    hue: float = knob(
        0.1, "jitter rotation range, ± this", unit="turns", source="BYOL; " + DINO, ge=0, le=0.5
    )
    grayscale: Share = knob(0.2, "probability of turning a crop grey", source="BYOL; " + DINO)
    blur_first: Share = knob(1.0, "probability of blur, first global crop", source=DINO)
    blur_others: Share = knob(0.1, "probability of blur, further global crops", source=DINO)
    blur_local: Share = knob(0.5, "probability of blur, local crops", source=DINO)
    blur_sigma: Interval = knob(
        (0.1, 2.0), "standard deviation of blur", unit="pixels", source=DINO
    )
    solarize: Share = knob(
        0.2, "probability of solarising further global crops", source="BYOL; " + DINO
    )
    shuffle: Literal["none", "patches", "pixels"] = knob(
        "none",
        "what of each training crop is put in random order, destroying spatial coherence",
        source="docs/metrics.md",
    )

    @model_validator(mode="after")
    def _intervals_rise(self) -> Self:
        for name in ("global_scale", "local_scale", "aspect_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must rise, got ({low}, {high})")
        for name in ("global_scale", "local_scale"):
            if getattr(self, name)[1] > 1:
                raise ValueError(f"{name} must not exceed 1, the whole image")
        return self
