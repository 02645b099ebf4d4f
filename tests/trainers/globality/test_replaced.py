"""Tokens replaced after every block, against blocks that are run by hand."""

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from trainers.adapters.timm_models import TimmBackbone
from trainers.globality.replaced import (
    DESCRIPTIONS,
    IMAGES,
    Replaced,
    compared,
    mean_cosines,
)
from trainers.globality.tokens import Tokens
from trainers.model.vit import Layer
from trainers.randomness.forward_draws import ForwardDraws

SIDE, PATCH, DEPTH, REGISTERS = 3, 8, 3, 2
FIRST = 1 + REGISTERS


def vit() -> torch.nn.Module:
    """A small ViT of timm with random weights, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(
            "vit_tiny_patch16_224", img_size=SIDE * PATCH, patch_size=PATCH, depth=DEPTH,
            embed_dim=24, num_heads=3, reg_tokens=REGISTERS,
        )  # fmt: skip


@pytest.fixture(scope="module")
def backbone() -> TimmBackbone:
    """A small random ViT of timm whose tokens differ from image to image."""
    model = vit()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(20)
            block.attn.proj.weight.mul_(20)
            block.mlp.fc1.weight.mul_(20)
            block.mlp.fc2.weight.mul_(20)
    return TimmBackbone(model.eval().requires_grad_(False), "small")


def images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, SIDE * PATCH, SIDE * PATCH, generator=generator)


def tokens_of(backbone: TimmBackbone) -> Tokens:
    return Tokens(
        grid=(SIDE, SIDE),
        has_cls=backbone.has_cls,
        registers=backbone.registers_count,
        patch_queries=torch.arange(SIDE * SIDE),
        fixed_patch=None,
    )


def measured(backbone: TimmBackbone, crops: Tensor, batch: int = 100) -> dict[str, float]:
    replaced = Replaced(tokens_of(backbone))
    for part in crops.split(batch):
        replaced.see(part, ForwardDraws(), backbone(part, observe=replaced))
    return replaced.metrics(backbone, list(backbone.blocks))


def by_hand(model: torch.nn.Module, crops: Tensor, instead: list[Tensor] | None, places: slice):
    """Tokens after every block [n, T, D] and behind the last norm; `instead` by block."""
    tokens = model.norm_pre(model._pos_embed(model.patch_embed(crops)))
    after = []
    for number, block in enumerate(model.blocks):
        tokens = block(tokens).clone()
        if instead is not None and number < len(model.blocks) - 1:
            tokens[:, places] = instead[number]
        after.append(tokens.clone())
    return after, model.norm(tokens).double().numpy()


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of tokens [P, D] of two images, mean over places."""
    products = [
        a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(one, other, strict=True)
    ]
    return float(np.mean(products))


@pytest.mark.parametrize("batch", [2, 100])
@pytest.mark.parametrize("stand_in", ["mean", "other"])
@pytest.mark.parametrize(("kind", "places"), [("cls", slice(0, 1)), ("register", slice(1, FIRST))])
def test_it_is_what_blocks_run_by_hand_give(backbone, kind, places, stand_in, batch):
    crops, model = images(5), backbone.model
    held, own = by_hand(model, crops, None, places)
    instead = []
    for tokens in held:
        rows = [tokens[(i - 1) % 5, places] for i in range(5)]
        if stand_in == "mean":
            rows = [sum(tokens[j, places] for j in range(5) if j != i) / 4 for i in range(5)]
        instead.append(torch.stack(rows))
    _, changed = by_hand(model, crops, instead, places)
    found = measured(backbone, crops, batch)
    for output, of in (("cls", slice(0, 1)), ("patch", slice(FIRST, None))):
        moved = [1 - cosine(changed[i, of], own[i, of]) for i in range(5)]
        apart = [1 - cosine(own[i, of], own[j, of]) for i in range(5) for j in range(5) if i != j]
        kept = 1 - np.mean(moved) / np.mean(apart)
        assert kept < 0.999
        name = f"replaced/{kind}/{output}"
        assert found[f"{name}_kept_{stand_in}"] == pytest.approx(kept, abs=1e-5)
        nearest = [
            np.argmax([cosine(changed[i, of], own[j, of]) for j in range(5)]) for i in range(5)
        ]
        right = np.mean(np.array(nearest) == np.arange(5))
        assert found[f"{name}_found_{stand_in}"] == pytest.approx(right)


