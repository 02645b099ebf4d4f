"""The page for newcomers names places that are there, and every folder."""

import re
from pathlib import Path

import pytest

from tests.contracts.test_layers import HOME, ROOMS

PAGE = (HOME / "docs" / "architecture.md").read_text()
FOLDERS, _, QUESTIONS = PAGE.partition("## Where is …?")
ANSWERS = re.findall(r"^\| (.*\?) \| (.*) \|$", QUESTIONS, re.MULTILINE)


def test_at_least_twenty_questions_have_one_answer_each():
    assert len(ANSWERS) >= 20
    assert len({question for question, _ in ANSWERS}) == len(ANSWERS)
    assert len({path for _, path in ANSWERS}) == len(ANSWERS)


@pytest.mark.parametrize(("question", "answer"), ANSWERS)
def test_the_answer_to_a_question_is_one_path_that_is_there(question, answer):
    (path,) = re.findall("`([^`]*)`", answer)
    assert answer == f"`{path}`"
    assert (HOME / path).is_dir() if path.endswith("/") else (HOME / path).is_file()


def test_every_folder_is_described_once():
    described = re.findall(r"`([a-z]+/[a-z]+)/`", FOLDERS)
    there = {
        f"{top}/{name}"
        for top, order in ROOMS.items()
        for names in order
        for name in names
        if Path(name).suffix == ""
    }
    assert sorted(described) == sorted(there)


def test_every_path_in_the_picture_is_there():
    picture = PAGE[PAGE.index("```mermaid") : PAGE.index("## Folders")]
    paths = re.findall(r"\b(?:trainers|ablations|dashboards|orchestrator)/[\w/.]+\w", picture)
    assert paths
    for path in paths:
        assert (HOME / path).exists(), path


def test_every_path_in_the_guide_for_contributors_is_there():
    guide = (HOME / "CONTRIBUTING.md").read_text()
    tops = "trainers|ablations|dashboards|orchestrator|tests|docs|benchmarks"
    paths = [path for path in re.findall(rf"`((?:{tops})/[\w/.]*)`", guide) if "NAME" not in path]
    assert len(paths) > 20
    for path in paths:
        assert (HOME / path).exists(), path
