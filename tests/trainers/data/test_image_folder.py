"""A folder of image files, broken ones among them, becomes one indexed set.

Over 400 lines: many small facts of one thing, which are looked for together.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from trainers.config import DataConfig
from trainers.data import arrow, image_set, ingest
from trainers.data.image_set import ImageSet, open_images
from trainers.errors import DataError
from trainers.system.storage import locate


def paint(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
    """A file of noise, `size` as width and height, in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def open_at(source: Path, cache: Path | None, **knobs: object) -> ImageSet:
    return open_images(DataConfig(source=str(source), image_size=8, **knobs), cache)


def table_in(cache: Path) -> pa.Table:
    """The rows of the one index in `cache`."""
    (index,) = cache.iterdir()
    home = locate(str(index))
    manifest = arrow.read_manifest(home)
    assert manifest is not None
    return arrow.mapped(home, manifest)


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Three cats, three dogs, in several formats and sizes."""
    root = tmp_path / "animals"
    paint(root / "cat/a.png", 1, (20, 10))
    paint(root / "cat/b.JPG", 2, (10, 20))
    paint(root / "cat/deep/er/c.bmp", 3)
    paint(root / "dog/a.png", 4, (1, 1))
    paint(root / "dog/b.tiff", 5)
    paint(root / "dog/ü ñ.gif", 6)
    return root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


PATHS = ["cat/a.png", "cat/b.JPG", "cat/deep/er/c.bmp", "dog/a.png", "dog/b.tiff", "dog/ü ñ.gif"]


OFFSETS = np.cumsum([0, *(len(name.encode()) for name in PATHS)]).astype("<i4").tobytes()
HUGE_OFFSETS = (np.frombuffer(OFFSETS, "<i4") * 1_000_000).astype("<i4").tobytes()


def test_images_come_in_order_of_their_path_and_labels_from_the_first_folder(animals, cache):
    images = open_at(animals, cache)
    assert table_in(cache)["name"].to_pylist() == PATHS
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(images) == 6


def test_pixels_are_the_whole_image_squeezed_to_the_square(animals, cache):
    pixels = open_at(animals, cache).pixels(torch.tensor([3, 0]))
    assert pixels.shape == (2, 3, 8, 8)
    assert pixels.dtype == torch.uint8
    with Image.open(animals / "cat/a.png") as image:
        expected = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR)).astype(int)
    # Both in integers, rounded once an axis: to within one level.
    assert np.abs(pixels[1].permute(1, 2, 0).numpy() - expected).max() <= 1


def test_an_image_of_the_size_asked_for_is_unchanged(tmp_path, cache):
    for number in range(4):
        paint(tmp_path / f"flat/{number}.png", number, (8, 8))
    pixels = open_at(tmp_path / "flat", cache).pixels(torch.tensor([2]))[0]
    with Image.open(tmp_path / "flat/2.png") as image:
        assert (pixels.permute(1, 2, 0).numpy() == np.asarray(image)).all()


def test_aspect_is_width_over_height_of_the_upright_original(animals, cache):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 10)).save(animals / "cat/z.jpg", exif=exif)
    aspect = open_at(animals, cache).aspect(torch.arange(7))
    assert aspect.dtype == torch.float32
    assert aspect.tolist() == pytest.approx([2, 0.5, 1.2, 0.25, 1, 1.2, 1.2])


def test_a_set_too_large_to_keep_gives_the_same_pixels(animals, cache, monkeypatch):
    places = torch.tensor([5, 1, 1, 0])
    kept = open_at(animals, cache).pixels(places)
    monkeypatch.setattr(image_set, "KEPT_BYTES", 0)
    images = open_at(animals, cache)
    assert torch.equal(images.pixels(places), kept)
    assert images._kept is None


def test_a_small_set_is_decoded_once(animals, cache, monkeypatch):
    images = open_at(animals, cache)
    first = images.pixels(torch.arange(6))
    monkeypatch.setattr(image_set, "decode_to", None)
    assert torch.equal(images.pixels(torch.arange(6)), first)


def test_images_that_all_lie_flat_have_no_labels(tmp_path, cache):
    for number in range(4):
        paint(tmp_path / f"flat/{number}.png", number)
    images = open_at(tmp_path / "flat", cache)
    assert images.labels is None
    assert images.class_names == ()


def test_one_folder_alone_is_no_label(tmp_path, cache):
    for number in range(4):
        paint(tmp_path / f"zipped/images/{number}.png", number)
    assert open_at(tmp_path / "zipped", cache).labels is None


def test_one_image_beside_the_folders_takes_the_labels_from_all(animals, cache):
    paint(animals / "stray.png")
    images = open_at(animals, cache)
    assert images.labels is None
    assert images.class_names == ()


def test_hidden_files_and_other_kinds_are_passed_over(animals, cache):
    paint(animals / ".hidden.png")
    paint(animals / ".thumbnails/a.png")
    paint(animals / "cat/._a.png")
    (animals / "cat/labels.csv").write_text("a,b\n")
    images = open_at(animals, cache)
    assert len(images) == 6
    assert images.skipped == ()


def test_broken_files_are_skipped_with_path_and_reason(animals, cache):
    whole = (animals / "cat/b.JPG").read_bytes()
    (animals / "cat/half.jpg").write_bytes(whole[:-20])
    (animals / "dog/empty.png").write_bytes(b"")
    (animals / "dog/text.jpg").write_text("not a picture")
    (animals / "dog/nowhere.png").symlink_to(animals / "gone.png")
    os.mkfifo(animals / "dog/pipe.png")
    (animals / "dog/folder.png").mkdir()
    for images in (open_at(animals, cache), open_at(animals, cache)):
        assert len(images) == 6
        reasons = {skipped.path: skipped.reason for skipped in images.skipped}
        assert "truncated" in reasons.pop("cat/half.jpg")
        assert reasons == {
            "dog/empty.png": "empty file",
            "dog/nowhere.png": "not a file, or a link to nowhere",
            "dog/pipe.png": "not a file, or a link to nowhere",
            "dog/text.jpg": "not an image",
        }


def test_a_name_that_is_not_utf_8_is_skipped(animals, cache):
    try:
        shutil.copy(animals / "cat/a.png", os.fsencode(animals) + b"/cat/\xff.png")
    except OSError:
        pytest.skip("this file system allows only UTF-8 names")
    images = open_at(animals, cache)
    assert [vars(skipped) for skipped in images.skipped] == [
        {"path": r"cat/\xff.png", "reason": "its name is not UTF-8"}
    ]


def test_a_file_that_cannot_be_read_is_skipped(animals, cache, monkeypatch):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    whole = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: refuse(path) if path.name == "b.JPG" else whole(path)
    )
    skipped = open_at(animals, cache).skipped
    assert [(one.path, one.reason) for one in skipped] == [
        ("cat/b.JPG", "cannot be read: Permission denied")
    ]


def test_links_to_folders_are_followed_but_not_round_in_circles(animals, tmp_path, cache):
    paint(tmp_path / "elsewhere/one.png", 9)
    (animals / "fox").symlink_to(tmp_path / "elsewhere")
    (animals / "cat/again").symlink_to(animals)
    (animals / "all").symlink_to(animals)
    (tmp_path / "elsewhere/back").symlink_to(animals / "dog")
    (animals / "dog/forth").symlink_to(tmp_path / "elsewhere")
    images = open_at(animals, cache)
    linked = ["dog/forth/one.png", "fox/back/a.png", "fox/back/b.tiff", "fox/back/ü ñ.gif"]
    names = table_in(cache)["name"].to_pylist()
    assert names == sorted([*PATHS, *linked, "fox/one.png"])
    assert images.class_names == ("cat", "dog", "fox")


def test_the_second_opening_reads_the_index(animals, cache, monkeypatch):
    (animals / "cat/text.jpg").write_text("not a picture")
    calls: list[tuple[int, int]] = []
    config = DataConfig(source=str(animals), image_size=8)
    first = open_images(config, cache, lambda done, total: calls.append((done, total)))
    assert calls == [(done, 7) for done in range(1, 8)]
    monkeypatch.setattr(ingest, "decode", None)
    second = open_images(config, cache, lambda done, total: calls.append((done, total)))
    assert len(calls) == 7
    assert second.digest == first.digest
    assert second.skipped == first.skipped != ()
    assert torch.equal(second.identifiers, first.identifiers)
    assert torch.equal(second.test, first.test)
    assert torch.equal(second.labels, first.labels)
    assert torch.equal(second.pixels(torch.arange(6)), first.pixels(torch.arange(6)))


def test_an_index_holds_the_original_bytes(animals, cache):
    images = open_at(animals, cache)
    table = table_in(cache)
    assert table["image"].to_pylist() == [(animals / name).read_bytes() for name in PATHS]
    assert table["id"].to_pylist() == images.identifiers.tolist()
    assert table["width"].to_pylist() == [20, 10, 12, 1, 12, 12]


def test_an_index_is_read_through_the_map_and_not_into_memory(tmp_path, cache):
    for number in range(4):
        paint(tmp_path / f"large/{number}.bmp", number, (400, 400))
    open_at(tmp_path / "large", cache)
    before = pa.total_allocated_bytes()
    table = table_in(cache)
    assert len(table["image"][3].as_buffer()) == 400 * 400 * 3 + 54
    assert pa.total_allocated_bytes() - before < 10_000


def test_an_open_set_holds_no_files_open(animals, cache, monkeypatch):
    monkeypatch.setattr(ingest, "ITEMS_PER_PART", 1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    images = open_at(animals, cache)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert images.pixels(torch.arange(6)).shape == (6, 3, 8, 8)


def test_many_batches_and_many_parts_read_like_one(animals, cache, tmp_path, monkeypatch):
    whole = open_at(animals, cache)
    for items in (1, 2, 4, 5):
        monkeypatch.setattr(arrow, "_BATCH_BYTES", 700)
        monkeypatch.setattr(ingest, "ITEMS_PER_PART", items)
        parts = open_at(animals, tmp_path / f"other{items}")
        assert parts.digest == whole.digest
        assert torch.equal(parts.pixels(torch.arange(6)), whole.pixels(torch.arange(6)))


def test_without_a_cache_nothing_is_left_behind(animals, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    images = open_at(animals, None)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert images.pixels(torch.tensor([0])).shape == (1, 3, 8, 8)


def test_digest_does_not_depend_on_place_time_or_order_of_writing(animals, cache, tmp_path):
    copy = tmp_path / "elsewhere/copy"
    for name in reversed(PATHS):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((animals / name).read_bytes())
    one, other = open_at(animals, cache), open_at(copy, tmp_path / "other")
    assert one.digest == other.digest
    assert len(one.digest) == 64
    assert torch.equal(one.identifiers, other.identifiers)
    assert torch.equal(one.test, other.test)


def test_digest_changes_with_a_byte(animals, cache):
    before = open_at(animals, cache).digest
    path = animals / "cat/deep/er/c.bmp"
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(changed)
    assert open_at(animals, cache).digest != before


def test_digest_changes_with_a_name_and_with_a_label(animals, cache):
    digests = [open_at(animals, cache).digest]
    (animals / "cat/a.png").rename(animals / "cat/a2.png")
    digests.append(open_at(animals, cache).digest)
    (animals / "cat").rename(animals / "lynx")
    digests.append(open_at(animals, cache).digest)
    assert len(set(digests)) == 3


def test_a_new_image_is_seen(animals, cache):
    open_at(animals, cache)
    paint(animals / "cat/new.png", 8)
    assert len(open_at(animals, cache)) == 7


def test_identifiers_are_unique_words_of_63_bits_that_depend_on_the_path_alone(animals, cache):
    before = open_at(animals, cache).identifiers
    assert before.dtype == torch.int64
    assert (before >= 0).all()
    assert len(before.unique()) == 6
    (animals / "cat/a.png").unlink()
    paint(animals / "dog/a.png", 77)
    assert torch.equal(open_at(animals, cache).identifiers, before[1:])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError, OSError, BrokenPipeError])
def test_indexing_that_is_cut_off_leaves_whole_parts_and_no_half_file(
    animals, cache, monkeypatch, kind
):
    monkeypatch.setattr(ingest, "ITEMS_PER_PART", 2)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise kind

    config = DataConfig(source=str(animals), image_size=8)
    with pytest.raises(kind):
        open_images(config, cache, stop)
    (index,) = cache.iterdir()
    assert [path.name for path in index.iterdir()] == ["part-00000.arrow"]
    done_again = []
    assert len(open_images(config, cache, lambda done, _: done_again.append(done))) == 6
    assert done_again == [2, 3, 4, 5, 6]


def rename_key(text: bytes) -> bytes:
    return text.replace(b"fingerprint", b"fingerprimt")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("part-00000.arrow", lambda whole: b""),
        ("part-00000.arrow", lambda whole: whole[: len(whole) // 2]),
        ("part-00000.arrow", lambda whole: whole[:-1]),
        ("part-00000.arrow", lambda whole: b"no index\n" * 99),
        ("part-00000.arrow", lambda whole: whole.replace(b"version", b"VERSION")),
        ("part-00000.arrow", rename_key),
        ("part-00000.arrow", lambda whole: whole.replace(OFFSETS, HUGE_OFFSETS)),
        ("dataset.json", lambda whole: whole[:-1]),
        ("dataset.json", lambda whole: b""),
        ("skipped.parquet", lambda whole: whole[:-1]),
        ("skipped.parquet", lambda whole: b""),
    ],
)
def test_a_damaged_index_is_made_again(animals, cache, name, damage):
    images = open_at(animals, cache)
    digest, count = images.digest, len(images)
    (path,) = cache.glob(f"*/{name}")
    whole = path.read_bytes()
    path.unlink()  # a file that is mapped must not change under the map
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    again = open_at(animals, cache)
    assert (again.digest, len(again)) == (digest, count)
    assert path.read_bytes() == whole


def test_an_image_damaged_in_the_index_is_named(animals, cache):
    open_at(animals, cache)
    (path,) = cache.glob("*/part-00000.arrow")
    path.write_bytes(path.read_bytes().replace(b"GIF8", b"????"))
    with pytest.raises(DataError, match=r"image dog/ü ñ\.gif was damaged in its index: not an im"):
        open_at(animals, cache).pixels(torch.tensor([0]))


def refusal(source: str, cache: Path) -> str:
    """The one line that opening `source` is refused with."""
    with pytest.raises(DataError) as caught:
        open_images(DataConfig(source=source), cache)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_folder_is_refused(tmp_path, cache):
    assert refusal(f"{tmp_path}/gone", cache) == (
        f"image folder '{tmp_path}/gone' cannot be read: No such file or directory; "
        "data.source is `digits`, `photographs`, `photographs_equalised`, `scenes_far`, "
        "`scenes_near`, a folder of images "
        "or what `dinolab ingest` made"
    )


@pytest.mark.parametrize("word", ["digit", "Digits", "DIGITS", "didgits"])
def test_a_word_near_digits_is_refused_with_a_suggestion(word, cache):
    assert refusal(word, cache) == (
        f"image folder '{word}' cannot be read: No such file or directory; "
        "data.source is `digits`, `photographs`, `photographs_equalised`, `scenes_far`, "
        "`scenes_near`, a folder of images "
        "or what `dinolab ingest` made; "
        "did you mean digits?"
    )


@pytest.mark.parametrize(
    "source", ["", "~no-such-user/x", "x" * 5000, "two\nlines", "a\0b", "\ud800"]
)
def test_what_can_be_no_folder_is_refused(source, cache):
    assert (
        "data.source is `digits`, `photographs`, `photographs_equalised`, `scenes_far`, "
        "`scenes_near`, a folder" in refusal(source, cache)
    )


def test_a_file_is_refused(animals, cache):
    path = animals / "cat/a.png"
    assert f"image folder '{path}' cannot be read: Not a directory;" in refusal(str(path), cache)


def test_a_folder_without_images_is_refused(tmp_path, cache):
    (tmp_path / "notes/inside").mkdir(parents=True)
    (tmp_path / "notes/inside/a.txt").write_text("text")
    line = refusal(f"{tmp_path}/notes", cache)
    assert f"image folder '{tmp_path}/notes' holds no images" in line
    assert "JPEG" in line


def test_a_folder_of_broken_images_is_refused_each_time(tmp_path, cache):
    (tmp_path / "broken").mkdir()
    for name in "abc":
        (tmp_path / f"broken/{name}.png").write_bytes(b"")
    for _ in range(2):
        assert refusal(f"{tmp_path}/broken", cache) == (
            f"image folder '{tmp_path}/broken' holds 0 readable images and 3 broken, "
            "such as a.png (empty file); 4 is the fewest, 2 to train on and 2 held out"
        )


def test_a_broken_file_whose_name_has_two_lines_is_refused_in_one(tmp_path, cache):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/two\nlines.png").write_bytes(b"")
    assert r"such as two\nlines.png (empty file)" in refusal(f"{tmp_path}/broken", cache)


def test_three_images_are_too_few(tmp_path, cache):
    for number in range(3):
        paint(tmp_path / f"few/{number}.png", number)
    assert "holds 3 readable images; 4 is the fewest" in refusal(f"{tmp_path}/few", cache)


def test_an_index_that_cannot_be_written_is_refused(animals, tmp_path):
    (tmp_path / "file").write_text("in the way")
    line = refusal(str(animals), tmp_path / "file")
    assert line.startswith(f"{tmp_path}/file/")
    assert "cannot be written: " in line
