"""Of each image its own value, also where some of its values are undefined."""

import math

import pytest
import torch
from torch import Tensor

from trainers.globality.accumulator import Accumulator, map_sums
from trainers.globality.by_image import ImageSums
from trainers.system.world import World

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
IMAGES, HEADS, QUERIES = 9, 2, 5
PRIMARY, FINAL = (1, 2), 3
Values = dict[tuple[str, int], Tensor]


def drawn() -> Values:
    """Values [B, H, Q] of tokens and layers."""
    generator = torch.Generator().manual_seed(0)
    return {
        (token, layer): torch.rand(IMAGES, HEADS, queries, generator=generator)
        for token, queries in (("cls", 1), ("patch", QUERIES))
        for layer in (1, 2, 3)
    }


def added(
    values: Values, images: list[int], of_images: ImageSums | None = None, batch: int = 4
) -> Accumulator:
    """What `images` add up to, in batches, the queries of each in two parts."""
    total = Accumulator(of_images=of_images)
    for start in range(0, len(images), batch):
        if of_images is not None:
            of_images.first = start
        rows = images[start : start + batch]
        for (token, layer), some in values.items():
            for part in some[rows].split(3, dim=2):
                total.add(("globality", token, "entropy", layer), part)
    return total


def by_image(values: Values, images: list[int]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Metrics, and the values of each image."""
    kept = ImageSums((*PRIMARY, FINAL))
    total = added(values, images, kept)
    metrics = total.metrics(PRIMARY)
    return metrics, kept.values(total.values, {}, metrics, PRIMARY, len(images), ALONE)


def test_the_value_of_an_image_is_the_metric_of_that_image_alone():
    values = drawn()
    metrics, found = by_image(values, list(range(IMAGES)))
    assert set(found) == {name for name in metrics if "undefined" not in name}
    for image in range(IMAGES):
        alone = added(values, [image]).metrics(PRIMARY)
        for name, of_each in found.items():
            assert of_each[image].item() == pytest.approx(alone[name], abs=1e-6)


def test_images_in_another_order_have_the_same_values():
    order = [3, 1, 4, 0, 8, 7, 2, 6, 5]
    first, second = by_image(drawn(), list(range(IMAGES)))[1], by_image(drawn(), order)[1]
    for name, of_each in first.items():
        torch.testing.assert_close(of_each[order], second[name])


def test_with_undefined_values_the_mean_is_the_metric_and_leaving_an_image_out_is_foreseen():
    images = list(range(IMAGES)) * 40
    values = drawn()
    values["cls", 1][4, 0] = math.nan
    values["patch", 2][2, 1, :3] = math.nan
    values["patch", 3][7] = math.inf
    metrics, found = by_image(values, images)
    for name, of_each in found.items():
        assert of_each.double().mean().item() == pytest.approx(metrics[name], abs=1e-6)
    for image in range(IMAGES):
        without = added(values, images[:image] + images[image + 1 :]).metrics(PRIMARY)
        for name, of_each in found.items():
            expected = metrics[name] - (of_each[image].item() - metrics[name]) / (len(images) - 1)
            # To first order: what is left is of the square of an image's share.
            assert without[name] == pytest.approx(expected, abs=2 / len(images) ** 2)


def test_a_head_without_any_value_is_in_no_image():
    values = drawn()
    values["cls", 1][:, 0] = math.nan
    metrics, found = by_image(values, list(range(IMAGES)))
    expected = torch.cat([values["cls", 1][:, 1:, 0], values["cls", 2][..., 0]], dim=1).mean(1)
    torch.testing.assert_close(found["globality/cls/entropy"], expected)
    torch.testing.assert_close(
        found["globality/contrast/entropy"].mean().item(), metrics["globality/contrast/entropy"]
    )


PATCHES = 6


def drawn_maps() -> Values:
    """Maps [B, H, Q, N] of tokens and layers, each of which sums to 1."""
    generator = torch.Generator().manual_seed(1)
    return {
        (token, layer): torch.rand(IMAGES, HEADS, queries, PATCHES, generator=generator)
        .pow(3)
        .double()
        .softmax(-1)
        for token, queries in (("cls", 1), ("register", 3), ("patch", QUERIES))
        for layer in (1, 2, 3)
    }


def added_maps(maps: Values, images: list[int], of_images: ImageSums | None = None) -> Accumulator:
    """What the maps of `images` add up to, in batches, the queries of each in two parts."""
    total = Accumulator(of_images=of_images)
    for start in range(0, len(images), 4):
        if of_images is not None:
            of_images.first = start
        rows = images[start : start + 4]
        for (token, layer), some in maps.items():
            place, sums = ("globality", token, layer), []
            for part in some[rows].split(2, dim=2):
                nats = torch.special.entr(part).sum(-1)
                nats = torch.where(part.isnan().any(-1), math.nan, nats)
                total.keep_maps(place, range(len(rows)), part, nats)
                total.add(("globality", token, "entropy", layer), nats / math.log(PATCHES))
                sums.append(map_sums(part, nats))
            total.add_map_sums(place, torch.cat(sums, dim=1))
    return total


def of_maps_by_image(maps: Values, images: list[int]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Metrics, and the values of each image."""
    kept = ImageSums((*PRIMARY, FINAL))
    total = added_maps(maps, images, kept)
    metrics = total.metrics(PRIMARY)
    return metrics, kept.values(total.values, total.maps, metrics, PRIMARY, len(images), ALONE)


def test_what_is_of_the_mean_map_has_values_of_few_queries_whose_mean_is_the_metric():
    metrics, found = of_maps_by_image(drawn_maps(), list(range(IMAGES)))
    for token in ("cls", "register"):
        for measure in ("positional_bias", "content_dependence"):
            for suffix in ("", "/final_block"):
                name = f"globality/{token}/{measure}{suffix}"
                assert found[name].double().mean().item() == pytest.approx(metrics[name], abs=1e-6)
                assert found[name].std() > 1e-3
    assert not any("patch/positional" in name or "contrast/positional" in name for name in found)


def test_bias_and_content_of_an_image_add_up_to_the_selectivity_of_its_own_maps():
    # B + C = 1 - mean H / ln N is a mean over images, whose values are those of the images.
    maps = drawn_maps()
    _, found = of_maps_by_image(maps, list(range(IMAGES)))
    for token in ("cls", "register"):
        of_layers = torch.cat([maps[token, layer] for layer in PRIMARY], dim=1)
        selectivity = 1 - torch.special.entr(of_layers).sum(-1).mean((1, 2)) / math.log(PATCHES)
        both = (found[f"globality/{token}/{m}"] for m in ("positional_bias", "content_dependence"))
        torch.testing.assert_close(sum(both), selectivity.float())


def test_images_of_one_map_have_one_value():
    maps = {place: some[:1].expand_as(some) for place, some in drawn_maps().items()}
    metrics, found = of_maps_by_image(maps, list(range(IMAGES)))
    for name in ("globality/cls/positional_bias", "globality/cls/content_dependence"):
        torch.testing.assert_close(found[name], torch.full((IMAGES,), metrics[name]))


def test_leaving_out_an_image_moves_what_is_of_the_mean_map_as_its_value_foresees():
    images = list(range(IMAGES)) * 40
    maps = drawn_maps()
    maps["cls", 1][4, 0] = math.nan
    maps["register", 2][2, 1, :2] = math.nan
    metrics, found = of_maps_by_image(maps, images)
    for image in range(IMAGES):
        without = added_maps(maps, images[:image] + images[image + 1 :]).metrics(PRIMARY)
        for name, of_each in found.items():
            expected = metrics[name] - (of_each[image].item() - metrics[name]) / (len(images) - 1)
            assert without[name] == pytest.approx(expected, abs=2 / len(images) ** 2)
