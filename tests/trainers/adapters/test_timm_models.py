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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def state_of(name: str, **options) -> dict[str, torch.Tensor]:
    """The state of a small model with weights that are not plain."""
    model = timm.create_model(name, num_classes=7, **options)
    return shaken(model).state_dict()


def test_weights_are_taken_whole_or_not_at_all():
    state = state_of("vit_tiny_patch16_224", img_size=64)
    opened = open_timm("vit_tiny_patch16_224", state, image_size=64)
    assert torch.equal(opened.model.pos_embed, state["pos_embed"])
    assert opened.set_aside == ("head.bias", "head.weight")
    part = {name: tensor for name, tensor in state.items() if name != "norm.bias"}
    with pytest.raises(CheckpointError, match=r"missing norm\.bias$"):
        open_timm("vit_tiny_patch16_224", part, image_size=64)
    with pytest.raises(CheckpointError, match=r"left over odd\.weight$"):
        open_timm("vit_tiny_patch16_224", state | {"odd.weight": torch.ones(2)}, image_size=64)


def official(name: str, **options) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The state of a model of timm's, and how its authors name it."""
    state = state_of(name, depth=2, **options)
    theirs = {"mask_token": torch.zeros(1, 384)}
    for key, tensor in state.items():
        key = key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        if name.endswith("reg4_dinov2"):
            key = key.replace("reg_token", "register_tokens")
        else:
            key = key.replace("reg_token", "storage_tokens")
        theirs[key] = tensor
        if "dinov3" in name and key.endswith("attn.qkv.weight"):
            theirs[key[:-6] + "bias"] = theirs[key[:-6] + "bias_mask"] = torch.zeros(3 * 384)
    if name.endswith("reg4_dinov2"):
        # [CLS] has a position of its own there, and in timm it is added already.
        position = torch.ones(1, 1, 384)
        theirs["cls_token"] = theirs["cls_token"] - position
        theirs["pos_embed"] = torch.cat([position, theirs["pos_embed"]], 1)
    if "dinov3" in name:
        theirs["rope_embed.periods"] = torch.ones(16)
    return state, theirs


@pytest.mark.parametrize(
    "name",
    ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"],
)
def test_official_files_of_dinov2_and_dinov3_give_the_features_of_timm(name: str):
    side = 56 if "14" in name else 64
    sized = {} if "dinov3" in name else {"img_size": side}
    state, theirs = official(name, **sized)
    model = timm.create_model(name, depth=2, num_classes=0, **sized).eval()
    model.load_state_dict({key: t for key, t in state.items() if not key.startswith("head.")})
    found = open_timm(name, theirs, options={"depth": 2})
    images = torch.randn(1, 3, *found.image_size, generator=torch.Generator().manual_seed(1))
    if "dinov3" not in name:
        assert found.image_size == (side, side)
    with torch.no_grad():
        torch.testing.assert_close(found(images).tokens, model.forward_features(images))
    assert "mask_token" in found.set_aside


def test_positions_of_another_grid_are_kept_and_not_interpolated():
    state = state_of("vit_tiny_patch16_224", depth=1, img_size=96)
    found = open_timm("vit_tiny_patch16_224", state, options={"depth": 1})
    assert found.resized
    assert found.image_size == (96, 96)
    assert torch.equal(found.model.pos_embed, state["pos_embed"])


def test_weights_of_other_patches_are_not_resampled():
    state = state_of("vit_tiny_patch16_224", depth=1)
    with pytest.raises(CheckpointError, match="patches of 16×16 pixels, not 14×14"):
        open_timm("vit_tiny_patch16_224", state, options={"depth": 1, "patch_size": 14})


def test_the_filter_of_timm_prints_nothing(capsys: pytest.CaptureFixture[str]):
    _, theirs = official("vit_small_patch16_dinov3")
    open_timm("vit_small_patch16_dinov3", theirs, options={"depth": 2})
    assert capsys.readouterr().out == ""


def test_biases_of_dinov3_are_not_left_out_unless_they_are_zero():
    _, theirs = official("vit_small_patch16_dinov3")
    biased = theirs | {"blocks.0.attn.qkv.bias": torch.ones(3 * 384)}
    with pytest.raises(CheckpointError, match="ends in _qkvb"):
        open_timm("vit_small_patch16_dinov3", biased, options={"depth": 2})
    only_keys = torch.cat([torch.zeros(384), torch.ones(384), torch.zeros(384)])
    masked = theirs | {"blocks.0.attn.qkv.bias": only_keys}
    open_timm("vit_small_patch16_dinov3", masked, options={"depth": 2})


def test_layer_scales_of_deit_3_are_found_under_their_old_names():
    name = "deit3_small_patch16_224"
    state = state_of(name, depth=1)
    theirs = {key.replace("ls1.gamma", "gamma_1"): tensor for key, tensor in state.items()}
    found = open_timm(name, theirs, options={"depth": 1})
    assert torch.equal(found.model.blocks[0].ls1.gamma, state["blocks.0.ls1.gamma"])


# Grids


@pytest.mark.parametrize(
    ("name", "patch", "size"),
    [
        ("vit_tiny_r_s16_p8_224", 32, 96),
        ("vit_small_resnet26d_224", 32, 96),
        ("vit_base_mci_224", 16, 64),
        ("vitamin_small_224", 16, 64),
    ],
)
def test_a_patch_behind_a_stem_of_convolutions_is_what_a_token_stands_for(name, patch, size):
    found = open_timm(name, options={"depth": 1} if name.startswith("vit_") else None)
    assert found.patch_size == (patch, patch)
    found.check_size(size)
    with torch.no_grad():
        features = found(pictures(size))
    assert features.grid == (size // patch, size // patch)
    assert features.patches.shape[1] == (size // patch) ** 2
    with pytest.raises(InputError, match="no whole number"):
        found.check_size(size + 8)


def test_images_that_patches_do_not_fill_are_cut_as_timm_cuts_them():
    found = open_timm("vit_base_patch14_dinov2", options={"img_size": 60, "depth": 1})
    assert (found.own_size, found.image_size) == ((60, 60), (56, 56))
    with torch.no_grad():
        assert found(pictures(56)).grid == (4, 4)
