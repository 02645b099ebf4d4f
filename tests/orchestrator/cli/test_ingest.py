"""`dinolab ingest` as a user runs it: thousands of images, broken ones, kills, bad input."""

import io
import json
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orchestrator.cli import entry as cli
from tests.orchestrator.conftest import HARDLY_EVALUATED, environment
from trainers.config import DataConfig
from trainers.data.image_set import open_images

IMAGES, BROKEN = 5000, 50
REASONS = {
    "empty": "empty file",
    "text": "not an image",
    "half": "runcated",
    "checksum": "broken",
    "bomb": "more pixels than are safe",
    "nowhere": "a link to nowhere",
}

# The command, which sends itself a signal when it decodes its 2,500th image.
SIGNALLED = """
import os, signal, sys
from trainers.data import ingest
decode, calls = ingest.decode, []
def counted(encoded):
    calls.append(1)
    if len(calls) == 2500:
        os.kill(os.getpid(), signal.{signal})
    return decode(encoded)
ingest.decode = counted
from orchestrator.cli.entry import main
main()
"""


def encoded(image: Image.Image, form: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


def break_one(path: Path, way: str) -> None:
    """Put a file broken in this way at `path`."""
    picture = Image.new("RGB", (32, 32), "red")
    png = bytearray(encoded(picture, "PNG"))
    if way == "nowhere":
        path.symlink_to("gone.png")
    elif way == "half":
        path.write_bytes(encoded(picture, "JPEG")[:-40])
    elif way == "checksum":
        png[png.index(b"IDAT") + 8] ^= 0xFF
        path.write_bytes(png)
    elif way == "bomb":
        header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
        path.write_bytes(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])
    else:
        path.write_bytes({"empty": b"", "text": b"not a picture\n" * 9}[way])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """5,000 files in ten folders; which of them are broken, and how. Three are copies."""
    root = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 3), dtype=np.uint8)
    ways = list(REASONS)
    broken = {}
    for number in range(IMAGES):
        name = f"class{number % 10}/{number:04d}.png"
        path = root / name
        path.parent.mkdir(exist_ok=True)
        if number % (IMAGES // BROKEN) == 7:
            broken[name] = ways[len(broken) % len(ways)]
            break_one(path, broken[name])
        else:
            path.write_bytes(encoded(Image.fromarray(noise[number]), "PNG"))
    for copy in (11, 22, 33):
        (root / f"class{copy % 10}/{copy:04d}.png").write_bytes(
            (root / "class0/0000.png").read_bytes()
        )
    return root, broken


@pytest.fixture
def dinolab(monkeypatch, capsys):
    """Runs `dinolab` in this process: exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["dinolab", *map(str, arguments)])
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            signal.signal(signal.SIGINT, before[0])
            signal.signal(signal.SIGTERM, before[1])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    monkeypatch.setenv("COLUMNS", "200")
    return call


@pytest.fixture(scope="module")
def ingested(pictures, tmp_path_factory) -> tuple[Path, str]:
    """The data set of `pictures`, and what the command printed."""
    out = tmp_path_factory.mktemp("ingested") / "set"
    ran = subprocess.run(
        [sys.executable, "-m", "orchestrator", "ingest", str(pictures[0]), "--out", str(out)],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    return out, ran.stdout


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def digest_in(output: str) -> str:
    """The digest, which must be the last line."""
    last = output.splitlines()[-1]
    assert len(last) == 64
    assert int(last, 16)
    return last


@pytest.mark.slow
def test_all_broken_images_are_reported_with_the_reason_and_none_is_lost(pictures, ingested):
    _, broken = pictures
    assert len(broken) == BROKEN
    assert set(broken.values()) == set(REASONS)
    out, output = ingested
    table = pq.read_table(out / "skipped.parquet").to_pylist()
    assert [row["name"] for row in table] == sorted(broken)
    for row in table:
        assert REASONS[broken[row["name"]]] in row["reason"]
    images = open_images(DataConfig(source=str(out)), None)
    assert len(images) == IMAGES - BROKEN
    assert {one.path for one in images.skipped} == set(broken)
    assert images.class_names == tuple(f"class{number}" for number in range(10))
    assert images.digest == digest_in(output)
    assert "4950 images" in output
    assert "50 skipped" in output
    assert f"50 rows in {out}/skipped.parquet" in output
    assert output.count("empty file") == sum(broken[row["name"]] == "empty" for row in table[:20])


def test_images_of_equal_bytes_are_reported_and_kept(ingested):
    out, output = ingested
    names = ["class0/0000.png", "class1/0011.png", "class2/0022.png", "class3/0033.png"]
    table = pq.read_table(out / "duplicates.parquet").to_pylist()
    assert [(row["group"], row["name"]) for row in table] == [(0, name) for name in names]
    assert "3 duplicates" in output
    assert all(name in output for name in names)


def test_one_copy_is_one_duplicate_and_its_rows_are_explained(dinolab, tmp_path):
    (tmp_path / "pictures" / "red").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (16, 16), "red").save(tmp_path / "pictures" / "red" / name)
    code, output, _ = dinolab("ingest", tmp_path / "pictures", "--out", tmp_path / "set")
    assert code == 0
    assert "2 images (" in output
    assert "1 label, 0 skipped, 1 duplicate\n" in output
    assert "a group has equal bytes, the first is the original (all are kept)" in output


@pytest.mark.slow
def test_ingested_twice_gives_the_same_digest(pictures, ingested, tmp_path, dinolab):
    code, output, errors = dinolab("ingest", pictures[0], "--out", tmp_path / "other")
    assert (code, errors) == (0, "")
    assert digest_in(output) == digest_in(ingested[1])
    for part in ingested[0].glob("part-*"):
        assert part.read_bytes() == (tmp_path / "other" / part.name).read_bytes()


def test_a_finished_data_set_is_found_finished(pictures, ingested, dinolab):
    out, before = ingested
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    code, output, _ = dinolab("ingest", pictures[0], "--out", out)
    assert code == 0
    assert "finished already" in output
    assert digest_in(output) == digest_in(before)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGKILL", -9), ("SIGINT", 130)])
def test_stopped_in_the_middle_and_resumed_gives_the_same_digest(
    pictures, ingested, tmp_path, dinolab, name, code
):
    out = tmp_path / "set"
    arguments = ["ingest", str(pictures[0]), "--out", str(out)]
    ran = subprocess.run(
        [sys.executable, "-c", SIGNALLED.format(signal=name), *arguments],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr
    if code == 130:
        assert "of 5000 items: the same command goes on" in ran.stdout
        assert names_in(out) == ["part-00000.arrow", "part-00001.arrow"]
    assert not (out / "dataset.json").exists()
    whole = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(whole) == 2
    code, output, _ = dinolab("ingest", pictures[0], "--out", out)
    assert code == 0
    assert digest_in(output) == digest_in(ingested[1])
    assert all(path.stat().st_mtime_ns == time for path, time in whole.items())
    assert names_in(out) == names_in(ingested[0])


def test_an_unfinished_data_set_cannot_be_trained_on(pictures, ingested, tmp_path, dinolab):
    out = tmp_path / "set"
    out.mkdir()
    (out / "part-00000.arrow").write_bytes((ingested[0] / "part-00000.arrow").read_bytes())
    code, _, errors = dinolab("train", "digits_tiny", "--root", tmp_path / "runs",
                              "--set", f"data.source={out}")  # fmt: skip
    assert code == 2
    assert errors == f"{out} is unfinished: run `dinolab ingest` with the same source again\n"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("nowhere", "'nowhere' cannot be read: no such file or folder; SOURCE is a folder of"),
        ("cifar10", "did you mean torchvision:cifar10?"),
        ("torchvison:cifar10", "did you mean torchvision:?"),
        ("torchvision:cifar", "no such data set (allowed: cifar10, cifar100, stl10"),
        ("notes", "holds no images"),
        ("notes/a.txt", "'notes/a.txt' is no image set; SOURCE is"),
        ("notes/*.parquet", "notes/*.parquet holds no .parquet or .arrow file"),
        ("broken.parquet", "broken.parquet cannot be read: "),
        ("hf:", "hf: names no data set"),
        ("s4://bucket/x", "s4://bucket/x cannot be used: "),
        ("", "'' can be no path"),
        ("a\nb", r"'a\nb' cannot be read"),
    ],
)
def test_bad_sources_are_one_line_and_exit_code_2(dinolab, tmp_path, monkeypatch, source, line):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("text")
    (tmp_path / "broken.parquet").write_text("text")
    monkeypatch.chdir(tmp_path)
    code, _, errors = dinolab("ingest", source, "--out", "set")
    assert code == 2
    assert line in errors
    assert len(errors.strip().splitlines()) == 1
    assert not Path("set").exists()


@pytest.mark.parametrize("name", ["thesis.tex", "part/inside", "dataset.json"])
def test_a_folder_that_holds_something_else_is_refused(pictures, dinolab, tmp_path, name):
    other = tmp_path / name
    other.parent.mkdir(exist_ok=True)
    other.write_text("{}")
    code, _, errors = dinolab("ingest", pictures[0], "--out", tmp_path)
    assert code == 2
    assert f"{tmp_path} holds something else ({name.partition('/')[0]}): give a folder" in errors
    assert other.read_text() == "{}"
    code, _, errors = dinolab("ingest", pictures[0], "--out", other)
    assert code == 2
    assert f"{other} is a file" in errors


def test_a_set_of_another_source_is_refused(pictures, ingested, dinolab):
    code, _, errors = dinolab("ingest", pictures[0] / "class0", "--out", ingested[0])
    assert code == 2
    assert f"holds the images of folder {pictures[0]}, not of folder {pictures[0]}/class0" in errors


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what MLflow imports
def test_a_study_trains_on_an_ingested_set(ingested, tmp_path, dinolab):
    code, output, errors = dinolab(
        "train", "digits_tiny", "--root", tmp_path / "runs", "--set", f"data.source={ingested[0]}",
        "--set", "steps=2", "--set", "evaluation.every=2", "--set", "log_every=1",
        *HARDLY_EVALUATED,
    )  # fmt: skip
    assert code == 0, errors
    assert "skipped 50 of 5000 files" in output
    (result,) = (tmp_path / "runs").glob("trials/*/result.json")
    assert json.loads(result.read_text())["status"] == "finished"
