"""What is said of a predicted difference that is excluded."""

from dataclasses import replace

import pytest
import scipy.stats

from ablations.spec import Hypothesis
from ablations.verdicts.evidence import Pair
from ablations.verdicts.reasons import decided
from ablations.verdicts.rule import Control, Largest
from ablations.verdicts.summaries import summary_of

UNDECLARED = Control(found="undeclared")


def told(direction, *differences, least_p=0.0, control=UNDECLARED, largest=None):
    """Label and reason of a hypothesis with these differences, whose smallest effect is 1."""
    stated = Hypothesis(
        metric="m", contrast=("a", "baseline"), direction=direction, smallest_effect=1.0
    )
    pairs = [Pair(seed, d, 0.0, d) for seed, d in enumerate(differences)]
    label, _, reason = decided(
        stated,
        summary_of(stated, pairs),
        0.5,
        largest=largest,
        control=control,
        least_p=least_p,
    )
    return label, reason


SMALL = (0.1, 0.2, 0.3, 0.2, 0.1, 0.3)
WIDE = (-1.9, 1.0, -0.9, -1.2, 0.9, -0.1)
FAR = (-2.1, -1.9, -2.0, -2.2, -1.8, -2.0)
BUT = ", but the least p of so many signs is 0.1"


def turned(differences):
    return [-one for one in differences]


def test_an_excluded_effect_is_said_to_be_less_than_s():
    for label, reason in (told("rises", *SMALL), told("falls", *turned(SMALL))):
        assert label == "refuted"
        assert reason.endswith(": less than 1 throughout")


@pytest.mark.parametrize(
    ("differences", "says"),
    [
        (WIDE, ": a {} would be less than 1 throughout"),
        (FAR, ", the opposite of the prediction"),
    ],
)
def test_what_goes_against_the_prediction_says_so_and_what_signs_cannot_show(differences, says):
    for direction, noun, given in (
        ("rises", "rise", differences),
        ("falls", "fall", turned(differences)),
    ):
        label, reason = told(direction, *given)
        assert label == "refuted"
        assert reason.endswith(says.format(noun))
        label, reason = told(direction, *given, least_p=0.1)
        assert label == "inconclusive"
        assert reason.endswith(says.format(noun) + BUT)


def test_a_change_where_none_was_predicted_is_said_to_be_outside_only_where_it_is():
    label, reason = told("holds", *FAR, least_p=0.1)
    assert label == "inconclusive"
    assert reason.endswith("is outside ±1" + BUT)
    label, reason = told("holds", *WIDE, least_p=0.1)
    assert label == "inconclusive"
    assert reason.endswith("not outside")


def ends(differences, level):
    """Student's interval of their mean, as scipy has it."""
    low, high = scipy.stats.ttest_1samp(differences, 0).confidence_interval(level)
    return f"{100 * level:.0f} % interval [{low:.3g}, {high:.3g}]"


def test_intervals_are_said_with_the_level_that_decides():
    weak = Largest(0.5, "far")
    for direction, given, largest, says in (
        ("holds", SMALL, None, f"changes by 0.2; {ends(SMALL, 0.9)} is inside ±1, but no control"),
        ("holds", FAR, None, f"changes by -2; {ends(FAR, 0.95)} is outside ±1"),
        (
            "holds",
            WIDE,
            None,
            f"changes by -0.367; {ends(WIDE, 0.9)} is not inside ±1, and {ends(WIDE, 0.95)} not "
            "outside",
        ),
        (
            "holds",
            SMALL,
            weak,
            f"changes by 0.2, {ends(SMALL, 0.95)}; no arm moves this end point by 1: the largest "
            "effect is 0.5 (far)",
        ),
        ("falls", FAR, None, f"falls by 2, {ends(turned(FAR), 0.95)}: mean at least 1, but p 0.5"),
        ("rises", FAR, None, f"falls by 2, {ends(turned(FAR), 0.95)}, the opposite of the "),
    ):
        assert told(direction, *given, largest=largest)[1].startswith(says)


