"""`dinolab embed` as a user runs it: features of a data set, whole or not at all."""

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from orchestrator import interrupt
from tests.orchestrator.conftest import environment
from trainers.adapters import embedding
from trainers.adapters.opening import open_measurable
from trainers.data.image_set import open_images
from trainers.evaluation.evaluate import batches
from trainers.runs.saved_run import find_run, run_backbone
from trainers.system.world import World
from trainers.training.starting import digest_of_tensors

CPU = World(rank=0, size=1, device=torch.device("cpu"))


def column(table, name):
    return np.stack(table[name].to_numpy())


def test_features_of_a_run_are_those_that_it_is_evaluated_by(dinolab, run, tmp_path):
    folder, out = run({"model.registers": 2}), tmp_path / "new" / "out.parquet"
    code, said, err = dinolab("embed", folder, "--out", out, "--batch-size", "100")
    assert (code, err) == (0, "")
    assert f"features: {out} (cls, patch_mean, register_mean)" in said
    table, config = pq.read_table(out), find_run(folder).trained
    images = open_images(config.data, None)
    assert table.column_names == [
        "name", "label", "split", "cls", "patch_mean", "register_mean"
    ]  # fmt: skip
    assert str(table.schema.field("cls").type) == "fixed_size_list<element: float>[48]"
    assert table["name"].to_pylist() == [str(place) for place in range(len(images))]
    assert table["label"].to_pylist() == [images.class_names[label] for label in images.labels]
    held = {place for place, part in enumerate(table["split"].to_pylist()) if part == "test"}
    assert held == set(images.test.tolist())
    places = torch.tensor([0, 700, 1796])
    ((crops, draws, _),) = batches(images, places, config, CPU.device)
    backbone = run_backbone(find_run(folder))
    expected = backbone(crops, draws)
    for name, features in (
        ("cls", expected.cls),
        ("patch_mean", expected.patches.mean(1)),
        ("register_mean", expected.registers.mean(1)),
    ):
        found = torch.from_numpy(column(table, name))[places]
        torch.testing.assert_close(found, features, rtol=1e-5, atol=1e-5)
    notes = json.loads(table.schema.metadata[b"dinolab"])
    assert notes["images_sha256"] == images.digest
    assert notes["weights_sha256"] == digest_of_tensors(backbone.state_dict())
    assert (notes["image_size"], notes["random_weights"]) == (16, True)
    assert notes["split"] == "chosen by dinolab"


def test_any_folder_of_images_is_embedded_by_any_vit(dinolab, tmp_path):
    pytest.importorskip("timm")
    generator = np.random.default_rng(0)
    for number in range(6):
        place = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(place)
    tables = []
    for batch in ("1", "4"):
        out = tmp_path / f"{batch}.parquet"
        code, said, err = dinolab(
            "embed", "vit_tiny_patch16_224", "--size", "32", "--data", tmp_path / "images",
            "--root", tmp_path / "runs", "--out", out, "--batch-size", batch, "--tokens", "cls",
        )  # fmt: skip
        assert (code, err) == (0, "")
        assert "RANDOM WEIGHTS" in said
        tables.append(pq.read_table(out))
    assert tables[0].column_names == ["name", "label", "split", "cls"]
    assert sorted(tables[0]["name"].to_pylist()) == [
        f"{'ab'[number % 2]}/{number}.png" for number in (0, 2, 4, 1, 3, 5)
    ]
    assert {row["label"] for row in tables[0].to_pylist()} == {"a", "b"}
    np.testing.assert_allclose(*(column(table, "cls") for table in tables), atol=1e-5)


def test_rows_are_written_in_groups_as_they_come(run, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "GROUP", 300)
    model = open_measurable(str(run({})))
    plan = embedding.Plan(kinds=("cls",), size=16, batch_size=100)
    images = open_images(model.trained_on, None)
    seen = []
    out = tmp_path / "out.parquet"
    embedding.write_embeddings(
        out, model, images, plan, CPU.device, facts={}, progress=lambda *done: seen.append(done)
    )
    groups = pq.ParquetFile(out).metadata
    rows = [groups.row_group(number).num_rows for number in range(groups.num_row_groups)]
    assert rows == [300] * 5 + [297]
    assert seen[0] == (100, 1797)
    assert seen[-1] == (1797, 1797)


@pytest.mark.parametrize(
    ("change", "arguments", "line"),
    [
        ({}, ["--tokens", "cls,register_mean"], "has cls, patch_mean; give some of these"),
        ({}, ["--tokens", ""], "has cls, patch_mean; give some of these"),
        ({}, ["--size", "18"], "needs a multiple of its patch of 4 pixels"),
        ({}, ["--data", "nowhere"], "nowhere"),
        ({}, ["--batch-size", "0"], "Input should be greater than or equal to 1"),
    ],
)
def test_what_cannot_be_embedded_is_one_line(dinolab, run, tmp_path, change, arguments, line):
    code, _, err = dinolab("embed", run(change), "--out", tmp_path / "out.parquet", *arguments)
    assert code == 2
    assert line in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out.parquet").exists()


def test_a_file_that_is_there_is_left_alone(dinolab, run, tmp_path):
    (tmp_path / "mine.parquet").write_text("mine")
    for out in ("mine.parquet", ".", "mine.parquet/below"):
        code, _, err = dinolab("embed", run({}), "--out", tmp_path / out)
        assert code == 2
        assert "--out " in err
        assert len(err.splitlines()) == 1
    assert (tmp_path / "mine.parquet").read_text() == "mine"


def test_an_interruption_half_way_is_130_and_leaves_nothing(dinolab, run, tmp_path, monkeypatch):
    folder = run({})
    monkeypatch.setattr(embedding, "GROUP", 300)
    written = []

    def check():
        if found := list(tmp_path.glob(".out.parquet.*")):
            written.append(found[0].stat().st_size)
        if len(written) == 8:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(interrupt, "check", check)
    monkeypatch.setattr(interrupt, "_requested", threading.Event())
    # This process goes on afterwards.
    monkeypatch.setattr(interrupt, "_in_their_own_time", {signal.SIGINT})
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        code, out, err = dinolab(
            "embed", folder, "--out", tmp_path / "out.parquet", "--batch-size", "100"
        )
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert (code, err) == (130, "")
    assert out.endswith("interrupted: nothing was written\n")
    assert len(written) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_embedding_needs_neither_ray_nor_mlflow(run, tmp_path):
    script = (
        "import sys; sys.modules.update(ray=None, mlflow=None, timm=None); "
        "from orchestrator.cli.entry import main; main()"
    )
    arguments = ["embed", run({}), "--out", tmp_path / "out.parquet"]
    subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], check=True, env=environment()
    )
    assert (tmp_path / "out.parquet").is_file()
