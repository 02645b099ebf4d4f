"""p-values of several tests, adjusted for their number."""

from collections import defaultdict
from collections.abc import Mapping

from statsmodels.stats.multitest import multipletests


def holm(
    counted: Mapping[str, tuple[str, float]],
) -> tuple[dict[str, float], dict[str, int]]:
    """Holm-adjusted p by name and the size of each family, from (family, p) by name."""
    families: dict[str, list[str]] = defaultdict(list)
    for name, (family, _) in counted.items():
        families[family].append(name)
    adjusted: dict[str, float] = {}
    for names in families.values():
        corrected = multipletests([counted[name][1] for name in names], method="holm")[1]
        adjusted |= zip(names, map(float, corrected), strict=True)
    return adjusted, {family: len(names) for family, names in families.items()}
