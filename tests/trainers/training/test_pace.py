"""What a run reports of its own speed."""

import itertools

import pytest
import torch

from trainers.config import TrainConfig, override
from trainers.system.world import World
from trainers.training import pace
from trainers.training.pace import Pace, peak_memory, peak_of

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, device=CPU)
CONFIG = override(TrainConfig(), {"batch_size": 64})


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves on only when it is told to."""
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])

    def moves(seconds):
        now[0] += seconds

    return moves


def test_speed_and_waiting_are_those_since_the_last_record(clock):
    watch = Pace(CONFIG, ALONE, 10, step=7)

    def read():
        for number in itertools.count():
            clock(0.5)
            yield number

    for number in watch.waiting(itertools.islice(read(), 4)):
        clock(1.5)
        if number == 1:
            clock(30)  # an evaluation
            watch.restart(9)
    found = watch.metrics(11)
    assert found["time/step_s"] == 2.0
    assert found["time/images_per_s"] == 32.0
    assert found["time/data_wait"] == 0.25
    assert "time/share_of_peak" not in found


def test_the_share_of_a_known_card_is_operations_over_its_promise(clock, monkeypatch):
    monkeypatch.setattr(pace, "peak_of", lambda device: 1e12)
    watch = Pace(CONFIG, World(rank=0, size=2, device=CPU), 10, step=0)
    clock(4.0)
    update = pace.operations(CONFIG, 10).update
    assert watch.metrics(8)["time/share_of_peak"] == pytest.approx(8 * 64 * update / (4 * 2e12))


def test_the_share_of_a_card_is_that_of_the_crops_since_the_last_record(clock, monkeypatch):
    monkeypatch.setattr(pace, "peak_of", lambda device: 1e12)
    config = override(CONFIG, {"steps": 8, "augment.small_share": 0.5})
    counted = pace.operations(config, 10)
    watch = Pace(config, ALONE, 10, step=0)
    for end, update in (
        (3, counted.small),
        (5, (counted.small + counted.full) / 2),
        (8, counted.full),
    ):
        clock(4.0)
        images_per_s = (end - watch.step) * 64 / 4.0
        share = images_per_s * update / 1e12
        assert watch.metrics(end)["time/share_of_peak"] == pytest.approx(share)
        watch.restart(end)


def test_an_update_takes_three_times_the_students_products_and_the_teachers():
    # A loss on patches, so that the last block computes all of them.
    change = {"augment.local_crops": 0, "loss.cls": 0.0, "loss.patches": 1.0}
    counted = pace.operations(override(CONFIG, change), 10)
    assert counted.update == 2 * (1 + 3) * counted.forward


@pytest.mark.slow
def test_memory_that_was_held_is_in_the_peak():
    before = peak_memory(CPU)
    held = torch.ones(2 * before // 4)
    assert peak_memory(CPU) > 1.5 * before
    assert held[-1] == 1


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("Tesla V100-SXM2-32GB", 125e12),
        ("NVIDIA L4", 121e12),
        ("A card of tomorrow", None),
    ],
)
def test_cards_are_known_by_a_word_of_their_name(name, peak, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_of(torch.device("cuda", 0)) == peak
    assert peak_of(CPU) is None
