"""A run takes the shape of its ViT from timm by name, and computes what timm computes."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

os.environ.setdefault("HF_HUB_OFFLINE", "1")
timm = pytest.importorskip("timm")

from tests.trainers.adapters.published import ALONE, close  # noqa: E402
from trainers import __main__ as command  # noqa: E402
from trainers.adapters.pretrained import load_backbone  # noqa: E402
from trainers.adapters.timm_shapes import shape_of, spelled, timm_knobs  # noqa: E402
from trainers.config import TrainConfig, diff, fingerprint, override  # noqa: E402
from trainers.data.augment import Views  # noqa: E402
from trainers.errors import ConfigError, InputError  # noqa: E402
from trainers.training.state import TrainState  # noqa: E402
from trainers.training.step import Batch, update  # noqa: E402

# What is published of them, by their authors or in timm's code.
SHAPES = {
    "vit_tiny_patch16_224": {"width": 192, "heads": 3, "depth": 12, "patch_size": 16},
    "vit_small_patch8_224": {"width": 384, "heads": 6, "patch_size": 8, "layer_scale": 0.0},
    "vit_base_patch32_224": {"width": 768, "heads": 12, "patch_size": 32, "registers": 0},
    "vit_small_patch14_dinov2": {"patch_size": 14, "layer_scale": 1e-5, "mlp": "gelu"},
    "vit_small_patch14_reg4_dinov2": {"registers": 4, "cls_position": "none"},
    "deit_tiny_distilled_patch16_224": {"width": 192, "registers": 1, "cls_position": "learned"},
    "deit3_small_patch16_224": {"layer_scale": 1e-6, "cls_position": "none"},
    "vit_small_patch16_dinov3": {
        "patch_position": "rotary", "rotary_base": 100.0, "registers": 4, "norm_epsilon": 1e-5,
    },
    "vit_small_plus_patch16_dinov3_qkvb": {"mlp": "swiglu", "mlp_ratio": 6.0},
    "vit_base_patch16_siglip_224": {"cls": False, "patch_position": "learned"},
}  # fmt: skip


def shaken(name, **options):
    """timm's `name` with every parameter away from where it starts, LayerScale above all."""
    model = timm.create_model(name, num_classes=0, **options).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("name", SHAPES)
def test_the_shape_is_that_of_timm(name):
    knobs = timm_knobs(name)
    assert {knob: knobs[f"model.{knob}"] for knob in SHAPES[name]} == SHAPES[name]


@pytest.mark.parametrize("name", SHAPES)
def test_with_the_weights_of_timm_it_computes_the_features_of_timm(name):
    patch = SHAPES[name].get("patch_size", 14 if "dinov2" in name else 16)
    model = shaken(name, img_size=3 * patch, depth=2)
    knobs = {**timm_knobs(name), "model.depth": 2}
    shape = {knob.removeprefix("model."): value for knob, value in knobs.items()}
    assert shape == shape_of(model)
    made = load_backbone(model.state_dict(), image_size=3 * patch, shape=shape)
    images = torch.randn(2, 3, 3 * patch, 3 * patch, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        close(made.backbone(images).tokens, model.forward_features(images))


TINY = {
    "model.timm": "vit_tiny_patch16_224", "model.depth": 2, "data.image_size": 32,
    "augment.global_size": 32, "augment.local_size": 16, "batch_size": 4, "steps": 2,
    "log_every": 1, "evaluation.every": 2, "evaluation.globality_layers": [1],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        ("vit_tiny_patch16_224", 16), ("vit_small_patch14_reg4_dinov2", 14),
        ("vit_small_plus_patch16_dinov3", 16),
    ],
)  # fmt: skip
def test_a_named_shape_trains_with_masks_and_drop_path(tiny, name, patch):
    config = override(tiny, spelled({
        **TINY, "model.timm": name, "data.image_size": 2 * patch, "augment.global_size": 2 * patch,
        "augment.local_size": patch, "augment.local_crops": 1, "loss.masked": 0.5,
        "model.drop_path": 0.3, "loss.mask_probability": 1.0, "loss.mask_share": [0.4, 0.6],
    }))  # fmt: skip
    state = TrainState.fresh(config, ALONE)
    generator = torch.Generator().manual_seed(0)

    def crops(count, side):
        shape = (4 * count, 3, side, side)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    views = Views(
        global_crops=crops(2, 2 * patch),
        local_crops=crops(1, patch),
        digest=torch.zeros(4, dtype=torch.int64),
    )
    four = torch.arange(4)
    seen = Batch(views=views, identifiers=four, epochs=torch.zeros_like(four), labels=None)
    before = {name: one.clone() for name, one in state.student.backbone.named_parameters()}
    for _ in range(3):
        step = update(state, seen, config, ALONE)
        assert not step.failure
        assert 0 < step.loss < 100
    still = {n for n, one in state.student.backbone.named_parameters() if one.equal(before[n])}
    assert not still


def test_what_is_written_beside_the_name_wins_whatever_comes_first():
    for change in ({"model.timm": "vit_tiny_patch16_224", "model.depth": 2}, TINY):
        for order in (list(change), list(reversed(change))):
            found = spelled({knob: change[knob] for knob in order})
            assert found["model.depth"] == 2
            assert found["model.width"] == 192
            assert "model.timm" not in found
    assert spelled({"model.depth": 2}) == {"model.depth": 2}


