"""Whatever names a ViT opens it, with its weights, and anything else is one line."""

import dataclasses
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from trainers.adapters.opening import IMAGENET, open_measurable
from trainers.adapters.timm_models import open_timm
from trainers.config import override
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
    checkpoint.save(state, config, tmp_path / "run" / "attempts" / "0001", ALONE)
    (tmp_path / "run" / "config.json").write_text(config.model_dump_json())
    return tmp_path / "run", config, state.teacher


@pytest.mark.parametrize("part", [".", "attempts/0001", "attempts/0001/checkpoint-3.safetensors"])
def test_a_run_of_ours_opens_as_its_teacher(run, part):
    folder, config, teacher = run
    found = open_measurable(str(folder / part))
    crops = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(found.network(crops).tokens, teacher.backbone(crops).tokens)
    assert (found.depth, found.has_cls, found.registers) == (2, True, 2)
    assert (found.patch_size, found.image_size) == (config.model.patch_size, 16)
    assert found.trained_on == config.data
    assert found.fixed_patch(found.grid(16)) is not None
    assert found.name == "run"
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


def test_the_number_of_heads_is_said_and_can_be_given(tmp_path):
    options = {"depth": 1, "img_size": 32, "num_classes": 0}
    source = timm.create_model("vit_small_patch16_224", num_heads=12, **options).eval()
    path = tmp_path / "moco.pth.tar"
    torch.save({"state_dict": {f"module.{k}": t for k, t in source.state_dict().items()}}, path)
    assumed = open_measurable(str(path))
    assert assumed.notes[0].startswith("6 heads are assumed, of 64 features each")
    assert "6 heads assumed" in assumed.weights
    given = open_measurable(str(path), heads=12)
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(given.network(images).tokens, source.forward_features(images))
    assert given.notes == ("12 heads, as given.",)
    with pytest.raises(InputError, match="heads must divide width, got 7 and 384"):
        open_measurable(str(path), heads=7)


def test_the_heads_of_a_name_are_said_where_its_weights_come_from_a_file(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    torch.save(source.state_dict(), tmp_path / "mine.pth")
    usual = open_measurable("vit_tiny_patch16_224", weights=tmp_path / "mine.pth")
    assert usual.notes[0].startswith("3 heads, as vit_tiny_patch16_224 has")
    assert "head.bias, head.weight" in usual.notes[1]
    given = open_measurable("vit_tiny_patch16_224", weights=tmp_path / "mine.pth", heads=6)
    assert given.network.model.blocks[0].attn.num_heads == 6
    assert "6 heads" in given.weights


def test_what_says_its_own_number_of_heads_is_given_none(run):
    with pytest.raises(InputError, match=r"--heads 3: .* says how many heads there are"):
        open_measurable(str(run[0]), heads=3)


def timm_folder(folder: Path, config: dict, **options) -> torch.nn.Module:
    """A small model and the folder that it is saved in with `config`."""
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **options)
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"architecture": "vit_tiny_patch16_224"} | config)
    )
    return model


def test_a_folder_that_timm_saved_opens_as_its_configuration_says(tmp_path):
    arguments = {"img_size": 64, "depth": 2, "reg_tokens": 4, "num_heads": 6, "num_classes": 3}
    source = timm_folder(
        tmp_path,
        {
            "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "tag": "mine"},
            "model_args": arguments,
        },
        **{name: value for name, value in arguments.items() if name != "num_classes"},
    )
    found = open_measurable(str(tmp_path))
    assert (found.depth, found.registers, found.image_size) == (2, 4, 64)
    assert (found.mean, found.deviation) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert found.normalisation == "of its config.json"
    images = torch.randn(1, 3, 64, 64)
    expected = source.eval().forward_features(images)
    torch.testing.assert_close(found.network(images).tokens, expected)


@pytest.mark.parametrize("name", ["checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg"])
def test_a_folder_that_timm_saved_makes_timm_read_no_other_file(tmp_path, name):
    gone = str(tmp_path / "gone.pth")
    source = timm_folder(tmp_path, {"model_args": {"depth": 1, name: gone}}, depth=1)
    found = open_measurable(str(tmp_path))
    images = torch.randn(1, 3, 224, 224)
    expected = source.eval().forward_features(images)
    torch.testing.assert_close(found.network(images).tokens, expected)


