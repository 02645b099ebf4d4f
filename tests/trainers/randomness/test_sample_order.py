"""Which images a step sees."""

import torch

from trainers.randomness.sample_order import batch


def test_every_image_is_seen_once_an_epoch_across_step_borders():
    size, batch_size = 100, 32
    seen = [batch(5, step, batch_size, size) for step in range(25)]
    places = torch.cat([places for places, _ in seen])
    epochs = torch.cat([epochs for _, epochs in seen])
    assert torch.equal(epochs, torch.arange(800) // size)
    for epoch in range(8):
        assert torch.equal(places[epochs == epoch].sort().values, torch.arange(size))


def test_a_batch_larger_than_the_data_reads_on_into_the_next_epochs():
    places, epochs = batch(0, 0, 25, 10)
    assert epochs.tolist() == [0] * 10 + [1] * 10 + [2] * 5
    assert sorted(places[:10].tolist()) == list(range(10))


def test_a_step_is_the_same_whatever_came_before():
    alone = batch(1, 40, 16, 50)
    for step in range(41):
        after_others = batch(1, step, 16, 50)
    assert torch.equal(alone[0], after_others[0])
