"""What numbers a process is set up to give, and the means of gradients over workers."""

import pytest
import torch

from tests.trainers.training.workers import run_group
from trainers.config import override
from trainers.evaluation import evaluate as evaluation
from trainers.system import gradients
from trainers.system.compiling import prepare
from trainers.system.numbers import measuring
from trainers.system.world import make_reproducible


@pytest.fixture(autouse=True)
def _as_before():
    strict = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    threads, filled = torch.get_num_threads(), torch.utils.deterministic.fill_uninitialized_memory
    rounds = torch.backends.cudnn.allow_tf32
    yield
    torch.use_deterministic_algorithms(strict, warn_only=warned)
    torch.utils.deterministic.fill_uninitialized_memory = filled
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = rounds


def numbers():
    """Whether other bits raise, and whether products of float32 are rounded."""
    return (
        torch.are_deterministic_algorithms_enabled(),
        not torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision() != "highest",
        torch.backends.cudnn.allow_tf32,
    )


def test_training_raises_where_bits_could_change_and_rounds_no_products():
    make_reproducible(1)
    assert numbers() == (True, True, False, False)


def test_what_is_compiled_gives_the_same_bits_too(monkeypatch):
    import torch._inductor.config as compiler

    monkeypatch.setattr(compiler, "deterministic", False)
    make_reproducible(1)
    prepare()
    assert compiler.deterministic


def test_only_an_evaluation_that_says_so_rounds_to_tf32(tiny, images, monkeypatch):
    make_reproducible(1)
    seen = []
    monkeypatch.setattr(evaluation, "_evaluate", lambda *_, **__: seen.append(numbers()))
    for tf32 in (False, True):
        evaluation.evaluate(None, images, override(tiny, {"evaluation.tf32": tf32}))
        assert numbers() == (True, True, False, False)
    assert seen == [(True, False, False, False), (True, False, True, True)]


def test_measuring_leaves_the_process_as_it_was_where_it_fails():
    make_reproducible(1)
    with pytest.raises(ZeroDivisionError), measuring(tf32=True):
        raise ZeroDivisionError
    assert numbers() == (True, True, False, False)


def averaged(bucket, world):
    """How far means of gradients are from those of the whole batch, how many were done when each
    sum over workers began, and the gradient of a parameter that is not used."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(4)))
    unused = torch.nn.Parameter(torch.zeros(3))
    parameters = [unused, *layers.parameters()]
    rows = torch.randn(world.size * 5, 8)
    layers(rows).square().mean().backward()
    whole = [p.grad.clone() for p in layers.parameters()]
    layers.zero_grad()
    gradients._BUCKET = bucket
    done, begun, plain = [], [], torch.distributed.all_reduce
    for parameter in layers.parameters():
        parameter.register_post_accumulate_grad_hook(done.append)

    def all_reduce(tensor, **options):
        begun.append(len(done))
        return plain(tensor, **options)

    torch.distributed.all_reduce = all_reduce
    for part in world.share(rows).split([2, 3]):
        loss = layers(part).square().mean() * (len(part) / 5)
        if len(part) == 2:
            loss.backward()
            done.clear()
        else:
            with world.averaging(parameters):
                loss.backward()
    torch.distributed.all_reduce = plain
    pairs = zip(layers.parameters(), whole, strict=True)
    return max((p.grad - mean).abs().max().item() for p, mean in pairs), begun, unused.grad


@pytest.mark.slow
def test_gradients_are_averaged_while_the_backward_pass_goes_on():
    (one_bucket, in_buckets) = run_group(2, 2**20, 300, task=averaged)
    for difference, _, unused in (one_bucket, in_buckets):
        assert difference < 1e-6
        assert unused is None
    assert one_bucket[1] == [8]
    assert in_buckets[1] == [2, 4, 6, 8]
