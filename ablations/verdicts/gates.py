"""Whether arms show what their gates ask, on average over seeds."""

import math
import types
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ablations.spec import Gate
from ablations.verdicts.evidence import Run, run_of, value_of
from ablations.verdicts.reasons import seed_list

NO_REFERENCES: Mapping[str, float] = types.MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one arm shows of what a gate asks."""

    mean: float | None
    """Mean over the seeds that have a number; None without any."""
    seeds_without: tuple[int, ...]
    """Seeds that have no finite number; with one of them the gate is missed."""
    passed: bool
    reference: float | None = None
    """What the mean must be `at_least` above; None where it is nothing, or was not measured."""

    def to_json(self) -> dict[str, Any]:
        """Fields by name as JSON types."""
        return {**asdict(self), "seeds_without": list(self.seeds_without)}


def measure_gates(
    gates: Mapping[str, Gate],
    runs: Mapping[tuple[str, int], Run],
    seeds: Sequence[int],
    references: Mapping[str, float] = NO_REFERENCES,
) -> dict[str, dict[str, Measured]]:
    """Of each gate by name, what each of its arms shows; each arm is checked alone.

    `references` are accuracies of the data alone, by what `at_least_over` calls them. A gate over
    one that was not measured is missed.
    """
    return {
        name: {arm: _measured(gate, arm, runs, seeds, references) for arm in gate.arms}
        for name, gate in gates.items()
    }


def _measured(
    gate: Gate,
    arm: str,
    runs: Mapping[tuple[str, int], Run],
    seeds: Sequence[int],
    references: Mapping[str, float],
) -> Measured:
    ran = [seed for seed in seeds if run_of(runs, arm, seed).status != "skipped"]
    values = {
        seed: value_of(run_of(runs, arm, seed), gate.metric, gate.since_start) for seed in ran
    }
    numbers = [value for value in values.values() if value is not None]
    mean = math.fsum(numbers) / len(numbers) if numbers else None
    without = tuple(seed for seed, value in values.items() if value is None)
    reference = references.get(gate.reference)
    # A difference, so that a margin of 0.1 over 0.2 is not missed by the rounding of their sum.
    above = mean if mean is None or reference is None else mean - reference
    known = reference is not None or not gate.reference
    passed = above is not None and not without and known and above >= gate.at_least
    return Measured(mean=mean, seeds_without=without, passed=passed, reference=reference)


def missed_gates(
    gates: Mapping[str, Gate],
    measured: Mapping[str, Mapping[str, Measured]],
    runs: Mapping[tuple[str, int], Run],
) -> dict[str, list[str]]:
    """For each arm that misses a gate, one line for each gate it misses.

    A value that is not there because its run has ended otherwise is said to be so.
    """
    missed: dict[str, list[str]] = defaultdict(list)
    for name, arms in measured.items():
        gate = gates[name]
        metric = f"{gate.metric} minus step 0" if gate.since_start else gate.metric
        for arm, found in arms.items():
            start = f"gate {name}: {arm} has"
            if found.seeds_without:
                lack = seed_list(found.seeds_without)
                ended = [run_of(runs, arm, seed) for seed in found.seeds_without]
                how = {f"{run.status} {run.reason}".strip(): None for run in ended}
                how.pop("finished", None)
                why = f" ({'; '.join(how)})" if how else ""
                missed[arm].append(f"{start} no finite {metric}, {lack}{why}")
            elif gate.reference and found.reference is None:
                missed[arm].append(
                    f"{start} nothing to be above: the {gate.reference} of the data were not "
                    "measured when the study was stated"
                )
            elif found.mean is None:
                # A sequential design that goes on may have none of a gated arm yet.
                missed[arm].append(f"{start} no run yet at these seeds")
            elif not found.passed:
                shown = f"mean {metric} {found.mean:.4g}"
                over = f" over {gate.reference}, {found.reference:.4g}" if gate.reference else ""
                missed[arm].append(f"{start} {shown}, below {gate.at_least:g}{over}")
    return missed
