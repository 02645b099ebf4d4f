"""An exported backbone opens in timm, in transformers and here, with the features of its run."""

import json
import os

import pytest
import safetensors.torch
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

from trainers.adapters.export import export  # noqa: E402
from trainers.adapters.opening import open_measurable  # noqa: E402
from trainers.config import override  # noqa: E402
from trainers.errors import InputError  # noqa: E402
from trainers.runs.saved_run import find_run, run_backbone  # noqa: E402
from trainers.system.world import World  # noqa: E402
from trainers.training import checkpoint  # noqa: E402
from trainers.training.state import TrainState  # noqa: E402

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
NO_CLS = {"model.cls": False, "loss.cls": 0.0, "loss.patches": 1.0}
SHAPES = {
    "plain": {},
    "hides patches": {"loss.masked": 1.0},
    "registers": {"model.registers": 3},
    "registers, masks": {"model.registers": 1, "loss.masked": 1.0},
    "narrow": {"model.mlp_ratio": 2.5, "model.heads": 4},
    "fixed codes": {"model.patch_position": "sincos", "model.cls_position": "sincos"},
    "tied": {"model.cls_position": "tied", "model.cls_tied_patch": [1, 2]},
    "bare [CLS]": {"model.cls_position": "none", "model.registers": 2},
    "no positions": {"model.patch_position": "none"},
    "LayerScale": {"model.layer_scale": 0.1},
    "SwiGLU": {"model.mlp": "swiglu"},
    "as DINOv2-g": {"model.mlp": "swiglu", "model.layer_scale": 0.1, "model.registers": 2},
    "nowhere": {"model.patch_position": "none", "model.cls_position": "none"},
}
WITHOUT_CLS = {
    "no [CLS]": NO_CLS,
    "only registers": {**NO_CLS, "model.registers": 2},
    "fixed codes, no [CLS]": {**NO_CLS, "model.patch_position": "sincos"},
}
ONLY_HERE = {
    "rotary": {"model.patch_position": "rotary", "model.cls_position": "rotary"},
    "wandering": {"model.cls_position": "random"},
    "windowed": {"model.patch_window": 1},
    "uniform": {"model.cls_uniform": True},
}


@pytest.fixture
def run(tiny, tmp_path):
    """Makes the folder of a run at step 3 whose networks differ, with some knobs changed."""

    def made(change):
        config = override(tiny, {"model.width": 32, **change})
        state = TrainState.fresh(config, ALONE)
        state.step = 3
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for network in (state.student, state.teacher):
                for parameter in network.parameters():
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        checkpoint.save(state, config, tmp_path / "run" / "attempts" / "0001", ALONE)
        (tmp_path / "run" / "config.json").write_text(config.model_dump_json())
        return tmp_path / "run"

    return made


def features(folder, network="teacher"):
    """Tokens of IMAGES of a network of the run."""
    return run_backbone(find_run(folder), network)(IMAGES).tokens


def in_timm(folder):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return model, model.forward_features(IMAGES).detach()


def in_transformers(folder):
    model, report = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["unexpected_keys"]
    assert {name.split(".")[0] for name in report["missing_keys"]} <= {"pooler"}
    with torch.no_grad():
        return model.eval(), model.eval()(IMAGES).last_hidden_state


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("network", ["teacher", "student"])
def test_timm_and_transformers_compute_the_features_of_the_network_asked_for(run, network):
    folder = run({})
    for form, opened in (("timm", in_timm), ("huggingface", in_transformers)):
        written = export(folder, form, folder.parent / form, network)
        assert written.origin == f"{network} of run, step 3 of 6"
        close(opened(written.path)[1], features(folder, network))


@pytest.mark.parametrize("change", SHAPES.values(), ids=SHAPES)
def test_every_shape_with_a_cls_opens_in_both_with_equal_features(run, change):
    folder = run(change)
    for form, opened in (("timm", in_timm), ("huggingface", in_transformers)):
        close(opened(export(folder, form, folder.parent / form).path)[1], features(folder))


