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
from trainers.data.sources.folder import _spelled
from trainers.data.sources.grammar import open_source
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


@pytest.mark.slow
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


OTHERS = ("a.HEIC", "b.heif", "c.CR2", "d.nef", "deep/e.Dng", "f.jxl", "g.svg", "h.psd")


def test_pictures_that_are_not_read_are_skipped_by_name_and_kind(flat, tmp_path):
    before = open_at(flat, tmp_path / "cache").digest
    (flat / "deep").mkdir()
    for name in OTHERS:
        (flat / name).write_bytes(b"\0\0\0\x18ftypheic")
    (flat / "notes.txt").write_text("no picture")
    images = open_at(flat, tmp_path / "cache")
    assert list(reasons(images)) == list(OTHERS)
    for name, reason in reasons(images).items():
        kind = name.partition(".")[2].upper()
        assert reason == f"{kind} is not read: convert it to JPEG or PNG"
    assert images.digest == before


def test_a_folder_of_nothing_but_pictures_that_are_not_read_says_so(tmp_path):
    for name in ("2.heic", "1.HEIC", "deep/3.CR3"):
        path = tmp_path / "phone" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\0\0\x18ftypheic")
    for open_it in (
        lambda: open_source(f"{tmp_path}/phone"),
        lambda: open_at(tmp_path / "phone", tmp_path),
    ):
        with pytest.raises(DataError) as caught:
            open_it()
        assert str(caught.value).startswith(
            f"image folder '{tmp_path}/phone' holds no images that can be read (2 HEIC, 1 CR3; "
            "the first is 1.HEIC): convert them to JPEG or PNG"
        )
        assert "\n" not in str(caught.value)


def test_what_systems_leave_behind_is_no_image(flat, tmp_path):
    before = open_at(flat, tmp_path / "cache").digest
    picture = (flat / "0.png").read_bytes()
    for name in (
        *("__MACOSX/._0.png", "__macosx/deep/0.png", "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg"),
        *("._0.png", ".thumbnails/0.png", ".git/0.png", "deep/.cache/0.png", "#recycle/0.png"),
        *("$RECYCLE.BIN/0.png", "lost+found/0.png", "Thumbs.db", ".DS_Store"),
    ):
        path = flat / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    images = open_at(flat, tmp_path / "cache")
    assert (len(images), images.digest, images.skipped) == (5, before, ())


def test_splits_of_other_spellings_are_held_out_and_strays_are_said(tmp_path):
    for folder in ("Training/cat", "Training/dog", "valid/cat", "valid/dog"):
        (tmp_path / "pets" / folder).parent.mkdir(parents=True, exist_ok=True)
        paint_five(tmp_path / "pets" / folder)
    (tmp_path / "pets/cover.png").write_bytes((tmp_path / "pets/valid/cat/0.png").read_bytes())
    images = open_at(tmp_path / "pets", tmp_path / "cache")
    assert images.class_names == ("cat", "dog")
    assert images.declared
    assert (images.train.tolist(), images.test.tolist()) == (list(range(10)), list(range(10, 20)))
    assert reasons(images) == {"cover.png": "lies beside the splits, in none of them"}


def test_an_index_of_what_was_labelled_otherwise_is_not_used_again():
    """Only the two layouts that were always told keep the word that older indexes have."""
    assert _spelled({"cat": ("", "cat"), "dog/deep": ("", "dog"), "": ("", "")}) == b"labels"
    assert _spelled({"train/cat": ("train", "cat"), "val": ("val", "")}) == b"splits"
    assert _spelled({"Train/cat": ("train", "cat")}) == b"[('Train/cat', ('train', 'cat'))]"
    assert _spelled({"train/cat": ("train", "cat"), "": None}) not in (b"labels", b"splits")
    assert _spelled({"pets/cat": ("", "cat")}) not in (b"labels", b"splits")
