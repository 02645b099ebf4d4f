"""What an index meets on disk: bombs, flipped bytes, links and folders that lead nowhere."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainers.config import DataConfig
from trainers.data import arrow
from trainers.data.image_set import ImageSet, open_images
from trainers.errors import DataError
from trainers.system.storage import locate


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Five PNG files of noise, 12 × 10."""
    return paint_five(tmp_path / "flat")


def paint_five(root: Path) -> Path:
    root.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (5, 10, 12, 3), dtype=np.uint8)
    for number, one in enumerate(noise):
        Image.fromarray(one).save(root / f"{number}.png")
    return root


def open_at(source: Path, cache: Path) -> ImageSet:
    return open_images(DataConfig(source=str(source), image_size=8), cache)


def reasons(images: ImageSet) -> dict[str, str]:
    return {skipped.path: skipped.reason for skipped in images.skipped}


def test_a_png_with_flipped_pixel_bytes_is_skipped(flat, tmp_path):
    damaged = bytearray((flat / "2.png").read_bytes())
    place = damaged.index(b"IDAT") + 20
    damaged[place] ^= 0xFF
    damaged[place + 1] ^= 0xFF
    (flat / "2.png").write_bytes(damaged)
    images = open_at(flat, tmp_path / "cache")
    assert len(images) == 4
    assert list(reasons(images)) == ["2.png"]
    assert reasons(images)["2.png"].startswith("broken: ")


@pytest.mark.parametrize("side", [16, 40])  # twice the limit and more is an error, not a warning
def test_an_image_of_too_many_pixels_is_skipped(flat, tmp_path, monkeypatch, side):
    Image.new("RGB", (side, side)).save(flat / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    images = open_at(flat, tmp_path / "cache")
    assert len(images) == 5
    assert reasons(images) == {"bomb.png": "more pixels than are safe to decode"}


@pytest.mark.parametrize("name", ["cycle.png", "x" * 300])
def test_a_link_that_cannot_be_followed_is_skipped(flat, tmp_path, name):
    (flat / "cycle.png").symlink_to(name)
    images = open_at(flat, tmp_path / "cache")
    assert len(images) == 5
    assert list(reasons(images)) == ["cycle.png"]


def test_a_folder_that_lists_its_files_but_does_not_let_them_be_read_is_refused():
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        source = paint_five(Path(open_to_all, "flat"))
        source.chmod(0o644)
        cache = Path(open_to_all, "cache")
        before = os.geteuid()
        if before == 0:  # whom no permission stops
            os.seteuid(65534)
        try:
            with pytest.raises(DataError) as caught:
                open_at(source, cache)
        finally:
            os.seteuid(before)
            source.chmod(0o755)
        line = str(caught.value)
        assert line.startswith(f"{source}/")
        assert "Permission denied" in line
        assert "\n" not in line
        assert not cache.exists()


def test_a_part_with_any_byte_flipped_is_read_or_refused_as_no_part(flat, tmp_path):
    (flat / "text.png").write_text("not a picture")
    open_at(flat, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*/*.arrow")
    whole = path.read_bytes()
    refused = 0
    # Each under its own name: a file that is mapped must not change under the map.
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0x5A
        other = tmp_path / f"{place}.arrow"
        other.write_bytes(damaged)
        try:
            arrow.read_part(locate(str(other)))
        except ValueError:
            refused += 1
            arrow.closing(locate(str(other)))
        other.unlink()
    assert refused > 100


def test_a_folder_named_like_an_image_is_a_label(tmp_path):
    for name in ("x.png", "y"):
        (tmp_path / "tree").mkdir(exist_ok=True)
        paint_five(tmp_path / "tree" / name)
    images = open_at(tmp_path / "tree", tmp_path / "cache")
    assert images.class_names == ("x.png", "y")
    assert torch.equal(images.labels.bincount(), torch.tensor([5, 5]))
    assert images.skipped == ()
