"""Keyed randomness: known answers, distributions, independence."""

import pytest
import scipy.stats
import torch

from trainers.randomness import streams
from trainers.randomness.streams import Stream, philox

ZERO = torch.zeros((), dtype=torch.int64)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # kat_vectors of Random123, philox4x32 with 10 rounds
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_known_answers(counter, key, expected):
    words = philox(tuple(torch.tensor(word) for word in counter), key)
    assert tuple(int(word) for word in words) == expected


def test_a_draw_depends_on_its_own_counters_alone():
    stream = Stream(7, "augmentation")
    many = stream.uniform(torch.arange(1000), ZERO)
    few = stream.uniform(torch.tensor([731, 2]), ZERO)
    assert torch.equal(few, many[[731, 2]])


def test_streams_of_other_seeds_and_names_are_uncorrelated():
    places = torch.arange(20_000)
    draws = [
        Stream(seed, name).uniform(places, ZERO)
        for seed, name in ((0, "augmentation"), (1, "augmentation"), (0, "sample order"))
    ]
    correlation = torch.corrcoef(torch.stack(draws))
    assert (correlation - torch.eye(3)).abs().max() < 4 / 20_000**0.5


def test_uniform_is_uniform_and_normal_is_normal():
    stream = Stream(3, "test")
    uniform = stream.uniform(torch.arange(50_000), ZERO)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert scipy.stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-3
    normal = stream.normal(torch.Size([50, 1000]), 0.02)
    assert normal.shape == (50, 1000)
    assert scipy.stats.kstest(normal.flatten().numpy() / 0.02, "norm").pvalue > 1e-3


def test_permutation_holds_every_place_once_and_changes_with_the_epoch():
    stream = Stream(0, "sample order")
    orders = [stream.permutation(epoch, 1437, torch.device("cpu")) for epoch in range(3)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(1437))
    assert not torch.equal(orders[0], orders[1])
    assert abs(scipy.stats.spearmanr(orders[0], orders[1]).statistic) < 4 / 1437**0.5


@pytest.mark.parametrize("shapes", [((), ()), ((3, 1), (4,)), ((2, 3), ()), ((0, 1), (5,))])
def test_the_host_draws_the_bits_of_any_device(shapes):
    major, minor = (
        torch.randint(-(2**62), 2**62, shape, generator=torch.Generator().manual_seed(len(shape)))
        for shape in shapes
    )
    stream = Stream(3, "x")
    low = 0xFFFFFFFF
    words = (major & low, (major >> 32) & low, minor & low, (minor >> 32) & low)
    for ours, expected in zip(stream.bits(major, minor), philox(words, stream.key), strict=True):
        assert torch.equal(ours, expected)


def test_normal_values_hang_on_their_places_alone(monkeypatch):
    whole = Stream(3, "x").normal(torch.Size([50, 20]), 0.02)
    monkeypatch.setattr(streams, "_BLOCK", 7)
    assert torch.equal(Stream(3, "x").normal(torch.Size([50, 20]), 0.02), whole)
    high, low, _, _ = Stream(3, "x").bits(torch.tensor(0), torch.arange(1000))
    exact = torch.special.ndtri(((high * 2**20 + (low >> 12)).double() + 0.5) / 2**52) * 0.02
    torch.testing.assert_close(whole.flatten(), exact.float(), rtol=1e-5, atol=1e-8)


def test_uniform_values_of_a_shape_are_those_of_their_places(monkeypatch):
    exact = Stream(3, "x").uniform(ZERO, torch.arange(1000))
    monkeypatch.setattr(streams, "_BLOCK", 7)
    assert torch.equal(Stream(3, "x").uniform_filled(torch.Size([50, 20])), exact.view(50, 20))