@pytest.mark.parametrize("change", WITHOUT_CLS.values(), ids=WITHOUT_CLS)
def test_a_network_without_cls_opens_in_timm_and_is_refused_for_transformers(run, change):
    folder = run(change)
    close(in_timm(export(folder, "timm", folder.parent / "timm").path)[1], features(folder))
    with pytest.raises(InputError, match=r"model\.cls False has no counterpart in huggingface"):
        export(folder, "huggingface", folder.parent / "theirs")
    assert not (folder.parent / "theirs").exists()


@pytest.mark.parametrize("change", ONLY_HERE.values(), ids=ONLY_HERE)
@pytest.mark.parametrize("form", ["timm", "huggingface"])
def test_what_has_no_counterpart_is_refused_in_one_line_that_names_the_knob(run, change, form):
    folder = run(change)
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(InputError) as caught:
        export(folder, form, folder.parent / "out")
    assert "\n" not in str(caught.value)
    assert any(f"{knob} {value!r}" in str(caught.value) for knob, value in change.items())
    assert "--to safetensors" in str(caught.value)
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "change", [*SHAPES.values(), *WITHOUT_CLS.values(), *ONLY_HERE.values()],
    ids=[*SHAPES, *WITHOUT_CLS, *ONLY_HERE],
)  # fmt: skip
@pytest.mark.parametrize("name", ["backbone.safetensors", "folder"])
def test_a_backbone_alone_opens_here_as_its_run_does(run, change, name):
    folder = run({"loss.fixed_patch": 0.5, **change})
    theirs = open_measurable(str(folder))
    ours = open_measurable(str(export(folder, "safetensors", folder.parent / name).path))
    grid = theirs.grid(16)
    identifiers = torch.tensor([3, 2**50])
    tokens = [
        model.network(IMAGES, model.draws(identifiers, grid)).tokens for model in (ours, theirs)
    ]
    assert torch.equal(*tokens)
    assert ours.fixed_patch(grid) == theirs.fixed_patch(grid) is not None
    assert "teacher of run, step 3 of 6" in ours.weights
    assert (ours.depth, ours.has_cls, ours.registers, ours.patch_size, ours.image_size) == (
        theirs.depth, theirs.has_cls, theirs.registers, theirs.patch_size, theirs.image_size
    )  # fmt: skip


@pytest.mark.parametrize("form", ["timm", "huggingface"])
def test_exported_folders_open_here_and_say_how_images_are_prepared(run, form):
    folder = run({"model.registers": 2})
    opened = open_measurable(str(export(folder, form, folder.parent / form).path))
    theirs = open_measurable(str(folder))
    close(opened.network(IMAGES).tokens, features(folder))
    assert opened.mean == pytest.approx(theirs.mean)
    assert opened.deviation == pytest.approx(theirs.deviation)
    assert "config.json" in opened.normalisation
    assert (opened.registers, opened.image_size) == (2, 16)


def test_timm_and_transformers_prepare_images_as_they_were_in_training(run):
    from PIL import Image

    folder = run({})
    model, _ = in_timm(export(folder, "timm", folder.parent / "timm").path)
    wanted = timm.data.resolve_model_data_config(model)
    assert wanted["input_size"] == (3, 16, 16)
    white = Image.new("RGB", (40, 30), "white")
    theirs = timm.data.create_transform(**wanted, is_training=False)(white)
    where = export(folder, "huggingface", folder.parent / "theirs").path
    processor = transformers.AutoImageProcessor.from_pretrained(where)
    pixels = processor(white, return_tensors="pt")["pixel_values"][0]
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    expected = expected[:, None, None].expand(3, 16, 16)
    close(theirs, expected)
    close(pixels, expected)


