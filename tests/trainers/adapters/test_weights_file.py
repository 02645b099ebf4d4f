"""A file of weights opens by what it holds, whatever wrote it, and never runs code."""

import argparse
import collections
import datetime
import pathlib
import types

import numpy as np
import pytest
import safetensors.torch
import torch

from trainers.adapters.weights_file import named_network, read_weights
from trainers.errors import CheckpointError

NAMES = ("cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "norm.weight")


def network(value: float = 1.0, wrapper: str = "") -> dict[str, torch.Tensor]:
    return {wrapper + name: torch.full((2, 2), value) for name in NAMES}


def value_of(content: dict) -> float:
    """Of the network in `content`, whose names must be plain, the value of all tensors."""
    found = named_network(content)
    assert sorted(found.tensors) == sorted(NAMES)
    values = {tensor.unique().item() for tensor in found.tensors.values()}
    assert len(values) == 1
    return values.pop()


# Wrappers

T, S = 1.0, 0.0


@pytest.mark.parametrize(
    "wrapper",
    [
        "",
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "backbone.",
        "encoder.",
        "teacher.",
        "student.",
        "teacher_backbone.",
        "module.teacher.backbone._orig_mod.",
        "model.student.module.encoder.",
        "net.trunk.",
        "visual.trunk.",
    ],
)
@pytest.mark.parametrize("keys", [(), ("state_dict",), ("model",), ("checkpoint", "model", "ema")])
def test_wrappers_are_taken_off_in_any_order(wrapper: str, keys: tuple[str, ...]):
    content: dict = network(T, wrapper)
    for key in reversed(keys):
        content = {key: content, "epoch": 3, "optimizer": {"state": network(9.0)}}
    assert value_of(content) == T


@pytest.mark.parametrize(
    "content",
    [
        {"student": network(S), "teacher": network(T)},
        {"student": network(S, "module.backbone."), "teacher": network(T, "backbone.")},
        {"model": network(T, "teacher.backbone.") | network(S, "student.backbone.")},
        {"state_dict": network(S, "student_backbone.") | network(T, "teacher_backbone.")},
        network(S, "backbone.") | network(T, "momentum_backbone."),
        network(S, "module.base_encoder.") | network(T, "module.momentum_encoder."),
        network(S, "encoder_q.") | network(T, "encoder_k."),
        {"encoder": network(S, "module."), "target_encoder": network(T, "module.")},
        {"model": network(S), "model_ema": network(T)},
        {"state_dict": network(S), "state_dict_ema": network(T)},
        {"model": {"student": network(S), "ema": network(T)}},
        {
            "model": network(T, "teacher.backbone.")
            | network(S, "gram_teacher.backbone.")
            | network(S, "model_ema.backbone.")
        },
        network(S) | network(T, "ema."),
        network(S, "student.") | network(T, "net."),
    ],
)
def test_of_several_networks_the_teacher_or_the_average_is_taken(content: dict):
    assert value_of(content) == T
    assert "also holds" in named_network(content).notes[0]


def test_the_note_names_the_network_that_was_taken_and_the_others():
    found = named_network({"teacher": network(T, "backbone."), "student": network(S, "module.")})
    assert found.notes == (
        "Weights are those of teacher.backbone; the file also holds student.module.",
    )


@pytest.mark.parametrize(
    "content",
    [network() | network(wrapper="module."), {"first": network(), "second": network()}],
)
def test_several_networks_without_a_teacher_are_refused_by_name(content: dict):
    with pytest.raises(CheckpointError, match=r"several networks \(.*\): save the one"):
        named_network(content)


def test_heads_beside_the_network_are_set_aside_and_what_is_unknown_keeps_its_name():
    beside = {
        "teacher.dino_head.mlp.0.weight": torch.zeros(1),
        "student.ibot_head.mlp.0.weight": torch.zeros(1),
        "student.something": torch.zeros(1),
        "dino_loss.center": torch.zeros(1),
        "teacher.unheard_of": torch.zeros(1),
    }
    both = network(T, "teacher.backbone.") | network(S, "student.backbone.")
    found = named_network({"model": both | beside})
    assert found.set_aside == ("dino_loss.center", "teacher.dino_head.mlp.0.weight")
    assert found.tensors.keys() - set(NAMES) == {"teacher.unheard_of"}


def test_other_dictionaries_of_tensors_are_named_and_those_of_training_are_not():
    content = {
        "backbone": network(T),
        "neck": {"weight": torch.ones(1)},
        "lr_schedulers": {"rate": torch.ones(1)},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.ones(1)}},
    }
    assert named_network(content).notes == (
        "Weights are those of backbone; the file also holds neck.",
    )


