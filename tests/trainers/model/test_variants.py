"""LayerScale, SwiGLU and the published sizes against timm."""

import pytest
import timm
import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer as Reference
from torch.nn import functional

from trainers.adapters.timm_models import TimmBackbone
from trainers.config import SIZES, ModelConfig, TrainConfig, override
from trainers.globality.statistics import written_norms
from trainers.model.vit import VisionTransformer, initialise
from trainers.system.world import World
from trainers.training.state import TrainState

VARIANTS = [{"layer_scale": 0.3}, {"mlp": "swiglu"}, {"mlp": "swiglu", "layer_scale": 0.3}]
OURS = {
    "cls": "cls_token", "embedding": "patch_embed.proj", "attention.qkv": "attn.qkv",
    "attention.projection": "attn.proj", "expand": "mlp.fc1", "contract": "mlp.fc2",
    "layer_scale1": "ls1.gamma", "layer_scale2": "ls2.gamma",
}  # fmt: skip


def ours(**changes):
    model = VisionTransformer(ModelConfig(width=24, heads=3, depth=3, **changes), 16)
    initialise(model, 0, 0.3)
    for name, parameter in model.named_parameters():
        if "layer_scale" in name:
            generator = torch.Generator().manual_seed(len(name))
            parameter.data = torch.rand(parameter.shape, generator=generator)
    return model


def timms(model):
    """The same function, computed by timm."""
    config = model.config
    gated = config.mlp == "swiglu"
    reference = Reference(
        img_size=16, patch_size=4, num_classes=0, embed_dim=24, depth=3, num_heads=3,
        mlp_ratio=(1 + gated) * config.mlp_hidden / 24,
        init_values=0.1 if config.layer_scale else None,
        **({"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU} if gated else {}),
    )  # fmt: skip
    state = {}
    for name, tensor in model.state_dict().items():
        for own, theirs in OURS.items():
            name = name.replace(own, theirs) if own != "cls" or name == "cls" else name
        state[name] = tensor
    state["pos_embed"] = torch.cat([state.pop("cls_position"), state.pop("position")], dim=1)
    reference.load_state_dict(state)
    return reference.eval()


def images(count=2):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_a_variant_computes_what_timm_does(changes):
    model = ours(**changes)
    reference = timms(model)
    found, expected = model(images()), reference.forward_features(images())
    torch.testing.assert_close(found.tokens, expected, rtol=1e-4, atol=1e-5)
    direction = torch.randn(24, generator=torch.Generator().manual_seed(2))
    (found.cls @ direction).sum().backward()
    (expected[:, 0] @ direction).sum().backward()
    for own, theirs in OURS.items():
        if own in ("cls", "embedding"):
            continue
        mine, other = model.blocks[1], reference.blocks[1]
        name = theirs if "gamma" in theirs else theirs + ".weight"
        if "gamma" in theirs and not changes.get("layer_scale"):
            continue
        gradient = mine.get_parameter(own if "scale" in own else own + ".weight").grad
        torch.testing.assert_close(gradient, other.get_parameter(name).grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_the_first_tokens_alone_and_blocks_computed_again_are_the_same(changes):
    model = ours(**changes)
    whole = model(images())
    first = model(images(), only_first=True)
    torch.testing.assert_close(first.tokens, whole.tokens[:, :1], rtol=1e-4, atol=1e-5)
    whole.cls.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model.checkpointing = True
    model(images()).cls.square().sum().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_the_projection_that_is_shown_is_what_attention_writes_with(changes):
    model = ours(**changes)
    layers = []
    with torch.no_grad():
        model(images(), observe=layers.append)
        layer, block = layers[1], model.blocks[1]
        weights = torch.softmax(layer.queries @ layer.keys.transpose(2, 3) / 8**0.5, -1)
        written = torch.einsum("bhtk,hkd->btd", weights @ layer.values, layer.projection)
        scale = 1.0 if block.layer_scale1 is None else block.layer_scale1
        middle = layers[0].tokens + written + scale * block.attention.projection.bias
        hidden = block.expand(block.norm2(middle))
        if changes.get("mlp") == "swiglu":
            gate, value = hidden[..., : hidden.shape[-1] // 2], hidden[..., hidden.shape[-1] // 2 :]
            hidden = gate / (1 + (-gate).exp()) * value
        else:
            hidden = functional.gelu(hidden)
        after = middle + (1.0 if block.layer_scale2 is None else block.layer_scale2) * (
            block.contract(hidden)
        )
        torch.testing.assert_close(after, layer.tokens, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            written_norms(layer.values, layer.projection),
            torch.einsum("bhtk,hkd->bhtd", layer.values, layer.projection).norm(dim=-1),
            rtol=1e-4, atol=1e-5,
        )  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_the_parameters_of_timms(size):
    with torch.device("meta"):
        model = VisionTransformer(ModelConfig(patch_size=16, **SIZES[size]), 224)
        reference = timm.create_model(f"vit_{size}_patch16_224", num_classes=0)
    # [CLS] and its position are two parameters of one slot and one token in both.
    count, expected = (sum(p.numel() for p in each.parameters()) for each in (model, reference))
    assert count == expected


def test_a_swiglu_has_the_hidden_features_of_dinov2():
    with torch.device("meta"):
        giant = timm.create_model("vit_giant_patch14_dinov2", num_classes=0)
    config = ModelConfig(width=1536, depth=40, heads=24, mlp="swiglu")
    assert giant.blocks[0].mlp.fc1.out_features == 2 * config.mlp_hidden == 8192
    for width, hidden in ((24, 64), (48, 128), (384, 1024), (1024, 2736)):
        assert ModelConfig(width=width, heads=1, mlp="swiglu").mlp_hidden == hidden


def test_layer_scale_starts_at_its_value_and_does_not_decay():
    config = override(TrainConfig(), {"model.layer_scale": 1e-5})
    state = TrainState.fresh(config, World(rank=0, size=1, device=torch.device("cpu")))
    block = state.student.backbone.blocks[0]
    factors = [block.layer_scale1, block.layer_scale2]
    for factor in factors:
        assert torch.equal(factor, torch.full((48,), 1e-5))
    spared = {id(parameter) for parameter in state.optimizer.param_groups[1]["params"]}
    assert {id(factor) for factor in factors} <= spared


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_instruments_see_the_same_of_ours_and_of_timms(changes):
    model = ours(**changes)
    foreign = TimmBackbone(timms(model), "variant")
    seen, other = [], []
    with torch.no_grad():
        model(images(), observe=seen.append)
        foreign(images(), observe=other.append)
    for mine, theirs in zip(seen, other, strict=True):
        for name in ("queries", "keys", "values", "projection", "normalised", "tokens"):
            torch.testing.assert_close(
                getattr(mine, name), getattr(theirs, name), rtol=1e-3, atol=1e-4
            )