def test_what_is_small_but_not_0_says_so_with_its_adjusted_p():
    differs = Control(found="differs")
    pairs = [Pair(seed, d, 0.0, d) for seed, d in enumerate(SMALL)]
    for direction, largest, label, says in (
        ("holds", None, "supported", f"{ends(SMALL, 0.9)} is inside ±1, though not 0 (p 0.01, n)"),
        ("rises", None, "equivalent", f"{ends(SMALL, 0.9)} is inside ±1, though not 0 (p 0.01, n)"),
        ("falls", None, "equivalent", "inside ±1, though against the prediction (p 0.01, n)"),
        ("holds", Largest(0.5, "far"), "insensitive", ", though not 0 (p 0.01, n); no arm moves"),
    ):
        stated = Hypothesis(
            metric="m", contrast=("a", "baseline"), direction=direction, smallest_effect=1.0
        )
        found, _, reason = decided(
            stated, summary_of(stated, pairs), 0.01, ", n", largest=largest, control=differs
        )
        assert found == label
        assert says in reason


@pytest.mark.parametrize("direction", ["rises", "falls"])
def test_no_difference_at_all_is_no_opposite_of_the_prediction(direction):
    label, reason = told(direction, *[0.0] * 6)
    assert label == "refuted"
    assert reason.startswith(f"{direction} by 0, 95 % interval ")
    assert reason.endswith("0]: less than 1 throughout")


@pytest.mark.parametrize("least_p", [0.0, 0.1])
def test_exactly_the_smallest_effect_is_as_large_as_predicted(least_p):
    label, reason = told("rises", *[1.0] * 6, least_p=least_p)
    assert label == "inconclusive"
    assert reason == "rises by 1, 95 % interval [1, 1]: mean at least 1, but p 0.5"


def test_a_least_p_of_exactly_alpha_is_small_enough():
    label, reason = told("rises", *FAR, least_p=0.05)
    assert label == "refuted"
    assert reason.endswith(", the opposite of the prediction")


def test_an_interval_from_exactly_0_does_not_exclude_it():
    stated = Hypothesis(
        metric="m", contrast=("a", "baseline"), direction="rises", smallest_effect=1.0
    )
    pairs = [Pair(seed, d, 0.0, d) for seed, d in enumerate((0.5, 1.5) * 3)]
    summary = summary_of(stated, pairs)
    for low, says in ((0.0, "excludes neither 0 nor 1"), (0.1, "mean at least 1, but p 0.5")):
        found = decided(stated, replace(summary, interval=(low, 2.0)), 0.5)
        assert (found[0], found[2].endswith(f": {says}")) == ("inconclusive", True)


def test_an_arm_that_moves_the_end_point_by_exactly_the_smallest_effect_moves_it():
    alike = Control(found="alike", mean=0.1, interval=(-0.2, 0.4))
    for effect, moves in ((1.0, True), (0.99, False)):
        label, reason = told("holds", *SMALL, control=alike, largest=Largest(effect, "far"))
        assert label == "insensitive"
        assert ("no arm moves this end point by 1" in reason) != moves
        assert ("its control does not differ enough" in reason) == moves


@pytest.mark.parametrize("end", [-1.0, 1.0])
def test_an_interval_that_ends_at_the_margin_is_not_inside_it(end):
    # Equal differences: the intervals are their mean.
    label, reason = told("holds", *[end] * 6, least_p=0.1)
    assert label == "inconclusive"
    assert reason.endswith("is outside ±1" + BUT)


def test_what_is_small_is_said_with_nothing_between_its_interval_and_its_control():
    label, reason = told("holds", *SMALL)
    assert label == "inconclusive"
    assert " is inside ±1, but no control was declared: " in reason
    assert reason.endswith(" would tell a difference of 1")


@pytest.mark.parametrize(
    ("control", "says"),
    [
        (UNDECLARED, ", but no control was declared: nothing shows that this end point would tell"),
        (Control(found="missing"), ", but its control has not finished with a number at every"),
        (
            Control(found="alike", mean=0.1, interval=(-0.2, 0.4)),
            ", but its control does not differ enough either: by 0.1 [-0.2, 0.4]",
        ),
        (
            Control(found="differs", mean=1.5, interval=(1.25, 2.0)),
            "; its control differs by 1.5 [1.25, 2]",
        ),
    ],
)
def test_a_small_effect_is_told_with_what_its_control_shows(control, says):
    assert says in told("holds", *SMALL, control=control)[1]


def test_of_a_control_that_differs_without_a_number_nothing_is_added():
    assert told("holds", *SMALL, control=Control(found="differs"))[1].endswith("is inside ±1")
