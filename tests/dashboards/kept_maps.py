"""Maps as runs keep them: made up, and written beside the runs of a synthetic study."""

import json
from pathlib import Path

import numpy as np

from trainers.runs.maps import KeptMaps, content_of, name_of
from trainers.runs.records import digest_of

IMAGES = (11, 7, 305, 42, 8, 19, 77, 3)
SIDE, GRID, BLOCKS = 32, 8, 3


def kept_maps(
    seed: int, *, is_last: bool = True, is_cls: bool = True, grid: int = GRID, side: int = SIDE
) -> KeptMaps:
    """Maps of IMAGES: a blob each, which moves with the seed; those of another seed are others."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:grid, :grid]

    def maps(*shape: int) -> np.ndarray:
        centre = draw.uniform(0, grid, (*shape, 2, 1, 1))
        distance = (rows - centre[..., 0, :, :]) ** 2 + (columns - centre[..., 1, :, :]) ** 2
        found = np.exp(-distance / draw.uniform(2, 12)) + 0.02
        return (found / found.sum((-2, -1), keepdims=True)).astype(np.float32)

    number, light = len(IMAGES), np.random.default_rng(0)
    squares = light.integers(0, 230, (number, 4, 4, 3), np.uint8)
    pixels = squares.repeat(side // 4, 1).repeat(side // 4, 2)
    pixels += light.integers(0, 25, pixels.shape, np.uint8)
    return KeptMaps(
        images=np.array(IMAGES, np.int64),
        pixels=pixels if is_last else None,
        attention=maps(BLOCKS if is_cls else 0, number),
        heads=maps(2 if is_cls else 0, number),
        rollout=maps(number) if is_last and is_cls else None,
        influence=maps(3) if is_last and is_cls else None,
    )


def keep(trial: Path, steps: dict[int, KeptMaps]) -> None:
    """Let the finished run in that folder have kept them."""
    path = trial / "result.json"
    result = json.loads(path.read_text())
    (trial / "attempts" / "0001").mkdir(parents=True, exist_ok=True)
    result["of_images"] = {}
    for step, kept in steps.items():
        name, content = f"attempts/0001/{name_of(step)}", content_of(kept)
        (trial / name).write_bytes(content)
        result["of_images"][name] = digest_of(content)
    path.write_text(json.dumps(result))
