"""Parquet and Arrow files with image bytes, as people and as Hugging Face write them."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainers.config import DataConfig
from trainers.data import arrow, ingest
from trainers.data.arrow import Manifest
from trainers.data.image_set import open_images
from trainers.data.sources.grammar import open_source
from trainers.errors import DataError
from trainers.system.storage import locate


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


PICTURES = [picture(seed) for seed in range(40)]
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
}


def hugging_face(images: list[bytes | None], labels: list[int]) -> pa.Table:
    """A table as `datasets` writes it to parquet: a struct, and class names in the schema."""
    structs = [None if one is None else {"bytes": one, "path": None} for one in images]
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    return pa.table({"image": structs, "label": labels}, schema=schema)


def plain(images: list[bytes], labels: list[object]) -> pa.Table:
    return pa.table({"image": pa.array(images, pa.binary()), "label": labels})


def write_arrow(path: Path, table: pa.Table, new: object) -> None:
    with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def ingested(text: object, out: Path) -> tuple[Manifest, list[dict[str, object]]]:
    home = locate(str(out))
    manifest = ingest.ingest(open_source(str(text)), home)
    return manifest, arrow.mapped(home, manifest).to_pylist()


@pytest.mark.parametrize("form", ["parquet", "file", "stream"])
@pytest.mark.parametrize("items", [1, 5, 9, 1024])
def test_rows_come_in_order_whatever_the_groups_and_parts(tmp_path, monkeypatch, form, items):
    monkeypatch.setattr(ingest, "ITEMS_PER_PART", items)
    table = plain(PICTURES, [number % 3 for number in range(40)])
    path = tmp_path / ("a.parquet" if form == "parquet" else "a.arrow")
    if form == "parquet":
        pq.write_table(table, path, row_group_size=7)
    else:
        write_arrow(path, table, pa.ipc.new_file if form == "file" else pa.ipc.new_stream)
    manifest, rows = ingested(path, tmp_path / "set")
    assert [row["image"] for row in rows] == PICTURES
    assert [row["label"] for row in rows] == [str(number % 3) for number in range(40)]
    assert [row["name"] for row in rows] == [f"{path.name}#{row}" for row in range(40)]
    assert manifest.classes == ("0", "1", "2")
    assert manifest.splits == {"": 40}


def test_hugging_face_parquet_has_names_for_labels_and_splits_in_file_names(tmp_path):
    data = tmp_path / "repository/data"
    data.mkdir(parents=True)
    pq.write_table(hugging_face(PICTURES[:6], [0, 1] * 3), data / "train-00000-of-00002.parquet")
    pq.write_table(hugging_face(PICTURES[6:8], [1, 0]), data / "train-00001-of-00002.parquet")
    pq.write_table(
        hugging_face([PICTURES[8], None, b"", PICTURES[9]], [-1, 0, 0, 1]),
        data / "validation-00000-of-00001.parquet",
    )
    for text in (tmp_path / "repository", f"hf:{tmp_path}/repository", f"{data}/*.parquet"):
        manifest, rows = ingested(text, tmp_path / f"set{hash(text)}")
        assert manifest.splits == {"train": 8, "val": 2}
        assert [row["image"] for row in rows] == PICTURES[:10]
        assert [row["label"] for row in rows] == [*["no", "yes"] * 3, "yes", "no", "", "yes"]
        assert manifest.skipped == 2
    skipped = arrow.read_skipped(locate(f"{tmp_path}/set{hash(text)}"))
    file = "validation-00000-of-00001.parquet"
    assert [(one.path, one.reason) for one in skipped] == [
        (f"{file}#1", "no bytes in this row"),
        (f"{file}#2", "empty file"),
    ]


def test_what_hugging_face_saved_to_disk_is_read(tmp_path):
    for split in ("train", "test"):
        folder = tmp_path / "saved" / split
        folder.mkdir(parents=True)
        write_arrow(
            folder / "data-00000-of-00001.arrow",
            hugging_face(PICTURES[:4], [0, 1, 0, 1]),
            pa.ipc.new_stream,
        )
        (folder / "state.json").write_text("{}")
    manifest, _ = ingested(f"hf:{tmp_path}/saved", tmp_path / "set")
    assert manifest.splits == {"test": 4, "train": 4}
    assert manifest.classes == ("no", "yes")
    assert manifest.duplicates == 4


def test_declared_splits_are_used_and_numbers_sort_by_value(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    pq.write_table(plain(PICTURES[:22], [*range(11)] * 2), folder / "train.parquet")
    pq.write_table(plain(PICTURES[22:25], [1, 10, 2]), folder / "val.parquet")
    pq.write_table(plain(PICTURES[25:28], [3, 4, 5]), folder / "test.parquet")
    ingested(folder, tmp_path / "set")
    images = open_images(DataConfig(source=str(tmp_path / "set"), image_size=4), None)
    assert images.class_names == tuple(map(str, range(11)))
    # Files come by name: test, train, val. Held out is `test`; `val` is trained on.
    assert images.test.tolist() == [0, 1, 2]
    assert images.train.tolist() == list(range(3, 28))
    assert images.labels.tolist() == [3, 4, 5, *[*range(11)] * 2, 1, 10, 2]


def test_an_ingested_set_ingested_again_is_the_same_set(tmp_path):
    pq.write_table(hugging_face(PICTURES, [0, 1] * 20), tmp_path / "train-0.parquet")
    first, rows = ingested(tmp_path / "train-0.parquet", tmp_path / "one")
    second, again = ingested(tmp_path / "one", tmp_path / "two")
    assert first.digest == second.digest
    assert rows == again


def test_equal_names_are_refused(tmp_path):
    table = plain(PICTURES[:3], [0, 1, 2]).append_column("name", pa.array(["a", "b", "a"]))
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="1 images have the id of another, such as a and a"):
        ingested(tmp_path / "a.parquet", tmp_path / "set")
    assert not (tmp_path / "set/dataset.json").exists()


@pytest.mark.parametrize(
    "columns",
    [
        {"label": pa.array([1])},
        {"image": pa.array(["a.png"])},
        {"left": pa.array([b"x"]), "right": pa.array([b"x"])},
    ],
)
def test_a_table_without_one_column_of_images_is_refused(tmp_path, columns):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"columns of image bytes \(columns: .*\): give a file"):
        open_source(f"{tmp_path}/a.parquet")


def test_a_resumed_ingest_of_a_changed_file_takes_nothing_over(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "ITEMS_PER_PART", 4)
    path = tmp_path / "a.parquet"
    pq.write_table(plain(PICTURES[:12], [0] * 12), path)
    home = locate(f"{tmp_path}/set")

    def stop(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest.ingest(open_source(str(path)), home, stop)
    pq.write_table(plain(PICTURES[20:30], [0] * 10), path)
    manifest, rows = ingested(path, tmp_path / "set")
    assert [row["image"] for row in rows] == PICTURES[20:30]
    pq.write_table(plain(PICTURES[:12], [0] * 12), path)
    with pytest.raises(DataError, match=r"holds what tables .* was before it changed"):
        ingested(path, tmp_path / "set")
    assert arrow.read_manifest(home) == manifest


def test_without_the_library_a_name_on_the_hub_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"hf:mnist:full needs .* pip install 'dinolab\[ingest\]'"):
        open_source("hf:mnist:full")


@pytest.mark.filterwarnings("ignore")
def test_the_library_gives_the_bytes_it_stores(tmp_path):
    pytest.importorskip("datasets")
    from trainers.data.sources.hugging_face import HuggingFaceSet

    folder = tmp_path / "repository"
    folder.mkdir()
    pq.write_table(hugging_face(PICTURES[:6], [0, 1] * 3), folder / "train.parquet")
    pq.write_table(hugging_face(PICTURES[6:8], [1, 0]), folder / "test.parquet")
    home = locate(f"{tmp_path}/set")
    manifest = ingest.ingest(HuggingFaceSet(str(folder), None), home)
    rows = arrow.mapped(home, manifest).to_pylist()
    assert [row["image"] for row in rows] == PICTURES[:8]
    assert [row["label"] for row in rows] == [*["no", "yes"] * 3, "yes", "no"]
    assert manifest.splits == {"train": 6, "test": 2}
