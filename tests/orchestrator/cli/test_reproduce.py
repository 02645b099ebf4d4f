"""`dinolab reproduce` as a user runs it, on a paper and on weights made here."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

timm = pytest.importorskip("timm")
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

FLOW, NEAREST = "flow/cls/to_patch/final_block", "knn/cls_top1"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes that differ in brightness, a little, some of each held out."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, count in (("train", 30), ("val", 12)):
        for number in range(count):
            place = folder / part / "ab"[number % 2] / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            low = 40 * (number % 2)
            pixels = generator.integers(low, low + 180, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place)
    return folder


def paper_of(folder, published=0.5, metric=FLOW, **network):
    path = folder / "paper.yaml"
    model = {
        "timm": "vit_tiny_patch16_224",
        "blocks": 12,
        "patch": 16,
        "million_parameters": 5.7,
    } | network
    values = [
        {
            "what": "to patches",
            "metric": metric,
            "tolerance": 0.1,
            "published": {"tiny": published},
        },
        {"what": "k-NN", "metric": NEAREST, "tolerance": 1.0, "published": {"tiny": 0.5}},
    ]
    path.write_text(
        yaml.safe_dump(
            {
                "title": "A paper", "authors": "Somebody", "year": 2026, "source": "here",
                "images": "others", "size": 32, "models": {"tiny": model}, "values": values,
            }
        )
    )  # fmt: skip
    return path


def test_a_block_is_measured_of_a_file_that_holds_a_network_and_its_average(
    dinolab, images, tmp_path
):
    """As MoCo v3 is published. The average attends evenly, to which the equation gives 7.28."""
    both = {}
    for name, scale in (("base", 30), ("momentum", 0)):
        network = timm.create_model("vit_tiny_patch16_224")
        with torch.no_grad():
            for block in network.blocks:
                block.attn.qkv.weight[: 2 * 192] *= scale
                block.attn.qkv.bias[: 2 * 192] *= scale
        for key, tensor in network.state_dict().items():
            both[f"module.{name}_encoder.{key}"] = tensor
    path = tmp_path / "vit-b-300ep.pth.tar"
    torch.save({"epoch": 300, "state_dict": both}, path)
    metric = "globality/patch/attention_distance@3"
    paper = paper_of(tmp_path, metric=metric, published=7.2)
    text = paper.read_text().replace("size: 32", "size: 224")
    paper.write_text(text.replace("timm: vit_tiny_patch16_224", "weights: https://there"))
    code, said, err = dinolab(
        "reproduce", str(paper), "--model", f"tiny={path}", "--data", str(images), "--json",
        "--limit", "2", "--pretrained",
    )  # fmt: skip
    assert code == 0, err
    found = {one["metric"]: one for one in json.loads(said)["values"]}
    places = np.argwhere(np.ones((14, 14)))
    uniform = np.linalg.norm(places[:, None] - places, axis=-1).mean()
    assert found[metric]["measured"] == pytest.approx(uniform, rel=1e-4)
    assert found[metric]["within"]


def test_papers_are_listed(dinolab):
    code, said, err = dinolab("reproduce")
    assert (code, err) == (0, "")
    assert "2604.14433" in said
    assert "dinov2-s-registers" in said
    code, said, _ = dinolab("reproduce", "--json")
    assert code == 0
    assert json.loads(said)["2604.14433"]["models"]["dinov2-s"]["patch"] == 14


def test_without_weights_nothing_is_measured_and_said_so(dinolab):
    code, said, err = dinolab("reproduce", "2604.14433", "--json")
    assert (code, err) == (0, "")
    found = json.loads(said)
    assert len(found["values"]) == 12 * (3 + 2 * 5)
    assert all(one["measured"] is one["within"] is None for one in found["values"])
    assert any("for want of weights" in note for note in found["notes"])


def test_published_and_measured_stand_side_by_side(dinolab, weights, images, tmp_path):
    """What is measured is what `measure` and `embed` give of the same weights and images."""
    asked = ["--data", images, "--root", tmp_path / "runs", "--quiet"]
    measured = ["measure", weights, "--size", "32", *asked, "--limit", "1000", "--heads", "3"]
    code, _, err = dinolab(*measured, "--causal-images", "0", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    flow = json.loads((tmp_path / "out" / "summary.json").read_text())["metrics"][FLOW]
    embed = ["embed", weights, "--size", "32", *asked, "--out", tmp_path / "features.parquet"]
    code, _, err = dinolab(*embed)
    assert (code, err) == (0, "")
    path = paper_of(tmp_path, published=round(flow + 0.05, 3))
    run = ["reproduce", path, "--model", f"tiny={weights}", *asked]
    code, said, err = dinolab(*run, "--json")
    assert code == 0, err
    assert "tiny:" in err
    to_patches, nearest = json.loads(said)["values"]
    assert to_patches["measured"] == pytest.approx(flow, abs=1e-6)
    assert to_patches["difference"] == pytest.approx(-0.05, abs=6e-4)
    assert to_patches["within"] is True
    assert nearest["measured"] == pytest.approx(votes(tmp_path / "features.parquet"))

    path = paper_of(tmp_path, published=round(flow + 0.15, 3), metric="flow/cls/to_register")
    code, said, err = dinolab(*run)
    assert code == 0, err
    assert "have no such value: tiny: flow/cls/to_register." in said
    assert "for want of weights" not in said

    path = paper_of(tmp_path, published=round(flow + 0.15, 3))
    code, said, err = dinolab(*run)
    assert (code, err) == (0, "")
    assert "no (±0.1)" in said
    assert "\n1 of 2 within their tolerance\n" in said
    assert "are no failed reproduction" in said


def votes(path) -> float:
    """Accuracy of the weighted vote of 20 neighbours (Caron et al. 2021), image by image."""
    table = pq.read_table(path)
    features = np.stack(table["cls"].to_numpy()).astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels, held = table["label"].to_pylist(), np.array(table["split"].to_pylist()) == "test"
    bank, right = np.flatnonzero(~held), []
    for query in np.flatnonzero(held):
        cosines = features[bank] @ features[query]
        found = {"a": 0.0, "b": 0.0}
        for place in np.argsort(-cosines)[:20]:
            found[labels[bank[place]]] += np.exp(cosines[place] / 0.07)
        right.append(max(found, key=found.get) == labels[query])
    return float(np.mean(right))


def test_bad_input_is_a_line(dinolab, weights, images, tmp_path):
    path, unlabelled = paper_of(tmp_path), tmp_path / "plain"
    unlabelled.mkdir()
    for number in range(6):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(unlabelled / f"{number}.png")
    for arguments, words in (
        (["2604.1443"], "did you mean 2604.14433?"),
        ([path, "--model", "tiny"], "must be NAME=MODEL, and NAME one of tiny"),
        ([path, "--model", f"big={weights}"], "NAME one of tiny"),
        ([path, "--model", f"tiny={weights}"], "--data is missing"),
        (
            [path, "--model", f"tiny={weights}", "--model", f"tiny={weights}"],
            "tiny is given twice",
        ),
        (
            [path, "--model", "tiny=vit_tiny_patch16_224", "--data", images],
            "has random weights",
        ),
        ([path, "--model", "tiny=~nosuchuser/x.pth", "--data", images], "is not there"),
        (
            [path, "--model", f"tiny={weights}", "--data", unlabelled],
            "k-NN takes labelled images, some of them held out",
        ),
    ):
        code, _, err = dinolab("reproduce", *arguments, "--root", tmp_path / "runs", "--quiet")
        assert code == 2, arguments
        assert words in err
        assert len(err.splitlines()) == 1
