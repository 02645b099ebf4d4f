"""The embedded scenes: read without the code that draws them, and without a shortcut to a class."""

import hashlib
import itertools
import math

import numpy as np
import pytest
import torch

from trainers.config import DataConfig, override
from trainers.config.recipe import recipe
from trainers.data.image_set import open_images
from trainers.data.scenes import BLOCK, SIDE, scenes
from trainers.errors import DataError
from trainers.evaluation.references import FEATURES, reference_accuracies

RELATIONS = ("far", "near")
DOTS = SIDE // BLOCK

OBJECTS = ["TTTT.TT..TT.....", ".....TT..TT.TTTT", "T..TT..TTTTT....", "....TTTTT..TT..T"]
"""A T, one upside down, a cup, one upside down; T is light"""

TEXTURES = ["TTTT....TTTT....", "T.T.T.T.T.T.T.T.", "T.T..T.TT.T..T.T", "TT..TT....TT..TT"]


@pytest.fixture(scope="module")
def made():
    return {relation: scenes(relation) for relation in RELATIONS}


@pytest.fixture(scope="module")
def opened():
    return {
        name: open_images(DataConfig(source=f"scenes_{name}", image_size=48), None)
        for name in RELATIONS
    }


def in_groups(found):
    """A pixel of each dot, [200, 16, 16, 16, 3], and labels [200, 16]."""
    dots = found.pixels[:, ::BLOCK, ::BLOCK]
    return dots.reshape(200, 16, DOTS, DOTS, 3), found.labels.numpy().reshape(200, 16)


def found_at(scenes, drawings):
    """Which of the drawings each scene [n, 16, 16, 3] shows in each square, [n, 13, 13], or -1."""
    # By brightness first, so that the lighter colour of a square is the larger number.
    codes = scenes.astype(np.int64) @ np.array([1, 256, 65536]) + scenes.sum(-1, int) * 2**24
    squares = np.lib.stride_tricks.sliding_window_view(codes, (4, 4), (1, 2)).reshape(
        -1, 13, 13, 16
    )
    light = squares == squares.max(-1, keepdims=True)
    two = (light | (squares == squares.min(-1, keepdims=True))).all(-1)
    shown = light @ 2 ** np.arange(16)
    found = np.full(shown.shape, -1)
    for number, drawing in enumerate(drawings):
        bits = sum(2**place for place, dot in enumerate(drawing) if dot == "T")
        found[two & (shown == bits)] = number
    return found


def read(scenes, drawings, count):
    """Places [n, count, 2] and numbers [n, count] of so many drawings that each scene shows."""
    found = found_at(scenes, drawings)
    which, *places = (found >= 0).nonzero()
    assert (np.bincount(which, minlength=len(scenes)) == count).all()
    return np.stack(places, -1).reshape(-1, count, 2), found[found >= 0].reshape(-1, count)


def relation_of(objects):
    """The class of two objects [n, 2]: whether they differ in the way up, and in kind."""
    (one_kind, one_way), (other_kind, other_way) = (divmod(each, 2) for each in objects.T)
    return (one_way != other_way) + 2 * (one_kind != other_kind)


def without(dots, places):
    """Scenes in groups [200, 16, …] with the squares at places [200, 2] blackened."""
    rest = dots.copy()
    for group, (row, column) in zip(rest, places, strict=True):
        group[:, row : row + 4, column : column + 4] = 0
    return rest


def the_same_in_all(found):
    return np.array_equal(found, found[:, :1].repeat(4, axis=1))


def by_class(hashes, labels):
    """Sorted hashes [groups, classes, 4] of what is in the images of each class of a group."""
    of_class = np.stack([hashes[labels == one].reshape(200, 4) for one in range(4)], axis=1)
    return np.sort(of_class, axis=-1)


def hashed(pixels):
    """A number for the pixels of each image [200, 16, …], equal for equal ones."""
    flat = pixels.reshape(200, 16, -1).astype(np.int64)
    factors = np.random.default_rng(0).integers(-(2**40), 2**40, flat.shape[-1])
    return flat @ factors


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_bytes_are_the_same_everywhere(made, relation):
    found = made[relation]
    assert (
        hashlib.sha256(found.pixels.tobytes()).hexdigest()
        == {
            "far": "0a8b63d913bc1e4f36de6f9c9ac513a062a0725029250dbe4979e4ed339e2d96",
            "near": "08441b56ad0788c9d438fd79352167ca7f464476d551ff6813ff8f9c6dda40c2",
        }[relation]
    )


