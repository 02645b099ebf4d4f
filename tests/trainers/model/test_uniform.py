"""Uniform attention by construction: what each token mixes, and what is measured of it."""

import pytest
import torch

from tests.trainers.model.test_windows import images, measured, model
from trainers.config import ModelConfig
from trainers.model.windows import windows

CLS = {"cls_uniform": True}
PATCHES = {"patch_uniform": True}
BOTH = {"cls_uniform": True, "patch_uniform": True, "registers": 1}
WINDOWED = {"cls_uniform": True, "cls_window": 1, "patch_window": 1}


def uniform(changes):
    """Which of the tokens of a 4×4 grid are uniform, and where patches begin."""
    first = 1 + changes.get("registers", 0)
    tokens = torch.zeros(first + 16, dtype=torch.bool)
    tokens[0] = changes.get("cls_uniform", False)
    tokens[first:] = changes.get("patch_uniform", False)
    return tokens


@pytest.mark.parametrize("changes", [CLS, PATCHES, BOTH, WINDOWED], ids=str)
def test_a_uniform_token_mixes_the_mean_of_all_that_it_may_attend_to(changes):
    network = model(deviation=0.5, **changes)
    block = network.blocks[0]
    tokens = torch.randn(2, len(uniform(changes)), network.config.width)
    own = network.windows((4, 4))
    mixed, (queries, _, values) = block.attention(tokens, None, tokens.shape[1], None, own)
    allowed = own[0].allowed
    if allowed is None:
        allowed = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool)
    for token, is_uniform in enumerate(uniform(changes)):
        mean = values[:, :, allowed[token]].mean(2).flatten(1)
        expected = block.attention.projection(mean)
        assert torch.allclose(mixed[:, token], expected, atol=1e-5) == bool(is_uniform)
        assert bool((queries[:, :, token] == 0).all()) == bool(is_uniform)


def test_the_query_weights_of_uniform_tokens_alone_have_no_gradient():
    for changes, is_zero in ((CLS, False), (BOTH | {"registers": 0}, True)):
        network = model(deviation=0.5, **changes)
        network(images()).tokens.sin().sum().backward()
        width = network.config.width
        gradient = network.blocks[0].attention.qkv.weight.grad
        assert bool((gradient[:width] == 0).all()) == is_zero
        # The score of a key is that of every other for a query of 0.
        assert bool((gradient[width : 2 * width] == 0).all()) == is_zero
        assert (gradient[2 * width :] != 0).any()


@pytest.mark.parametrize("deviation", [0.02, 0.5])
def test_uniform_tokens_are_measured_as_global_and_alike_whatever_the_weights(deviation):
    cls = measured(model(deviation=deviation, **CLS))
    for name, expected in {
        "globality/cls/gyration": 1, "globality/cls/entropy": 1,
        "globality/cls/content_dependence": 0,
    }.items():  # fmt: skip
        assert cls[name] == pytest.approx(expected, abs=1e-4), name
    patches = measured(model(deviation=deviation, **PATCHES))
    assert patches["globality/patch/gyration"] == pytest.approx(1, abs=1e-4)
    assert patches["globality/patch/locality"] == pytest.approx(0, abs=1e-4)
    if deviation == 0.5:
        assert patches["globality/cls/gyration"] < 0.99
        assert cls["globality/patch/gyration"] < 0.99


def test_without_it_nothing_is_asked_otherwise():
    assert windows(ModelConfig(), (4, 4), torch.device("cpu")) == ()
    settings = {"cls": False, "cls_uniform": True}
    assert windows(ModelConfig(**settings), (4, 4), torch.device("cpu")) == ()
    (found,) = windows(ModelConfig(**settings, patch_uniform=True), (2, 2), torch.device("cpu"))
    assert found.allowed is None
    assert found.asking.tolist() == [[0.0]] * 4
