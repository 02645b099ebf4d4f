"""Folders as people have them: which are splits, which are labels, and what is refused."""

import pytest

from trainers.data.sources.layout import layout
from trainers.data.sources.source import split_called
from trainers.errors import DataError

SPELLINGS = {
    "train": ["train", "Train", "TRAIN", "training", "training_set", "train2017", "images_train",
              "01-Train Images", "trainval", "TrainSet"],
    "val": ["val", "Valid", "VALIDATION", "validate", "dev", "development", "val_images", "valset"],
    "test": ["test", "Testing", "test1", "test-set", "eval", "evaluation", "holdout", "held_out"],
    "": ["cat", "trains", "trainer", "invalid", "valley", "Val d'Isère", "tests ok", "device",
         "images", "data", "2017", "", "bullet_train", "test_tube", "contest", "ev"],
}  # fmt: skip


def told(*folders: str) -> list[tuple[str, str] | None]:
    """Split and label of each folder, in the order given."""
    found = layout(set(folders), "pictures")
    assert set(found) == set(folders)
    return [found[folder] for folder in folders]


@pytest.mark.parametrize(("split", "names"), SPELLINGS.items(), ids=str)
def test_a_split_is_known_by_any_usual_name(split, names):
    assert {name: split_called(name) for name in names} == dict.fromkeys(names, split)


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "Valid", "Test"),
        ("TRAINING", "validation", "testing"),
        ("training_set", "dev", "test1"),
        ("train2017", "val2017", "eval"),
    ],
)
def test_first_folders_that_are_splits_are_never_labels(names):
    folders = [f"{name}/{label}" for name in names for label in ("cat", "dog/deep")]
    expected = [(split, label) for split in ("train", "val", "test") for label in ("cat", "dog")]
    assert told(*folders) == expected


def test_two_spellings_of_one_split_are_one_split():
    assert told("train/cat", "Train/cat", "val/cat") == [*[("train", "cat")] * 2, ("val", "cat")]


def test_images_beside_the_splits_are_left_out():
    assert told("", "train/cat", "val/cat") == [None, ("train", "cat"), ("val", "cat")]
    assert told("", "train", "val") == [None, ("train", ""), ("val", "")]
    assert told("", "train/cat", "train/dog") == [None, ("train", "cat"), ("train", "dog")]
    assert told("", "a", "a/train/cat", "a/val/cat") == [
        None,
        None,
        ("train", "cat"),
        ("val", "cat"),
    ]


@pytest.mark.parametrize("around", ["dataset", "archive/data/images"])
def test_a_folder_around_all_says_nothing(around):
    for inside in (
        {"train/cat": ("train", "cat"), "Valid/dog": ("val", "dog")},
        {"cat": ("", "cat"), "dog/deep": ("", "dog")},
        {"cat/train": ("train", "cat"), "dog/test": ("test", "dog")},
    ):
        assert told(*(f"{around}/{folder}" for folder in inside)) == list(inside.values())


def test_a_folder_around_the_labels_of_each_split_says_nothing():
    expected = [("train", "cat"), ("train", "dog"), ("test", "cat")]
    for train, test in (("train/images", "test/images"), ("training_set/training_set", "test_set"),
                        ("train/train/images", "test/Test/images")):  # fmt: skip
        assert told(f"{train}/cat", f"{train}/dog", f"{test}/cat") == expected


def test_splits_may_lie_below_the_labels():
    folders = [f"{label}/{split}" for label in ("cat", "dog") for split in ("Train", "valid")]
    splits = [("train", "cat"), ("val", "cat"), ("train", "dog"), ("val", "dog")]
    assert told(*folders) == splits
    assert told(*folders, "", "dog", "cat/train/deep") == [*splits, None, None, ("train", "cat")]


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (("cat", "dog"), ("cat", "dog")),
        (("car", "train", "bus"), ("car", "train", "bus")),
        (("car", "train/steam", "train/diesel"), ("car", "train", "train")),
        (("valid", "invalid"), ("valid", "invalid")),
        (("bullet_train", "test_tube"), ("bullet_train", "test_tube")),
        (("train_interior", "train_station"), ("train_interior", "train_station")),
        (("cat/train", "dog"), ("cat", "dog")),
        (("cat/train", "dog/train"), ("cat", "dog")),
        (("cat/test", "dog/dev", "ant"), ("cat", "dog", "ant")),
        (("cat", "cat/deep/er"), ("cat", "cat")),
        (("images",), ("images",)),
        (("", "test"), ("", "test")),
        (("", "cat", "dog"), ("", "cat", "dog")),
        (("",), ("",)),
    ],
)
def test_all_else_are_labels(folders, labels):
    assert told(*folders) == [("", label) for label in labels]


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (("train/cat", "test/cat", "unlabeled"), "test, train, unlabeled"),
        (("train", "test_a", "test_b"), "test_a, test_b, train"),
        (("seg_train/sea", "seg_test/sea", "seg_pred"), "seg_pred, seg_test, seg_train"),
        (("trainA", "trainB", "testA", "testB"), "testA, testB, trainA, trainB"),
        (("cat_train", "cat_test", "dog_train"), "cat_test, cat_train, dog_train"),
        (("a/train/cat", "a/val/cat", "a/more"), "more, train, val"),
        (("cat/train/a", "cat/test/a", "cat/truth", "ant/test/a"), "test, train, truth"),
        ([f"label{number}" for number in range(9)] + ["train", "val"],
         "label0, label1, label2, label3, label4, label5, label6, label7 and 3 more"),
    ],
)  # fmt: skip
def test_splits_beside_other_folders_are_refused_by_name(folders, named):
    with pytest.raises(DataError) as caught:
        told(*folders)
    assert str(caught.value) == (
        f"image folder 'pictures' holds splits beside other folders ({named}): call splits train, "
        "val or test, move other folders elsewhere, or give one of these"
    )
