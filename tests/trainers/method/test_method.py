"""DINO's parts against references written from the equations."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from trainers.config import HeadConfig, ModelConfig, OptimizerConfig, TrainConfig, override
from trainers.method import losses
from trainers.method.losses import distillation, entropy
from trainers.method.optimizer import clip_gradients, make_optimizer, set_schedule
from trainers.method.schedules import cosine, linear, warmup_cosine
from trainers.method.site import sites
from trainers.method.targets import centering, sinkhorn
from trainers.method.teacher import move_teacher
from trainers.model.head import ProjectionHead
from trainers.model.network import Network
from trainers.model.vit import Layer, VisionTransformer, initialise
from trainers.system.world import World
from trainers.training.state import TrainState

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
SHAPES = [(2, 6, 3, 5), (1, 2, 4, 16), (2, 2, 1, 7)]


def cosines(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def reference_loss(targets, logits, temperature):
    """Caron et al. 2021, eq. 3, one pair, one image, one prototype at a time."""
    teachers, images, prototypes = targets.shape
    total, pairs = 0.0, 0
    for g in range(teachers):
        for v in range(logits.shape[0]):
            if g == v:
                continue
            pairs += 1
            for b in range(images):
                scores = [math.exp(logits[v, b, k] / temperature) for k in range(prototypes)]
                for k in range(prototypes):
                    share = scores[k] / sum(scores)
                    total -= float(targets[g, b, k]) * math.log(share) / images
    return total / pairs


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_loss_is_the_mean_cross_entropy_over_pairs_of_different_views(shape, temperature):
    global_views, views, images, prototypes = shape
    targets = torch.softmax(cosines(global_views, images, prototypes) / 0.1, -1).double()
    logits = cosines(views, images, prototypes, seed=1).double()
    ours = distillation(targets, logits, temperature).item()
    assert ours == pytest.approx(reference_loss(targets, logits, temperature), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("at_once", [1, 20])
def test_a_loss_in_parts_is_that_of_all_at_once(shape, at_once, monkeypatch):
    global_views, views, images, prototypes = shape
    targets = torch.softmax(cosines(global_views, images, prototypes) / 0.1, -1).double()
    found = []
    for values in (losses.AT_ONCE, at_once):
        monkeypatch.setattr(losses, "AT_ONCE", values)
        logits = cosines(views, images, prototypes, seed=1).double().requires_grad_()
        loss = distillation(targets, logits, 0.1)
        (3 * loss).backward()
        found.append((loss.item(), logits.grad))
    (whole, gradient), (parts, other) = found
    assert parts == pytest.approx(whole, rel=1e-12)
    torch.testing.assert_close(other, gradient, rtol=1e-10, atol=1e-15)


@pytest.mark.slow
def test_many_prototypes_cost_the_memory_of_one_gradient():
    targets = torch.softmax(torch.randn(2, 32, 2**16), -1)
    logits = torch.randn(6, 32, 2**16).requires_grad_()
    held = []

    class Made(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            made = function(*arguments, **(options or {}))
            if isinstance(made, torch.Tensor) and not function.is_view:
                held.append(made.numel())
            return made

    with Made():
        distillation(targets, logits, 0.1).backward()
    assert sum(size >= logits.numel() for size in held) <= 2


def test_the_loss_is_entropy_plus_divergence():
    targets = torch.softmax(cosines(1, 4, 8) / 0.1, -1)
    logits = cosines(2, 4, 8, seed=1)
    student = torch.softmax(logits[1] / 0.1, -1)
    divergence = (targets[0] * (targets[0] / student).log()).sum(-1).mean()
    expected = (entropy(targets) + divergence).item()
    assert distillation(targets, logits, 0.1).item() == pytest.approx(expected, rel=1e-5)


def test_uniform_output_costs_ln_k():
    targets = torch.full((2, 3, 256), 1 / 256)
    cost = distillation(targets.double(), torch.zeros(6, 3, 256).double(), 0.1)
    assert cost.item() == pytest.approx(math.log(256))


@pytest.mark.parametrize("temperature", [0.02, 0.07])
def test_centering_is_a_softmax_of_centred_logits_and_the_center_a_moving_mean(temperature):
    logits, center = cosines(6, 9).double(), cosines(9, seed=2).double()
    targets, moved = centering(logits, center, temperature, 0.9, ALONE)
    shifted = np.exp((logits.numpy() - center.numpy()) / temperature)
    np.testing.assert_allclose(targets, shifted / shifted.sum(1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(moved, 0.9 * center.numpy() + 0.1 * logits.numpy().mean(0))


@pytest.mark.parametrize("shape", [(8, 4), (4, 16), (32, 32)])
@pytest.mark.parametrize("temperature", [0.01, 0.05])
@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_is_the_published_listing(shape, temperature, iterations):
    logits = cosines(*shape)
    # SwAV, appendix A: Q is prototypes × samples.
    q = np.exp(logits.numpy().astype(np.float64) / temperature).T
    q /= q.sum()
    prototypes, samples = q.shape
    for _ in range(iterations):
        q /= q.sum(1, keepdims=True) * prototypes
        q /= q.sum(0, keepdims=True) * samples
    ours = sinkhorn(logits, temperature, iterations, ALONE)
    np.testing.assert_allclose(ours, (q * samples).T, rtol=1e-6, atol=1e-12)


def test_sinkhorn_uses_every_prototype_equally_and_rows_sum_to_one():
    targets = sinkhorn(cosines(64, 16), 0.05, 200, ALONE).double()
    torch.testing.assert_close(targets.sum(1), torch.ones(64).double())
    torch.testing.assert_close(targets.sum(0), torch.full((16,), 4.0).double(), rtol=1e-4, atol=0)


def test_sinkhorn_stays_finite_at_a_sharp_temperature():
    assert torch.isfinite(sinkhorn(cosines(64, 256), 0.004, 3, ALONE)).all()


@pytest.mark.parametrize("total", [2, 10, 601])
def test_cosine_is_half_a_cosine_from_start_to_end(total):
    values = [cosine(step, total, 0.04, 0.4) for step in range(total)]
    t = np.arange(total) / total
    np.testing.assert_allclose(values, 0.4 + (0.04 - 0.4) * (1 + np.cos(np.pi * t)) / 2)
    assert cosine(total, total, 0.04, 0.4) == cosine(total + 5, total, 0.04, 0.4) == 0.4


def test_a_line_goes_from_start_to_end_and_stays():
    values = [linear(step, 5, 0.04, 0.07) for step in range(8)]
    np.testing.assert_allclose(values, [*np.linspace(0.04, 0.07, 5), 0.07, 0.07, 0.07])
    assert linear(0, 0, 0.04, 0.07) == linear(0, 1, 0.04, 0.07) == 0.07


def test_warmup_is_linear_and_then_a_cosine():
    values = [warmup_cosine(step, 30, 10, 1e-3, 1e-6) for step in range(30)]
    np.testing.assert_allclose(values[:10], np.linspace(0, 1e-3, 10))
    t = np.arange(20) / 20
    np.testing.assert_allclose(values[10:], 1e-6 + (1e-3 - 1e-6) * (1 + np.cos(np.pi * t)) / 2)


def test_teacher_moves_by_one_minus_momentum():
    teacher, student = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    before = teacher.weight.detach().clone()
    move_teacher(teacher, student, 0.99)
    torch.testing.assert_close(teacher.weight, 0.99 * before + 0.01 * student.weight)


def test_head_gives_the_cosine_with_each_prototype():
    head = ProjectionHead(6, HeadConfig(hidden=7, bottleneck=5, prototypes=4))
    initialise(head, 0, 0.3)
    features = cosines(3, 6)
    hidden = features.detach()
    for layer in head.layers[:-1]:
        # GELU: x Φ(x)
        x = hidden @ layer.weight.T + layer.bias
        hidden = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    out = hidden @ head.layers[-1].weight.T + head.layers[-1].bias
    expected = functional.cosine_similarity(out[:, None], head.prototypes[None], dim=-1)
    torch.testing.assert_close(head(features), expected)
    assert len(head.layers) == 3


def test_gradients_are_clipped_one_by_one():
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4])
    total = clip_gradients(parameters, 1.0, ALONE)
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(parameters[1].grad, torch.tensor([0.3, 0.4]))
    assert total.item() == pytest.approx(math.hypot(5, 0.5))


def test_weight_decay_spares_biases_and_norms_and_nothing_else():
    network = Network(TrainConfig())
    optimizer = make_optimizer(network, OptimizerConfig())
    set_schedule(optimizer, 1e-3, 0.4)
    spared = {id(p) for g in optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]}
    names = {name for name, p in network.named_parameters() if id(p) in spared}
    assert names == {
        name
        for name, _ in network.named_parameters()
        if name.endswith("bias") or (".norm" in name and name.endswith("weight"))
    }


class TestVisionTransformer:
    def model(self, seed=0, **changes):
        model = VisionTransformer(ModelConfig(**changes), 16)
        initialise(model, seed, 0.1)
        return model

    def test_it_computes_the_equations_of_the_paper(self):
        model = self.model(depth=2)
        images = cosines(2, 3, 16, 16)
        # Dosovitskiy et al. 2021, eq. 1 to 4, with explicit attention.
        patches = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3)
        tokens = patches.flatten(1, 2) @ model.embedding.weight.flatten(1).T + model.embedding.bias
        tokens = tokens + model.position
        tokens = torch.cat([(model.cls + model.cls_position).expand(2, 1, -1), tokens], 1)

        def norm(x, layer):
            centred = x - x.mean(-1, keepdim=True)
            scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-6)
            return scaled * layer.weight + layer.bias

        for block in model.blocks:
            x = norm(tokens, block.norm1)
            q, k, v = (x @ block.attention.qkv.weight.T + block.attention.qkv.bias).chunk(3, -1)
            mixed = torch.empty_like(x)
            for head in range(3):
                part = slice(head * 16, head * 16 + 16)
                scores = q[..., part] @ k[..., part].transpose(1, 2) / 4
                mixed[..., part] = torch.softmax(scores, -1) @ v[..., part]
            tokens = tokens + block.attention.projection(mixed)
            x = block.expand(norm(tokens, block.norm2))
            tokens = tokens + block.contract(x * 0.5 * (1 + torch.erf(x / math.sqrt(2))))
        tokens = norm(tokens, model.norm)
        output = model(images)
        torch.testing.assert_close(output.cls, tokens[:, 0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output.patches, tokens[:, 1:], atol=1e-5, rtol=1e-5)

    def test_queries_and_keys_are_those_that_attended(self):
        model = self.model(depth=1)
        images = cosines(2, 3, 16, 16)
        layers: list[Layer] = []
        model(images, observe=layers.append)
        queries, keys = layers[0].queries, layers[0].keys
        assert queries.shape == keys.shape == (2, 3, 17, 16)
        block = model.blocks[0]
        tokens = model.embedding(images).flatten(2).transpose(1, 2) + model.position
        tokens = torch.cat([(model.cls + model.cls_position).expand(2, 1, -1), tokens], 1)
        values = block.attention.qkv(block.norm1(tokens)).chunk(3, -1)[2]
        values = values.view(2, 17, 3, 16).transpose(1, 2)
        attention = torch.softmax(queries @ keys.transpose(2, 3) / 4, -1)
        mixed = (attention @ values).transpose(1, 2).flatten(2)
        expected = block.attention(block.norm1(tokens), None, 17)[0]
        torch.testing.assert_close(
            block.attention.projection(mixed), expected, atol=1e-5, rtol=1e-5
        )

    def test_arms_share_every_parameter_that_both_have(self):
        learned = dict(self.model().named_parameters())
        none = dict(self.model(cls_position="none").named_parameters())
        deeper = dict(self.model(depth=4).named_parameters())
        assert set(learned) - set(none) == {"cls_position"}
        for other in (none, deeper):
            for name in set(learned) & set(other):
                assert torch.equal(learned[name], other[name]), name

    def test_a_tied_cls_carries_the_position_of_its_patch(self):
        tied = self.model(cls_position="tied", cls_tied_patch=(1, 2))
        expected = tied.cls + tied.position[:, None, 1 * 4 + 2]
        torch.testing.assert_close(tied._positioned_cls(None), expected)
        learned = self.model(cls_position="learned")
        with torch.no_grad():
            learned.cls_position.copy_(learned.position[:, 6:7])
        images = cosines(2, 3, 16, 16)
        torch.testing.assert_close(tied(images).cls, learned(images).cls)

    def test_learned_and_no_cls_position_are_the_same_functions(self):
        learned, none = self.model(), self.model(cls_position="none")
        with torch.no_grad():
            none.cls.add_(learned.cls_position)
        images = cosines(2, 3, 8, 8)
        torch.testing.assert_close(learned(images).cls, none(images).cls)

    @pytest.mark.parametrize("side", [8, 12, 24])
    def test_other_image_sizes_interpolate_positions(self, side):
        model = self.model()
        output = model(cosines(1, 3, side, side))
        assert output.grid == (side // 4, side // 4)
        assert output.patches.shape == (1, (side // 4) ** 2, 48)
        square = model.position.unflatten(1, (4, 4)).permute(0, 3, 1, 2)
        expected = functional.interpolate(square, output.grid, mode="bicubic").flatten(2)
        torch.testing.assert_close(
            model._positions(output.grid), expected.transpose(1, 2), atol=1e-6, rtol=1e-5
        )

    def test_the_offset_is_that_of_the_original(self):
        model = self.model(interpolation_offset=0.1)
        square = model.position.unflatten(1, (4, 4)).permute(0, 3, 1, 2)
        factors = (2.1 / 4, 3.1 / 4)
        expected = functional.interpolate(square, scale_factor=factors, mode="bicubic").flatten(2)
        torch.testing.assert_close(
            model._positions((2, 3)), expected.transpose(1, 2), atol=1e-6, rtol=1e-5
        )


def test_sites_are_those_with_weight():
    both = override(TrainConfig(), {"loss.patches": 0.5})
    active = sites(both.loss)
    assert {name: site.weight for name, site in active.items()} == {"cls": 1.0, "patches": 0.5}
    state = TrainState.fresh(both, ALONE)
    assert set(state.centers) == {"cls", "patches"}
    features = state.student(cosines(2, 3, 16, 16))
    torch.testing.assert_close(active["patches"].image(features), features.patches.mean(1))
    assert torch.equal(active["cls"].image(features), features.cls)


def test_the_teacher_starts_as_the_student():
    state = TrainState.fresh(TrainConfig(), ALONE)
    for ours, theirs in zip(state.teacher.parameters(), state.student.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert not ours.requires_grad
