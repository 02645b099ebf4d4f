"""Windows of attention: what is attended to, against an explicit softmax and a plain loop."""

import itertools
import math

import pytest
import torch

from tests.trainers.globality.observed import layout
from trainers.config import ModelConfig, override
from trainers.config.train import TrainConfig
from trainers.errors import ConfigError
from trainers.evaluation.cls_maps import ClsMaps
from trainers.globality.instruments import Instruments, Settings
from trainers.globality.rollout import rollout
from trainers.grid import Grid
from trainers.model.attention import FUSED_KERNEL_FROM_TOKENS, attend
from trainers.model.packed import packed
from trainers.model.vit import VisionTransformer, initialise
from trainers.model.windows import allowed_keys, windows
from trainers.randomness.forward_draws import ForwardDraws

CPU = torch.device("cpu")
PATCHES = {"patch_window": 1}
CLS = {"cls_window": 1}
BOTH = {"patch_window": 2, "cls_window": 1, "registers": 2}
UNIFORM = {"patch_uniform": True, "cls_uniform": True, "registers": 1}
UNIFORM_IN_WINDOWS = {"cls_uniform": True, "cls_window": 1, "patch_window": 1}


def model(side=16, deviation=0.2, **changes):
    made = VisionTransformer(ModelConfig(**{"depth": 2, **changes}), side)
    initialise(made, 0, deviation)
    return made


def images(count=2, side=16, seed=0):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def by_the_rule(grid: Grid, registers: int, patch_window: int, cls_window: int) -> list[list[bool]]:
    """Whether each token of a sequence with a [CLS] may attend to each, one pair after another."""
    patches = list(itertools.product(range(grid[0]), range(grid[1])))
    tokens = ["cls", *["register"] * registers, *patches]

    def may(query: int, key: int) -> bool:
        one, other = tokens[query], tokens[key]
        if query == key or one == "register":
            return True
        window = cls_window if one == "cls" else patch_window
        if window == 0:
            return True
        if isinstance(other, str):
            return False
        place = ((grid[0] - 1) / 2, (grid[1] - 1) / 2) if isinstance(one, str) else one
        return max(abs(a - b) for a, b in zip(place, other, strict=True)) <= window

    return [[may(query, key) for key in range(len(tokens))] for query in range(len(tokens))]


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 4), (5, 3)])
@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize(("patch_window", "cls_window"), [(1, 0), (0, 1), (2, 2), (9, 9)])
def test_a_token_may_attend_to_itself_and_to_the_patches_in_its_window(
    grid, registers, patch_window, cls_window
):
    found = allowed_keys(grid, True, registers, patch_window, cls_window, CPU)
    assert found.tolist() == by_the_rule(grid, registers, patch_window, cls_window)


def test_a_network_without_cls_has_the_windows_of_its_patches():
    settings = {"cls": False, "registers": 1, "cls_window": 1}
    assert windows(ModelConfig(**settings), (3, 4), CPU) == ()
    (found,) = windows(ModelConfig(**settings, patch_window=1), (3, 4), CPU)
    assert found.asking is None
    assert found.allowed.tolist() == [row[1:] for row in by_the_rule((3, 4), 1, 1, 1)[1:]]


def test_without_windows_there_is_no_mask():
    assert windows(ModelConfig(), (4, 4), CPU) == ()
    seen = []
    model()(images(), observe=seen.append)
    assert [layer.allowed for layer in seen] == [None, None]