@pytest.mark.parametrize("relation", RELATIONS)
def test_each_class_has_a_quarter_of_every_group_and_groups_are_held_out_whole(made, relation):
    found = made[relation]
    assert len(found.labels) == 3200
    groups = found.labels.reshape(200, 16)
    assert all(group.bincount().tolist() == [4] * 4 for group in groups)
    assert found.held_out.tolist() == [False] * 2560 + [True] * 640


@pytest.mark.parametrize("relation", RELATIONS)
def test_no_scene_is_there_twice_and_no_group_is_like_another(made, relation):
    dots, _ = in_groups(made[relation])
    assert len(np.unique(dots.reshape(3200, -1), axis=0)) == 3200
    # Most tiles are clutter, and all of these differ.
    first = dots[:, 0].reshape(200, -1).astype(int)
    same = (first[:, None] == first).mean(-1)
    assert same[~np.eye(200, dtype=bool)].max() < 0.3


@pytest.mark.parametrize("relation", RELATIONS)
def test_every_dot_is_three_pixels_a_side(made, relation):
    pixels = made[relation].pixels
    assert pixels.shape == (3200, 48, 48, 3)
    assert np.array_equal(pixels, pixels[:, ::3, ::3].repeat(3, axis=1).repeat(3, axis=2))


def test_a_far_class_is_how_two_objects_at_opposite_borders_differ(made):
    dots, labels = in_groups(made["far"])
    scenes = dots.reshape(-1, DOTS, DOTS, 3)
    places, objects = read(scenes, OBJECTS, 2)
    assert (relation_of(objects) == labels.ravel()).all()
    # 12 dots from corner to corner are 24 pixels from edge to edge.
    assert (np.abs(places[:, 0] - places[:, 1]).max(-1) == 12).all()
    read(scenes, TEXTURES, 1)


def test_a_near_class_is_the_one_texture_there_is_anywhere(made):
    dots, labels = in_groups(made["near"])
    scenes = dots.reshape(-1, DOTS, DOTS, 3)
    places, textures = read(scenes, TEXTURES, 1)
    assert (textures == labels.reshape(-1, 1)).all()
    assert set(places[:, 0, 0]) == set(places[:, 0, 1]) == set(range(13))
    _, objects = read(scenes, OBJECTS, 2)
    # Each way of differing once with each texture.
    pairs = (4 * relation_of(objects) + labels.ravel()).reshape(200, 16)
    assert np.array_equal(np.sort(pairs), np.arange(16)[None].repeat(200, axis=0))


@pytest.mark.parametrize("side", [1, 4, 8])
def test_every_window_of_half_a_side_is_there_in_each_far_class_equally_often(made, side):
    dots, labels = in_groups(made["far"])
    for top, left in itertools.product(range(DOTS - side + 1), repeat=2):
        window = dots[:, :, top : top + side, left : left + side]
        assert the_same_in_all(by_class(hashed(window), labels)), (top, left)


def test_of_far_scenes_what_lies_beside_either_object_is_there_in_each_class_equally_often(made):
    dots, labels = in_groups(made["far"])
    places, _ = read(dots[:, 0], OBJECTS, 2)
    for which in range(2):
        rest = without(dots, places[:, which])
        assert the_same_in_all(by_class(hashed(rest), labels))
    # With both objects no two scenes are alike: the test can fail.
    whole = by_class(hashed(dots), labels)
    assert (whole[:, 0] != whole[:, 1]).all()


def test_of_near_scenes_what_lies_beside_the_texture_is_there_in_each_class_equally_often(made):
    dots, labels = in_groups(made["near"])
    places, _ = read(dots[:, 0], TEXTURES, 1)
    assert the_same_in_all(by_class(hashed(without(dots, places[:, 0])), labels))
    assert not the_same_in_all(by_class(hashed(dots), labels))


