"""Are verdicts wrong as seldom as they promise?

    python -m benchmarks.calibration [--replicates 2000] [--studies 10000]

Simulated studies of known truth go through `judge` and `judge_claims`, as those of runs do. Each
line is a promise, how often it held or failed, its standard error, and whether the two agree within
three. Studies are independent of each other: each has metrics and families of its own.
"""

import argparse
import functools
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.random import Generator

from ablations.spec import Claim
from ablations.statistics.e_process import anytime_p, e_values
from ablations.statistics.power import tost_power
from ablations.verdicts.judge import Verdict
from ablations.verdicts.rule import Label
from benchmarks.followed import always_valid, sequential
from benchmarks.simulated import (
    ALPHA,
    CONTINUOUS,
    DISCRETE,
    Figure,
    Kept,
    compared,
    exponential,
    hypothesis,
    normal,
    share,
    studies,
)

SEEDS = (6, 8, 10, 16)

# What is promised


def attained(n: int, alpha: float = ALPHA) -> float:
    """The chance at which n signs reject at alpha: the multiple of 2 / 2**n below it."""
    return math.floor(alpha * 2**n / 2) * 2 / 2**n


def false_positives(k: int, rng: Generator) -> Iterator[Figure]:
    """p at most alpha, and intervals that leave out 0, where nothing is there."""
    for (name, draw), n in itertools.product({**CONTINUOUS, **DISCRETE}.items(), SEEDS):
        verdicts = compared(draw(rng, k, n), hypothesis("arm", "differs", 1e-6))
        hits = [(one.p_adjusted or 0.0) <= ALPHA for one in verdicts]
        kind: Kept = "=" if name in CONTINUOUS else "≤"
        yield share(f"p ≤ 0.05, no effect, {name}", n, kind, attained(n), hits)
        if name in ("normal", "t3"):
            yield from coverage(name, n, verdicts)
    for n in SEEDS:
        verdicts = compared(normal(rng, k, n), hypothesis("arm", "differs", 1e-6, test="t"))
        hits = [one.label == "supported" for one in verdicts]
        yield share("supported by t, no effect, normal", n, "=", ALPHA, hits)


def coverage(name: str, n: int, verdicts: list[Verdict]) -> Iterator[Figure]:
    """Intervals that cover a true mean of 0."""
    by_t, narrow, inverted = (
        [ends is not None and ends[0] <= 0 <= ends[1] for ends in found]
        for found in (
            [one.interval for one in verdicts],
            [one.interval_equivalence for one in verdicts],
            [one.interval_inversion for one in verdicts],
        )
    )
    kind: Kept = "=" if name == "normal" else "≥"
    yield share(f"95 % t interval covers, {name}", n, kind, 1 - ALPHA, by_t)
    yield share(f"90 % t interval covers, {name}", n, kind, 1 - 2 * ALPHA, narrow)
    yield share(f"inversion interval covers, {name}", n, "=", 1 - attained(n), inverted)


def skewed(k: int, rng: Generator) -> Iterator[Figure]:
    """The same where differences are skewed."""
    for n in SEEDS:
        verdicts = compared(exponential(rng, k, n), hypothesis("arm", "differs", 1e-6))
        hits = [(one.p_adjusted or 0.0) <= ALPHA for one in verdicts]
        yield share("p ≤ 0.05, no effect, exponential", n, "≤", ALPHA, hits)


def families(k: int, rng: Generator) -> Iterator[Figure]:
    """Any true null of a family of six rejected by max-T, where two or none are false."""
    stated = {f"a{i}": hypothesis(f"a{i}", "rises", 0.01, control="") for i in range(6)}
    for n, correlation, real in itertools.product((8, 10), (0.3, 0.7), (0, 2)):
        shared = math.sqrt(correlation) * normal(rng, k, n)
        own = math.sqrt(1 - correlation)
        arms = {
            f"a{i}": shared + own * normal(rng, k, n) + (2.0 if i < real else 0.0) for i in range(6)
        }
        hits = [
            any((verdicts[f"a{i}"].p_adjusted or 0.0) <= ALPHA for i in range(real, 6))
            for verdicts, _ in studies(np.zeros((k, n)), arms, stated)
        ]
        what = f"any of {6 - real} nulls rejected by max-T, {real} effects, correlation"
        yield share(f"{what} {correlation}", n, "≤", ALPHA, hits)


