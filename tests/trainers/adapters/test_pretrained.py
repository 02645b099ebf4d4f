"""Published weights compute in our ViT what they compute in timm's, and go back unchanged."""

import pytest
import torch
from torch.nn import functional

from trainers.adapters.pretrained import _theirs, load_backbone
from trainers.config import SIZES, ModelConfig
from trainers.errors import CheckpointError, ConfigError
from trainers.model.positions import patch_coordinates, sine_cosine
from trainers.model.vit import VisionTransformer, initialise

timm = pytest.importorskip("timm")

PUBLISHED = {
    ("tiny", 16): 5_524_416,
    ("small", 16): 21_665_664,
    ("small", 8): 21_670_272,
    ("base", 16): 85_798_656,
    ("base", 8): 85_807_872,
}
SMALL = {"embed_dim": 128, "depth": 3, "num_heads": 2, "img_size": 64}


def randomised(name: str, **options: object) -> torch.nn.Module:
    """A timm model of which no parameter has its plain initial value."""
    model = timm.create_model(name, pretrained=False, num_classes=0, **options).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def to_timm(
    backbone: VisionTransformer, *, no_embed_class: bool = False
) -> dict[str, torch.Tensor]:
    """The state of a timm `VisionTransformer` without classifier that computes the same function.

    For a timm model of the same shape and image size, `reg_tokens` as many as our registers and
    `no_embed_class` as given (timm's DINO models: False). What [CLS] carries as its position goes
    into `pos_embed`, or with `no_embed_class` into `cls_token`; the mask token of masked training
    is left out. These models have no rotary positions and no random [CLS] position.
    """
    config, grid = backbone.config, backbone.grid
    ours = {name: tensor.detach().clone() for name, tensor in backbone.state_dict().items()}
    ours.pop("mask", None)
    nowhere = torch.zeros(1, 1, config.width, device=backbone.embedding.weight.device)
    position = ours.pop("position", nowhere.expand(-1, grid[0] * grid[1], -1))
    if config.patch_position == "sincos":
        places = patch_coordinates(grid, nowhere.device)
        position = sine_cosine(places, grid, config.width)[None]
    cls_position = ours.pop("cls_position", nowhere)
    if config.cls and config.cls_position == "tied":
        row, column = config.cls_tied_patch
        cls_position = position[:, None, row * grid[1] + column]
    elif config.cls and config.cls_position == "sincos":
        here = torch.tensor(config.cls_coordinate, device=nowhere.device)
        cls_position = sine_cosine(here, grid, config.width)[None, None]
    if config.cls and no_embed_class:
        ours["cls"] = ours["cls"] + cls_position
    elif not no_embed_class:
        first = [cls_position] if config.cls else []
        position = torch.cat([*first, *[nowhere] * config.registers, position], dim=1)
    return {_theirs(name): tensor for name, tensor in ours.items()} | {"pos_embed": position}


def pictures(side: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def assert_same(ours: VisionTransformer, theirs: torch.nn.Module, side: int) -> None:
    images = pictures(side)
    with torch.no_grad():
        found, expected = ours(images).tokens, theirs.forward_features(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vit_small_patch16_224.dino", "vit_tiny_patch16_224", "vit_base_patch8_224.dino"]
)
def test_outputs_are_those_of_timm(name: str):
    options = {"depth": 2, "img_size": 64} if "base" in name else {}
    theirs = randomised(name, **options)
    loaded = load_backbone(theirs.state_dict())
    assert loaded.image_size == (64 if options else 224)
    assert loaded.set_aside == ()
    assert_same(loaded.backbone, theirs, loaded.image_size)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reg_tokens": 4},
        {"reg_tokens": 4, "no_embed_class": True},
        {"no_embed_class": True},
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
        {"class_token": False, "global_pool": "avg", "fc_norm": False, "reg_tokens": 2},
        {"pos_embed": "none"},
        {"mlp_ratio": 8 / 3},
    ],
)
def test_every_variant_of_tokens_and_positions_has_the_outputs_of_timm(options: dict):
    theirs = randomised("vit_tiny_patch16_224", **SMALL | options)
    assert_same(load_backbone(theirs.state_dict(), image_size=64).backbone, theirs, 64)


def test_at_another_size_outputs_are_those_of_bicubically_interpolated_positions():
    theirs = randomised("vit_tiny_patch16_224", **SMALL)
    larger = randomised("vit_tiny_patch16_224", **SMALL | {"img_size": 96})
    state = theirs.state_dict()
    first, patches = state["pos_embed"].split([1, 16], dim=1)
    square = patches.unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    stretched = functional.interpolate(square, (6, 6), mode="bicubic").flatten(2).transpose(1, 2)
    larger.load_state_dict(state | {"pos_embed": torch.cat([first, stretched], dim=1)})
    for image_size in (64, 96):
        loaded = load_backbone(state, image_size=image_size)
        assert loaded.backbone.grid == (image_size // 16,) * 2
        assert_same(loaded.backbone, larger, 96)


@pytest.mark.parametrize(("size", "patch"), PUBLISHED)
def test_sizes_have_the_published_numbers_of_parameters(size: str, patch: int):
    with torch.device("meta"):
        ours = VisionTransformer(ModelConfig(patch_size=patch, **SIZES[size]), 224)
        theirs = timm.create_model(f"vit_{size}_patch16_224", patch_size=patch, num_classes=0)
    counts = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert counts == [PUBLISHED[size, patch]] * 2


def test_timm_state_goes_to_us_and_back_bit_for_bit():
    theirs = randomised("vit_small_patch16_224.dino", depth=2)
    state = theirs.state_dict()
    back = to_timm(load_backbone(state).backbone)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {}),
        ({"registers": 3}, {"reg_tokens": 3}),
        ({"registers": 3}, {"reg_tokens": 3, "no_embed_class": True}),
        ({"cls_position": "none"}, {}),
        ({"cls_position": "none"}, {"no_embed_class": True}),
        ({"cls_position": "tied", "cls_tied_patch": (1, 2)}, {}),
        ({"cls_position": "tied", "cls_tied_patch": (1, 2)}, {"no_embed_class": True}),
        ({"patch_position": "sincos", "cls_position": "sincos"}, {}),
        ({"patch_position": "none"}, {}),
        ({"cls": False}, {"class_token": False, "global_pool": "avg", "fc_norm": False}),
    ],
)
def test_our_trained_backbones_compute_the_same_in_timm(changes: dict, options: dict):
    config = ModelConfig(patch_size=16, width=128, depth=3, heads=2, **changes)
    ours = VisionTransformer(config, 64, masks=True)
    initialise(ours, 0, 0.1)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL | options).eval()
    state = to_timm(ours, no_embed_class=options.get("no_embed_class", False))
    theirs.load_state_dict(state)
    assert_same(ours, theirs, 64)


