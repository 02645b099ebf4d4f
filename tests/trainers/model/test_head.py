"""The projection head against PyTorch's own weight and batch normalisation."""

import pytest
import scipy.stats
import torch
from torch import nn
from torch.nn import functional

from trainers.config import HeadConfig
from trainers.model.head import BatchNorm, ProjectionHead
from trainers.model.vit import initialise


def features(count=6, width=10, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("norm_last_layer", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_head_is_that_of_the_paper(layers, norm_last_layer, batch_norm):
    config = HeadConfig(
        layers=layers, hidden=7, bottleneck=5, prototypes=4,
        norm_last_layer=norm_last_layer, batch_norm=batch_norm,
    )  # fmt: skip
    head = ProjectionHead(10, config)
    initialise(head, 0, 0.5)
    reference = nn.Sequential()
    for number, layer in enumerate(head.layers):
        linear = nn.Linear(layer.in_features, layer.out_features)
        linear.load_state_dict(layer.state_dict())
        reference.append(linear)
        if number < len(head.layers) - 1:
            if batch_norm:
                reference.append(nn.BatchNorm1d(7))
            reference.append(nn.GELU())
    last = nn.utils.parametrizations.weight_norm(nn.Linear(5, 4, bias=False), dim=0)
    norms = torch.ones(4, 1) if norm_last_layer else torch.tensor([[0.5], [1.0], [2.0], [3.0]])
    last.parametrizations.weight.original0.data = norms
    last.parametrizations.weight.original1.data = head.prototypes.data.clone()
    if not norm_last_layer:
        head.prototype_norms.data.copy_(norms)
    given = features()
    close = {"rtol": 1e-5, "atol": 2e-6}
    if not batch_norm:  # which computes in float32
        given = given.double()
        close = {"rtol": 1e-6, "atol": 1e-7}
        for module in (head, reference, last):
            module.double()
    expected = last(functional.normalize(reference(given), dim=-1))
    torch.testing.assert_close(head(given).float(), expected.float(), **close)
    assert [
        name for name, p in head.named_parameters() if any(p is q for q in head.last_layer)
    ] == (["prototypes"] if norm_last_layer else ["prototypes", "prototype_norms"])


def test_batch_norm_is_that_of_pytorch_in_training_and_evaluation():
    ours, theirs = BatchNorm(10), nn.BatchNorm1d(10)
    for seed in range(3):
        given = [features(8, 10, seed).mul(3).add(1).requires_grad_() for _ in range(2)]
        weight = features(8, 10, 99)
        outputs = [norm(x, *extra) for norm, x, extra in (
            (ours, given[0], (None,)), (theirs, given[1], ())
        )]  # fmt: skip
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-5)
        for output in outputs:
            (output * weight).sum().backward()
        torch.testing.assert_close(given[0].grad, given[1].grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_variance, theirs.running_var)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(features(), None), theirs(features()))


def test_the_head_starts_with_unit_prototypes():
    head = ProjectionHead(10, HeadConfig(prototypes=6, norm_last_layer=False))
    initialise(head, 0, 0.02)
    assert torch.equal(head.prototype_norms, torch.ones(6, 1))
    assert head(features()).abs().max() <= 1


def test_prototypes_start_as_a_linear_layer_of_pytorch_does():
    head = ProjectionHead(10, HeadConfig(bottleneck=64, prototypes=500))
    initialise(head, 0, 0.02)
    torch.manual_seed(0)
    default = nn.Linear(64, 500, bias=False).weight
    for weight in (head.prototypes, default):
        assert weight.abs().max().item() == pytest.approx(1 / 8, rel=1e-3)
    assert (
        scipy.stats.ks_2samp(head.prototypes.detach().flatten(), default.detach().flatten()).pvalue
        > 1e-3
    )
    # The norm of raw prototypes, which AdamW's steps are large or small against.
    norms = [weight.norm(dim=1).mean().item() for weight in (head.prototypes, default)]
    assert norms == pytest.approx([3**-0.5] * 2, rel=0.01)


def test_prototypes_do_not_depend_on_the_deviation_of_the_backbone():
    heads = [ProjectionHead(10, HeadConfig()) for _ in range(2)]
    for head, deviation in zip(heads, (0.02, 0.08), strict=True):
        initialise(head, 0, deviation)
    assert torch.equal(heads[0].prototypes, heads[1].prototypes)
    assert not torch.equal(heads[0].layers[0].weight, heads[1].layers[0].weight)
