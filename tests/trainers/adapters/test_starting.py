"""A run starts from published weights, whoever saved them, with the features that they had."""

import json
import os

import pytest
import safetensors.torch
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
timm = pytest.importorskip("timm")

from tests.trainers.adapters.published import (  # noqa: E402
    ALONE,
    IMAGES,
    PIXELS,
    SHAPE,
    close,
    standardised,
    start,
    timms,
)  # fmt: skip
from trainers.adapters.export import export  # noqa: E402
from trainers.adapters.starting import starting_lines  # noqa: E402
from trainers.config import override  # noqa: E402
from trainers.data.augment import IMAGENET  # noqa: E402
from trainers.errors import ConfigError, InputError  # noqa: E402
from trainers.runs.saved_run import find_run, run_backbone  # noqa: E402
from trainers.training import checkpoint  # noqa: E402
from trainers.training.state import TrainState  # noqa: E402


def close_in_both(state, expected):
    for network in (state.student, state.teacher):
        close(network.backbone(IMAGES).tokens, expected)


def saved_by_timm(folder, model, **said):
    folder.mkdir()
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    arguments = {name: value for name, value in SHAPE.items() if name != "num_classes"}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 0, "model_args": arguments}
    (folder / "config.json").write_text(json.dumps({**config, "pretrained_cfg": said}))
    return folder


@pytest.mark.parametrize("wrapped", ["plain", "official DINO"])
def test_a_file_under_timm_or_official_names_starts_a_run(tiny, tmp_path, wrapped):
    model = timms()
    state = model.state_dict()
    if wrapped == "official DINO":
        heads = {"module.head.mlp.0.weight": torch.ones(2, 2)}
        teacher = {f"module.backbone.{name}": tensor for name, tensor in state.items()} | heads
        state = {"student": {n: t + 1 for n, t in teacher.items()}, "teacher": teacher}
    torch.save(state, tmp_path / "vit.pth")
    close_in_both(start(tiny, tmp_path / "vit.pth")[0], model.forward_features(IMAGES))


def test_only_the_backbone_is_taken_and_the_head_is_the_one_of_the_seed(tiny, tmp_path):
    torch.save(timms().state_dict(), tmp_path / "vit.pth")
    change = {"loss.masked": 1.0}
    state, _, _ = start(tiny, tmp_path / "vit.pth", **change)
    bare = TrainState.fresh(override(tiny, change), ALONE)
    own = bare.student.state_dict()
    for name, tensor in state.student.state_dict().items():
        taken = name.startswith("backbone.") and name != "backbone.mask"
        assert torch.equal(tensor, own[name]) is not taken or name.endswith("bias"), name


@pytest.mark.parametrize("registers", [0, 2])
def test_a_folder_of_timm_starts_a_run_on_images_as_training_has_them(tiny, tmp_path, registers):
    model = timms(reg_tokens=registers, no_embed_class=bool(registers))
    colours = {"mean": [0.5, 0.4, 0.6], "std": [0.5, 0.25, 0.5]}
    folder = saved_by_timm(tmp_path / "timm", model, **colours)
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] |= {"reg_tokens": registers, "no_embed_class": bool(registers)}
    (folder / "config.json").write_text(json.dumps(config))
    state, _, starting = start(tiny, folder, **{"model.registers": registers})
    theirs = model.forward_features(standardised(PIXELS, *colours.values()))
    close_in_both(state, theirs)
    assert "folded into the patch embedding" in starting.notes[-1]


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "vit_small_patch16_224.dino"])
@pytest.mark.slow
def test_published_shapes_start_a_run_with_the_features_of_timm(tiny, tmp_path, name):
    model = timm.create_model(name, num_classes=0).eval()
    folder = tmp_path / "timm"
    folder.mkdir()
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    published = {"mean": model.pretrained_cfg["mean"], "std": model.pretrained_cfg["std"]}
    said = {"architecture": name.split(".")[0], "num_classes": 0, "pretrained_cfg": published}
    (folder / "config.json").write_text(json.dumps(said))
    state, _, _ = start(tiny, folder, **{
        "data.image_size": 224, "augment.global_size": 224, "augment.local_size": 96,
        "model.patch_size": 16, "model.width": 384, "model.depth": 12, "model.heads": 6,
    })  # fmt: skip
    pixels = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        expected = model.forward_features(standardised(pixels, *published.values()))
        found = state.teacher.backbone(standardised(pixels, *IMAGENET)).tokens
    close(found, expected)