def test_names_are_those_that_are_described(backbone):
    assert measured(backbone, images(3)).keys() == DESCRIPTIONS.keys()


def test_outputs_of_the_other_image_keep_nothing_and_undisturbed_ones_all():
    own = torch.randn(2, 200, 6, generator=torch.Generator().manual_seed(0))
    apart = 1 - mean_cosines(own, own)
    for changed, kept in ((own, 1.0), (own.roll(1, dims=0), 0.0)):
        found = compared(apart, 1 - mean_cosines(changed, own))
        assert found == pytest.approx({"kept": kept, "found": kept})


def test_outputs_that_are_alike_in_all_images_keep_nothing_that_could_be_told():
    own = torch.ones(3, 4, 5)
    assert compared(1 - mean_cosines(own, own), torch.zeros(3, 3)) == {}


def test_tokens_that_are_the_same_in_all_images_can_be_replaced_by_each_other(backbone):
    """Without attention [CLS] and registers know of no image, and patches keep all of theirs."""
    model = vit()
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
    found = measured(TimmBackbone(model.eval().requires_grad_(False), "deaf"), images(4))
    assert found == pytest.approx(
        {name: 1.0 for name in DESCRIPTIONS if "/patch_" in name}, abs=1e-5
    )


def test_the_first_images_are_measured(backbone):
    crops = images(IMAGES + 3)
    assert measured(backbone, crops, batch=10) == pytest.approx(
        measured(backbone, crops[:IMAGES]), abs=1e-5
    )
    replaced = Replaced(tokens_of(backbone))
    assert replaced.passes(IMAGES + 3, 2) == 4 * IMAGES
    assert replaced.passes(1, 2) == replaced.passes(IMAGES, 1) == 0


def test_one_image_and_what_is_not_finite_have_nothing(backbone):
    assert measured(backbone, images(1)) == {}
    crops = images(3)
    crops[1] = torch.nan
    assert measured(backbone, crops) == {}


def test_afterwards_the_network_is_as_before_even_when_it_failed(backbone):
    crops, replaced = images(3), Replaced(tokens_of(backbone))
    before = backbone(crops, observe=replaced)
    replaced.see(crops, ForwardDraws(), before)

    class Broken:
        def __call__(self, images: Tensor, draws: ForwardDraws) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replaced.metrics(Broken(), list(backbone.blocks))
    assert torch.equal(backbone(crops).tokens, before.tokens)


def test_without_cls_and_registers_nothing_is_kept():
    tokens = Tokens(
        grid=(2, 2), has_cls=False, registers=0, patch_queries=torch.arange(4), fixed_patch=None
    )
    replaced = Replaced(tokens)
    heads = torch.zeros(2, 1, 4, 3)
    rows = torch.zeros(2, 4, 3)
    replaced(
        Layer(
            number=1, queries=heads, keys=heads, values=heads, projection=torch.zeros(1, 3, 3),
            normalised=rows, tokens=rows,
        )
    )  # fmt: skip
    assert replaced.metrics(lambda *_: None, []) == {}
    assert replaced.passes(5, 2) == 0


def test_places_weigh_alike_however_many_there_are():
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(3, 150, 4, generator=generator) for _ in range(2))
    expected = [[cosine(a.numpy(), b.numpy()) for b in other] for a in one]
    np.testing.assert_allclose(mean_cosines(one, other).numpy(), expected, atol=1e-6)


def test_cosines_of_nothing_are_zero():
    assert mean_cosines(torch.zeros(2, 3, 4), torch.ones(3, 3, 4)).tolist() == [[0.0] * 3] * 2
