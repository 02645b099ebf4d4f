"""Exact tests and intervals of how often something happened: a run collapsed, or did not."""

import functools

import scipy.stats

Interval = tuple[float, float]


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value that two arms of the same seeds have it equally often, in (0, 1].

    Given are the seeds at which only the first arm has it, and only the second; the others say
    nothing (McNemar 1947). It is 1 where there are none, and 2 / 2**n at the least.
    """
    differing = only_first + only_second
    if min(only_first, only_second) < 0:
        raise ValueError(f"seeds cannot be fewer than 0, got {only_first} and {only_second}")
    if differing == 0:
        return 1.0
    return float(scipy.stats.binomtest(only_first, differing).pvalue)


def fisher_p(first: int, of_first: int, second: int, of_second: int) -> float:
    """Two-sided exact p-value that two arms without common seeds have it equally often, in (0, 1].

    first of of_first runs of one arm have it, second of of_second of the other (Fisher 1935).
    """
    for count, total in ((first, of_first), (second, of_second)):
        _check(count, total)
    table = [[first, of_first - first], [second, of_second - second]]
    return float(scipy.stats.fisher_exact(table).pvalue)


@functools.lru_cache(maxsize=1024)
def clopper_pearson(count: int, total: int, alpha: float) -> Interval:
    """Interval at level 1 - alpha of a chance of which count of total >= 1 trials were hits.

    Clopper & Pearson (1934): it covers at least as often as it says.
    """
    _check(count, total)
    found = scipy.stats.binomtest(count, total).proportion_ci(1 - alpha, method="exact")
    return float(found.low), float(found.high)


def _check(count: int, total: int) -> None:
    if not (total >= 1 and 0 <= count <= total):
        raise ValueError(f"a share must be of 1 or more, and within them, got {count} of {total}")
