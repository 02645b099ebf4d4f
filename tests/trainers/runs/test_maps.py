"""Maps of a few held-out images: written, and read again."""

import dataclasses

import numpy as np
import pytest
import torch

from trainers.config import map_steps, override
from trainers.errors import InputError
from trainers.evaluation.evaluate import evaluate
from trainers.runs.maps import KeptMaps, content_of, name_of, parse, step_of
from trainers.runs.reporters import Fanout
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import run_trial
from trainers.system.store import open_store
from trainers.system.world import World
from trainers.training.state import TrainState

ALONE = World(rank=0, size=1, device=torch.device("cpu"))

BITS = np.random.default_rng(0)


def maps(*shape):
    drawn = BITS.random((*shape, 3, 4), np.float32)
    return drawn / drawn.sum((-2, -1), keepdims=True)


def kept(**changes):
    everything = KeptMaps(
        images=np.array([5, -3, 2**62], np.int64),
        pixels=BITS.integers(0, 256, (3, 6, 6, 3), np.uint8),
        attention=maps(2, 3),
        heads=maps(4, 3),
        rollout=maps(3),
        influence=maps(2),
    )
    return dataclasses.replace(everything, **changes)


def test_maps_are_read_again_to_half_a_255th_of_their_largest_value():
    written = kept()
    read = parse(content_of(written))
    assert read.images.tolist() == written.images.tolist()
    assert np.array_equal(read.pixels, written.pixels)
    for name in ("attention", "heads", "rollout", "influence"):
        before, after = getattr(written, name), getattr(read, name)
        largest = before.max((-2, -1), keepdims=True)
        assert after.dtype == np.float32
        assert after.shape == before.shape
        assert (abs(after - before) <= largest / 255 * 0.501).all()
        assert after.max((-2, -1)) == pytest.approx(largest[..., 0, 0], rel=1e-6)


def test_the_same_maps_are_the_same_file_and_a_byte_for_each_patch():
    written = kept(pixels=None, attention=maps(2, 3), heads=maps(0, 3))
    assert content_of(written) == content_of(written)
    whole = kept(attention=np.full((12, 8, 50, 50), 1 / 2500, np.float32))
    assert len(content_of(whole)) == pytest.approx(12 * 8 * 50 * 50, rel=0.02)


def test_what_has_no_map_is_nan_again():
    attention = maps(2, 3)
    attention[1, 2] = np.nan
    read = parse(content_of(kept(attention=attention)))
    assert np.isnan(read.attention[1, 2]).all()
    assert np.isfinite(read.attention).sum() == 5 * 12


def test_maps_that_are_not_there_are_none():
    written = kept(
        pixels=None, attention=maps(0, 3), heads=maps(0, 3), rollout=None, influence=None
    )
    read = parse(content_of(written))
    assert (read.pixels, read.rollout, read.influence) == (None, None, None)
    assert read.attention.shape == (0, 3, 3, 4)
    assert read.heads.shape == (0, 3, 3, 4)


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_holds_no_maps_is_refused(content):
    with pytest.raises(ValueError, match=r"\S"):
        parse(content)


def test_a_file_is_named_by_its_step():
    assert step_of(name_of(300)) == 300
    for other in ("maps-.safetensors", "xmaps-1.safetensors", "checkpoint-1.safetensors"):
        assert step_of(other) is None


@pytest.fixture(scope="module")
def trained(tiny, images, tmp_path_factory):
    torch.set_num_threads(1)
    trial = StoredTrial(open_store(tmp_path_factory.mktemp("root")), "trial")
    config = override(tiny, {"steps": 3, "evaluation.every": 2, "model.depth": 2})
    assert run_trial(trial, config, images=images, world=ALONE, reporter=Fanout())
    return trial, config


