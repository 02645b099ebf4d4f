"""The table of docs/recipes.md is what the recipes are."""

import re
from pathlib import Path

import pytest

from trainers.config import flatten
from trainers.config.recipe import recipe
from trainers.config.values import read_yaml

PAGE = Path(__file__).parents[3] / "docs" / "recipes.md"


def table():
    rows = [
        line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("|")
    ]
    head, _, *body = [[cell.strip() for cell in row] for row in rows]
    return head, body


NAMES = [cell.strip("`") for cell in table()[0][1:4]]


@pytest.mark.parametrize("name", NAMES)
def test_the_table_says_what_a_recipe_sets(name):
    head, body = table()
    column = head.index(f"`{name}`")
    said = {row[0].strip("`"): row[column] for row in body if row[0].startswith("`")}
    is_set = flatten(recipe(name))
    assert {knob: is_set[knob] for knob in said} == {
        knob: read_yaml(re.sub(r" \(.*\)", "", cell)) for knob, cell in said.items()
    }


def test_every_knob_in_which_the_published_recipes_differ_is_in_the_table():
    recipes = [flatten(recipe(name)) for name in NAMES]
    said = {row[0].strip("`") for row in table()[1]}
    differing = {knob for knob in recipes[0] if len({str(one[knob]) for one in recipes}) > 1}
    assert differing - said == {"evaluation.every"}


def test_the_vanilla_run_has_the_published_steps():
    from trainers.config import in_steps

    config = in_steps(recipe("dino_vit_small_16"), 1_281_167)
    # 100 epochs of 2,502 full batches; the rest of an epoch is not dropped here.
    assert config.steps == pytest.approx(100 * 2502, rel=2e-4)
    assert config.optimizer.learning_rate == 0.0005 * 512 / 256
