"""A site of the loss is one file and one knob, and nothing else names it."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import trainers.method.sites
from orchestrator.cost import cost_of
from tests.trainers.method.test_sites import ALONE, BASE, batch
from tests.trainers.test_reported import SMALL
from trainers import metrics
from trainers.config import LossConfig, override
from trainers.config.idle import idle
from trainers.errors import ConfigError
from trainers.evaluation import evaluate
from trainers.method.site import all_sites, sites
from trainers.reported import why_missing
from trainers.training import loop, state, step
from trainers.training.state import TrainState
from trainers.training.step import update

ELSEWHERE = {"labels", "koleo"}
"""Losses with a weight that are no self-distillation."""


def test_every_weight_has_a_site():
    described = {name: field.description for name, field in LossConfig.model_fields.items()}
    weights = {name for name, meaning in described.items() if meaning.startswith("weight of")}
    without_file = sorted(weights - set(all_sites()) - ELSEWHERE)
    assert not without_file, f"no such file in trainers/method/sites: {', '.join(without_file)}"


@pytest.mark.parametrize(
    "user", [step, state, loop, metrics, evaluate._Panel, cost_of], ids=lambda u: u.__name__
)
def test_who_uses_sites_does_not_name_one(user):
    tree = ast.parse(inspect.getsource(user))
    named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    named |= {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("loss")
    }
    assert not named & set(all_sites())


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Puts one more file among the sites."""
    package = trainers.method.sites
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])

    def one(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        all_sites.cache_clear()

    yield one
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(f"{package.__name__}.{path.stem}", None)
    all_sites.cache_clear()


CORNER = '''
"""The loss on the patch in the corner."""

from trainers.method.site import PooledSite


class Corner(PooledSite):
    meaning = "the first patch"

    def image(self, features):
        return features.patches[:, 0]


SITE = Corner
'''


def trained(config):
    run = TrainState.fresh(config, ALONE, classes=4)
    made = [update(run, batch(number), config, ALONE) for number in range(2)]
    return [(one.loss, one.gradient_norm) for one in made], run, made[-1].parts


def test_a_site_is_added_in_one_file(add):
    add("corner", CORNER)
    assert list(all_sites())[:4] == ["cls", "patches", "register_token", "fixed_patch"]
    change = {"loss.cls": 0.0, "loss.masked": 1.0, "loss.further": [["corner", 1.0]]}
    config = override(BASE, change)
    assert list(sites(config.loss)) == ["corner", "masked"]
    found, run, parts = trained(config)
    assert {"loss/corner", "loss/corner_target_entropy", "loss/corner_kl"} <= set(parts)
    assert set(run.centers) == {"corner", "masked"}
    same = override(BASE, {"loss.cls": 0.0, "loss.masked": 1.0, "loss.fixed_patch": 1.0,
                           "loss.fixed_patch_place": [-1.0, -1.0]})  # fmt: skip
    expected, other, _ = trained(same)
    assert found == expected
    for one, two in zip(run.teacher.parameters(), other.teacher.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_file_without_a_site_is_one_line(add):
    add("nothing", '"""No site."""\n')
    with pytest.raises(ConfigError, match=r"^trainers\.method\.sites\.nothing must set SITE to a "):
        all_sites()


OWN = {"loss.cls": 0.0, "loss.further": [["corner", 1.0]]}


def test_a_metric_of_a_site_needs_its_weight(add):
    add("corner", CORNER)
    for metric in ("loss/corner", "loss/corner_kl", "loss/corner_target_entropy"):
        assert why_missing(metric, override(BASE, OWN)) == ""
        assert why_missing(metric, BASE) == "corner and its weight in loss.further"
    assert why_missing("loss/cls_kl", override(BASE, OWN)) == "loss.cls above 0"


def test_knobs_of_masks_may_be_read_by_a_site_of_ones_own():
    for knob in ("loss.mask_kind", "loss.mask_share", "loss.mask_probability"):
        assert idle(knob, BASE) == "loss.masked is 0.0"
        assert idle(knob, override(BASE, OWN)) == ""


def test_a_site_of_ones_own_compares_views_too():
    one_view = {"augment.global_crops": 1, "augment.local_crops": 0}
    with pytest.raises(ConfigError, match="must be 2 or more: self-distillation compares views"):
        override(BASE, OWN | one_view)


STUDY = """
name: own
recipe: base.json
seeds: [0]
arms: [hides_more: {loss.mask_share: [0.5, 0.9]}]
hypotheses:
  h: {metric: loss/corner, contrast: [hides_more, baseline], direction: rises, smallest_effect: 1}
"""

RUN = """
import pathlib
import trainers.method.sites
trainers.method.sites.__path__.append("sites")
import torch
from ablations.study.loading import load_study
from trainers.data.image_set import open_images
from trainers.metrics import METRICS
from trainers.reported import why_missing
from trainers.system.world import World
from trainers.training.loop import train

config = load_study(pathlib.Path("study.yaml")).config("hides_more", 0)
reported = set()

class Names:
    def report(self, step, metrics, *, checkpoint=None):
        reported.update(metrics)

train(config, images=open_images(config.data, None), reporter=Names(), resume_from=None,
      world=World(rank=0, size=1, device=torch.device("cpu")), checkpoints=pathlib.Path())
assert "loss/corner" in reported
assert {name for name in METRICS if not why_missing(name, config)} == reported & set(METRICS)
"""


@pytest.mark.slow
def test_a_site_of_ones_own_passes_through_a_study_and_a_run(tmp_path):
    (tmp_path / "sites").mkdir()
    hiding = CORNER.replace("    meaning", "    hides_patches = True\n    meaning")
    (tmp_path / "sites" / "corner.py").write_text(hiding)
    quick = {"evaluation.probes": False, "evaluation.causal_images": 1}
    (tmp_path / "base.json").write_text(override(SMALL, OWN | quick).model_dump_json())
    (tmp_path / "study.yaml").write_text(STUDY)
    home = str(Path(trainers.__file__).parent.parent)
    # Metrics are listed at the first import, so a site is there before it.
    made = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize("name", ["nowhere", "cls"])
def test_further_sites_are_those_without_a_knob(name):
    with pytest.raises(ConfigError, match=f"^loss.further: {name} is no file in .* without a knob"):
        sites(override(BASE, {"loss.further": [[name, 1.0]]}).loss)
