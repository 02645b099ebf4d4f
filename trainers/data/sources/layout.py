"""Which folders of an image tree are splits, and which are labels.

=============================  ====================================================
``cat/…  dog/…``               labels
``train/cat/…  valid/cat/…``   splits, as `split_called` knows them; then labels
``cat/train/…  cat/valid/…``   labels; then splits
``archive/train/cat/…``        any of these in one folder: that says nothing
=============================  ====================================================

Folders below these say nothing, either.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable

from trainers.data.sources.source import split_called
from trainers.errors import DataError, listed, printable

_SHOWN = 8
"""Folders that a message names."""

_Paths = dict[str, tuple[str, ...]]
"""Folders that hold images, and the part of their path that is yet to be explained."""

Layout = dict[str, tuple[str, str] | None]
"""Split and label of the images in each folder, empty where there is none; None if left out."""


def layout(folders: set[str], text: str) -> Layout:
    """What the `folders` of the image folder `text` say: relative paths with `/`, "" for itself.

    Left out are images beside the splits. Raises DataError when other folders lie beside them.
    """
    paths: _Paths = {one: tuple(one.split("/")) if one else () for one in folders}
    found: Layout | None = None
    inside = paths
    while heads := _heads(inside):
        if splits := _splits(inside, text):
            found = _splits_first(inside, splits)
        elif len(heads) > 1:
            found = _labels_first(inside, text)
        if found or len(heads) > 1:
            break
        inside = {one: path[1:] for one, path in inside.items() if path}
    if not found:
        return {one: ("", label) for one, label in _labels(paths).items()}
    return dict.fromkeys(folders) | found


def _heads(paths: _Paths) -> set[str]:
    return {path[0] for path in paths.values() if path}


def _splits(paths: _Paths, text: str) -> dict[str, str]:
    """The split that each first folder is, if they are splits."""
    named = {head: split_called(head) for head in _heads(paths)}
    kinds = set(named.values())
    _refuse_mixed(named, text)
    if "" in kinds:
        return {}
    # An image beside one folder of images, called test, says nothing of splits.
    is_flat = all(len(path) < 2 for path in paths.values())
    return {} if len(kinds) == 1 and is_flat and () in paths.values() else named


def _refuse_mixed(heads: Collection[str], text: str) -> None:
    if not all(map(split_called, heads)) and _mixed(heads):
        folders = printable(listed(sorted(heads), _SHOWN))
        raise DataError(
            f"image folder {text!r} holds splits beside other folders ({folders}): call "
            "splits train, val or test, move other folders elsewhere, or give one of these"
        )


def _mixed(folders: Iterable[str]) -> bool:
    """Whether some folders are splits: `train` beside `test_a`, or `seg_train` and `seg_test`."""
    by_rest = defaultdict(set)
    for folder in folders:
        for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", folder):
            if split := split_called(word):
                by_rest["" if split_called(folder) else folder.replace(word, "", 1)].add(split)
    is_split = "" in by_rest and len(set.union(*by_rest.values())) > 1
    return is_split or any(len(splits) > 1 for splits in by_rest.values())


def _splits_first(paths: _Paths, splits: dict[str, str]) -> Layout:
    rest: _Paths = {}
    for head, split in splits.items():
        part = {one: path[1:] for one, path in paths.items() if path[:1] == (head,)}
        # As archives of single splits unpack: training_set/training_set/cat.
        while all(path and split_called(path[0]) == split for path in part.values()):
            part = {one: path[1:] for one, path in part.items()}
        rest |= part
    return {one: (splits[paths[one][0]], label) for one, label in _labels(rest).items()}


def _labels_first(paths: _Paths, text: str) -> Layout | None:
    """Splits below labels, if every label has some."""
    below = {one: path[1:] for one, path in paths.items() if len(path) > 1}
    split = {one: split_called(path[0]) for one, path in below.items()}
    divided = {paths[one][0] for one in split if split[one]}
    if divided != _heads(paths) or len(set(split.values()) - {""}) < 2:
        return None
    _refuse_mixed(_heads(below), text)
    return {one: (split[one], paths[one][0]) for one in split}


def _labels(paths: _Paths) -> dict[str, str]:
    """The first folder of each; of folders that alone lie in one, those."""
    inside = paths
    while len(heads := _heads(inside)) == 1 and all(inside.values()):
        inside = {one: path[1:] for one, path in inside.items()}
    chosen = inside if len(heads) > 1 and all(inside.values()) else paths
    return {one: path[0] if path else "" for one, path in chosen.items()}