@pytest.mark.parametrize("tokens", [17, FUSED_KERNEL_FROM_TOKENS + 1])
def test_masked_attention_is_a_softmax_over_the_allowed_keys(tokens):
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn(2, 3, tokens, 4, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    allowed = torch.rand(tokens, tokens, generator=generator) < 0.3
    allowed.fill_diagonal_(True)
    found = attend(queries, keys, values, allowed)
    for image, head, query in itertools.product(range(2), range(3), (0, 1, tokens - 1)):
        terms = {
            key: math.exp(float(queries[image, head, query] @ keys[image, head, key]) / 2)
            for key in range(tokens)
            if allowed[query, key]
        }
        expected = sum(term * values[image, head, key] for key, term in terms.items())
        torch.testing.assert_close(found[image, head, query], expected / sum(terms.values()))


@pytest.mark.parametrize("changes", [PATCHES, CLS, BOTH], ids=str)
def test_what_a_window_leaves_out_changes_no_token_and_has_no_gradient(changes):
    network = model(side=24, **changes)
    batch = images(1, 24).requires_grad_()
    found = network(batch)
    # After two blocks a patch has heard of patches two windows away; without one, of all.
    reach = 2 * changes.get("patch_window", 99)
    for row, column in itertools.product(range(6), repeat=2):
        (gradient,) = torch.autograd.grad(
            found.patches[0, 6 * row + column].sin().sum(), batch, retain_graph=True
        )
        pixels = gradient[0].abs().sum(0).unfold(0, 4, 4).unfold(1, 4, 4).sum((-1, -2))
        for other in itertools.product(range(6), repeat=2):
            apart = max(abs(row - other[0]), abs(column - other[1]))
            assert (pixels[other] > 0) == (apart <= reach), (row, column, other)


def test_with_both_windows_cls_hears_of_its_own_window_and_one_of_a_patch_for_each_block_before():
    network = model(side=32, patch_window=1, cls_window=1)
    batch = images(1, 32).requires_grad_()
    network(batch).cls.sin().sum().backward()
    pixels = batch.grad[0].abs().sum(0).unfold(0, 4, 4).unfold(1, 4, 4).sum((-1, -2))
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:6, 2:6] = True
    assert torch.equal(pixels > 0, expected)


@pytest.mark.parametrize("changes", [PATCHES, CLS, BOTH, UNIFORM, UNIFORM_IN_WINDOWS], ids=str)
@pytest.mark.parametrize("side", [16, 32])
def test_first_tokens_alone_and_packed_ones_are_those_of_the_whole_network(changes, side):
    network = model(side=side, **changes)
    groups = [(images(3, side), ForwardDraws()), (images(2, 8, seed=1), ForwardDraws())]
    whole = [network(batch) for batch, _ in groups]
    for only_first in (False, True):
        alone = [network(batch, only_first=only_first) for batch, _ in groups]
        for found in (alone, packed(network, groups, only_first=only_first)):
            for one, other in zip(found, whole, strict=True):
                expected = other.tokens[:, : one.tokens.shape[1]]
                torch.testing.assert_close(one.tokens, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [PATCHES, CLS, BOTH], ids=str)
def test_checkpointed_blocks_have_the_same_gradients(changes):
    gradients = []
    for again in (False, True):
        network = model(**changes)
        network.checkpointing = again
        network(images()).tokens.sin().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])


