"""A ViT that was exported to ONNX opens with its weights, and gives the tokens that it gave."""

import functools
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.trainers.adapters.test_hugging_face_models import SHAPE, saved
from trainers.adapters.hugging_face_models import WEIGHTS
from trainers.adapters.onnx_file import OnnxFile, _as_saved, described, is_onnx
from trainers.adapters.opening import open_measurable
from trainers.adapters.weights_file import Weights
from trainers.errors import CheckpointError, InputError

onnx = pytest.importorskip("onnx")
timm = pytest.importorskip("timm")


class Tokens(nn.Module):
    """A model of transformers as an exporter wants one, with a head beside it."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = nn.Conv2d(width, 1, 1)

    def forward(self, images):
        tokens = self.backbone(images).last_hidden_state
        # What a head computes is no part of the network: here both kinds of an activation.
        map_ = self.decoder(tokens.transpose(1, 2)[..., None])
        return tokens, nn.functional.gelu(map_).tanh()


def exported(model: nn.Module, path: Path, side: int = 32, opset: int = 20) -> Path:
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        # What the exporter says of itself and of what it traces.
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (images,), path, dynamo=False, opset_version=opset)
    return path


def pictures(side: int = 32):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("vit_tanh", {}),
        ("vit_tanh", {"hidden_act": "gelu"}),
        ("vit_tanh", {"hidden_act": "gelu", "layer_norm_eps": 0.01}),
        ("dinov2", {}),
        ("dinov2", {"layer_norm_eps": 0.01}),
    ],
)
@pytest.mark.parametrize("opset", [14, 20])
def test_what_transformers_made_gives_its_tokens(
    tmp_path: Path, name: str, more: dict[str, Any], opset: int
):
    theirs = saved(tmp_path / "folder", name, **more)
    model = Tokens(theirs, SHAPE["hidden_size"])
    path = exported(model, tmp_path / "model.onnx", opset=opset)
    assert is_onnx(path)
    found = open_measurable(str(path), heads=2)
    assert (found.depth, found.patch_size, found.image_size) == (3, 8, 32)
    assert found.notes[0] == "2 heads, as given."
    assert "decoder.bias" in found.notes[1]
    with torch.no_grad():
        expected = theirs(pictures()).last_hidden_state
        torch.testing.assert_close(found.network(pictures()).tokens, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["deit", "dinov2", "registers", "vit_tanh"])
def test_tensors_say_what_the_configuration_says(tmp_path: Path, name: str):
    saved(tmp_path, name)
    said = json.loads((tmp_path / "config.json").read_text())
    tensors = {_as_saved(one): tensor for one, tensor in load_file(tmp_path / WEIGHTS[0]).items()}
    read = OnnxFile(
        weights=Weights(tensors=tensors),
        activation=said["hidden_act"],
        norm_epsilon=said["layer_norm_eps"],
    )
    found = described(read, 2)
    # Each type has its own way of saying how wide the hidden layer is.
    other = {"intermediate_size"} if name in ("dinov2", "registers") else {"mlp_ratio"}
    assert {key for key, value in found.items() if said.get(key) != value} == other


def test_what_timm_made_gives_its_tokens(tmp_path: Path):
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=2, num_classes=0, global_pool=""
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    found = open_measurable(str(exported(model, tmp_path / "model.onnx", 64)))
    assert (found.depth, found.patch_size, found.image_size) == (2, 16, 64)
    assert found.notes[0].startswith("3 heads are assumed, of 64 features each")
    with torch.no_grad():
        torch.testing.assert_close(
            found.network(pictures(64)).tokens, model(pictures(64)), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(("activation", "said"), [("relu", "another activation"), ("silu", "no")])
def test_another_activation_is_refused_whatever_a_head_computes(tmp_path: Path, activation, said):
    theirs = saved(tmp_path / "folder", "vit_tanh", hidden_act=activation)
    path = exported(Tokens(theirs, SHAPE["hidden_size"]), tmp_path / "model.onnx")
    with pytest.raises(InputError, match=f"have no GELU, or not all the same: found .*{said}"):
        open_measurable(str(path), heads=2)


@pytest.mark.parametrize("opset", [14, 20])
def test_another_epsilon_under_timms_names_is_refused(tmp_path: Path, opset: int):
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=2, num_classes=0, global_pool="",
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-5),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    path = exported(model, tmp_path / "model.onnx", 64, opset)
    with pytest.raises(InputError, match="epsilon of 1e-05; 1e-06 can be measured"):
        open_measurable(str(path))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("embeddings.cls_token", ()),
        ("embeddings.position_embeddings", (1, 0, 32)),
        ("embeddings.patch_embeddings.projection.weight", (32,)),
        ("embeddings.register_tokens", (3,)),
    ],
)
def test_tensors_of_another_shape_are_refused(tmp_path: Path, name: str, shape: tuple[int, ...]):
    saved(tmp_path, "registers")
    tensors = {_as_saved(one): tensor for one, tensor in load_file(tmp_path / WEIGHTS[0]).items()}
    tensors[name] = torch.zeros(shape)
    read = OnnxFile(weights=Weights(tensors=tensors), activation="gelu", norm_epsilon=None)
    with pytest.raises(CheckpointError, match="has the shape"):
        described(read, 2)


def test_what_is_damaged_or_holds_no_vit_is_one_line(tmp_path: Path):
    path = exported(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"other\.onnx: .*\n?$") as raised:
        open_measurable(str(path))
    assert "\n" not in str(raised.value)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"ONNX file .*cut\.onnx cannot be read"):
        open_measurable(str(cut))
    assert not is_onnx(tmp_path / "nowhere")
    assert not is_onnx(tmp_path)


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch):
    path = exported(nn.Conv2d(3, 4, 3), tmp_path / "other.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install 'dinolab\[onnx\]'"):
        open_measurable(str(path))
