"""A folder that transformers saved gives, without transformers, the same tokens and attention."""

import json
import os

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

from trainers.adapters.hugging_face_models import open_hugging_face  # noqa: E402
from trainers.errors import CheckpointError, InputError  # noqa: E402

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
# model class, what else its configuration says, registers, [CLS] and registers set aside
MODELS = {
    "vit": ("ViTModel", {"intermediate_size": 80, "qkv_bias": False}, 0),
    "vit_classifier": ("ViTForImageClassification", {"intermediate_size": 64}, 0),
    "vit_tanh": ("ViTModel", {"intermediate_size": 64, "hidden_act": "gelu_new"}, 0),
    "vit_masked": ("ViTForMaskedImageModeling", {"intermediate_size": 64, "encoder_stride": 8}, 0),
    "deit": ("DeiTModel", {"intermediate_size": 64}, 1),
    "deit_teacher": (
        "DeiTForImageClassificationWithTeacher", {"intermediate_size": 64}, 1,
    ),
    "dinov2": ("Dinov2Model", {"layerscale_value": 0.3}, 0),
    "dinov2_swiglu": ("Dinov2Model", {"use_swiglu_ffn": True, "hidden_size": 36}, 0),
    "dinov2_classifier": ("Dinov2ForImageClassification", {}, 0),
    "registers": ("Dinov2WithRegistersModel", {"num_register_tokens": 3}, 3),
    "registers_swiglu": (
        "Dinov2WithRegistersModel", {"use_swiglu_ffn": True, "num_register_tokens": 1}, 1,
    ),
}  # fmt: skip


def saved(folder, name, **more):
    """One of MODELS, its every parameter shaken, and the folder it was saved in."""
    kind, changes, _ = MODELS[name]
    make = getattr(transformers, kind)
    config = make.config_class(**(SHAPE | changes | more), attn_implementation="eager")
    model = make(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return model


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


def test_tokens_and_attention_are_those_of_transformers(tmp_path, name):
    model = saved(tmp_path, name)
    kind = {"vit": "vit", "deit": "deit"}.get(name.split("_")[0], "base_model")
    body = getattr(model, kind, model.base_model)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = body(images, output_attentions=True)
    layers = []
    found = open_hugging_face(tmp_path).backbone(images, observe=layers.append)
    assert (found.has_cls, found.registers_count) == (True, MODELS[name][2])
    torch.testing.assert_close(found.tokens, theirs.last_hidden_state, rtol=1e-4, atol=1e-4)
    assert len(layers) == len(theirs.attentions) == 3
    for layer, expected in zip(layers, theirs.attentions, strict=True):
        scores = layer.queries @ layer.keys.transpose(2, 3) * layer.queries.shape[-1] ** -0.5
        torch.testing.assert_close(scores.softmax(-1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(24, 24), (16, 40)])
@pytest.mark.parametrize("name", ["vit", "deit", "dinov2", "registers"])
def test_positions_at_another_size_are_those_of_transformers(tmp_path, name, size):
    model = saved(tmp_path, name)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    asked = {"interpolate_pos_encoding": True} if name in ("vit", "deit") else {}
    with torch.no_grad():
        theirs = model(images, **asked).last_hidden_state
    found = open_hugging_face(tmp_path).backbone(images).tokens
    torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-4)


def test_what_is_set_aside_is_named(tmp_path):
    saved(tmp_path, "dinov2_classifier")
    found = open_hugging_face(tmp_path)
    assert found.set_aside == ("classifier.bias", "classifier.weight", "embeddings.mask_token")


def test_a_pickle_and_shards_give_the_same(tmp_path):
    model = saved(tmp_path / "one", "dinov2")
    model.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    pickled = tmp_path / "pickle"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((tmp_path / "one" / "config.json").read_bytes())
    import safetensors.torch

    torch.save(
        safetensors.torch.load_file(tmp_path / "one" / "model.safetensors"),
        pickled / "pytorch_model.bin",
    )
    expected = open_hugging_face(tmp_path / "one").backbone.state_dict()
    for folder in ("shards", "pickle"):
        found = open_hugging_face(tmp_path / folder).backbone.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_wrapped_and_sharded_pickles_give_the_same(tmp_path):
    import safetensors.torch

    saved(tmp_path, "dinov2_classifier")
    expected = open_hugging_face(tmp_path).backbone.state_dict()
    file = tmp_path / "model.safetensors"
    state = safetensors.torch.load_file(file)
    file.unlink()
    halves = [{}, {}]
    places = {}
    for number, (name, tensor) in enumerate(state.items()):
        halves[number % 2][f"module._orig_mod.{name}"] = tensor
        places[f"module._orig_mod.{name}"] = f"part{number % 2}.bin"
    for number, half in enumerate(halves):
        torch.save(half, tmp_path / f"part{number}.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    found = open_hugging_face(tmp_path)
    assert all(torch.equal(found.backbone.state_dict()[key], t) for key, t in expected.items())
    assert "module.classifier.weight" in found.set_aside


def test_images_that_patches_do_not_fill_are_cut_as_transformers_cuts_them(tmp_path):
    model = saved(tmp_path, "vit", image_size=30)
    backbone = open_hugging_face(tmp_path).backbone
    assert (backbone.own_size, backbone.image_size) == ((30, 30), (24, 24))
    images = torch.randn(2, 3, 30, 30, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = model(images).last_hidden_state
        found = backbone(images[:, :, :24, :24]).tokens
    torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-4)


def test_normalisation_is_that_of_the_folder_or_of_its_type(tmp_path):
    saved(tmp_path, "vit")
    found = open_hugging_face(tmp_path)
    assert (found.mean, found.deviation, found.says_how) == ((0.5,) * 3, (0.5,) * 3, False)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]})
    )
    found = open_hugging_face(tmp_path)
    assert found.mean == pytest.approx((0.1, 0.2, 0.3))
    assert found.deviation == pytest.approx((0.4, 0.5, 0.6))
    assert found.says_how


