"""Trials + how each stands -> which to launch, what to wait for, or why to stop; pure.

Of a sequential design only some of the trials are needed, which follows from what the others have
measured: see `needed`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from ablations.design import Design
    from ablations.spec import Gate, Hypothesis, Multiplicity
    from ablations.verdicts.evidence import Run
    from ablations.verdicts.looks import Followed

Standing = Literal["finished", "running", "held", "resting", "failed"]
"""How a trial stands: finished; running here; held elsewhere, with a lease that is alive; resting
after an attempt that failed, to be tried again; failed for good. Any other is open."""


class Keyed(Protocol):
    """What a schedule needs to know of a trial."""

    @property
    def key(self) -> str: ...


class Placed(Keyed, Protocol):
    """What a sequential design needs to know of a trial besides."""

    @property
    def arms(self) -> tuple[str, ...]: ...

    @property
    def seed(self) -> int: ...


One = TypeVar("One", bound=Keyed)
Paired = TypeVar("Paired", bound=Placed)


@dataclass(frozen=True, kw_only=True)
class Sequential:
    """What decides which trials of a study are needed."""

    design: "Design"
    hypotheses: "Mapping[str, Hypothesis]"
    gates: "Mapping[str, Gate]"
    multiplicity: "Multiplicity"
    references: Mapping[str, float]
    """of gates: accuracies of the data alone"""
    seeds: tuple[int, ...]
    costs: Mapping[str, float]
    """of a run of each arm, in operations"""


@dataclass(frozen=True, kw_only=True)
class Launch(Generic[One]):
    """Trials that may start now, the first first; as many as there is room for."""

    trials: tuple[One, ...]


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Nothing may start now; how many trials run here, are held elsewhere, or rest."""

    running: int = 0
    held: int = 0
    resting: int = 0

    def __str__(self) -> str:
        parts = {
            "running here": self.running,
            "held by another dinolab": self.held,
            "to be tried again": self.resting,
        }
        return ", ".join(f"{number} {what}" for what, number in parts.items() if number)


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Nothing is left to do, and why."""

    reason: str


def next(  # noqa: A001 (`schedule.next` is what it is called everywhere)
    trials: Sequence[One], standings: Mapping[str, Standing]
) -> Launch[One] | Wait | Stop:
    """What to do next with trials that are all needed, which start in the order they come in.

    `standings` has the key of each trial that is not open.
    """
    if ready := tuple(trial for trial in trials if trial.key not in standings):
        return Launch(trials=ready)
    number = Counter(standings[trial.key] for trial in trials)
    if number["running"] or number["held"] or number["resting"]:
        return Wait(running=number["running"], held=number["held"], resting=number["resting"])
    if failed := number["failed"]:
        return Stop(reason=f"{failed} of {len(trials)} trials failed for good")
    return Stop(reason=f"all {len(trials)} trials are finished")


def looked(
    sequential: Sequential, runs: "Mapping[tuple[str, int], Run]"
) -> "Mapping[str, Followed]":
    """Each hypothesis as the looks that `runs` allow leave it."""
    # Imported here: a fixed design needs no statistics, which take a second to load.
    from ablations.verdicts.looks import follow

    return follow(
        sequential.hypotheses,
        sequential.gates,
        runs,
        sequential.seeds,
        sequential.design,
        multiplicity=sequential.multiplicity,
        references=sequential.references,
        advise=False,
    )


def needed(
    trials: Sequence[Paired],
    sequential: Sequential,
    runs: "Mapping[tuple[str, int], Run]",
    followed: "Mapping[str, Followed] | None" = None,
) -> tuple[Paired, ...]:
    """Those of `trials` that are needed, as far as `runs` say, in the order in which to start.

    All arms of a hypothesis run at the seeds of its next look; none of them goes further before
    that look has been decided with all of their runs, and none once it is decided. Arms of no
    hypothesis run at all seeds, last. What has started goes on, whatever is needed.

    Args:
        trials: candidates; any others are left to whoever has them.
        sequential: what is to be decided, how, and what a run costs.
        runs: by arm and seed, those that have a result, or have failed for good.
        followed: what `looked` has found of `runs`, if it has been asked.
    """
    followed = looked(sequential, runs) if followed is None else followed
    found = {(arm, trial.seed): trial for trial in trials for arm in trial.arms}
    ordered = (found[place] for place in _places(sequential, runs, followed) if place in found)
    return tuple({trial.key: trial for trial in ordered}.values())


def _places(
    sequential: Sequential,
    runs: "Mapping[tuple[str, int], Run]",
    followed: "Mapping[str, Followed]",
) -> Iterator[tuple[str, int]]:
    """Each (arm, seed) that is needed, the first first; some come twice."""
    from ablations.verdicts.looks import unnamed

    hypotheses, seeds = sequential.hypotheses, sequential.seeds
    undecided = [name for name, one in followed.items() if not one.is_decided]
    begun = [name for name in undecided if followed[name].verdict.looks]
    begun.sort(key=lambda name: -_worth(name, followed[name], sequential, runs))
    # Before its first look nothing is known of a hypothesis: seeds come one after another.
    first = [name for name in undecided if name not in begun]
    for names in (first, *([name] for name in begun)):
        for seed in seeds:
            for name in names:
                if seed in followed[name].wants:
                    yield from ((arm, seed) for arm in hypotheses[name].arms)
    for seed in seeds:
        yield from ((arm, seed) for arm in unnamed(hypotheses, sequential.costs))


def _worth(
    name: str,
    one: "Followed",
    sequential: Sequential,
    runs: "Mapping[tuple[str, int], Run]",
) -> float:
    """Information per operation of the runs that a hypothesis lacks to its next look.

    That of a pair is the square of the smallest effect over the variance of differences.
    """
    hypothesis, deviation = sequential.hypotheses[name], one.verdict.standard_deviation
    lacking = [
        (arm, seed) for arm in hypothesis.arms for seed in one.wants if (arm, seed) not in runs
    ]
    cost = sum(sequential.costs[arm] for arm, _ in lacking)
    if not deviation or not cost:
        return float("inf")
    pairs = len({seed for _, seed in lacking})
    return pairs * (hypothesis.smallest_effect / deviation) ** 2 / cost
