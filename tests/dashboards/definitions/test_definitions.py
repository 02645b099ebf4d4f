"""Labels, tags and words are defined once, with a picture of which the rule says the same."""

import dataclasses
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import get_args

import pytest

from ablations.stated import WORDS as ALL_WORDS
from ablations.verdicts.rule import Label, Tag
from dashboards.definitions.__main__ import PAGE, PICTURES, write
from dashboards.definitions.examples import EXAMPLES, MOMENTS, word_of
from dashboards.definitions.picture import SCALE, picture
from dashboards.definitions.text import DEFINITIONS, LABELS, READING, TAGS, WORDS
from dashboards.figures.style import LABEL_COLOURS

DOCS = Path(__file__).parents[3] / "docs"


def test_every_label_tag_and_word_is_defined_and_has_an_example():
    assert set(LABELS) == set(get_args(Label))
    assert set(TAGS) == set(get_args(Tag))
    assert tuple(WORDS) == ALL_WORDS
    assert set(EXAMPLES) | set(MOMENTS) == set(DEFINITIONS)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_definition_is_two_sentences(name):
    assert len(re.findall(r"[.](?: |$)", DEFINITIONS[name])) == 2


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_rule_says_of_each_example_what_it_is_an_example_of(name):
    for example in EXAMPLES[name]:
        verdict = example.judged()
        assert name in (verdict.label, *verdict.tags)
        assert all(
            abs(x) < SCALE.edge for x in (*example.control, *filter(None, example.differences))
        )


@pytest.mark.parametrize("label", get_args(Label))
def test_an_example_that_is_judged_otherwise_is_refused(label):
    for example in EXAMPLES[label]:
        for other in {*get_args(Label)} - {label}:
            with pytest.raises(ValueError, match=f"example of {other} .* judged {label}"):
                dataclasses.replace(example, label=other).judged()


def test_a_word_follows_from_what_happened_in_which_order():
    assert word_of(("results", "stated")) == "exploratory"
    for word, moments in MOMENTS.items():
        assert word_of(moments) == word


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_picture_is_drawn_with_a_mark_for_each_seed(name):
    root = ElementTree.fromstring(picture(name))
    drawn = root.findall(".//{*}circle")
    seeds = [one for example in EXAMPLES.get(name, ()) for one in example.differences]
    controls = [one for example in EXAMPLES.get(name, ()) for one in example.control]
    assert len(drawn) == len([one for one in seeds if one is not None]) + len(controls)
    assert root.get("aria-label")
    assert name in [text.text.split(", ")[-1] for text in root.findall(".//{*}text")] or (
        [text.text for text in root.findall(".//{*}text")][:-1] == list(MOMENTS.get(name, ()))
    )
    if name in LABEL_COLOURS:
        assert f'stroke="{LABEL_COLOURS[name]}"' in picture(name)


def test_the_page_and_its_pictures_are_those_that_the_command_writes(tmp_path):
    shutil.copy(DOCS / PAGE, tmp_path)
    write(tmp_path)
    assert READING in (DOCS / PAGE).read_text(encoding="utf-8")
    again = "`python -m dashboards.definitions docs` makes them again"
    assert (tmp_path / PAGE).read_bytes() == (DOCS / PAGE).read_bytes(), again
    made = {path.name: path.read_bytes() for path in (tmp_path / PICTURES).iterdir()}
    assert made == {path.name: path.read_bytes() for path in (DOCS / PICTURES).iterdir()}, again


def test_a_page_without_a_heading_of_a_definition_is_refused(tmp_path):
    text = (DOCS / PAGE).read_text(encoding="utf-8").replace("### opposite\n", "")
    (tmp_path / PAGE).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="0 headings `### opposite`"):
        write(tmp_path)