def edit(folder, **changes):
    path = folder / "config.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "swin"}, "model type 'swin' cannot be measured (allowed: vit, deit"),
        ({"hidden_act": "mish"}, "hidden_act 'mish' is not known"),
        ({"num_channels": 1}, "images of 1 channels"),
        ({"hidden_size": None}, "says nothing of hidden_size"),
        ({"num_attention_heads": 5}, "describes no ViT"),
        ({"hidden_size": "wide"}, "describes no ViT"),
        ({"layer_norm_eps": "small"}, "describes no ViT"),
        ({"image_size": [32]}, "image_size must be one whole number of pixels or two, got [32]"),
        ({"image_size": []}, "image_size must be one whole number of pixels or two, got []"),
        ({"image_size": 0}, "image_size must be one whole number of pixels or two, got 0"),
        ({"patch_size": [8, 8, 8]}, "patch_size must be one whole number of pixels or two, got"),
        ({"patch_size": "8"}, "patch_size must be one whole number of pixels or two, got '8'"),
    ],
)
def test_a_configuration_that_cannot_be_translated_is_one_line(tmp_path, changes, message):
    saved(tmp_path, "vit")
    edit(tmp_path, **changes)
    with pytest.raises(InputError) as raised:
        open_hugging_face(tmp_path)
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_every_tensor_is_used_or_refused(tmp_path):
    import safetensors.torch

    saved(tmp_path, "dinov2")
    path = tmp_path / "model.safetensors"
    whole = safetensors.torch.load_file(path)
    for change, message in (
        ({"encoder.layer.0.extra": torch.zeros(1)}, "left over: encoder.layer.0.extra"),
        ({"encoder.layer.1.attention.attention.key.weight": None}, "lack the key of"),
        ({"encoder.layer.1.layer_scale1.lambda1": None}, "blocks.1.ls1.gamma"),
        ({"layernorm.bias": torch.zeros(5)}, "size mismatch"),
        ({"embeddings.cls_token": torch.zeros(1, 1, 5)}, "do not fit its config.json: The size of"),
    ):
        changed = {k: v for k, v in (whole | change).items() if v is not None}
        safetensors.torch.save_file(changed, path)
        with pytest.raises(CheckpointError) as raised:
            open_hugging_face(tmp_path)
        assert message in str(raised.value)
        assert len(str(raised.value).splitlines()) == 1
    path.unlink()
    with pytest.raises(InputError, match=r"holds no model\.safetensors or pytorch_model\.bin"):
        open_hugging_face(tmp_path)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rescale_factor": None}, "rescale_factor must be a number above 0, usually 1/255, got N"),
        ({"rescale_factor": 0}, "rescale_factor must be a number above 0, usually 1/255, got 0"),
        ({"rescale_factor": "1/255"}, "rescale_factor must be a number above 0, usually 1/255, go"),
        ({"rescale_factor": float("nan")}, "rescale_factor must be a number above 0"),
        ({"image_std": [0.5, 0.5]}, "must be three numbers each, those of image_std above 0, got"),
        ({"image_std": [0.5, 0.5, 0]}, "must be three numbers each, those of image_std above 0"),
        ({"image_mean": [float("nan")] * 3}, "must be three numbers each"),
        ({"image_mean": None}, "names no image_mean and image_std"),
    ],
)
def test_a_preparation_that_cannot_be_followed_is_one_line(tmp_path, said, message):
    saved(tmp_path, "vit")
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3} | said))
    with pytest.raises(InputError) as raised:
        open_hugging_face(tmp_path)
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("shards", [None, [], ["model.safetensors"], {}, {"a": 1}, {"a": ["b"]}])
def test_an_index_that_names_no_files_is_one_line(tmp_path, shards):
    saved(tmp_path, "vit")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(InputError) as raised:
        open_hugging_face(tmp_path)
    assert str(raised.value).startswith(f"{path}: weight_map must say of each tensor which file")
    assert len(str(raised.value).splitlines()) == 1
