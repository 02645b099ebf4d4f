"""All instruments on one network: batches, controls, and what they must show."""

import math

import pytest
import torch

from trainers.config import TrainConfig, override
from trainers.data.augment import shuffle
from trainers.globality.descriptions import DESCRIPTIONS
from trainers.globality.instruments import Instruments, Settings
from trainers.model.vit import VisionTransformer, initialise
from trainers.randomness.forward_draws import ForwardDraws, keyed

torch.set_num_threads(1)

CPU = torch.device("cpu")


def network(seed: int = 0, **change) -> VisionTransformer:
    config = override(
        TrainConfig(),
        {"model.width": 24, "model.heads": 2, **{f"model.{k}": v for k, v in change.items()}},
    )
    model = VisionTransformer(config.model, 16)
    initialise(model, seed, 0.5)
    return model.eval()


def instruments(model: VisionTransformer, **change) -> Instruments:
    settings = {"memory": 16.0, "patch_queries": 64, "causal_images": 6, "replacement": "other"}
    return Instruments(
        model,
        (4, 4),
        has_cls=model.config.cls,
        registers=model.config.registers,
        fixed_patch=5,
        settings=Settings(**(settings | change)),
        device=CPU,
    )


def pictures(images: int) -> torch.Tensor:
    return torch.randn(images, 3, 16, 16, generator=torch.Generator().manual_seed(7))


def seen(model, crops, batch: int, **change) -> dict[str, float]:
    found = instruments(model, **change)
    identifiers = torch.arange(100, 100 + len(crops))
    for some in torch.arange(len(crops)).split(batch):
        with torch.no_grad():
            model(crops[some], observe=found.observer())
        found.see(crops[some], ForwardDraws(), identifiers[some])
    return found.total().metrics((1, 2), by_head=("globality",))


@pytest.mark.slow
def test_batches_and_memory_do_not_matter():
    model, crops = network(registers=2), pictures(10)
    expected = seen(model, crops, 10)
    for batch, memory in ((3, 16.0), (10, 1e-6)):
        assert seen(model, crops, batch, memory=memory) == pytest.approx(expected, abs=2e-4)


def test_what_is_measured_is_described():
    found = seen(network(registers=2), pictures(6), 6)
    named = {name for name in found if "@" not in name}
    assert named == {name for name in DESCRIPTIONS if not name.startswith("student/")}


def test_mirrored_maps_are_those_of_the_images_and_their_mirror_images():
    model, crops = network(registers=1), pictures(5)
    found = seen(model, crops, 2, causal_images=0)
    pooled = instruments(model).attention
    with torch.no_grad():
        model(torch.cat([crops, crops.flip(-1)]), observe=pooled)
    expected = pooled.total.metrics((1, 2))
    names = [name for name in found if name.startswith("mirrored/")]
    assert {name.split("/")[1] for name in names} >= {"cls", "patch", "register", "fixed_patch"}
    for name in names:
        same = name.replace("mirrored/", "globality/")
        assert found[name] == pytest.approx(expected[same], abs=1e-5)
    once = seen(model, crops, 5, causal_images=0)
    assert abs(once["mirrored/cls/positional_bias"] - once["globality/cls/positional_bias"]) > 1e-4


def test_an_image_is_shuffled_by_its_identifier_whatever_its_place_in_the_batch():
    model, crops = network(), pictures(6)
    identifiers = torch.tensor([3, 1, 4, 15, 9, 2])
    found = []
    for order in (torch.arange(6), torch.tensor([5, 2, 0, 1, 4, 3])):
        one = instruments(model, causal_images=0)
        with torch.no_grad():
            model(crops[order], observe=one.observer())
        one.see(crops[order], ForwardDraws(), identifiers[order])
        found.append(one.total().metrics((1, 2)))
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    other = instruments(model, causal_images=0)
    with torch.no_grad():
        model(crops, observe=other.observer())
    other.see(crops, ForwardDraws(), identifiers + 100)
    changed = other.total().metrics((1, 2))
    for name, value in found[0].items():
        if name.startswith("globality/"):
            assert changed[name] == pytest.approx(value, abs=1e-5)
    assert abs(changed["shuffled/cls/entropy"] - found[0]["shuffled/cls/entropy"]) > 1e-5


