"""p-values of several tests, adjusted for their number."""

from collections import defaultdict
from collections.abc import Mapping

from statsmodels.stats.multitest import multipletests


def holm(counted: Mapping[str, tuple[str, float]]) -> dict[str, float]:
    """Holm-adjusted p by name, from (family, p) by name; each family is adjusted alone."""
    families: dict[str, list[str]] = defaultdict(list)
    for name, (family, _) in counted.items():
        families[family].append(name)
    adjusted: dict[str, float] = {}
    for names in families.values():
        corrected = multipletests([counted[name][1] for name in names], method="holm")[1]
        adjusted |= zip(names, map(float, corrected), strict=True)
    return adjusted