def test_a_dictionary_that_holds_itself_is_one_line():
    content: dict = {"model": network(T)}
    content["model"]["config"] = content
    with pytest.raises(CheckpointError, match="several networks"):
        named_network(content)


def test_blocks_in_chunks_and_wrapped_blocks_have_their_plain_numbers():
    content = network() | {
        "blocks.1.7._checkpoint_wrapped_module.norm1.weight": torch.ones(2),
        "blocks.2._orig_mod.norm1.weight": torch.ones(2),
    }
    found = named_network(content).tensors.keys() - set(NAMES)
    assert found == {"blocks.7.norm1.weight", "blocks.2.norm1.weight"}


def test_names_of_another_layout_stay_for_the_filter_of_timm():
    clip = {"visual.class_embedding": torch.ones(2), "visual.conv1.weight": torch.ones(2, 2)}
    wrapped = {f"module.{name}": tensor for name, tensor in clip.items()}
    assert named_network({"state_dict": wrapped}).tensors.keys() == clip.keys()


# Contents


@pytest.mark.parametrize("name", ["a.pth", "a.ckpt", "a.pth.tar", "a.bin", "a.safetensors", "a"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_opens_by_what_it_holds_and_not_by_its_name(tmp_path, name: str, kind: str):
    path = tmp_path / name
    if kind == "safetensors":
        safetensors.torch.save_file(network(T, "module."), path)
    else:
        content = {"state_dict": network(T, "module.")}
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    assert read_weights(path).tensors.keys() == set(NAMES)


HARMLESS = [
    np.float64(71.2),
    np.float32(0.5),
    np.int64(3),
    np.bool_(True),
    np.arange(3.0),
    np.array(["a", "b"]),
    pathlib.Path("out"),
    pathlib.PureWindowsPath("C:/out"),
    argparse.Namespace(output_dir=pathlib.Path("/out"), lr=np.float64(1e-3)),
    types.SimpleNamespace(lr=1.0),
    collections.OrderedDict(a=1),
    collections.defaultdict(list, a=[1]),
    torch.__version__,
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
    {"a": {1, 2}, "b": torch.float32, "c": torch.device("cpu")},
]


@pytest.mark.parametrize("beside", HARMLESS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("zipped", [True, False])
def test_values_beside_tensors_are_read(tmp_path, beside: object, zipped: bool):
    content = {"model": network(), "beside": beside}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert read_weights(tmp_path / "a.pth").tensors.keys() == set(NAMES)


class Trap:
    """What a pickle must not be able to make."""


class Runs:
    def __reduce__(self):
        return (open, ("run.txt", "w"))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("object_", "named"), [(Trap(), "test_weights_file.Trap"), (Runs(), "open")]
)
def test_another_class_is_named_in_one_line_that_advises_no_trust(
    tmp_path, monkeypatch, object_: object, named: str, zipped: bool
):
    monkeypatch.chdir(tmp_path)
    content = {"model": network(), "beside": object_}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError) as raised:
        read_weights(tmp_path / "a.pth")
    said = str(raised.value)
    assert named in said
    assert said.isprintable()
    assert "trust" not in said
    assert "weights_only" not in said
    assert not (tmp_path / "run.txt").exists()


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {}, torch.ones(3)])
def test_what_holds_no_network_is_one_line(tmp_path, content: object):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth: no named tensors of a network; found"):
        read_weights(tmp_path / "odd.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "is no file of weights"),
        (b"torn", "is no file of weights"),
        (b"PK\x03\x04torn", "cannot be read"),
        (b"\x80\x02torn", "cannot be read"),
        (b"\x02\0\0\0\0\0\0\0{?}", "cannot be read"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_a_missing_or_torn_file_is_one_line(tmp_path, content: bytes | None, message: str):
    if content is not None:
        (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as raised:
        read_weights(tmp_path / "a.pth")
    assert str(raised.value).isprintable()
