"""Where data lie, as users write it: at home, relative, with odd characters in the name."""

from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainers.config import DataConfig
from trainers.data.image_set import open_images
from trainers.data.ingest import ingest
from trainers.data.sources.grammar import open_source
from trainers.errors import DataError
from trainers.system.storage import absolute_source, locate

ODD = ("Photos [2024]", "what?", "all*", "[a]", "a:b", "100%", "#1", "it's", "{x}", "two  spaces")


def paint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (5, 10, 12, 3), dtype=np.uint8)
    for number, one in enumerate(noise):
        Image.fromarray(one).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", ODD)
def test_a_folder_is_a_folder_whatever_its_name(tmp_path, monkeypatch, name):
    paint(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for text in (name, f"{name}/", f"./{name}", f"hf:{name}", f"{tmp_path}/{name}"):
        assert len(open_source(text)) == 5
    out = f"out {name}"
    manifest = ingest(open_source(name), locate(out))
    for source in (name, out):
        images = open_images(DataConfig(source=source, image_size=8), tmp_path / f"cache {name}")
        assert (len(images), images.digest) == (5, manifest.digest)


@pytest.mark.parametrize("name", ODD)
def test_a_table_is_a_table_whatever_it_and_its_folder_are_called(tmp_path, monkeypatch, name):
    pictures = [path.read_bytes() for path in sorted(paint(tmp_path / "pictures").iterdir())]
    (tmp_path / name).mkdir()
    for file in (f"{name}.parquet", "train-0.parquet", "train-1.parquet"):
        pq.write_table(pa.table({"image": pictures}), tmp_path / name / file)
    monkeypatch.chdir(tmp_path)
    assert len(open_source(f"{name}/{name}.parquet")) == 5
    assert len(open_source(f"{name}/train-[01]*.parquet")) == 10
    assert len(open_source(name)) == 15


@pytest.mark.parametrize("name", ["Photos [2024]", "Photos%20%5B2024%5D", "all*", "ü", "a+b"])
def test_a_folder_in_a_uri_is_a_folder_escaped_or_not(tmp_path, name):
    folder = paint(tmp_path / unquote(name))
    source = open_source(f"file://{tmp_path}/{name}")
    assert source.name == f"folder {folder}"
    assert len(source) == 5


def test_a_pattern_that_is_no_file_is_a_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no\[thing\] holds no \.parquet or \.arrow file"):
        open_source("no[thing]")


def test_a_path_is_made_absolute_and_home_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert {text: absolute_source(text) for text in ("photos", "./a/../b/", "a [1]/*.parquet")} == {
        "photos": f"{tmp_path}/photos",
        "./a/../b/": f"{tmp_path}/b",
        "a [1]/*.parquet": f"{tmp_path}/a [1]/*.parquet",
    }
    assert absolute_source("~/photos") == "/home/me/photos"
    assert absolute_source("~no-such-user/x") == f"{tmp_path}/~no-such-user/x"
    assert absolute_source("digits/mine") == f"{tmp_path}/digits/mine"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "digits",
            "photographs",
            "scenes_far",
            "photographs_equalised",
            "scenes_near",
            "s3://bucket/x",
            "file:///data",
            "torchvision:cifar10:here",
        ),
        *("hf:mnist", "hf:here", "/data/photos", "", "a\0b", "\ud800"),
    ],
)
def test_what_is_no_relative_path_stays_as_it_is(text):
    assert absolute_source(text) == text


def test_a_word_near_an_embedded_set_is_suggested_from_an_absolute_path_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"/digit' cannot be read: .*; did you mean digits\?"):
        open_images(DataConfig(source=absolute_source("digit")), tmp_path / "cache")
