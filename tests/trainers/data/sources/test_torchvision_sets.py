"""torchvision's data sets, written here in their own formats, become what they hold.

Their checksums are those of the real downloads: the tests put in those of what they wrote.
"""

import hashlib
import json
import pickle
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision import datasets

from trainers.data import arrow
from trainers.data.arrow import Manifest
from trainers.data.decode import decode
from trainers.data.ingest import ingest
from trainers.data.sources.grammar import open_source
from trainers.errors import DataError
from trainers.system.storage import locate

RANDOM = np.random.default_rng(0)


def ingested(text: str, out: Path) -> tuple[Manifest, list[dict[str, object]]]:
    """The data set of a source, and its rows."""
    home = locate(str(out))
    manifest = ingest(open_source(text), home)
    return manifest, arrow.mapped(home, manifest).to_pylist()


def pixels(row: dict[str, object]) -> np.ndarray:
    return np.asarray(decode(row["image"]))


def checksum(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def photograph(path: Path) -> bytes:
    """A JPEG file of noise at `path`; its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path, "JPEG")
    return path.read_bytes()


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, kind: type) -> dict[str, np.ndarray]:
    """Batches of three images each, as CIFAR pickles them: rows of red, green, blue planes."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    planes = {}
    lists: dict[str, list[list[str]]] = {}
    for attribute in ("train_list", "test_list"):
        lists[attribute] = []
        for name, _ in getattr(kind, attribute):
            planes[name] = RANDOM.integers(0, 256, (3, 3072), dtype=np.uint8)
            labels = "labels" if kind is datasets.CIFAR10 else "fine_labels"
            batch = {"data": planes[name], labels: [0, 1, 2], "batch_label": name}
            (folder / name).write_bytes(pickle.dumps(batch))
            lists[attribute].append([name, checksum(folder / name)])
        monkeypatch.setattr(kind, attribute, lists[attribute])
    meta = folder / kind.meta["filename"]
    words = [f"thing{number}" for number in range(10)]
    meta.write_bytes(pickle.dumps({kind.meta["key"]: words}))
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": checksum(meta)})
    return planes


@pytest.mark.parametrize(("name", "kind"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_cifar_batches_become_files_of_the_same_pixels(tmp_path, monkeypatch, name, kind):
    planes = write_cifar(tmp_path, monkeypatch, getattr(datasets, kind))
    manifest, rows = ingested(f"torchvision:{name}:{tmp_path}", tmp_path / "set")
    batches = np.concatenate(list(planes.values())).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    train = 3 * (len(planes) - 1)
    assert manifest.splits == {"train": train, "test": 3}
    assert manifest.classes == ("thing0", "thing1", "thing2")
    assert len(rows) == len(batches) == train + 3
    for row, expected in zip(rows, batches, strict=True):
        assert (pixels(row) == expected).all()
    assert [row["label"] for row in rows] == ["thing0", "thing1", "thing2"] * len(planes)
    assert rows[0]["name"] == "train/000000.ppm"
    assert rows[-1]["name"] == "test/000002.ppm"


@pytest.fixture
def offline(monkeypatch):
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # where nobody listens
    # It remembers the proxies of its first use in the process.
    monkeypatch.setattr(urllib.request, "_opener", None)


@pytest.mark.usefixtures("offline")
def test_a_changed_cifar_batch_is_refused_and_not_unpickled(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch, datasets.CIFAR10)
    path = tmp_path / datasets.CIFAR10.base_folder / "data_batch_3"
    path.write_bytes(b"cos\nabort\n(tR.")  # ends the process if it is unpickled
    with pytest.raises(DataError, match="is not there, or is not whole, and cannot be downloaded"):
        open_source(f"torchvision:cifar10:{tmp_path}")


@pytest.mark.parametrize("name", ["stl10", "stl10-unlabeled"])
def test_stl10_columns_of_bytes_become_upright_images(tmp_path, monkeypatch, name):
    folder = tmp_path / datasets.STL10.base_folder
    folder.mkdir()
    images = {}
    for attribute in ("train_list", "test_list"):
        sums = []
        for file, _ in getattr(datasets.STL10, attribute):
            path = folder / file
            if file.endswith("X.bin"):
                images[file] = RANDOM.integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
                # Red, green, blue; each column by column.
                path.write_bytes(images[file].transpose(0, 3, 2, 1).tobytes())
            else:
                path.write_bytes(bytes([1, 2, 2, 1]))
            sums.append([file, checksum(path)])
        monkeypatch.setattr(datasets.STL10, attribute, sums)
    (folder / datasets.STL10.class_names_file).write_text("airplane\nbird\n")
    manifest, rows = ingested(f"torchvision:{name}:{tmp_path}", tmp_path / "set")
    if name == "stl10":
        expected = np.concatenate([images["train_X.bin"], images["test_X.bin"]])
        assert manifest.splits == {"train": 4, "test": 4}
        assert [row["label"] for row in rows] == ["airplane", "bird", "bird", "airplane"] * 2
    else:
        expected = images["unlabeled_X.bin"]
        assert manifest.splits == {"": 4}
        assert manifest.classes == ("",)
    assert len(rows) == len(expected)
    for row, one in zip(rows, expected, strict=True):
        assert (pixels(row) == one).all()


def test_flowers_take_labels_and_splits_from_matlab_files(tmp_path, monkeypatch):
    folder = tmp_path / "flowers-102"
    taken = {number: photograph(folder / f"jpg/image_{number:05d}.jpg") for number in range(1, 10)}
    labels = np.arange(9) % 3 + 1
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": labels})
    parts = {"trnid": [1, 5, 3], "valid": [2, 4], "tstid": [6, 7, 8, 9]}
    scipy.io.savemat(folder / "setid.mat", parts)
    files = {
        "label": ("imagelabels.mat", checksum(folder / "imagelabels.mat")),
        "setid": ("setid.mat", checksum(folder / "setid.mat")),
    }
    monkeypatch.setattr(
        datasets.Flowers102, "_file_dict", {**datasets.Flowers102._file_dict, **files}
    )
    manifest, rows = ingested(f"torchvision:flowers102:{tmp_path}", tmp_path / "set")
    assert manifest.splits == {"train": 3, "val": 2, "test": 4}
    order = [1, 5, 3, 2, 4, 6, 7, 8, 9]
    assert [row["image"] for row in rows] == [taken[number] for number in order]
    words = datasets.Flowers102.classes
    assert [row["label"] for row in rows] == [words[labels[n - 1] - 1] for n in order]
    assert rows[1]["name"] == "flowers-102/jpg/image_00005.jpg"


def test_pets_take_labels_and_splits_from_lists(tmp_path):
    folder = tmp_path / "oxford-iiit-pet"
    pets = ["Abyssinian_1", "pug_3", "Abyssinian_2", "pug_20"]
    taken = {name: photograph(folder / f"images/{name}.jpg") for name in pets}
    (folder / "annotations").mkdir()
    lines = [f"{name} {2 if 'pug' in name else 1} {2 if 'pug' in name else 1} 1" for name in pets]
    (folder / "annotations/trainval.txt").write_text("\n".join(lines[:2]))
    (folder / "annotations/test.txt").write_text("\n".join(lines[2:]))
    manifest, rows = ingested(f"torchvision:oxford-iiit-pet:{tmp_path}", tmp_path / "set")
    assert manifest.splits == {"train": 2, "test": 2}
    assert manifest.classes == ("Abyssinian", "Pug")
    assert [row["image"] for row in rows] == list(taken.values())
    assert [row["label"] for row in rows] == ["Abyssinian", "Pug"] * 2


def test_food_takes_labels_and_splits_from_json(tmp_path):
    folder = tmp_path / "food-101"
    lists = {
        "train": {"pizza": ["pizza/2", "pizza/1"], "sushi": ["sushi/5"]},
        "test": {"pizza": ["pizza/3"], "sushi": ["sushi/4"]},
    }
    taken = []
    (folder / "meta").mkdir(parents=True)
    for split, foods in lists.items():
        (folder / f"meta/{split}.json").write_text(json.dumps(foods))
        taken += [photograph(folder / f"images/{n}.jpg") for ns in foods.values() for n in ns]
    (folder / "images/pizza/1.jpg").unlink()
    (folder / "images/sushi/5.jpg").write_bytes(b"")
    manifest, rows = ingested(f"torchvision:food101:{tmp_path}", tmp_path / "set")
    assert manifest.splits == {"train": 1, "test": 2}
    assert [row["label"] for row in rows] == ["pizza", "pizza", "sushi"]
    assert [row["image"] for row in rows] == [taken[0], *taken[3:]]
    skipped = {one.path: one.reason for one in arrow.read_skipped(locate(f"{tmp_path}/set"))}
    assert skipped == {
        "food-101/images/pizza/1.jpg": "cannot be read: No such file or directory",
        "food-101/images/sushi/5.jpg": "empty file",
    }


def test_imagenette_takes_labels_and_splits_from_folders(tmp_path):
    taken = [
        photograph(tmp_path / f"imagenette2/{split}/{word}/{word}_{number}.JPEG")
        for split in ("train", "val")
        for word in ("n01440764", "n02102040")
        for number in (1, 2)
    ]
    manifest, rows = ingested(f"torchvision:imagenette:{tmp_path}", tmp_path / "set")
    assert manifest.splits == {"train": 4, "val": 4}
    assert manifest.classes == ("English springer", "tench")
    assert [row["image"] for row in rows] == taken


def test_an_imagenet_folder_is_a_folder_with_splits(tmp_path):
    for split in ("train", "val"):
        for word in ("n01440764", "n02102040"):
            photograph(tmp_path / f"imagenet/{split}/{word}/{word}_1.JPEG")
    manifest, rows = ingested(f"{tmp_path}/imagenet", tmp_path / "set")
    assert manifest.splits == {"train": 2, "val": 2}
    assert manifest.classes == ("n01440764", "n02102040")
    assert rows[3]["name"] == "val/n02102040/n02102040_1.JPEG"


@pytest.mark.usefixtures("offline")
def test_a_set_that_is_not_there_and_cannot_be_downloaded_is_one_line(tmp_path):
    for name in ("cifar10", "stl10", "flowers102", "oxford-iiit-pet", "food101", "imagenette"):
        with pytest.raises(DataError) as caught:
            open_source(f"torchvision:{name}:{tmp_path}/{name}")
        line = str(caught.value)
        assert line.startswith(f"torchvision:{name} in {tmp_path}/{name} is not there")
        assert "onnection refused" in line
        assert "\n" not in line