def measured(network, side=16, registers=0):
    """All metrics of a network on two images."""
    grid = (side // 4, side // 4)
    instruments = Instruments(
        network,
        grid,
        has_cls=True,
        registers=registers,
        fixed_patch=0,
        settings=Settings(memory=16.0, patch_queries=64, causal_images=2, replacement="zero"),
        device=CPU,
    )
    batch, numbers = images(2, side), torch.arange(2)
    with torch.no_grad():
        network(batch, observe=instruments.observer())
    instruments.see(batch, ForwardDraws(), numbers)
    return instruments.total().metrics((1,))


def flat(network):
    """Every token attends evenly to what it may attend to."""
    with torch.no_grad():
        for block in network.blocks:
            width = network.config.width
            block.attention.qkv.weight[: 2 * width] = 0
            block.attention.qkv.bias[: 2 * width] = 0
    return network


@pytest.mark.parametrize("window", [1, 2])
def test_flat_attention_in_a_window_has_the_locality_of_its_distances(window):
    found = measured(flat(model(patch_window=window)))
    places = list(itertools.product(range(4), repeat=2))
    near, all_others, weighted, baseline = [], [], 0.0, 0.0
    mean_to = {b: sum(math.dist(a, b) for a in places) / 16 for b in places}
    for a in places:
        around = [b for b in places if max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= window]
        near.append(sum(math.dist(a, b) for b in around) / (len(around) - 1))
        all_others.append(sum(math.dist(a, b) for b in places) / 15)
        weighted += sum(math.dist(a, b) for b in around) / len(around)
        baseline += sum(mean_to[b] for b in around) / len(around)
    ratio = sum(one / other for one, other in zip(near, all_others, strict=True)) / 16
    for name, expected in {
        "globality/patch/distance_patches": sum(near) / 16,
        "globality/patch/distance": ratio,
        "globality/patch/locality": 1 - weighted / baseline,
        # no attention at all: 0 where 1 / 17 would be even
        "globality/patch/cls_mass": -1 / 16,
    }.items():
        assert found[name] == pytest.approx(expected, abs=1e-5), name
    assert found["globality/cls/gyration"] == pytest.approx(1, abs=1e-5)


def test_flat_attention_of_a_cls_in_the_middle_has_the_gyration_of_four_patches():
    found = measured(flat(model(cls_window=1)))
    # Half a patch from the middle each way, of 16 patches (16 - 1) / 12 each way.
    assert found["globality/cls/gyration"] == pytest.approx(math.sqrt(0.25 * 12 / 15), abs=1e-5)
    assert found["globality/cls/entropy"] == pytest.approx(math.log(4) / math.log(16), abs=1e-5)
    assert found["globality/patch/gyration"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("deviation", [0.02, 0.5])
def test_no_windowed_network_is_measured_beyond_its_window(deviation):
    patches = measured(model(deviation=deviation, patch_window=1))
    assert 0 < patches["globality/patch/distance_patches"] <= math.sqrt(2)
    assert patches["globality/patch/cls_mass"] == pytest.approx(-1 / 16, abs=1e-6)
    cls = measured(model(deviation=deviation, cls_window=1))
    assert cls["globality/cls/gyration"] <= math.sqrt(0.25 * 12 / 15) + 1e-6
    assert cls["norm_weighted/cls/gyration"] <= math.sqrt(0.25 * 12 / 15) + 1e-6


def test_kept_maps_and_rollouts_of_cls_are_those_of_its_window():
    config = override(
        TrainConfig(), {"model.cls_window": 1, "model.patch_window": 1, "model.depth": 2}
    )
    network, layers = model(side=32, **PATCHES, **CLS), []
    maps = ClsMaps(layout((8, 8)), config, thorough=True)
    for observer in maps.observers(0):
        network(images(2, 32), observe=observer)
    network(images(2, 32), observe=layers.append)
    maps.see(0)
    (_, attention), (_, rolled) = maps._parts["attention"][0], maps._parts["rollout"][0]
    middle, wider = torch.zeros(2, 8, 8, dtype=torch.bool)
    middle[3:5, 3:5] = wider[2:6, 2:6] = True
    for kept, where in ((attention, middle), (rolled, wider)):
        assert torch.equal(kept.unflatten(-1, (8, 8)).amin(tuple(range(kept.ndim - 1))) > 0, where)
    product = torch.eye(65)
    for layer in layers:
        scores = layer.queries @ layer.keys.transpose(2, 3) / 4
        scores[..., ~layer.allowed] = -math.inf
        product = (scores.softmax(-1).mean(1) + torch.eye(65)) / 2 @ product
    pairs = [(layer.queries, layer.keys) for layer in layers]
    found = rollout(pairs, torch.arange(65), 1e-3, layers[0].allowed)
    torch.testing.assert_close(found, product, rtol=1e-4, atol=1e-6)


def test_a_window_below_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"model\.patch_window: .*greater than or equal to 0"):
        override(TrainConfig(), {"model.patch_window": -1})