def equivalence(k: int, rng: Generator) -> Iterator[Figure]:
    """`holds` supported at its margin, where it is wrong, and at no effect, where it is right."""
    for n, s in itertools.product((6, 8, 10), (1.0, 1.5)):
        stated = hypothesis("arm", "holds", s)
        for side in (-1, 1):
            at_margin = compared(normal(rng, k, n) + side * s, stated)
            hits = [one.label == "supported" for one in at_margin]
            yield share(
                f"holds supported at {side * s:+g} of ±{s:g} deviations", n, "≤", ALPHA, hits
            )
            signs = [(one.p_equivalence_signflip or 0.0) <= ALPHA for one in at_margin]
            yield share(f"sign-flip TOST passes at {side * s:+g} of ±{s:g}", n, "≤", ALPHA, signs)
        hits = [one.label == "supported" for one in compared(normal(rng, k, n), stated)]
        power = tost_power(s, n, ALPHA)
        yield share(f"holds supported at 0 of ±{s:g} deviations: power", n, "=", power, hits)


def claims(k: int, rng: Generator) -> Iterator[Figure]:
    """Claims that are wrong, and supported."""
    n = 8
    for m in (3, 5):
        names = tuple(f"a{i}" for i in range(m))
        arms = {name: normal(rng, k, n) + 1.5 for name in names}
        stated = {name: hypothesis(name, "holds", 1.5) for name in names}
        claim = {"c": Claim(text="", hypotheses=names, rule="any")}
        control = {"control": np.full((k, n), 50.0)}
        found = [of["c"] for _, of in studies(np.zeros((k, n)), arms | control, stated, claim)]
        hits = [label == "supported" for label in found]
        yield share(f"any of {m} holds supported, all at the margin", n, "≤", ALPHA, hits)
        shared = normal(rng, k, n)
        arms = {name: (shared + normal(rng, k, n)) / math.sqrt(2) for name in names}
        stated = {name: hypothesis(name, "rises", 0.01) for name in names}
        found = [of["c"] for _, of in studies(np.zeros((k, n)), arms | control, stated, claim)]
        hits = [label == "supported" for label in found]
        yield share(f"any of {m} rises supported, no effects", n, "≤", ALPHA, hits)


def e_process(k: int, rng: Generator) -> Iterator[Figure]:
    """E-values over all signs, and how often one comes to 1 / alpha where nothing is there."""
    sizes = rng.exponential(size=7)
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=7)))
    for n in (1, 4, 7):
        mean = float(e_values(sizes[:n] * signs[:, :n])[:, -1].mean())
        yield Figure("mean e-value over all signs", n, "=", 1.0, mean, 0.0, len(signs))
    for name, draw in {**CONTINUOUS, **DISCRETE}.items():
        hits = [bool(p <= ALPHA) for p in anytime_p(draw(rng, k, 30))]
        yield share(f"e-process ever at 20, no effect, {name}", 30, "≤", ALPHA, hits)


TRUTHS = {"none": 0.0, "none too": 0.0, "half": 0.5, "exact": 1.0, "double": 2.0}
"""True effects, in smallest effects of interest, of what is said to rise."""


def whole_studies(k: int, rng: Generator) -> Iterator[Figure]:
    """Wrong verdicts of studies with effects of all sizes; deviations are as s / 1.25."""
    n, s = 8, 1.0
    shared = normal(rng, k, n)
    noise = functools.partial(normal, rng, k, n)
    arms = {name: TRUTHS[name] * s + (shared + noise()) * 0.8 / math.sqrt(2) for name in TRUTHS} | {
        "alike": (shared + noise()) * 0.8 / math.sqrt(2),
        "unlike": 2 * s + (shared + noise()) * 0.8 / math.sqrt(2),
        "control": np.full((k, n), 50.0),
    }
    stated = {name: hypothesis(name, "rises", s) for name in TRUTHS} | {
        name: hypothesis(name, "holds", s) for name in ("alike", "unlike")
    }
    of = {
        "all, one wrong": Claim(text="", hypotheses=("none", "double")),
        "any, all wrong": Claim(text="", hypotheses=("none", "none too", "unlike"), rule="any"),
        "all, right": Claim(text="", hypotheses=("double", "alike")),
    }
    found = list(studies(shared * 3, {a: shared * 3 + d for a, d in arms.items()}, stated, of))

    def wrong(what: str, *cases: tuple[str, Label]) -> Figure:
        hits = [any(v[name].label == label for name, label in cases) for v, _ in found]
        return share(f"studies: {what}", n, "≤", ALPHA, hits)

    yield wrong(
        "supported, no effect, either of two", ("none", "supported"), ("none too", "supported")
    )
    yield wrong("supported, half the smallest effect", ("half", "supported"))
    yield wrong("refuted, exactly the smallest effect", ("exact", "refuted"))
    yield wrong("equivalent, exactly the smallest effect", ("exact", "equivalent"))
    yield wrong("refuted or equivalent, twice it", ("double", "refuted"), ("double", "equivalent"))
    yield wrong("holds refuted, no effect", ("alike", "refuted"))
    yield wrong("holds supported, twice it", ("unlike", "supported"))
    for name, label in (
        ("all, one wrong", "supported"),
        ("any, all wrong", "supported"),
        ("all, right", "refuted"),
    ):
        hits = [labels[name] == label for _, labels in found]
        yield share(f"studies: claim {label}, {name}", n, "≤", ALPHA, hits)


