"""Papers as files: each is whole, and what is wrong with one is said in a line."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import yaml
from torch import nn

from dashboards.papers.paper import (
    ALIKE,
    Paper,
    check_network,
    compared,
    packaged_papers,
    read_paper,
    value_of,
)
from trainers.adapters.opening import open_measurable
from trainers.errors import InputError

PLAIN = {
    "title": "A paper",
    "authors": "Somebody",
    "year": 2026,
    "source": "here",
    "images": "some",
    "size": 32,
    "models": {
        "tiny": {
            "timm": "vit_tiny_patch16_224",
            "blocks": 12,
            "patch": 16,
            "million_parameters": 5.5,
        },
        "small": {
            "timm": "vit_small_patch16_224",
            "blocks": 12,
            "patch": 16,
            "million_parameters": 21.7,
        },
    },
    "values": [
        {
            "what": "a share",
            "metric": "flow/cls/to_patch/final_block",
            "tolerance": 0.1,
            "published": {"tiny": 0.5, "small": 0.7},
        }
    ],
}


@pytest.mark.parametrize("name", packaged_papers())
def test_every_packaged_paper_is_whole(name):
    paper = read_paper(name)
    published = {model for value in paper.values for model in value.published}
    assert published == paper.models.keys()
    timm = pytest.importorskip("timm")
    known = set(timm.list_pretrained())
    for network in paper.models.values():
        assert network.timm in known or str(network.weights).startswith("https://")


@pytest.mark.parametrize("name", packaged_papers())
def test_networks_of_a_paper_can_be_told_apart(name):
    """By size, blocks, patch and registers."""
    models = read_paper(name).models.values()
    for one, other in itertools.combinations(models, 2):
        sizes = sorted((one.million_parameters, other.million_parameters))
        assert sizes[1] >= ALIKE * sizes[0] or (one.blocks, one.patch, one.registers) != (
            other.blocks, other.patch, other.registers,
        )  # fmt: skip


@pytest.mark.parametrize(
    "metric", ["alignment/cls_patch@12", "sinks/head/share@1", "geometry/patch/effective_rank@2"]
)
def test_what_is_measured_of_each_block_can_be_asked_of_one(metric):
    Paper.model_validate(PLAIN | {"values": [PLAIN["values"][0] | {"metric": metric}]})


def test_shares_of_one_network_add_up_to_one():
    """[CLS] to [CLS], to patches and to registers, to three digits, in each block."""
    paper = read_paper("2604.14433")
    for model, block in itertools.product(paper.models, range(1, 13)):
        shares = [
            value.published[model]
            for value in paper.values
            if value.metric.startswith("flow/cls/")
            and value.metric.endswith(f"@{block}")
            and model in value.published
        ]
        assert len(shares) == 2 + (paper.models[model].registers > 0)
        assert sum(shares) == pytest.approx(1, abs=0.002)


def test_what_the_paper_prints_of_the_last_block_is_in_the_authors_data():
    values = {value.metric: value.published for value in read_paper("2604.14433").values}
    assert values["flow/cls/to_cls@12"] == {
        "dinov2-s": 0.119, "dinov2-s-registers": 0.003, "dinov3-s": 0.003,
    }  # fmt: skip
    assert values["flow/cls/to_patch@12"] == pytest.approx(
        {"dinov2-s": 0.881, "dinov2-s-registers": 0.812, "dinov3-s": 0.711}, abs=0.001
    )
    assert values["flow/cls/to_register@12"] == {"dinov2-s-registers": 0.185, "dinov3-s": 0.287}


def test_a_metric_of_a_block_is_the_mean_of_its_heads():
    measured = {"a/b@1.1": 1.0, "a/b@1.2": 4.0, "a/b@11.1": 9.0, "a/bc@1.1": 9.0, "a/b": 3.0}
    assert value_of("c/d@2", {"c/d@2": 5.0, "c/d": 1.0}) == 5.0
    assert value_of("a/b@1", measured) == 2.5
    assert value_of("a/b@11", measured) == 9.0
    assert value_of("a/b", measured) == 3.0
    assert math.isnan(value_of("a/b@2", measured))
    assert math.isnan(value_of("a/c", measured))


def test_the_plots_of_one_network_are_of_all_its_blocks_and_within_what_there_can_be():
    paper = read_paper("2305.00729")
    places = np.argwhere(np.ones((14, 14)))
    uniform = np.linalg.norm(places[:, None] - places, axis=-1).mean()
    printed = {
        value.metric: value.published["moco-v3-b16"] * scale
        for value in paper.values
        for scale in [1 / uniform if "distance" in value.metric else 1]
    }
    assert list(printed) == [
        f"{metric}@{block}"
        for metric in ("globality/patch/attention_distance", "globality/patch/mutual_information")
        for block in range(1, 13)
    ]
    assert all(0 < value < 1 for value in printed.values())


def test_a_number_is_near_or_not_or_not_measured():
    paper = Paper.model_validate(PLAIN)
    found = compared(paper, {"tiny": {"flow/cls/to_patch/final_block": 0.6001}})
    assert [(one.model, one.published, one.measured) for one in found] == [
        ("tiny", 0.5, 0.6001), ("small", 0.7, None),
    ]  # fmt: skip
    assert (found[0].within, found[1].within, found[1].difference) == (False, None, None)
    found = compared(paper, {"tiny": {"flow/cls/to_patch/final_block": 0.4001}})
    assert found[0].within
    assert found[0].difference == pytest.approx(-0.0999)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"year": "soon"}, "year"),
        ({"title": ""}, "title"),
        ({"pages": 3}, "pages"),
        ({"values": []}, "values"),
        (
            {"values": [PLAIN["values"][0] | {"metric": "flow/cls/to_patches/final_block"}]},
            "did you mean flow/cls/to_patch/final_block?",
        ),
        (
            {"values": [PLAIN["values"][0] | {"published": {"large": 1.0}}]},
            "large is none of the models (tiny, small)",
        ),
        ({"values": [PLAIN["values"][0] | {"tolerance": 0}]}, "tolerance"),
        ({"values": [PLAIN["values"][0] | {"tolerance": math.inf}]}, "tolerance"),
        ({"values": [PLAIN["values"][0] | {"published": {"tiny": math.nan}}]}, "published"),
        ({"values": [PLAIN["values"][0] | {"metric": "student/cls/gyration"}]}, "is none that"),
        *(
            (
                {"values": [PLAIN["values"][0] | {"metric": f"flow/cls/to_patch@{block}"}]},
                "the blocks of tiny are 1 to 12",
            )
            for block in ("0", "13", "1.2", "", "01")
        ),
        (
            {"values": [PLAIN["values"][0] | {"metric": "flow/cls/to_patch/final_block@3"}]},
            "is none that",
        ),
        *(
            (
                {"values": [PLAIN["values"][0] | {"metric": f"{metric}@3"}]},
                f"metric {metric}@3 is none that is measured of a block",
            )
            for metric in (
                "knn/cls_top1",
                "rollout/cls/gyration",
                "influence/cls/gyration",
                "reach/cls/gyration",
                "globality/contrast/gyration",
                "flow/contrast/to_cls",
                "globality/cls/gyration/head_max",
                "globality/cls/undefined",
                "replaced/cls/cls_kept_mean",
            )
        ),
        (
            {"values": [PLAIN["values"][0] | {"metric": "replaced/cls/cls_kept_mean/final_block"}]},
            "is none that is measured of a network",
        ),
        (
            {"models": PLAIN["models"] | {"tiny": PLAIN["models"]["tiny"] | {"weights": "there"}}},
            "models.tiny: give timm",
        ),
        ({"size": 30}, "size 30 is no multiple of the patch of tiny, 16"),
    ],
)
def test_what_is_wrong_with_a_file_is_a_line(tmp_path, change, words):
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(PLAIN | change, sort_keys=False))
    with pytest.raises(InputError) as caught:
        read_paper(str(path))
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"paper {path}: ")
    assert "\n" not in str(caught.value)


def test_what_is_no_file_and_no_yaml_is_said(tmp_path):
    with pytest.raises(InputError, match=r"no such file; did you mean 2604\.14433"):
        read_paper("2604.1443")
    path = tmp_path / "paper.yaml"
    for text in ("title: [", "year: 2026-13-01", "[" * 3000):
        path.write_text(text)
        with pytest.raises(InputError, match="is no YAML"):
            read_paper(str(path))
    with pytest.raises(InputError, match="cannot be read"):
        read_paper("~nosuchuser/paper.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_paper(str(tmp_path))


def test_another_network_than_the_papers_is_refused():
    pytest.importorskip("timm")
    paper = Paper.model_validate(PLAIN)
    opened = open_measurable("vit_tiny_patch16_224")
    with pytest.raises(InputError, match="random weights"):
        check_network("tiny", paper.models["tiny"], opened)
    trained = dataclasses.replace(opened, is_random=False)
    check_network("tiny", paper.models["tiny"], trained)
    for change, words in (
        ({"registers": 4}, "has 12 blocks, 16 pixels a patch, 4 registers"),
        ({"has_cls": False}, "no \\[CLS\\]; the paper's"),
        ({"patch_size": 8}, "has 12 blocks, 8 pixels a patch"),
        ({"network": nn.Linear(4000, 2000)}, "0 registers, 8.002 M parameters; the paper's"),
    ):
        with pytest.raises(InputError, match=words):
            check_network("tiny", paper.models["tiny"], dataclasses.replace(trained, **change))
