"""Maps of measured models are kept beside their reports, and stand side by side."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dashboards.measurement.maps import MAPS, compared_models, content_of
from dashboards.measurement.report import write_measurement
from tests.dashboards.measurement.measured import FACTS, small_measurement
from trainers.errors import InputError
from trainers.runs.maps import content_of as content_of_kept
from trainers.runs.maps import parse


@pytest.fixture(scope="module", params=[True, False])
def measured(request):
    return small_measurement(both=request.param)


def test_maps_are_kept_to_a_byte_with_names_of_their_images(measured):
    maps = measured[2].maps
    kept = parse(content_of(maps, (4, 4)))
    assert kept.images.tolist() == maps.images.tolist()
    assert len(set(kept.images.tolist())) == len(maps.pixels)
    assert np.array_equal(kept.pixels, maps.pixels.movedim(1, -1))
    for layer, block in enumerate(maps.attention):
        mean = block.nanmean(1).numpy()
        found = kept.attention[layer].reshape(mean.shape)
        assert abs(found - mean).max() <= mean.max() / 255 / 2 + 1e-7
    assert kept.heads.shape == (2, len(maps.pixels), 4, 4)
    expected = maps.rollout.numpy()
    assert abs(kept.rollout.reshape(expected.shape) - expected).max() <= expected.max() / 510 + 1e-7
    assert len(kept.influence) == len(maps.influence)


def test_two_models_stand_side_by_side_on_the_same_images(measured, tmp_path):
    model, plan, found = measured
    for name in "ab":
        write_measurement(tmp_path / name, model, plan, found, facts=FACTS)
    sheet = compared_models(tmp_path / "a", tmp_path / "b")
    names = [column.name for column in sheet.bands[0].columns]
    kinds = ("attention, last block", "rollout", "influence")
    assert names == [f"{mark}: {kind}" for kind in kinds for mark in "AB"]
    attention, again = sheet.bands[0].columns[:2]
    np.testing.assert_array_equal(attention.maps, again.maps)
    assert len(attention.maps) == len(sheet.pixels) == len(found.maps.pixels)
    assert len(sheet.bands[0].columns[4].maps) == len(found.maps.influence)


def test_images_are_matched_by_name(measured, tmp_path):
    model, plan, found = measured
    write_measurement(tmp_path / "a", model, plan, found, facts=FACTS)
    kept = parse((tmp_path / "a" / MAPS).read_bytes())
    (tmp_path / "b").mkdir()
    turned = replace(
        kept,
        images=kept.images[::-1],
        attention=kept.attention[:, ::-1],
        heads=kept.heads[:, ::-1],
        rollout=kept.rollout[::-1],
        pixels=kept.pixels[::-1],
        influence=None,
    )
    (tmp_path / "b" / MAPS).write_bytes(content_of_kept(turned))
    first, second, *_, last = compared_models(tmp_path / "a", tmp_path / "b").bands[0].columns
    np.testing.assert_allclose(first.maps, second.maps, atol=1e-6)
    assert last.maps == []


def test_what_cannot_stand_side_by_side_is_one_line(measured, tmp_path):
    model, plan, found = measured
    for name in "ab":
        write_measurement(tmp_path / name, model, plan, found, facts=FACTS)
    others = replace(found.maps, images=found.maps.images + 1000)
    (tmp_path / "b" / MAPS).write_bytes(content_of(others, (4, 4)))
    with pytest.raises(InputError, match="of no image in common: measure both on the same"):
        compared_models(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / MAPS).write_bytes(b"no maps")
    with pytest.raises(InputError, match=r"b/maps.safetensors is damaged: measure again"):
        compared_models(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / MAPS).unlink()
    with pytest.raises(InputError, match=r"b has no maps.safetensors: an earlier version"):
        compared_models(tmp_path / "a", tmp_path / "b")


def test_a_map_that_is_nowhere_stays_nowhere(measured):
    maps = measured[2].maps
    nothing = replace(maps, rollout=torch.full_like(maps.rollout, torch.nan))
    assert np.isnan(parse(content_of(nothing, (4, 4))).rollout).all()
