"""Whatever names a ViT opens it, with its weights, and anything else is one line."""

import dataclasses
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from trainers.adapters.measurable import open_measurable
from trainers.config import override
from trainers.data.augment import IMAGENET
from trainers.errors import InputError
from trainers.system.world import World
from trainers.training import checkpoint
from trainers.training.state import TrainState

timm = pytest.importorskip("timm")

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture
def run(tiny, tmp_path):
    """The folder of a run at step 3, its configuration and its teacher."""
    config = override(tiny, {"model.registers": 2, "loss.fixed_patch": 1.0})
    state = TrainState.fresh(config, ALONE)
    state.step = 3
    with torch.no_grad():
        for parameter in state.teacher.parameters():
            parameter.mul_(1.5)
    checkpoint.save(state, config, tmp_path / "run" / "checkpoint", ALONE)
    (tmp_path / "run" / "config.json").write_text(config.model_dump_json())
    return tmp_path / "run", config, state.teacher


@pytest.mark.parametrize("part", [".", "checkpoint", "checkpoint/state.safetensors"])
def test_a_run_of_ours_opens_as_its_teacher(run, part):
    folder, config, teacher = run
    found = open_measurable(str(folder / part))
    crops = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(found.network(crops).tokens, teacher.backbone(crops).tokens)
    assert (found.depth, found.has_cls, found.registers) == (2, True, 2)
    assert (found.patch_size, found.image_size) == (config.model.patch_size, 16)
    assert found.trained_on == config.data
    assert found.fixed_patch(found.grid(16)) is not None
    assert "step 3 of 6" in found.weights
    assert not found.is_random


def test_a_file_of_weights_opens_by_its_shapes(tmp_path):
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=2)
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    found = open_measurable(str(tmp_path / "vit.pth"))
    images = torch.randn(1, 3, 224, 224)
    expected = theirs.eval().forward_features(images)
    torch.testing.assert_close(found.network(images).tokens, expected, rtol=1e-4, atol=1e-4)
    assert (found.name, found.image_size, found.mean) == ("vit", 224, IMAGENET[0])
    assert not found.is_random


def test_random_weights_are_those_of_the_seed_and_leave_torch_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, same, other = (open_measurable("vit_tiny_patch16_224", seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [m.network.model.blocks[0].attn.qkv.weight for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert one.is_random
    assert one.weights == "random, seed 1"
    assert one.mean == (0.5, 0.5, 0.5)


def test_named_models_take_their_values_from_a_file(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    torch.save(source.state_dict(), tmp_path / "mine.pth")
    found = open_measurable("vit_tiny_patch16_224", weights=tmp_path / "mine.pth")
    assert torch.equal(found.network.model.pos_embed, source.pos_embed)
    assert not found.is_random


def test_a_folder_that_timm_saved_opens(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224"}))
    found = open_measurable(str(tmp_path))
    assert torch.equal(found.network.model.pos_embed, source.pos_embed)


def test_the_primary_layers_are_the_last_third_without_the_final_block():
    found = open_measurable("vit_tiny_patch16_224")
    layers = {
        depth: dataclasses.replace(found, depth=depth).primary_layers()
        for depth in (1, 2, 4, 5, 6, 12, 24)
    }
    assert layers == {
        1: (1,),
        2: (1,),
        4: (1, 2, 3),
        5: (1, 2, 3, 4),
        6: (5,),
        12: (9, 10, 11),
        24: tuple(range(17, 24)),
    }


@pytest.mark.parametrize("size", [15, 100, 16, 0, -32])
def test_sizes_that_make_no_grid_are_refused_with_the_nearest(size):
    found = open_measurable("vit_tiny_patch16_224")
    with pytest.raises(InputError, match=r"multiple of its patch of 16 pixels.*nearest are"):
        found.grid(size)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ("resnet50", {}, "ResNet is no ViT"),
        ("vit_tiny_patch16_22", {}, "no such model; nearest are vit_tiny_patch16_224"),
        ("nowhere/model", {}, "is not there: give a checkpoint"),
        ("nowhere.pth", {}, "is not there: give a checkpoint"),
        ("empty", {}, "holds no model"),
        ("text.txt", {}, "is no file of weights"),
        ("torn.pth", {}, "cannot be read"),
        ("other.pth", {}, "there is no patch_embed.proj.weight; if it is of another timm ViT"),
        ("bert", {}, "model type 'bert' cannot be measured"),
        ("torn.pth", {"published": True}, "--weights and --pretrained are for a timm name"),
        ("vit_tiny_patch16_224", {"weights": "nowhere.pth"}, "there is no such file"),
        ("vit_tiny_patch16_224", {"weights": "other.pth"}, "do not fit this model"),
        (
            "vit_tiny_patch16_224",
            {"weights": "other.pth", "published": True},
            "exclude each other",
        ),
    ],
)
def test_what_is_no_model_is_one_line(tmp_path, monkeypatch, given, options, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("text.txt").write_text("hello")
    Path("torn.pth").write_bytes(b"torn")
    torch.save({"layer.weight": torch.ones(2)}, "other.pth")
    Path("bert").mkdir()
    Path("bert/config.json").write_text('{"model_type": "bert"}')
    if "weights" in options:
        options = options | {"weights": Path(options["weights"])}
    with pytest.raises(InputError) as raised:
        open_measurable(given, **options)
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 600