@pytest.mark.parametrize("replacement", ["mean", "other"])
def test_influence_is_that_of_a_slow_loop_over_the_first_images(replacement):
    model, crops = network(), pictures(5)
    found = seen(model, crops, 2, causal_images=3, replacement=replacement)
    crops = crops[:3]
    entropies, reliances = [], []
    with torch.no_grad():
        for image in range(3):
            source = crops.mean(0) if replacement == "mean" else crops[image - 1]
            before = model(crops[[image]]).cls[0].double()
            strengths = []
            for patch in range(16):
                there = (slice(None), slice(patch // 4 * 4, patch // 4 * 4 + 4))
                there += (slice(patch % 4 * 4, patch % 4 * 4 + 4),)
                changed = crops[image].clone()
                changed[there] = source[there]
                after = model(changed[None]).cls[0].double()
                strengths.append(1 - float(torch.cosine_similarity(before, after, dim=0)))
            total = sum(strengths)
            entropies.append(
                -sum(s / total * math.log(s / total) for s in strengths) / math.log(16)
            )
            reliances.append(total)
    assert found["influence/cls/entropy"] == pytest.approx(sum(entropies) / 3, abs=1e-4)
    assert found["influence/cls/reliance"] == pytest.approx(sum(reliances) / 3, abs=1e-4)


def test_only_so_many_images_are_looked_at_for_causes():
    model, crops = network(), pictures(8)
    few = seen(model, crops, 3, causal_images=4)
    alone = seen(model, crops[:4], 4, causal_images=4)
    for name in (one for one in few if one.startswith(("influence/", "reach/"))):
        assert few[name] == pytest.approx(alone[name], abs=1e-5)
    for none in (0, 1):
        without = seen(model, crops, 3, causal_images=none)
        assert not any(name.startswith(("influence/", "reach/")) for name in without)


def test_shuffled_images_are_the_same_however_they_are_batched():
    crops, identifiers = pictures(4), torch.tensor([5, 6, 7, 8])
    zeros = torch.zeros(4, dtype=torch.int64)
    whole = shuffle(crops, keyed(0, "x", identifiers, zeros, range(1)), 4)
    alone = shuffle(crops[2:3], keyed(0, "x", identifiers[2:3], zeros[2:3], range(1)), 4)
    assert torch.equal(whole[2:3], alone)
    assert not torch.equal(whole, crops)
    assert torch.equal(whole.flatten(2).sort(-1).values, crops.flatten(2).sort(-1).values)


@pytest.mark.parametrize("seed", [0, 3])
def test_without_positions_near_and_far_are_alike_on_shuffled_images(seed):
    """Such a network treats patches as a set, so the others are at a uniform distance.

    Locality counts a query's own patch too, to which attention may be drawn, or not, without any
    position: by a share λ that gives ``(λ - 1/N) / (1 - 1/N)``. Bias is what 1,000 images leave.
    """
    blind = network(seed, patch_position="none", cls_position="none")
    found = seen(blind, pictures(1000), 250, causal_images=0)
    own = found["shuffled/patch/self_mass"] * (1 - 1 / 17) + 1 / 17
    share = own / (own + found["shuffled/patch/patch_mass"])
    expected = (share - 1 / 16) / (1 - 1 / 16)
    assert found["shuffled/patch/distance"] == pytest.approx(1, abs=0.003)
    assert found["shuffled/patch/locality"] == pytest.approx(expected, abs=0.003)
    assert found["shuffled/patch/positional_bias"] < 0.004
    assert found["shuffled/cls/positional_bias"] < 0.004


def test_with_strong_positions_the_same_network_is_biased_by_them():
    found = seen(network(0), pictures(200), 100, causal_images=0)
    assert found["shuffled/patch/positional_bias"] > 0.05
    assert abs(found["shuffled/patch/distance"] - 1) > 0.01
