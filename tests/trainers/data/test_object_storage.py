"""Data sets and sources on object storage: a real S3 server, on this machine."""

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pyarrow import fs

from trainers.config import DataConfig
from trainers.data import arrow, image_set, ingest
from trainers.data.image_set import open_images
from trainers.data.sources.grammar import open_source
from trainers.errors import DataError
from trainers.system.storage import locate

# The server prints where it listens; it takes a free port.
SERVER = """
from werkzeug.serving import make_server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """What follows the path in an S3 URI, for a server of our own; the bucket is `bucket`."""
    with pytest.MonkeyPatch.context() as patched, subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout
        patched.setenv("AWS_ACCESS_KEY_ID", "key")
        patched.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        port = process.stdout.readline().strip()
        options = f"?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
        found, _ = fs.FileSystem.from_uri(f"s3://bucket{options}&allow_bucket_creation=true")
        found.create_dir("bucket")
        yield options
        process.send_signal(signal.SIGKILL)


@pytest.fixture
def uri(server: str, request: pytest.FixtureRequest) -> str:
    """A folder of the test's own."""
    return f"s3://bucket/{abs(hash(request.node.name))}{server}"


def below(uri: str, name: str) -> str:
    place, options = uri.split("?")
    return f"{place}/{name}?{options}"


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures in two folders, one of them broken."""
    root = tmp_path / "pictures"
    for number in range(12):
        path = root / f"{'ab'[number % 2]}/{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number) if number != 5 else b"")
    return root


@pytest.mark.slow
def test_a_set_on_s3_has_the_digest_of_a_local_one_and_the_same_pixels(
    pictures, uri, tmp_path, monkeypatch
):
    monkeypatch.setattr(ingest, "ITEMS_PER_PART", 5)
    remote = ingest.ingest(open_source(str(pictures)), locate(uri))
    local = ingest.ingest(open_source(str(pictures)), locate(f"{tmp_path}/set"))
    assert remote.digest == local.digest
    assert arrow.read_manifest(locate(uri)) == remote
    monkeypatch.setattr(image_set, "KEPT_BYTES", 0)
    here = open_images(DataConfig(source=f"{tmp_path}/set", image_size=4), None)
    there = open_images(DataConfig(source=uri, image_size=4), tmp_path / "cache")
    places = torch.arange(11)
    assert torch.equal(there.pixels(places), here.pixels(places))
    assert torch.equal(there.labels, here.labels)
    assert torch.equal(there.test, here.test)
    assert there.skipped == here.skipped
    assert [one.path for one in there.skipped] == ["b/05.png"]


def test_a_set_on_s3_is_copied_once_and_an_interrupted_copy_goes_on(
    pictures, uri, tmp_path, monkeypatch
):
    monkeypatch.setattr(ingest, "ITEMS_PER_PART", 5)
    ingest.ingest(open_source(str(pictures)), locate(uri))
    config = DataConfig(source=uri, image_size=4)

    def stop(done: int, total: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_images(config, tmp_path / "cache", stop)
    (copy,) = (tmp_path / "cache").iterdir()
    kept = {path: path.stat().st_mtime_ns for path in copy.iterdir()}
    assert [path.name for path in sorted(kept)] == ["part-00000.arrow", "part-00001.arrow"]
    calls: list[tuple[int, int]] = []
    open_images(config, tmp_path / "cache", lambda done, total: calls.append((done, total)))
    assert calls == [(5, 11), (9, 11), (11, 11)]
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    calls.clear()
    open_images(config, tmp_path / "cache", lambda done, total: calls.append((done, total)))
    assert calls == []


def test_an_interrupted_ingest_into_s3_goes_on(pictures, uri, tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "ITEMS_PER_PART", 5)
    home = locate(uri)
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest.ingest(open_source(str(pictures)), home, stop)
    assert arrow.closing(home / "part-00000.arrow") is not None
    assert arrow.closing(home / "part-00001.arrow") is None
    manifest = ingest.ingest(open_source(str(pictures)), home, lambda done, _: seen.append(done))
    assert seen == [5, *range(6, 13)]
    local = ingest.ingest(open_source(str(pictures)), locate(f"{tmp_path}/set"))
    assert manifest.digest == local.digest


def test_a_folder_of_images_on_s3_is_a_source(pictures, uri, tmp_path):
    filesystem, path = fs.FileSystem.from_uri(uri)
    fs.copy_files(
        str(pictures), path, source_filesystem=fs.LocalFileSystem(),
        destination_filesystem=filesystem,
    )  # fmt: skip
    remote = ingest.ingest(open_source(uri), locate(f"{tmp_path}/one"))
    local = ingest.ingest(open_source(str(pictures)), locate(f"{tmp_path}/two"))
    assert remote.digest == local.digest
    assert remote.skipped == 1
    assert remote.classes == ("a", "b")


def test_parquet_on_s3_is_a_source(pictures, uri, tmp_path):
    local = ingest.ingest(open_source(str(pictures)), locate(f"{tmp_path}/one"))
    rows = arrow.mapped(locate(f"{tmp_path}/one"), local)
    filesystem, path = fs.FileSystem.from_uri(below(uri, "data"))
    filesystem.create_dir(path)
    pq.write_table(rows, f"{path}/all.parquet", filesystem=filesystem, row_group_size=3)
    for source in (uri, below(uri, "data/all.parquet")):
        remote = ingest.ingest(open_source(source), locate(f"{tmp_path}/{abs(hash(source))}"))
        assert remote.digest == local.digest


def test_keys_are_shown_nowhere(pictures, uri, tmp_path):
    with pytest.raises(DataError) as caught:
        open_images(DataConfig(source=below(uri, "nothing")), tmp_path / "cache")
    assert "secret" not in str(caught.value)
    filesystem, path = fs.FileSystem.from_uri(uri)
    fs.copy_files(
        str(pictures), path, source_filesystem=fs.LocalFileSystem(),
        destination_filesystem=filesystem,
    )  # fmt: skip
    ingest.ingest(open_source(uri), locate(f"{tmp_path}/set"))
    assert all(b"secret" not in path.read_bytes() for path in (tmp_path / "set").iterdir())


@pytest.mark.slow
def test_a_server_that_is_not_there_is_one_line(server):
    gone = "s3://bucket/x?scheme=http&endpoint_override=127.0.0.1:9&region=us-east-1"
    with pytest.raises(DataError) as caught:
        open_source(gone)
    assert str(caught.value).startswith("s3://bucket/x cannot be reached: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("open_it", [locate, open_source, lambda text: open_source(f"hf:{text}")])
@pytest.mark.parametrize(
    "given",
    [
        "s3://KEYID:SECRET@bucket/images",
        "s3://KEYID:SEC/SECRET@bucket/images",
        "s3://KEYID:SEC?SECRET#@bucket/images?region=us-east-1",
        "s3://KEYID:SECRET@bucket/train-*.parquet",
        "s3://KEYID@bucket/images",
        "gs://anonymous:SECRET@bucket/images",
        "file://KEYID:SECRET@bucket/images",
    ],
)
def test_a_user_or_a_password_in_an_address_is_refused_in_a_line_without_them(given, open_it):
    with pytest.raises(DataError, match="was given with a user or a password") as caught:
        open_it(given)
    assert "://bucket" in str(caught.value)
    assert "KEYID" not in str(caught.value)
    assert "SEC" not in str(caught.value).replace("AWS_SECRET_ACCESS_KEY", "")


def test_public_buckets_of_google_and_names_with_an_at_stay_addresses():
    for given in ("gs://anonymous@bucket/images", "s3://bucket/im@ges?region=us-east-1"):
        assert locate(given).path == f"bucket/{given.partition('?')[0].rpartition('/')[2]}"


def test_a_file_uri_is_a_local_path(pictures, tmp_path):
    manifest = ingest.ingest(open_source(f"file://{pictures}"), locate(f"file://{tmp_path}/set"))
    images = open_images(DataConfig(source=f"file://{tmp_path}/set"), None)
    assert images.digest == manifest.digest
    assert (tmp_path / "set/dataset.json").exists()