# Names


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return randomised("vit_tiny_patch16_224", **SMALL).state_dict()


HEADS = {
    "head.weight": (10, 128),
    "head_dist.bias": (10,),
    "fc.weight": (10, 128),
    "fc_norm.weight": (128,),
    "dino_head.last_layer.weight_g": (3, 1),
    "ibot_head.mlp.0.weight": (3, 3),
    "mask_token": (1, 1, 64),
    "decoder_pos_embed": (1, 17, 64),
    "decoder_blocks.0.attn.qkv.weight": (192, 64),
    "pre_logits.fc.weight": (128, 128),
}


def test_heads_masks_classifiers_and_decoders_are_set_aside_by_name(state: dict):
    more = {name: torch.zeros(shape) for name, shape in HEADS.items()}
    loaded = load_backbone(state | more)
    assert loaded.set_aside == tuple(sorted(HEADS))
    plain = load_backbone(state).backbone.state_dict()
    assert all(torch.equal(plain[n], t) for n, t in loaded.backbone.state_dict().items())


def test_a_name_left_over_is_refused_by_name(state: dict):
    with pytest.raises(CheckpointError, match=r"left over blocks\.0\.attn\.q_norm\.weight, odd$"):
        load_backbone(
            state | {"odd": torch.zeros(2), "blocks.0.attn.q_norm.weight": torch.zeros(64)}
        )


@pytest.mark.parametrize(
    "name",
    ["norm.bias", "blocks.1.attn.qkv.bias", "blocks.2.mlp.fc2.weight", "patch_embed.proj.bias"],
)
def test_a_missing_name_is_named_as_the_source_would_have_it(state: dict, name: str):
    with pytest.raises(CheckpointError, match=f"missing {name}$"):
        load_backbone({key: tensor for key, tensor in state.items() if key != name})


def test_a_shape_that_does_not_fit_is_one_line(state: dict):
    with pytest.raises(CheckpointError, match=r"blocks\.1\.norm1\.weight") as caught:
        load_backbone(state | {"blocks.1.norm1.weight": torch.zeros(5)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("patch_embed.proj.weight", (128, 768)), ("pos_embed", (17, 128)), ("pos_embed", ())],
)
def test_tensors_with_other_axes_are_refused_by_name(state: dict, name: str, shape: tuple):
    with pytest.raises(CheckpointError, match=f"{name} has the shape"):
        load_backbone(state | {name: torch.zeros(shape)})


def test_what_is_no_vit_is_refused():
    with pytest.raises(CheckpointError, match="not those of a ViT"):
        load_backbone({"conv1.weight": torch.zeros(3)})


def test_positions_that_are_no_square_are_refused(state: dict):
    with pytest.raises(CheckpointError, match="pos_embed with 13 positions"):
        load_backbone(state | {"pos_embed": torch.zeros(1, 13, 128)})


def test_heads_are_asked_for_where_the_width_does_not_tell():
    theirs = randomised("vit_tiny_patch16_224", **SMALL | {"embed_dim": 48, "num_heads": 3})
    with pytest.raises(ConfigError, match="say how many heads"):
        load_backbone(theirs.state_dict())
    assert_same(load_backbone(theirs.state_dict(), heads=3).backbone, theirs, 64)


def test_heads_that_do_not_divide_the_width_are_one_line(state: dict):
    with pytest.raises(ConfigError, match="heads must divide width, got 5 and 128") as caught:
        load_backbone(state, heads=5)
    with pytest.raises(ConfigError, match=r"heads: .* \(given: 0\)"):
        load_backbone(state, heads=0)
    assert "\n" not in str(caught.value)


def test_the_distillation_token_of_deit_is_a_register():
    options = {"embed_dim": 128, "depth": 2, "num_heads": 2, "img_size": 64}
    theirs = randomised("deit_tiny_distilled_patch16_224", **options)
    loaded = load_backbone(theirs.state_dict())
    assert loaded.backbone.config.registers == 1
    assert_same(loaded.backbone, theirs, 64)


def test_the_image_size_is_asked_for_where_there_are_no_positions(state: dict):
    with pytest.raises(CheckpointError, match="image size: give it"):
        load_backbone({name: tensor for name, tensor in state.items() if name != "pos_embed"})
