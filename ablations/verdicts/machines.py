"""Whether the runs of a contrast were computed on different machines, in words."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ablations.spec import Hypothesis
from ablations.verdicts.evidence import Run, run_of
from ablations.verdicts.reasons import seed_list


def machines_text(
    hypothesis: Hypothesis, runs: Mapping[tuple[str, int], Run], seeds: Sequence[int]
) -> str:
    """Which seeds pair runs of different devices, versions or workers, by arm; or empty.

    Only runs that have ended count. One that has not recorded its machine differs from one that
    has.
    """
    where: dict[str, list[int]] = defaultdict(list)
    for seed in seeds:
        found = {
            arm: run.machine or "a machine that was not recorded"
            for arm in hypothesis.weights
            if (run := run_of(runs, arm, seed)).status not in ("missing", "failed", "skipped")
        }
        if len(set(found.values())) > 1:
            where[", ".join(f"{arm} on {one}" for arm, one in found.items())].append(seed)
    return "; ".join(
        f"pairs differ in device, versions or workers, {seed_list(seeds)}: {text}"
        for text, seeds in where.items()
    )
