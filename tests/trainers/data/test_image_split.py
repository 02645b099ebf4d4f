"""Which images are held out: a pure function of identifiers, labels and the share."""

import hashlib

import pytest
import torch

from trainers.data.arrow import identifier
from trainers.data.image_set import ImageSet, split


def make(labels: list[int] | None, names: list[str], share: float) -> ImageSet:
    identifiers = torch.tensor([identifier(name) for name in names])
    known = None if labels is None else torch.tensor(labels)
    return ImageSet(
        digest="",
        identifiers=identifiers,
        labels=known,
        class_names=(),
        sizes=torch.ones(len(names), 2, dtype=torch.int64),
        skipped=(),
        parts=split(identifiers, known, share),
        read=lambda _place: b"",
        side=4,
    )


def numbered(count: int) -> list[str]:
    return [f"{number}.png" for number in range(count)]


@pytest.mark.parametrize("share", [0.001, 0.1, 0.2, 0.5, 0.83, 0.999])
@pytest.mark.parametrize(
    "sizes", [(4,), (1, 1, 1, 1), (2,) * 50, (1, 9, 90), (50, 0, 50), (333, 333, 334)]
)
def test_parts_are_disjoint_whole_and_of_the_right_size_in_every_label(sizes, share):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    total = len(labels)
    images = make(labels, numbered(total), share)
    assert sorted(images.train.tolist() + images.test.tolist()) == list(range(total))
    assert images.train.tolist() == sorted(images.train.tolist())
    assert images.test.tolist() == sorted(images.test.tolist())
    assert len(images.test) == min(max(round(share * total), 2), total - 2)
    held = images.labels[images.test].bincount(minlength=len(sizes))
    exact = torch.tensor(sizes, dtype=torch.float64) * len(images.test) / total
    assert ((held - exact).abs() < 1).all()


def test_without_labels_the_share_is_held_out():
    images = make(None, numbered(1000), 0.2)
    assert len(images.test) == 200
    assert set(images.train.tolist()).isdisjoint(images.test.tolist())


def test_the_choice_goes_with_the_image_and_not_with_its_place():
    names = numbered(200)
    held = {names[place] for place in make(None, names, 0.3).test.tolist()}
    turned = names[::-1]
    assert {turned[place] for place in make(None, turned, 0.3).test.tolist()} == held


def test_a_larger_share_holds_out_the_same_images_and_more():
    small, large = (make(None, numbered(300), share).test.tolist() for share in (0.1, 0.4))
    assert set(small) < set(large)


def test_held_out_images_lie_scattered():
    test = make(None, numbered(1000), 0.5).test
    assert 200 < int((test < 500).sum()) < 300


def test_the_split_and_the_identifiers_are_those_of_every_machine():
    images = make([0, 1] * 10, numbered(20), 0.25)
    word = hashlib.sha256(b"0.png").digest()[:8]
    assert images.identifiers[0].item() == int.from_bytes(word, "big") >> 1
    assert images.test.tolist() == [2, 4, 9, 14, 15]


def test_two_images_of_one_name_are_our_own_mistake():
    with pytest.raises(AssertionError):
        make(None, ["a.png"] * 4, 0.5)