@pytest.mark.parametrize("relation", RELATIONS)
def test_all_scenes_of_a_group_have_the_same_pixels_in_another_order(made, relation):
    dots, _ = in_groups(made[relation])
    colours = dots.reshape(200, 16, -1, 3).astype(np.int64) @ np.array([65536, 256, 1])
    counts = np.sort(colours, axis=-1)
    assert np.array_equal(counts, counts[:, :1].repeat(16, axis=1))


def test_both_sets_have_the_same_clutter_colours_and_places(made):
    far, near = (in_groups(made[relation])[0][:, 0] for relation in RELATIONS)
    for drawings, count in ((OBJECTS, 2), (TEXTURES, 1)):
        places, others = (read(scenes, drawings, count)[0] for scenes in (far, near))
        assert np.array_equal(places, others)
        for number in range(count):
            far, near = (without(one[:, None], places[:, number])[:, 0] for one in (far, near))
    assert np.array_equal(far, near)


def test_mirrored_scenes_are_of_their_class(made):
    for relation in RELATIONS:
        dots, labels = in_groups(made[relation])
        mirrored = dots.reshape(-1, DOTS, DOTS, 3)[:, :, ::-1]
        if relation == "far":
            found = relation_of(read(mirrored, OBJECTS, 2)[1])
        else:
            # Stripes and squares then begin with the other colour, blocks at the other side.
            turned = ["".join(one[r : r + 4][::-1] for r in (0, 4, 8, 12)) for one in TEXTURES]
            assert not {*turned[1:]} & {*TEXTURES}
            found = read(mirrored, turned, 1)[1][:, 0]
        assert (found == labels.ravel()).all()


CHANCE, DEVIATIONS = 0.25, 4


@pytest.mark.slow
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("features", FEATURES)
def test_neighbours_by_pixels_or_colours_are_no_better_than_chance(opened, relation, features):
    config = override(recipe("photographs_tiny"), {"data.source": f"scenes_{relation}"})
    found = reference_accuracies(opened[relation], config, [features])[features]
    # The standard deviation of 640 guesses.
    assert abs(found - CHANCE) < DEVIATIONS * math.sqrt(CHANCE * (1 - CHANCE) / 640)


@pytest.mark.parametrize("relation", RELATIONS)
def test_opened_by_name_it_is_these_scenes_with_their_split(made, opened, relation):
    images, found = opened[relation], made[relation]
    assert len(images) == 3200
    assert images.declared
    assert torch.equal(images.test, torch.arange(2560, 3200))
    assert torch.equal(images.train, torch.arange(2560))
    assert torch.equal(images.labels, found.labels)
    assert len(set(images.class_names)) == 4
    assert open_images(DataConfig(source=f"scenes_{relation}"), None).digest == images.digest
    expected = torch.from_numpy(found.pixels[[0, 3199]]).permute(0, 3, 1, 2)
    assert torch.equal(images.pixels(torch.tensor([0, 3199])), expected)


def test_the_two_sets_have_digests_of_their_own(opened):
    assert opened["far"].digest != opened["near"].digest


@pytest.mark.parametrize("word", ["scenes_fat", "Scenes_Far", "scene_far"])
def test_a_misspelt_name_is_one_line_with_the_nearest(word, tmp_path):
    with pytest.raises(DataError, match="did you mean scenes_far") as caught:
        open_images(DataConfig(source=word), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("relation", ["far", "near"])
def test_squares_are_where_images_of_a_group_differ(made, relation):
    """Of each group, what differs between its images lies in the squares that its class rests on,
    and all of these differ."""
    scenes = made[relation]
    pixels = scenes.pixels.reshape(-1, 16, 48, 48, 3)
    squares = scenes.squares.reshape(-1, 16, 3, 2)
    assert (squares == squares[:, :1]).all()
    differs = (pixels != pixels[:, :1]).any((1, 4))
    for group in range(len(pixels)):
        told = np.zeros((48, 48), dtype=bool)
        for number, (row, column) in enumerate(squares[group, 0]):
            if (number == 2) == (relation == "near") or (relation == "near" and number == 1):
                told[row : row + 12, column : column + 12] = True
                assert differs[group, row : row + 12, column : column + 12].any()
        assert not (differs[group] & ~told).any()
