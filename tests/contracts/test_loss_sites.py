"""A site of the loss is one file and one knob, and nothing else names it."""

import ast
import inspect
import sys

import pytest
import torch

import trainers.method.sites
from orchestrator.cost import cost_of
from tests.trainers.method.test_sites import ALONE, BASE, batch
from trainers import metrics
from trainers.config import LossConfig, override
from trainers.errors import ConfigError
from trainers.evaluation import evaluate
from trainers.method.site import all_sites, sites
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


@pytest.mark.parametrize("name", ["nowhere", "cls"])
def test_further_sites_are_those_without_a_knob(name):
    with pytest.raises(ConfigError, match=f"^loss.further: {name} is no file in .* without a knob"):
        sites(override(BASE, {"loss.further": [[name, 1.0]]}).loss)
