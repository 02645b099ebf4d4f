"""Verdicts of simulated studies are wrong as seldom as they promise; few replicates, four errors.

Random numbers are fixed, so it either holds or does not.
"""

import numpy as np
import pytest

from benchmarks.calibration import PARTS, figures, line
from benchmarks.simulated import Figure, compared, exponential, hypothesis, normal, share

REPLICATES = {"false positives": 50, "whole studies": 200, "sequential": 20, "always valid": 40}


@pytest.mark.parametrize("part", [part for part in PARTS if part != "skew"])
def test_promises_are_kept(part):
    found = figures(part, REPLICATES.get(part, 100))
    assert found
    for figure in found:
        assert figure.is_kept(errors=4), line(figure)


def test_skew_is_known_to_break_the_promise_of_sign_flips():
    differences = exponential(np.random.default_rng(0), 800, 8)
    verdicts = compared(differences, hypothesis("arm", "differs", 1e-6))
    found = share("p", 8, "≤", 0.05, [verdict.p_adjusted <= 0.05 for verdict in verdicts])
    assert not found.is_kept(errors=3)
    assert "**missed**" in line(found)


def test_a_judge_that_errs_too_often_would_be_seen():
    wrong = compared(
        normal(np.random.default_rng(0), 300, 8) + 0.5, hypothesis("arm", "differs", 1e-6)
    )
    hits = [verdict.p_adjusted <= 0.05 for verdict in wrong]
    assert not share("p", 8, "=", 12 / 256, hits).is_kept(errors=4)


@pytest.mark.parametrize(
    ("kind", "found", "kept"),
    [
        ("=", 0.9, False), ("=", 1.0, True), ("=", 1.1, False),
        ("≤", 0.9, True), ("≤", 1.1, False), ("≥", 0.9, False), ("≥", 1.1, True),
    ],
)  # fmt: skip
def test_an_exact_promise_is_kept_to_the_letter(kind, found, kept):
    assert Figure("", 8, kind, 1.0, found, 0.0, 1).is_kept() == kept


def test_the_same_numbers_come_out_again():
    assert figures("claims", 20) == figures("claims", 20)
