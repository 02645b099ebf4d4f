"""Which statistics suit an end point."""

import pytest

from ablations.spec import Hypothesis
from ablations.statistics.summary import summarise
from ablations.verdicts.evidence import Pair
from ablations.verdicts.summaries import summary_of

DIFFERENCES = (0.3, 1.2, 0.8, -0.1, 0.9, 0.5)
PAIRS = [*(Pair(seed, d, 0.0, d) for seed, d in enumerate(DIFFERENCES)), Pair(6, 1.0, None, None)]


@pytest.mark.parametrize("test", ["signflip", "t"])
@pytest.mark.parametrize("given", [{}, {"same_trial": True}, {"inverted": False}])
def test_pairs_without_a_difference_are_left_out_and_all_else_is_as_stated(test, given):
    stated = Hypothesis(
        metric="m", contrast=("a", "b"), direction="rises", smallest_effect=0.7, alpha=0.1,
        test=test,
    )  # fmt: skip
    found = summary_of(stated, PAIRS, **given)
    assert found == summarise(DIFFERENCES, alpha=0.1, margin=0.7, test=test, **given)
    assert (found.interval_inversion is None) == ("inverted" in given)