@pytest.mark.parametrize("factors", [0.0, 1e-5])
@pytest.mark.parametrize("names", ["timm", "official DINOv2"])
def test_layer_scale_of_published_weights_is_kept_or_multiplied_in(tiny, tmp_path, names, factors):
    model = timms(init_values=0.3, reg_tokens=2, no_embed_class=True)
    weights = model.state_dict()
    if names != "timm":
        weights["register_tokens"] = weights.pop("reg_token")
        weights["pos_embed"] = torch.cat([torch.ones(1, 1, 24), weights["pos_embed"]], dim=1)
        weights["cls_token"] = weights["cls_token"] - 1
        weights["mask_token"] = torch.zeros(1, 24)
    torch.save(weights, tmp_path / "vit.pth")
    change = {"model.registers": 2, "model.layer_scale": factors}
    state, config, starting = start(tiny, tmp_path / "vit.pth", **change)
    close_in_both(state, model.forward_features(IMAGES))
    kept = state.student.state_dict().get("backbone.blocks.1.layer_scale2")
    assert (kept is None) == (not factors)
    assert kept is None or torch.equal(kept, weights["blocks.1.ls2.gamma"])
    assert any("LayerScale" in line for line in starting_lines(starting, config)) == (not factors)


@pytest.mark.parametrize("names", ["timm", "official DINOv2"])
def test_published_weights_with_swiglu_start_a_run(tiny, tmp_path, names):
    from timm.layers.mlp import SwiGLUPacked

    model = timms(mlp_layer=SwiGLUPacked, act_layer=torch.nn.SiLU, mlp_ratio=128.5 / 24)
    weights = model.state_dict()
    if names != "timm":
        renamed = {"mlp.fc1": "mlp.w12", "mlp.fc2": "mlp.w3"}
        for theirs, official in renamed.items():
            weights = {name.replace(theirs, official): t for name, t in weights.items()}
    torch.save(weights, tmp_path / "vit.pth")
    state, _, _ = start(tiny, tmp_path / "vit.pth", **{"model.mlp": "swiglu"})
    close_in_both(state, model.forward_features(IMAGES))
    with pytest.raises(ConfigError, match=r"has model\.mlp 'swiglu', and this run 'gelu'"):
        start(tiny, tmp_path / "vit.pth")


