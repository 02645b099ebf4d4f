"""Networks start as those of facebookresearch/dino do, but for the bias of the patch embedding."""

import pytest
import scipy.stats
import torch
from torch import nn

from trainers.config import TrainConfig, override
from trainers.model.network import Network
from trainers.model.vit import initialise

CONFIG = override(
    TrainConfig(),
    {
        "model.width": 96, "model.patch_size": 16, "model.depth": 1, "head.bottleneck": 64,
        "data.image_size": 96, "augment.global_size": 96, "augment.local_size": 32,
        "evaluation.globality_layers": [1],
    },
)  # fmt: skip


class Original(nn.Module):
    """The layers of vision_transformer.py, initialised as there."""

    def __init__(self, config):
        super().__init__()
        width, head = config.model.width, config.head
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 37, width))
        self.norm = nn.LayerNorm(width)
        self.embedding = nn.Conv2d(3, width, 16, 16)
        self.qkv = nn.Linear(width, 3 * width)
        for parameter in (self.cls, self.position, self.qkv.weight):
            nn.init.trunc_normal_(parameter, std=0.02)
        nn.init.zeros_(self.qkv.bias)
        # Made after the others were initialised.
        self.last_layer = nn.Linear(head.bottleneck, head.prototypes, bias=False)


PAIRS = {
    "backbone.cls": "cls", "backbone.cls_position": "cls", "backbone.position": "position",
    "backbone.embedding.weight": "embedding.weight",
    "backbone.norm.weight": "norm.weight", "backbone.norm.bias": "norm.bias",
    "backbone.blocks.0.norm1.weight": "norm.weight",
    "backbone.blocks.0.attention.qkv.weight": "qkv.weight",
    "backbone.blocks.0.attention.qkv.bias": "qkv.bias",
    "backbone.blocks.0.expand.weight": "qkv.weight",
    "backbone.blocks.0.contract.bias": "qkv.bias",
    "head.layers.0.weight": "qkv.weight", "head.layers.2.weight": "qkv.weight",
    "head.layers.2.bias": "qkv.bias", "head.prototypes": "last_layer.weight",
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_a_parameter_starts_as_in_the_original(name):
    torch.manual_seed(0)
    ours, theirs = Network(CONFIG), Original(CONFIG)
    initialise(ours, 0, 0.02)
    found = ours.get_parameter(name).detach().flatten()
    expected = theirs.get_parameter(PAIRS[name]).detach().flatten()
    assert len(expected.unique()) == 1 or scipy.stats.ks_2samp(found, expected).pvalue > 1e-3
    if len(expected.unique()) == 1:
        assert found.unique().tolist() == expected.unique().tolist()


def test_every_parameter_has_its_own_draws():
    network = Network(CONFIG)
    initialise(network, 0, 0.02)
    seen = [p.detach().flatten()[:4] for _, p in network.named_parameters() if p.std() > 0]
    for number, one in enumerate(seen):
        assert not any(torch.equal(one, other) for other in seen[:number])