def test_a_run_by_name_is_the_run_of_the_knobs_it_stands_for(tiny):
    named = override(tiny, spelled(TINY))
    written = override(tiny, {
        "model.patch_size": 16, "model.width": 192, "model.heads": 3,
        **{knob: value for knob, value in TINY.items() if knob != "model.timm"},
    })  # fmt: skip
    assert named == written
    tagged = override(tiny, spelled({**TINY, "model.timm": "vit_tiny_patch16_224.augreg_in21k"}))
    assert fingerprint(tagged) == fingerprint(written)
    another = override(tiny, spelled({**TINY, "model.timm": "deit_tiny_distilled_patch16_224"}))
    assert diff(named, another) == {"model.registers": 1}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A finished run of a named shape from weights that are no more, and how to ask for it."""
    home = tmp_path_factory.mktemp("begun")
    for number in range(8):
        place = home / "pictures" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(place)
    model = shaken("vit_small_patch16_dinov3_qkvb", img_size=32, depth=1)
    theirs = home / "theirs"
    theirs.mkdir()
    save_file(model.state_dict(), theirs / "model.safetensors")
    (theirs / "config.json").write_text(
        '{"architecture": "vit_small_patch16_dinov3_qkvb", "num_classes": 0, '
        '"model_args": {"img_size": 32, "depth": 1}}'
    )

    def command_with(weights, **more):
        change = {
            **TINY, "model.timm": "vit_small_patch16_dinov3_qkvb", "model.depth": 1,
            "data.source": home / "pictures", "model.weights": weights, **more,
        }  # fmt: skip
        given = [part for knob, value in change.items() for part in ("--set", f"{knob}={value}")]
        return ["digits_tiny", *given, f"--root={home / 'runs'}"]

    assert command.run(command_with(theirs)) == 0
    shutil.rmtree(theirs)
    return home / "runs" / "trials", command_with


def config_in(trials):
    (written,) = trials.glob("*/config.json")
    return TrainConfig.model_validate_json(written.read_text())


def test_the_command_trains_a_named_shape_from_its_weights(begun):
    made = config_in(begun[0]).model
    assert (made.patch_position, made.registers, made.norm_epsilon) == ("rotary", 4, 1e-5)
    assert "/theirs@sha256:" in made.weights


def test_a_finished_run_is_found_by_what_its_weights_were(begun, capsys):
    trials, command_with = begun
    before = sorted(trials.parent.rglob("*"))
    pinned = config_in(trials).model.weights
    assert command.run(command_with(pinned)) == 0
    assert capsys.readouterr().out.splitlines()[0] == "finished"
    moved = f"elsewhere@sha256:{pinned.partition('@sha256:')[2]}"
    assert command.run(command_with(moved)) == 0
    with pytest.raises(InputError, match="is found without it by SOURCE@sha256") as caught:
        command.run(command_with(pinned.partition("@")[0]))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="is not there"):
        command.run(command_with(pinned, seed=1))
    assert sorted(trials.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("vit_tiny_patch16_22", "timm has no such model; nearest are vit_tiny_patch16_224"),
        ("swin_tiny_patch4_window7_224", "SwinTransformer is no ViT"),
        ("resnet50", "ResNet is no ViT"),
        ("vit_tiny_r_s16_p8_224", "stem before its patches (HybridEmbed)"),
        ("vit_base_patch16_clip_224", "norm before the first block"),
        ("vit_base_patch16_rpn_224", "block of this kind (ResPostBlock)"),
        ("vit_small_patch16_18x2_224", "block of this kind (ParallelThingsBlock)"),
        ("eva02_tiny_patch14_224", "rotary positions other than DINOv3's (RotaryEmbeddingCat)"),
        ("vit_dlittle_patch16_reg1_gap_256", "attention of this kind (DiffAttention)"),
        ("vit_tiny_patch16_224.of_nobody", "vit_tiny_patch16_224.of_nobody: timm cannot make"),
        ("", "must be the name of a timm ViT, got ''"),
        (3, "must be the name of a timm ViT, got 3"),
    ],
)
def test_what_our_vit_cannot_be_is_one_line_that_names_the_part(name, line):
    with pytest.raises(ConfigError) as caught:
        spelled({"model.timm": name})
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_crops_that_do_not_divide_by_the_patch_are_one_line_with_the_nearest_size(tiny):
    change = {**TINY, "model.timm": "vit_small_patch14_dinov2", "data.image_size": 0,
              "augment.global_size": 224, "augment.local_size": 96}  # fmt: skip
    with pytest.raises(ConfigError, match=r"model\.patch_size 14: 96; 98 is the nearest"):
        override(tiny, spelled(change))


WITHOUT_TIMM = """
import sys
sys.modules["timm"] = None
from trainers.__main__ import main
sys.argv = ["dinolab", "digits_tiny", *sys.argv[1:]]
sys.exit(main())
"""


def test_without_timm_one_line_says_how_to_install_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TIMM, "--set", "model.timm=vit_tiny_patch16_224"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "timm is not installed; pip install 'dinolab[measure]'" in done.stderr
    assert not list(tmp_path.iterdir())