def test_a_folder_that_does_not_say_its_normalisation_has_that_of_the_name(tmp_path):
    source = timm_folder(tmp_path, {})
    found = open_measurable(str(tmp_path))
    assert torch.equal(found.network.model.pos_embed, source.pos_embed)
    assert found.mean == (0.5, 0.5, 0.5)
    assert found.normalisation == "of the timm model: its config.json does not say"


def test_the_file_of_weights_in_a_folder_opens_as_the_folder(tmp_path):
    timm_folder(tmp_path, {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]})
    found = open_measurable(str(tmp_path / "model.safetensors"))
    assert found.mean == (0.1, 0.2, 0.3)
    assert found.name == tmp_path.name


def test_a_teacher_in_a_training_checkpoint_opens_by_name(tmp_path):
    name = "vit_small_patch14_dinov2"
    source = timm.create_model(name, num_classes=0, img_size=28)
    state = source.state_dict() | {"mask_token": torch.zeros(1, 384)}
    content = {f"teacher.backbone.{key}": tensor for key, tensor in state.items()}
    content |= {f"student.backbone.{key}": torch.zeros(1) for key in state}
    content |= {"teacher.dino_head.last_layer.weight": torch.zeros(1)}
    torch.save({"model": content, "iteration": 3}, tmp_path / "model_final.rank_0.pth")
    found = open_measurable(name, weights=tmp_path / "model_final.rank_0.pth")
    assert torch.equal(found.network.model.pos_embed, source.pos_embed)
    assert found.image_size == 28
    notes = " ".join(found.notes)
    assert "those of model.teacher.backbone; the file also holds model.student.backbone" in notes
    assert "Set aside, a backbone has no use for them: mask_token, teacher.dino_head" in notes
    assert "its weights have positions of 2×2 patches" in notes


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_args": [1]}, "pretrained_cfg and model_args must be objects"),
        ({"model_args": {"bogus": 1}}, "unexpected keyword argument 'bogus'"),
        ({"model_args": {"depth": 1}}, "do not fit this model: left over blocks.1"),
        ({"pretrained_cfg": {"mean": 0.5}}, "mean must be three numbers, got 0.5"),
        ({"pretrained_cfg": {"std": [1, 1, 0]}}, "std must be three numbers above 0"),
        ({"architecture": "resnet50"}, "ResNet is no ViT"),
        ({"architecture": "nope"}, "timm has no such model"),
    ],
)
def test_a_folder_whose_configuration_cannot_be_followed_is_one_line(tmp_path, config, message):
    timm_folder(tmp_path, config, depth=2)
    with pytest.raises(InputError) as raised:
        open_measurable(str(tmp_path))
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.slow
def test_a_run_that_was_trained_with_compile_is_measured_without(tiny, tmp_path):
    config = override(tiny, {"compute.compile": True})
    state = TrainState.fresh(config, ALONE)
    checkpoint.save(state, config, tmp_path, ALONE)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    found = open_measurable(str(tmp_path))
    seen: list[int] = []
    with torch.compiler.set_stance("fail_on_recompile"), torch.no_grad():
        found.network(torch.randn(1, 3, 16, 16), observe=lambda layer: seen.append(layer.number))
    assert seen == [1, 2]


@pytest.mark.parametrize("side", [60, 50])
def test_images_that_patches_do_not_fill_are_measured_without_the_rest(side):
    network = open_timm("vit_base_patch14_dinov2", options={"img_size": side, "depth": 1})
    found = dataclasses.replace(
        open_measurable("vit_tiny_patch16_224"),
        network=network,
        check_size=network.check_size,
        patch_size=14,
        image_size=network.image_size[0],
    )
    within = side // 14 * 14
    assert found.image_size == within
    assert found.grid(within) == (within // 14, within // 14)
    with pytest.raises(InputError, match=f"nearest are --size {within} and"):
        found.grid(side)


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


@pytest.mark.slow
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