@pytest.mark.parametrize("kind", ["ViTModel", "Dinov2WithRegistersModel"])
def test_a_folder_of_hugging_face_starts_a_run(tiny, tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    make = getattr(transformers, kind)
    shape = {
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16,
        "patch_size": 4, "layer_norm_eps": 1e-6,
    }  # fmt: skip
    more = {"num_register_tokens": 2} if "Registers" in kind else {"intermediate_size": 96}
    model = make(make.config_class(**shape, **more)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(tmp_path / "theirs")
    colours = {"image_mean": IMAGENET[0], "image_std": IMAGENET[1]}
    (tmp_path / "theirs" / "preprocessor_config.json").write_text(json.dumps(colours))
    change = {"model.registers": more.get("num_register_tokens", 0)}
    state, _, _ = start(tiny, tmp_path / "theirs", **change)
    with torch.no_grad():
        close_in_both(state, model(IMAGES).last_hidden_state)


@pytest.fixture
def saved(tiny, tmp_path):
    """Makes the folder of a run at step 3 whose networks differ, with some knobs changed."""

    def made(change):
        config = override(tiny, change)
        state = TrainState.fresh(config, ALONE)
        state.step = 3
        with torch.no_grad():
            for network in (state.student, state.teacher):
                for parameter in network.parameters():
                    parameter.add_(0.1 * torch.randn(parameter.shape))
        checkpoint.save(state, config, tmp_path / "run" / "attempts" / "0001", ALONE)
        (tmp_path / "run" / "config.json").write_text(config.model_dump_json())
        return tmp_path / "run"

    return made


@pytest.mark.parametrize(("before", "after"), [(0.1, 0.1), (0.1, 1e-5), (0.1, 0.0), (0.0, 1e-5)])
def test_layer_scale_comes_and_goes_and_features_stay(tiny, saved, before, after):
    folder = saved({"model.layer_scale": before})
    expected = run_backbone(find_run(folder))(IMAGES).tokens
    close_in_both(start(tiny, folder, **{"model.layer_scale": after})[0], expected)


OURS = {
    "plain": {},
    "registers and masks": {"model.registers": 1, "loss.masked": 1.0},
    "rotary": {"model.patch_position": "rotary", "model.cls_position": "none"},
    "fixed codes": {"model.patch_position": "sincos", "model.cls_position": "tied"},
    "no [CLS]": {"model.cls": False, "loss.cls": 0.0, "loss.patches": 1.0},
}


@pytest.mark.parametrize("change", OURS.values(), ids=OURS)
def test_a_run_starts_another_with_the_backbone_of_its_teacher(tiny, tmp_path, saved, change):
    folder = saved(change)
    expected = run_backbone(find_run(folder)).state_dict()
    alone = export(folder, "safetensors", tmp_path / "alone.safetensors").path
    digests = set()
    for source in (folder, find_run(folder).checkpoint, alone):
        state, _, starting = start(tiny, source, **change)
        digests.add(starting.digest)
        for network in (state.student, state.teacher):
            found = network.backbone.state_dict()
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert len(digests) == 1


@pytest.mark.parametrize("form", ["timm", "huggingface"])
def test_what_was_exported_starts_a_run_with_equal_features(tiny, tmp_path, saved, form):
    folder = saved({"model.registers": 1})
    expected = run_backbone(find_run(folder))(IMAGES).tokens
    out = export(folder, form, tmp_path / form).path
    close_in_both(start(tiny, out, **{"model.registers": 1})[0], expected)


def test_a_learned_position_of_cls_and_none_become_each_other(tiny, tmp_path, saved):
    for position, other in (("learned", "none"), ("none", "learned")):
        folder = saved({"model.cls_position": position})
        expected = run_backbone(find_run(folder))(IMAGES).tokens
        close_in_both(start(tiny, folder, **{"model.cls_position": other})[0], expected)


def test_positions_of_another_grid_are_interpolated_and_that_is_said(tiny, tmp_path):
    model = timms(img_size=32)
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    state, config, starting = start(tiny, tmp_path / "vit.pth")
    assert "note: Positions are interpolated from 8×8 to 4×4 patches." in starting_lines(
        starting, config
    )
    table = model.pos_embed[:, 1:].unflatten(1, (8, 8)).permute(0, 3, 1, 2)
    smaller = torch.nn.functional.interpolate(table, (4, 4), mode="bicubic")
    close(state.teacher.backbone.position, smaller.flatten(2).transpose(1, 2))


def test_registers_that_weights_lack_start_by_chance_and_that_is_said(tiny, tmp_path):
    torch.save(timms().state_dict(), tmp_path / "vit.pth")
    state, config, starting = start(tiny, tmp_path / "vit.pth", **{"model.registers": 2})
    bare = TrainState.fresh(override(tiny, {"model.registers": 2}), ALONE)
    assert torch.equal(state.student.backbone.registers, bare.student.backbone.registers)
    assert any("2 registers start by chance" in line for line in starting_lines(starting, config))


@pytest.mark.parametrize(
    ("options", "change", "line"),
    [
        ({"embed_dim": 32}, {}, "has model.width 32, and this run 24"),
        ({"depth": 3}, {}, "has model.depth 3, and this run 2"),
        ({"patch_size": 8}, {}, "has model.patch_size 8, and this run 4"),
        ({"mlp_ratio": 2.0}, {}, "has model.mlp_ratio 2.0, and this run 4.0"),
        ({"num_heads": 4}, {}, "has model.heads 4, and this run 2"),
        ({"reg_tokens": 2}, {}, "has model.registers 2, and this run 0"),
        ({}, {"model.patch_position": "sincos"}, "has model.patch_position 'learned'"),
        ({}, {"model.cls_position": "tied"}, "has model.cls_position 'learned'"),
        (
            {"embed_dim": 48, "depth": 1}, {},
            "has model.width 48, model.depth 1, and this run 24, 2",
        ),
    ],
)  # fmt: skip
def test_weights_of_another_shape_are_one_line(tiny, tmp_path, options, change, line):
    model = timms(**options)
    folder = saved_by_timm(tmp_path / "timm", model)
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] |= options
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        start(tiny, folder, **change)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_heads_of_a_bare_file_are_those_of_the_run(tiny, tmp_path):
    model = timms(num_heads=4)
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    state, _, _ = start(tiny, tmp_path / "vit.pth", **{"model.heads": 4})
    close_in_both(state, model.forward_features(IMAGES))


def test_a_vit_of_other_parts_is_one_line_that_is_not_too_long(tiny, tmp_path):
    torch.save(timms(depth=30, qk_norm=True).state_dict(), tmp_path / "vit.pth")
    with pytest.raises(InputError, match=r"left over blocks\.0\.attn\.k_norm") as caught:
        start(tiny, tmp_path / "vit.pth")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_vit_with_another_activation_is_refused_by_its_name(tiny, tmp_path):
    folder = saved_by_timm(tmp_path / "timm", timms())
    config = json.loads((folder / "config.json").read_text())
    config["architecture"] = "vit_base_patch16_clip_quickgelu_224"
    config["model_args"] |= {"pre_norm": False}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"no Mlp with this activation \(QuickGELU\)"):
        start(tiny, folder)


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ("nowhere.pth", "model.weights nowhere.pth is not there: give timm:NAME"),
        ("timm:vit_tiny_patch16_22", "timm has no such model; nearest are vit_tiny_patch16_224"),
        ("timm:resnet50", "ResNet is no ViT"),
        ("x@sha256:12", "weights must be a source, or SOURCE@sha256: and 64 hexadecimal digits"),
    ],
)
def test_weights_that_are_not_there_are_one_line(tiny, weights, line):
    with pytest.raises(InputError) as caught:
        start(tiny, weights)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_vit_is_one_line(tiny, tmp_path):
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / "other.pth")
    (tmp_path / "empty").mkdir()
    for name in ("other.pth", "empty"):
        with pytest.raises(InputError, match=r"not those of a ViT|holds no model") as caught:
            start(tiny, tmp_path / name)
        assert "\n" not in str(caught.value)