def test_a_trial_has_maps_of_each_evaluation(trained, images):
    trial, config = trained
    found = trial.maps(trial.finished())
    assert list(found) == [0, 2, 3]
    names = images.identifiers[images.shuffled(images.test)]
    side = config.augment.global_size // config.model.patch_size
    for step, one in found.items():
        assert one.images.tolist() == names[:8].tolist()
        assert one.attention.shape == (2, 8, side, side)
        assert one.heads.shape == (config.model.heads, 8, side, side)
        assert one.attention.sum((-2, -1)) == pytest.approx(1, abs=0.02)
        assert (one.rollout is None) == (one.influence is None) == (step == 2)
        assert (one.pixels is None) == (step != 0)
    assert found[3].rollout.shape == (8, side, side)
    assert len(found[3].influence) == min(8, config.evaluation.causal_images)
    assert found[0].pixels.shape == (8, 16, 16, 3)


def test_the_maps_of_step_0_are_those_of_the_weights_it_starts_from(trained, images):
    trial, config = trained
    maps = {}
    evaluate(TrainState.fresh(config, ALONE, 10), images, config, maps=maps)
    kept = trial.maps(trial.finished())[0]
    for name, values in maps.items():
        assert getattr(kept, name) == pytest.approx(values.numpy(), abs=1 / 255), name


def test_a_damaged_or_missing_file_is_one_line(trained):
    trial, _ = trained
    key = f"{trial.attempt_folder(1)}/maps-2.safetensors"
    content = trial.store.get(key)
    for damage, what in ((lambda: trial.store.put(key, content[:-1]), "is damaged"),
                         (lambda: trial.store.delete(key), "is missing")):  # fmt: skip
        damage()
        with pytest.raises(InputError, match=rf"maps-2\.safetensors {what}") as caught:
            trial.maps(trial.finished())
        assert "\n" not in str(caught.value)
        assert trial.damage() == str(caught.value)
    trial.store.put(key, content)
    assert not trial.damage()


def test_a_result_of_before_has_none(trained):
    trial, _ = trained
    result = {name: one for name, one in trial.finished().items() if name != "of_images"}
    assert trial.maps(result) == {}
    assert trial.by_image(result, ["knn/cls_top1"], at_start=True) is None


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [
        (10, 20, [0, 10]),
        (11, 4, [0, 4, 8, 11]),
        (11, 2, [0, 2, 4, 8, 10, 11]),
        (100, 10, [0, 20, 40, 60, 80, 100]),
        (10**9, 1, [0, 2 * 10**8, 4 * 10**8, 6 * 10**8, 8 * 10**8, 10**9]),
    ],
)
def test_a_run_keeps_maps_of_its_first_evaluation_its_last_and_four_between(
    tiny, steps, every, expected
):
    assert map_steps(override(tiny, {"steps": steps, "evaluation.every": every})) == expected


class Killed(BaseException):
    """The process is not there any more."""


class KilledAt5:
    def report(self, step, metrics, *, checkpoint=None):
        if step == 5:
            raise Killed


def test_a_run_of_many_evaluations_keeps_few_maps_also_when_it_goes_on(tiny, images, tmp_path):
    config = override(
        tiny, {"steps": 9, "evaluation.every": 1, "checkpoint_every": 1, "evaluation.probes": False}
    )
    store = open_store(tmp_path)
    whole, killed = StoredTrial(store, "whole"), StoredTrial(store, "killed")
    assert run_trial(whole, config, images=images, world=ALONE, reporter=Fanout())
    with pytest.raises(Killed):
        run_trial(killed, config, images=images, world=ALONE, reporter=KilledAt5())
    assert run_trial(killed, config, images=images, world=ALONE, reporter=Fanout())
    kept = [trial.maps(trial.finished()) for trial in (whole, killed)]
    assert [list(one) for one in kept] == [map_steps(config)] * 2 == [[0, 2, 4, 5, 7, 9]] * 2
    assert [len(trial.of_images(trial.finished())) for trial in (whole, killed)] == [7, 7]
    for step, one in kept[0].items():
        assert content_of(one) == content_of(kept[1][step])


def test_a_run_that_is_to_keep_none_keeps_none(tiny, images, tmp_path):
    trial = StoredTrial(open_store(tmp_path), "trial")
    config = override(tiny, {"steps": 1, "evaluation.map_images": 0})
    assert run_trial(trial, config, images=images, world=ALONE, reporter=Fanout())
    assert trial.maps(trial.finished()) == {}
    assert list(trial.finished()["of_images"]) == ["attempts/0001/by_image-0.safetensors"]