MIXED = {"none": 0.0, "half": 0.5, "none too": 0.0, "half too": 0.5, "double": 2.0}
"""True effects of a study that mixes small ones with none, in smallest effects."""


def mixed_claims(k: int, rng: Generator) -> Iterator[Figure]:
    """Wrong claims of studies that mix nothing, half an effect and twice it, over families."""
    n = 8
    shared = normal(rng, k, n)
    arms = {
        name: effect + (shared + normal(rng, k, n)) * 0.8 / math.sqrt(2)
        for name, effect in {**MIXED, "near": 0.5, "far": 2.0}.items()
    }
    of = {
        "all": Claim(text="", hypotheses=("none", "half", "double")),
        "any": Claim(text="", hypotheses=("none", "half", "none too", "far"), rule="any"),
        "any of two halves": Claim(text="", hypotheses=("half", "half too"), rule="any"),
        "none decides": Claim(text="", hypotheses=("none", "double"), rule="none"),
        "half decides": Claim(text="", hypotheses=("half", "double"), rule="half"),
        "so, all": Claim(text="", hypotheses=("double", "near")),
        "so, any": Claim(text="", hypotheses=("none", "half", "double"), rule="any"),
    }
    first = {"none": "a", "half": "a", "double": "a", "none too": "b", "half too": "b"}
    for over in ("claim", "study"):
        stated = {
            name: hypothesis(name, "rises", 1.0, family=first[name] if over == "claim" else "")
            for name in MIXED
        } | {name: hypothesis(name, "holds", 1.0) for name in ("near", "far")}
        control = {"control": np.full((k, n), 50.0)}
        found = [labels for _, labels in studies(np.zeros((k, n)), arms | control, stated, of)]
        for name in of:
            wrong = ("refuted", "equivalent") if name.startswith("so") else ("supported",)
            hits = [labels[name] in wrong for labels in found]
            what = f"families by {over}: claim {' or '.join(wrong)}, {name}"
            yield share(what, n, "≤", ALPHA, hits)


PARTS: dict[str, Callable[[int, Generator], Iterator[Figure]]] = {
    "false positives": false_positives,
    "skew": skewed,
    "families": families,
    "equivalence": equivalence,
    "claims": claims,
    "sequential": sequential,
    "e-process": e_process,
    "whole studies": whole_studies,
    "mixed claims": mixed_claims,
    "always valid": always_valid,
}
MANY = ("whole studies", "always valid")
"""Parts of as many studies as `--studies` says."""


def figures(part: str, replicates: int) -> list[Figure]:
    """The figures of a part, which has random numbers of its own: the same if run alone."""
    return list(PARTS[part](replicates, np.random.default_rng(list(PARTS).index(part))))


def line(one: Figure) -> str:
    """A row of the table."""
    kept = "yes" if one.is_kept() else "**missed**"
    promise = f"{one.kind} {one.promise:.4g}"
    numbers = f"{one.found:.4f} | {one.error:.4f} | {kept} | {one.replicates:,}"
    return f"| {one.what} | {one.seeds} | {promise} | {numbers} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--studies", type=int, default=10_000, help=f"of {MANY[0]}, {MANY[1]}")
    parser.add_argument("--only", choices=list(PARTS), nargs="*", default=list(PARTS))
    asked = parser.parse_args()
    print("| what | seeds | promise | found | error | within 3 | replicates |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for part in asked.only:
        before = time.process_time()
        count = asked.studies if part in MANY else asked.replicates
        for one in figures(part, count):
            print(line(one), flush=True)
        print(f"{part}: {time.process_time() - before:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
