"""Two processes ingest one folder: each image once, and one that is killed costs only time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainers.config import DataConfig
from trainers.data import arrow, ingest
from trainers.data.cache import cache_in
from trainers.data.image_set import open_images
from trainers.data.sources.grammar import open_source
from trainers.system.storage import locate

IMAGES = 60

# Says which images it looks at, by their last bytes; at one of them it waits for a line of input.
WORKER = """
import sys
from pathlib import Path
from trainers.config import DataConfig
from trainers.data import ingest
from trainers.data.image_set import open_images

ingest.ITEMS_PER_PART = 4
decode, waits, looked = ingest.decode, int(sys.argv[3]), 0

def watched(image):
    global looked
    looked += 1
    print("looked", image[-8:].hex(), flush=True)
    if looked == waits:
        sys.stdin.readline()
    return decode(image)

ingest.decode = watched
print("digest", open_images(DataConfig(source=sys.argv[1], image_size=8), Path(sys.argv[2])).digest)
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, 6, 6, 3), dtype=np.uint8)
    for number, one in enumerate(noise):
        Image.fromarray(one).save(folder / f"{number:02d}.bmp")
    return folder


def start(pictures: Path, cache: Path, waits: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(pictures), str(cache), str(waits)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def looked_until(worker: "subprocess.Popen[str]", number: int) -> list[str]:
    assert worker.stdout is not None
    return [worker.stdout.readline().split()[1] for _ in range(number)]


def told(worker: "subprocess.Popen[str]", line: str = "") -> tuple[list[str], str]:
    """What it still looks at, and the digest that it finds."""
    output, errors = worker.communicate(line, timeout=120)
    assert worker.returncode == 0, errors
    rows = [row.split() for row in output.splitlines()]
    return [row[1] for row in rows if row[0] == "looked"], rows[-1][1]


@pytest.fixture
def digest(pictures: Path, tmp_path: Path) -> str:
    return ingest.ingest(open_source(str(pictures)), locate(f"{tmp_path}/alone")).digest


@pytest.mark.slow
def test_two_processes_share_a_folder_and_look_at_each_image_once(pictures, tmp_path, digest):
    first = start(pictures, tmp_path / "data", waits=6)
    before = looked_until(first, 6)  # one part whole, and in the middle of the next
    second = start(pictures, tmp_path / "data", waits=0)
    others = looked_until(second, IMAGES - 8)  # all that nobody is at; then it waits for that part
    mine, found = told(first, "go on\n")
    assert found == digest
    assert told(second) == ([], digest)
    assert len({*before, *mine, *others}) == len([*before, *mine, *others]) == IMAGES


@pytest.mark.slow
def test_when_one_is_killed_the_other_makes_what_it_had_begun(pictures, tmp_path, digest):
    first = start(pictures, tmp_path / "data", waits=6)
    looked_until(first, 6)
    second = start(pictures, tmp_path / "data", waits=0)
    looked_until(second, IMAGES - 8)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    again, found = told(second)
    assert found == digest
    assert len(again) == 4
    (index,) = (tmp_path / "data").iterdir()
    assert not list(index.glob(".*"))


@pytest.mark.slow
def test_when_all_are_killed_the_next_keeps_what_is_whole(pictures, tmp_path, digest):
    first = start(pictures, tmp_path / "data", waits=6)
    looked_until(first, 6)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    looked, found = told(start(pictures, tmp_path / "data", waits=0))
    assert found == digest
    assert len(looked) == IMAGES - 4
    (index,) = (tmp_path / "data").iterdir()
    assert not list(index.glob(".*"))


def test_an_index_of_an_older_root_is_found_where_indexes_are_kept_now(
    pictures, tmp_path, monkeypatch
):
    config = DataConfig(source=str(pictures), image_size=8)
    made = open_images(config, tmp_path / "runs" / ".data")
    monkeypatch.setattr(ingest, "decode", None)
    cache = cache_in(tmp_path / "runs")
    assert open_images(config, cache).digest == made.digest
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["data"]
    assert arrow.read_manifest(locate(str(next(cache.iterdir())))) is not None
    assert cache_in(tmp_path / "runs") == cache
