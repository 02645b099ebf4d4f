"""The user pages define every metric, and every label and tag."""

import re
from pathlib import Path
from typing import get_args

import pytest

from ablations.spec import Direction, Hypothesis
from ablations.verdicts.rule import Label, Tag
from trainers.globality.descriptions import GROUPS
from trainers.method.site import all_sites
from trainers.metrics import METRICS

HOME = Path(__file__).parent.parent
SUFFIXES = {"_target_entropy", "_kl", ""}


def defined(page):
    """What the first cell of each row of the page's tables defines."""
    rows = (HOME / "docs" / page).read_text().splitlines()
    return {
        name
        for row in rows
        if row.startswith("| `")
        for name in re.findall(r"`([^`]+)`", row.split("|")[1])
    }


def is_defined(name, page, rows):
    """Whether the page has the name, or every part of it."""
    group, *parts = name.split("/")
    if name in rows:
        return True
    if group == "loss":
        sites_of = [s for s in all_sites() if parts[0].removeprefix(s) in SUFFIXES]
        return any(
            f"loss/<site>{parts[0].removeprefix(site)}" in rows and f"`{site}`" in page
            for site in sites_of
        )
    if group in GROUPS and len(parts) > 1:
        token, measure, *suffix = parts
        return {group, token, measure} <= rows and all(f"`{one}`" in page for one in suffix)
    return name == "globality/undefined" and f"`{name}`" in page


def test_every_metric_is_defined():
    page, rows = (HOME / "docs" / "metrics.md").read_text(), defined("metrics.md")
    assert [name for name in METRICS if not is_defined(name, page, rows)] == []
    for gone in ("gyration", "collapse/kl", "cls", "loss/<site>_kl"):
        assert any(not is_defined(name, page, rows - {gone}) for name in METRICS)


@pytest.mark.parametrize(
    "word", [*get_args(Label), *get_args(Tag), *get_args(Direction), "all", "any"]
)
def test_every_label_tag_direction_and_rule_is_on_the_page(word):
    assert f"`{word}`" in (HOME / "docs" / "statistics.md").read_text()


def test_labels_stand_on_the_page_in_the_order_of_the_rule():
    page = (HOME / "docs" / "statistics.md").read_text()
    section = page[page.index("## Labels") : page.index("For `holds` (no change")]
    numbered = re.findall(r"^\d\. `([a-z]+)`", section, re.MULTILINE)
    assert numbered == [
        "failed", "inconclusive", "insensitive", "supported", "equivalent", "refuted",
        "inconclusive",
    ]  # fmt: skip


@pytest.mark.parametrize("label", get_args(Label))
def test_every_label_is_defined_in_two_sentences_under_a_heading_of_its_own(label):
    page = (HOME / "docs" / "statistics.md").read_text()
    definition = page.split(f"\n### {label}\n\n")[1].split("\n\n")[0]
    assert len(re.findall(r"[.](?: |$)", definition)) == 2


def test_defaults_on_the_page_are_those_of_the_code():
    page = (HOME / "docs" / "statistics.md").read_text()
    assert f"`alpha` ({Hypothesis.model_fields['alpha'].default:g} if not stated)" in page


def test_nothing_that_users_read_names_sections_they_do_not_have():
    section = re.compile(
        r"METRICS (?:[A-Z]\.\d|M\d|finding)|METRICS, (?:claim|finding|layer)|\(M\d+(?: [BC])?\)"
    )
    folders = ("trainers", "ablations", "dashboards", "orchestrator", "benchmarks", "docs")
    for folder in folders:
        for path in (HOME / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".jinja", ".md") or "schema" in path.name:
                found = section.search(path.read_text(encoding="utf-8"))
                assert not found, f"{path}: {found and found[0]}"