def test_a_classifier_can_be_put_on_what_timm_opens(run):
    written = export(run({}), "timm", run({}).parent / "timm")
    model = timm.create_model(f"local-dir:{written.path}", pretrained=True, num_classes=7)
    assert model(IMAGES).shape == (2, 7)


@pytest.mark.parametrize("form", ["timm", "huggingface", "safetensors"])
def test_what_its_run_started_from_is_no_part_of_an_export(run, form, tmp_path):
    folder = run({"model.weights": f"/home/me/secret.pth@sha256:{'0' * 64}"})
    written = export(folder, form, tmp_path / "out").path
    close(open_measurable(str(written)).network(IMAGES).tokens, features(folder))
    assert not any(b"secret" in path.read_bytes() for path in written.iterdir())


@pytest.mark.parametrize("form", ["timm", "huggingface", "safetensors"])
def test_only_a_new_or_empty_place_is_written_to(run, form, tmp_path):
    folder = run({})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for place in ("full", "full/file", "full/file/below"):
        with pytest.raises(InputError, match="--out "):
            export(folder, form, tmp_path / place)
    assert (tmp_path / "full" / "file").read_text() == "mine"
    export(folder, form, tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "run"]


def test_an_existing_file_is_not_written_over(run, tmp_path):
    mine = tmp_path / "mine.safetensors"
    mine.write_text("mine")
    with pytest.raises(InputError, match="it is there; give the name of a new file"):
        export(run({}), "safetensors", mine)
    assert mine.read_text() == "mine"


def test_an_export_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    from trainers.adapters import export as exporting

    def full(path, content):
        raise OSError(28, "No space left on device")

    folder = run({})
    monkeypatch.setattr(exporting, "replace", full)
    for form in ("timm", "huggingface", "safetensors"):
        with pytest.raises(InputError, match="No space left on device"):
            export(folder, form, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_same_run_is_exported_to_the_same_bytes(run, tmp_path):
    folder = run({"model.registers": 1})
    for form in ("timm", "huggingface", "safetensors"):
        one, other = (export(folder, form, tmp_path / f"{form}{n}").path for n in (1, 2))
        names = sorted(path.name for path in one.iterdir())
        assert names == sorted(path.name for path in other.iterdir())
        for name in names:
            if name != "README.md":
                assert (one / name).read_bytes() == (other / name).read_bytes()


def test_published_shapes_carry_the_names_that_timm_gives_them(run, tmp_path):
    folder = run({"model.width": 192, "model.heads": 3, "model.depth": 1})
    export(folder, "timm", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architecture"] == "vit_tiny_patch16_224"
    assert config["model_args"]["depth"] == 1


@pytest.mark.parametrize("name", ["out", "out.safetensors"])
def test_what_is_printed_opens_what_was_written_and_an_export_is_no_run(run, name):
    made = export(run({}), "safetensors", run({}).parent / name)
    path = made.opens.split('"')[1]
    assert made.opens == f'safetensors.torch.load_file("{path}")'
    assert safetensors.torch.load_file(path)
    with pytest.raises(InputError, match="is an exported backbone already: export the run"):
        export(made.path, "timm", made.path.parent / "again")


def test_a_damaged_checkpoint_is_bad_input(run):
    folder = run({})
    saved = checkpoint.newest(folder / "attempts" / "0001")
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read"):
        export(folder, "timm", folder.parent / "out")


@pytest.mark.parametrize(("side", "name", "number"), [(0, "bicubic", 3), (16, "bilinear", 2)])
def test_an_export_says_by_which_filter_its_images_were_resampled(run, side, name, number):
    folder = run({"data.image_size": side})
    theirs = export(folder, "huggingface", folder.parent / "theirs").path
    timms = export(folder, "timm", folder.parent / "timm").path
    assert json.loads((theirs / "preprocessor_config.json").read_text())["resample"] == number
    found = json.loads((timms / "config.json").read_text())["pretrained_cfg"]
    assert found["interpolation"] == name
