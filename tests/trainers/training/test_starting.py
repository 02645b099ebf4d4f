"""A run that starts from weights: what it is, that it trains from them, and that it goes on."""

import json
import os
import subprocess
import sys

import pytest
import safetensors.torch
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.importorskip("timm")

from tests.orchestrator.conftest import environment
from tests.trainers.adapters.published import ALONE, start, timms
from trainers.__main__ import run as run_here
from trainers.adapters.starting import pinned
from trainers.config import fingerprint, override, trial_content
from trainers.config.pin import digest_of, source_of
from trainers.errors import ConfigError
from trainers.runs.saved_run import find_run
from trainers.runs.stored_trial import StoredTrial
from trainers.runs.trial import run_trial, trial_key
from trainers.system.store import open_store
from trainers.training.loop import train


def test_a_run_is_what_its_weights_are_and_not_where_they_lie(tiny, tmp_path):
    state = timms().state_dict()
    torch.save(state, tmp_path / "a.pth")
    safetensors.torch.save_file(state, tmp_path / "b.safetensors")
    (tmp_path / "other").mkdir()
    torch.save({**state, "norm.bias": state["norm.bias"] + 1e-3}, tmp_path / "other" / "a.pth")
    same, moved, other = (
        start(tiny, tmp_path / name)[1] for name in ("a.pth", "b.safetensors", "other/a.pth")
    )
    assert fingerprint(same) == fingerprint(moved) != fingerprint(other)
    keys = [trial_key(config, "digest") for config in (same, moved, other, tiny)]
    assert len({*keys}) == 3
    assert keys[0] == keys[1]
    assert trial_content(same)["model"]["weights"] == digest_of(same.model.weights)
    assert source_of(same.model.weights) == str(tmp_path / "a.pth")


def test_pinned_weights_that_have_changed_are_refused(tiny, tmp_path):
    state = timms().state_dict()
    torch.save(state, tmp_path / "a.pth")
    _, config, _ = start(tiny, tmp_path / "a.pth")
    assert pinned(config)[0] == config
    torch.save({**state, "norm.bias": state["norm.bias"] + 1e-3}, tmp_path / "a.pth")
    with pytest.raises(ConfigError, match=r"is pinned to sha256 \w{12}, but \w{12} is found"):
        pinned(config)


def test_a_run_starts_from_the_weights_that_it_is_given(tiny, images, tmp_path, recorder):
    torch.save(timms().state_dict(), tmp_path / "vit.pth")
    _, config, starting = start(tiny, tmp_path / "vit.pth")
    ended = {}
    for name, knobs, weights in (("without", tiny, None), ("with", config, starting)):
        told_of = recorder()
        train(
            knobs, images=images, world=ALONE, reporter=told_of, checkpoints=tmp_path / name,
            resume_from=None, starting=weights,
        )  # fmt: skip
        ended[name] = told_of.records
    assert ended["with"][0][1]["knn/cls_top1"] != ended["without"][0][1]["knn/cls_top1"]
    assert ended["with"][-1][1]["loss/total"] != ended["without"][-1][1]["loss/total"]


def test_a_run_without_the_weights_that_it_names_is_refused(tiny, images, tmp_path, recorder):
    config = override(tiny, {"model.weights": "somewhere"})
    with pytest.raises(ConfigError, match="no weights are given to start from"):
        train(
            config, images=images, world=ALONE, reporter=recorder(), checkpoints=tmp_path,
            resume_from=None,
        )  # fmt: skip


@pytest.mark.slow
def test_a_resumed_run_needs_its_weights_no_more(tiny, images, tmp_path, recorder):
    torch.save(timms().state_dict(), tmp_path / "vit.pth")
    _, config, starting = start(tiny, tmp_path / "vit.pth")
    trial, whole = (StoredTrial(open_store(tmp_path, make=True), name) for name in ("cut", "whole"))

    class StopError(Exception):
        pass

    class Stopping(recorder):
        def report(self, step, metrics, *, checkpoint=None):
            if checkpoint and step == 4:
                raise StopError

    def gone():
        raise AssertionError("asked for weights")

    same = {"images": images, "world": ALONE}
    with pytest.raises(StopError):
        run_trial(trial, config, reporter=Stopping(), starting=lambda: starting, **same)
    run_trial(trial, config, reporter=recorder(), starting=gone, **same)
    run_trial(whole, config, reporter=recorder(), starting=lambda: starting, **same)
    runs = [find_run(tmp_path / one.folder) for one in (trial, whole)]
    assert runs[0].checkpoint.read_bytes() == runs[1].checkpoint.read_bytes()
    assert runs[0].trained == config


QUICK = [
    "--set", "steps=2", "--set", "batch_size=4", "--set", "evaluation.causal_images=0",
    "--set", "evaluation.probes=false",
]  # fmt: skip


@pytest.mark.slow
def test_python_m_trainers_starts_from_weights_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(timms(embed_dim=48, depth=3, num_heads=3).state_dict(), "vit.pth")
    arguments = ["digits_tiny", "--root", "runs", *QUICK, "--set", "model.weights=vit.pth"]
    assert run_here(arguments) == 0
    out = capsys.readouterr().out
    assert f"starts from file {tmp_path}/vit.pth" in out
    (config,) = (tmp_path / "runs" / "trials").glob("*/config.json")
    weights = json.loads(config.read_text())["model"]["weights"]
    assert weights.startswith(f"{tmp_path}/vit.pth@sha256:")
    assert run_here(arguments) == 0
    assert "starts from" not in capsys.readouterr().out


@pytest.mark.slow
def test_training_without_weights_needs_no_timm(tmp_path):
    script = (
        "import sys; sys.modules.update(timm=None, transformers=None); "
        "from trainers.__main__ import run; sys.exit(run(sys.argv[1:]))"
    )
    arguments = ["digits_tiny", "--root", str(tmp_path), *QUICK]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, env=environment())
