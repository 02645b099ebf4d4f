"""What the gates of a study are compared with is measured when the study is stated."""

from dataclasses import replace
from pathlib import Path

import pytest

import ablations.studies
from ablations.spec import Gate
from ablations.study.loading import load_study
from orchestrator.references import references_of
from trainers.data.image_set import open_images

STUDY = load_study(Path(ablations.studies.__file__).parent / "demo.yaml")


def test_what_no_gate_asks_for_is_not_measured():
    assert references_of(STUDY, open_images(STUDY.base.data, None)) == {}


@pytest.mark.slow
def test_pixels_of_the_digits_are_hard_to_beat():
    gate = Gate(arms=("baseline",), metric="knn/cls_top1", at_least=0.0, at_least_over="pixels")
    study = replace(STUDY, gates={"g": gate})
    found = references_of(study, open_images(study.base.data, None))
    assert found == {"pixels": pytest.approx(0.975, abs=0.003)}
