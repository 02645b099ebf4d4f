"""Where the self-distillation loss sits: the tokens that the projection head sees."""

from torch import Tensor

from trainers.config import LossConfig, TrainConfig
from trainers.model.vit import Features

POOLED = ("cls", "patches", "register_token", "fixed_patch")
"""Sites with one row an image and view."""

EACH_PATCH = ("dense", "masked")
"""Sites with one row a patch."""

MEANING = {
    "cls": "[CLS]",
    "patches": "the mean patch token",
    "register_token": "the first register",
    "fixed_patch": "one fixed patch",
    "dense": "every patch, matched between views",
    "masked": "masked patches",
}


def sites(config: LossConfig) -> dict[str, float]:
    """Where self-distillation sits and with which weight; only the sites that have one."""
    weights = {name: getattr(config, name) for name in (*POOLED, *EACH_PATCH)}
    return {site: weight for site, weight in weights.items() if weight > 0}


def needs_patches(config: LossConfig) -> bool:
    """Whether any loss looks at patch tokens of the last block."""
    return not set(sites(config)) <= {"cls", "register_token"}


def feature_site(config: TrainConfig) -> str:
    """What stands for an image where one vector must: [CLS], or without one the mean patch."""
    return "cls" if config.model.cls else "patches"


def read_out(features: Features, site: str, config: LossConfig) -> Tensor:
    """What the head sees at a pooled site, [B, D]."""
    if site == "cls":
        return features.cls
    if site == "register_token":
        return features.registers[:, 0]
    if site == "fixed_patch":
        return features.patches[:, patch_at(config.fixed_patch_place, features.grid)]
    assert site == "patches", site
    return features.patches.mean(1)


def patch_at(place: tuple[float, float], grid: tuple[int, int]) -> int:
    """Number of the patch that holds the point at `place`, each coordinate in [-1, 1]."""
    row, column = (
        min(int((coordinate + 1) / 2 * side), side - 1)
        for coordinate, side in zip(place, grid, strict=True)
    )
    return row * grid[1] + column
