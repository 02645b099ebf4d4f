"""Benchmarks run, print a table, and say which peers were not given; no speed is asserted."""

import json

import pytest
import torch

from benchmarks import end_to_end, evaluation, parity, step
from benchmarks.setting import SETTINGS
from trainers.config import SIZES
from trainers.system.world import World
from trainers.training.state import TrainState

QUICK = ["--setting", "least", "--rounds", "1", "--steps", "1", "--warmup", "0", "--device", "cpu"]


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", [step, end_to_end])
def test_a_benchmark_runs_without_peers_and_says_so(benchmark, capsys, tmp_path):
    written = tmp_path / "result.json"
    benchmark.main([*QUICK, "--json", str(written)])
    out = capsys.readouterr().out
    assert "ours" in out
    assert "original: not given, so not compared; give --original PATH" in out
    (outcome,) = json.loads(written.read_text())["outcomes"]
    assert outcome["name"] == "ours"
    assert outcome["rate"] > 0


def test_operations_are_those_of_the_published_model():
    # ViT-Ti/16 at 224 pixels: 1.26 G multiply-additions (Touvron et al. 2021 and timm: 1.26).
    tiny = SETTINGS["vit_tiny"]
    assert {name: getattr(tiny, name) for name in SIZES["tiny"]} == SIZES["tiny"]
    head = 192 * 2048 + 2048**2 + 2048 * 256 + 256 * 4096
    assert tiny._operations_a_crop(224) / 2 - head == pytest.approx(1.26e9, rel=0.01)


@pytest.mark.slow
def test_parity_compares_crops_without_the_original(capsys):
    assert parity.main(["--crops", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "4 global and 4 local crops of 6 photographs" in lines[0]
    assert sum("mean gradient" in line for line in lines) == 2


def test_parity_gives_the_original_every_parameter_of_ours():
    alone = World(rank=0, size=1, device=torch.device("cpu"))
    student = TrainState.fresh(parity.configuration(parity.PARITY, 20), alone).student
    named = parity.original_names(student)
    ours = sum(parameter.numel() for parameter in student.parameters())
    # The original keeps the norms of its prototypes as parameters, too.
    assert sum(tensor.numel() for tensor in named.values()) == ours + parity.PARITY.prototypes
    assert named["backbone.pos_embed"].shape == (1, 65, 96)


def test_classification_of_made_up_features_says_what_each_part_took(capsys):
    evaluation.main(["--images=300", "--queries=50", "--width=8", "--classes=3", "--threads=1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == [
        "start", "features", "k-NN", "linear probe",
    ]  # fmt: skip
    assert all(" GiB" in line for line in lines)
