"""Foreign ViTs are measured as ours are: same features, and queries and keys that explain them."""

import dataclasses

import pytest
import torch
from torch.nn import functional

from trainers.adapters.pretrained import load_backbone
from trainers.adapters.timm_models import open_timm
from trainers.errors import CheckpointError, InputError
from trainers.model.vit import Layer

timm = pytest.importorskip("timm")

# name, side of the images, [CLS], registers
MODELS = [
    ("vit_tiny_patch16_224", 64, True, 0),
    ("vit_small_patch16_224.dino", 64, True, 0),
    ("vit_small_patch14_reg4_dinov2.lvd142m", 56, True, 4),
    ("deit_tiny_distilled_patch16_224", 64, True, 1),
    ("vit_little_patch16_reg4_gap_256", 64, False, 4),
    ("eva02_tiny_patch14_224", 56, True, 0),
    ("vit_small_patch16_dinov3", 64, True, 4),
    ("vit_tiny_patch16_dinov3_qkvb", 64, True, 4),
    ("vit_small_patch16_rope_224", 64, True, 0),
    ("vit_small_patch16_rope_mixed_224", 64, True, 0),
]
NAMES = [model[0] for model in MODELS]


def pictures(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def shaken(backbone):
    """The same backbone without any parameter at its plain initial value."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return backbone


@pytest.mark.parametrize(("name", "side", "has_cls", "registers"), MODELS, ids=NAMES)
def test_features_are_those_of_timm(name: str, side: int, has_cls: bool, registers: int):
    backbone = shaken(open_timm(name, image_size=side))
    images = pictures(side)
    layers: list[Layer] = []
    found = backbone(images, observe=layers.append)
    expected = backbone.model.forward_features(images)
    assert torch.equal(found.tokens, expected)
    assert (found.has_cls, found.registers_count) == (has_cls, registers)
    assert found.grid[0] * found.grid[1] == found.patches.shape[1]
    assert [layer.number for layer in layers] == list(range(1, len(backbone.model.blocks) + 1))
    torch.testing.assert_close(backbone.model.norm(layers[-1].tokens), expected)
    short = backbone(images, only_first=True)
    assert torch.equal(short.tokens, expected[:, : found.first])


@pytest.mark.parametrize(("name", "side", "has_cls", "registers"), MODELS, ids=NAMES)
def test_queries_and_keys_are_those_that_attention_is_computed_from(
    name: str, side: int, has_cls: bool, registers: int, monkeypatch: pytest.MonkeyPatch
):
    backbone = shaken(open_timm(name, image_size=side))
    used = []
    attend = functional.scaled_dot_product_attention

    def spy(queries, keys, values, *others, **options):
        used.append((queries, keys, values))
        return attend(queries, keys, values, *others, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", spy)
    layers: list[Layer] = []
    backbone(pictures(side), observe=layers.append)
    assert len(used) == len(layers)
    for layer, expected in zip(layers, used, strict=True):
        made = (layer.queries, layer.keys, layer.values)
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def test_queries_and_keys_are_those_of_our_own_vit_with_the_same_weights():
    theirs = shaken(open_timm("vit_tiny_patch16_224", image_size=64))
    ours = load_backbone(theirs.model.state_dict()).backbone
    images = pictures(64)
    expected: list[Layer] = []
    found: list[Layer] = []
    with torch.no_grad():
        ours(images, observe=expected.append)
        theirs(images, observe=found.append)
    for one, other in zip(found, expected, strict=True):
        for part in dataclasses.fields(Layer):
            pair = getattr(one, part.name), getattr(other, part.name)
            torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-4)


def test_images_of_another_size_have_another_grid_and_can_be_measured():
    backbone = open_timm("vit_small_patch16_dinov3", image_size=64)
    layers: list[Layer] = []
    found = backbone(pictures(96), observe=layers.append)
    assert found.grid == (6, 6)
    assert layers[0].queries.shape[2] == found.first + 36


def test_nothing_is_left_watching():
    backbone = open_timm("vit_tiny_patch16_224", image_size=64)
    backbone(pictures(64), observe=lambda layer: None)
    assert all(not module._forward_hooks for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_an_attention_that_computes_otherwise_is_refused_by_name(monkeypatch: pytest.MonkeyPatch):
    attention = timm.layers.attention.Attention
    forward = attention.forward
    monkeypatch.setattr(attention, "forward", lambda *a, **b: 1.01 * forward(*a, **b) + 0.01)
    with pytest.raises(InputError, match=r"blocks\.0\.attn \(Attention\) is of a kind that cannot"):
        open_timm("vit_tiny_patch16_224", image_size=64)


def test_differential_attention_is_refused():
    with pytest.raises(InputError, match=r"blocks\.0\.attn \(DiffAttention\)"):
        open_timm("vit_dlittle_patch16_reg1_gap_256", image_size=64)


def test_blocks_without_attention_modules_are_refused():
    with pytest.raises(InputError, match=r"blocks\.0 \(ParallelThingsBlock\) has no attention"):
        open_timm("vit_small_patch16_18x2_224", image_size=64)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tiny_patch16_223", "no such model; nearest are vit_tiny_patch16_224"),
        ("resnet50", "ResNet is no ViT"),
        ("vit_tiny_patch16_224.nope", "nope"),
        ("", "no such model"),
    ],
)
def test_what_is_no_timm_vit_is_refused_in_one_line(name: str, message: str):
    with pytest.raises(InputError, match=message) as caught:
        open_timm(name)
    assert "\n" not in str(caught.value)


def test_images_that_patches_do_not_fill_are_refused():
    with pytest.raises(InputError, match="60×60"):
        open_timm("vit_tiny_patch16_224", image_size=64)(pictures(60))


def test_weights_come_from_a_file_whole_or_not_at_all(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=7)
    torch.save(model.state_dict(), tmp_path / "whole.pth")
    part = {name: t for name, t in model.state_dict().items() if name != "norm.bias"}
    torch.save(part, tmp_path / "part.pth")
    opened = open_timm("vit_tiny_patch16_224", tmp_path / "whole.pth", image_size=64)
    assert torch.equal(opened.model.pos_embed, model.pos_embed)
    with pytest.raises(CheckpointError, match=r"norm\.bias"):
        open_timm("vit_tiny_patch16_224", tmp_path / "part.pth", image_size=64)
