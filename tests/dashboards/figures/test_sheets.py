"""Maps over images: what a colour means, and how sheets of them are laid out."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from dashboards.figures import tiles
from dashboards.figures.sheets import Band, Column, Sheet, drawn, sheet_file
from tests.dashboards.kept_maps import kept_maps

KEPT = kept_maps(0)
MAPS = KEPT.attention[-1]


def brightness(pixels):
    return pixels.astype(float).sum(-1)


def test_a_patch_is_lighter_the_larger_its_weight():
    order = MAPS[0].ravel().argsort()
    lightness = tiles.shades(MAPS[0]).ravel()[order]
    assert (np.diff(lightness) >= 0).all()
    assert (lightness[0], lightness[-1]) == (0, 1)


def test_a_map_that_is_uniform_but_for_noise_stays_dark():
    noise = 1 + 0.01 * np.random.default_rng(0).standard_normal((8, 8))
    assert tiles.shades((noise / noise.sum()).astype(np.float32)).max() < 0.2


def test_patches_that_hold_most_of_a_map_are_the_fewest():
    values = np.array([[0.5, 0.2], [0.2, 0.1]], np.float32)
    assert [tiles.holding(values, mass) for mass in (0.4, 0.6, 0.8, 0.95)] == [1, 2, 3, 4]


def test_a_page_and_a_drawing_lay_the_same_colours_over_an_image():
    grey = np.full((8, 8, 3), 100, np.uint8)
    over = Image.open(io.BytesIO(tiles.overlay(MAPS[0]))).convert("RGBA")
    assert over.size == MAPS[0].shape[::-1]
    base = Image.fromarray(tiles.grey(grey)).convert("RGBA")
    page = np.asarray(Image.alpha_composite(base, over).convert("RGB")).astype(int)
    assert abs(page - tiles.tile(grey, MAPS[0], 8)).max() <= 1


def test_a_map_in_a_page_is_a_few_hundred_bytes():
    assert len(tiles.overlay(MAPS[0])) < 400
    large = np.kron(MAPS[0], np.ones((4, 4), np.float32)) / 16
    assert len(tiles.overlay(large * (1 + 0.2 * np.random.default_rng(0).random((32, 32))))) < 1500


def test_an_image_is_the_same_in_a_page_bit_for_bit():
    there = Image.open(io.BytesIO(tiles.picture(KEPT.pixels[0])))
    assert np.array_equal(np.asarray(there), KEPT.pixels[0])


def test_what_holds_a_nan_is_no_map():
    nothing = np.full((8, 8), np.nan, np.float32)
    assert not tiles.is_map(nothing)
    assert np.array_equal(tiles.tile(KEPT.pixels[0], nothing, 32), tiles.nothing(32))


def sheet(*names, maps=2):
    columns = [Column(name, name, "step 1", MAPS[:maps]) for name in names]
    return Sheet("title", "caption", KEPT.pixels[:2], [Band("band", columns)])


def size(sheet):
    return Image.open(io.BytesIO(sheet_file(sheet, "png"))).size


@pytest.mark.parametrize(
    ("form", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
def test_a_sheet_is_a_file_for_a_paper_whatever_its_names_are(form, start):
    hostile = "$x_1$ <b>\n\x1b[31m ☃ " + "long" * 50
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        assert sheet_file(sheet("a", hostile, maps=1), form).startswith(start)


@pytest.mark.parametrize("form", ["png", "pdf", "svg"])
def test_the_same_sheet_is_the_same_file_at_any_time(form, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    before = sheet_file(sheet("a", "b"), form)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert sheet_file(sheet("a", "b"), form) == before


def test_what_is_said_above_columns_is_drawn_whole(tmp_path):
    said = "A: " + "why_cls_is_global-" * 5 + "small"
    figure = drawn(sheet("a")._replace(above=(said, "B: other")))
    head = [text for text in figure.texts if text.get_fontsize() == 7]
    assert "".join(text.get_text() for text in head) == said + "B: other"
    width = figure.get_figwidth() * figure.dpi
    assert all(text.get_window_extent().x1 <= width for text in head)


def test_many_columns_go_on_in_another_line():
    one, most, more = (size(sheet(*map(str, range(number)))) for number in (1, 8, 9))
    assert one[0] < most[0] == more[0]
    assert one[1] == most[1]
    assert more[1] > 1.8 * most[1]
