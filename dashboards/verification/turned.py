"""Hypotheses that were stated otherwise before their results were known: here, or in another study.

Reuse is welcome: what is stated as it was before, or asks something else of the same arms, is not
named here.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ablations.changes import differences
from ablations.registration import Entry, registration_key
from ablations.spec import Hypothesis
from ablations.stated import known_of
from dashboards.tables.trials import places_of
from dashboards.verification.finding import Finding, knowing

Chains = Sequence[Sequence[Entry]]

_WORDING = {"claim", "rationale", "family"}
"""Fields of a hypothesis that change nothing of what it asks; families are those of claims."""

_END_POINT = ("metric", "endpoint", "metric_against", "minus_start")


@dataclass(frozen=True, eq=False)
class _Registration:
    """A registration, and what tells its arms where they are compared with those of another."""

    entry: Entry
    _arms: dict["_Registration", dict[str, str]] = field(default_factory=dict)

    @cached_property
    def keys(self) -> dict[tuple[str, int], str]:
        """The key of each trial, by arm and seed."""
        return {(trial.arm, trial.seed): trial.key for trial in self.entry.trials}

    @cached_property
    def changes(self) -> dict[str, str]:
        """What each arm changes, as text."""
        arms = self.entry.resolved.arms
        return {arm: json.dumps(change, sort_keys=True) for arm, change in arms.items()}

    def arms_beside(self, other: "_Registration") -> dict[str, str]:
        """What tells each arm: in another study the trial that both have of it, as what it changes
        may be said of another base; else what it changes."""
        if other not in self._arms:
            self._arms[other] = self.changes
            theirs = other.entry.resolved.seeds
            seed = next((one for one in self.entry.resolved.seeds if one in theirs), None)
            if seed is not None and other.entry.study != self.entry.study:
                shared = set(other.keys.values())
                keys = {arm: self.keys[arm, seed] for arm in self.changes}
                told = {arm: key for arm, key in keys.items() if key in shared}
                self._arms[other] = {**self.changes, **told}
        return self._arms[other]


@dataclass(frozen=True, kw_only=True)
class _Stated:
    """A hypothesis of a registration."""

    of: _Registration
    name: str
    known: int
    """how many results of its arms existed then, or runs were under way"""
    keys: Set[str]
    """of the trials of its arms, by this registration"""

    @property
    def entry(self) -> Entry:
        return self.of.entry

    @property
    def hypothesis(self) -> Hypothesis:
        return self.entry.resolved.hypotheses[self.name]

    @cached_property
    def weights(self) -> dict[str, float]:
        return self.hypothesis.weights

    @cached_property
    def fields(self) -> dict[str, Any]:
        """What it asks, as JSON types."""
        return self.hypothesis.model_dump(mode="json", exclude=_WORDING)

    @property
    def end_point(self) -> list[Any]:
        return [self.fields[name] for name in _END_POINT]

    def weights_beside(self, other: "_Stated") -> dict[str, float]:
        """The weight of each arm, by what tells it from the others of both registrations."""
        return self._by_arm(self.weights, other)

    def form_beside(self, other: "_Stated") -> dict[str, Any]:
        """The same where two ways of saying one thing are alike: arms by what tells them, and
        what falls as what rises the other way round."""
        weights, direction = self.weights_beside(other), self.hypothesis.direction
        if not self.hypothesis.metric_against:
            falls = direction == "falls"
            is_even = direction in ("differs", "holds")
            if falls or (is_even and weights[min(weights)] < 0):
                weights = _negative(weights)
                direction = "rises" if falls else direction
        asked = {"contrast": weights, "direction": direction}
        how_written: dict[str, Any] = {"over": "", "interaction": None, "along": {}, "rungs": []}
        control = self._by_arm(self.hypothesis.control_weights, other)
        return {**self.fields, **how_written, **asked, "control": control}

    def _by_arm(self, weights: Mapping[str, float], other: "_Stated") -> dict[str, float]:
        arms = self.of.arms_beside(other.of)
        found: dict[str, float] = defaultdict(float)
        for arm, weight in weights.items():
            found[arms[arm]] += weight
        return dict(found)


_Statements = Sequence[Mapping[str, _Stated]]
"""Every hypothesis of each registration of a study, by name."""


def check_turned(chain: Sequence[Entry], others: Chains) -> Iterator[Finding]:
    """Hypotheses of the newest registration of a study, and its looks, that were stated otherwise
    when fewer of their results existed; `others` are the other studies of the root."""
    here, elsewhere = _statements(chain), [_statements(other) for other in others]
    for name in chain[-1].resolved.hypotheses:
        place = _since(here, name)
        now = here[place][name]
        if not now.known:
            continue
        before = [*_before(here[:place], now), *_shared(elsewhere, now)]
        if any(_is_same(one, now) for one in before):
            continue
        then = next((one for one in before if _is_about_the_same(one, now, chain[-1])), None)
        if then is not None:
            of_arms = knowing(*known_of(chain, place, now.hypothesis.arms))
            what = f"{_how(then, now)}{of_arms}"
            yield Finding(kind="deviated", where=_key(now.entry), what=what)
    yield from _other_looks(chain[0], others)


def _statements(chain: Sequence[Entry]) -> _Statements:
    """Every hypothesis of a chain; `known_of` says the same of a few arms."""
    found = []
    of_name: dict[str, set[str]] = defaultdict(set)
    of_change: dict[str | None, set[str]] = defaultdict(set)
    for entry in chain:
        of = _Registration(entry)
        of_arm: dict[str, set[str]] = defaultdict(set)
        for trial in entry.trials:
            change = of.changes.get(trial.arm)
            for keys in (of_arm[trial.arm], of_name[trial.arm], of_change[change]):
                keys.add(trial.key)
        there = {*entry.known, *entry.under_way}
        known = {arm: there & (of_name[arm] | of_change[one]) for arm, one in of.changes.items()}
        found.append(
            {
                name: _Stated(
                    of=of,
                    name=name,
                    known=len(set().union(*(known[arm] for arm in one.arms))),
                    keys=set().union(*(of_arm[arm] for arm in one.arms)),
                )
                for name, one in entry.resolved.hypotheses.items()
            }
        )
    return found


def _since(chain: _Statements, name: str) -> int:
    """Since when the chain asks what a hypothesis of its newest registration asks, by that name."""
    place = len(chain) - 1
    now = chain[place][name]
    while place and name in chain[place - 1] and _is_same(chain[place - 1][name], now):
        place -= 1
    return place


def _before(chain: _Statements, now: _Stated) -> list[_Stated]:
    """Of each hypothesis of a chain what was stated when the first results came, if there were
    fewer than `now` knew; what has the name of `now` first."""
    found: dict[str, _Stated] = {}
    for stated in chain:
        for name, one in stated.items():
            fewest = found[name].known if name in found else now.known - 1
            if one.known <= fewest:
                found[name] = one
    return sorted(found.values(), key=lambda one: one.name != now.name)


def _shared(others: Sequence[_Statements], now: _Stated) -> Iterator[_Stated]:
    """What other studies had stated by then of arms of which `now` knew something."""
    seen = {*now.entry.known, *now.entry.under_way}
    for chain in others:
        for one in _before(chain, now):
            if one.entry.created <= now.entry.created and not seen.isdisjoint(one.keys):
                yield one


def _is_same(then: _Stated, now: _Stated) -> bool:
    """Whether both ask the same; what an arm of one study changes is another matter."""
    is_here = then.entry.study == now.entry.study and then.name == now.name
    if is_here and then.fields == now.fields:
        return True
    return _are_of_the_same_arms(then, now) and then.form_beside(now) == now.form_beside(then)


def _are_of_the_same_arms(then: _Stated, now: _Stated) -> bool:
    return then.weights_beside(now).keys() == now.weights_beside(then).keys()


def _is_about_the_same(then: _Stated, now: _Stated, newest: Entry) -> bool:
    is_named_so = then.name == now.name
    if then.entry.study == now.entry.study and is_named_so:
        return True
    if not _are_of_the_same_arms(then, now):
        return False
    is_gone = then.entry.study == now.entry.study and then.name not in newest.resolved.hypotheses
    return then.end_point == now.end_point or is_named_so or is_gone


def _how(then: _Stated, now: _Stated) -> str:
    of_study = ""
    if then.entry.study != now.entry.study:
        of_study = f" of study {then.entry.study} (registration {then.entry.number})"
    old, new = then.form_beside(now)["contrast"], now.form_beside(then)["contrast"]
    is_turned = old == _negative(new)
    verb = "turned round" if is_turned else "redefined"
    changed = "; ".join(differences("", then.fields, now.fields)) or "its arms are others"
    if not of_study and then.name == now.name:
        return f"hypothesis {now.name} was {verb} ({changed})"
    return f"hypothesis {now.name} is {then.name}{of_study} {verb} ({changed})"


def _other_looks(first: Entry, others: Chains) -> Iterator[Finding]:
    """Other looks than those of a study whose results the first registration of this one knew."""
    mine = {one for one in _compared(first) if one <= first.known.keys()}
    for chain in others:
        knew = {
            entry.number: {key for one in mine & _compared(entry) for key in one}
            for entry in chain
            if mine and entry.created <= first.created
        }
        before = [one for one in chain if knew.get(one.number, set()) - one.known.keys()]
        if before and (what := other_looks(before[-1], first)):
            known = knowing(len(knew[before[-1].number]), 0)
            what = f"{what}, against study {before[-1].study}{known}"
            yield Finding(kind="deviated", where=_key(first), what=what)


def _compared(entry: Entry) -> set[frozenset[str]]:
    """The trials that each hypothesis compares at each seed, by key."""
    keys = {(arm, seed): key for arm, seed, key in places_of(entry)}
    return {
        frozenset(keys[arm, seed] for arm in one.weights)
        for one in entry.resolved.hypotheses.values()
        for seed in entry.resolved.seeds
    }


def other_looks(before: Entry, now: Entry) -> str:
    """What differs in how two registrations look before all seeds are there; empty if nothing.

    The order of seeds says which of them count at a look.
    """
    designs = before.of_all.get("design"), now.of_all.get("design")
    if designs[0] != designs[1]:
        return "looks were redefined"
    old, new = before.resolved.seeds, now.resolved.seeds
    both = [seed for seed in old if seed in new]
    order = [seed for seed in new if seed in old]
    if designs[1] is None or both == order:
        return ""
    seeds = " -> ".join(", ".join(map(str, one)) for one in (both, order))
    return f"seeds were put in another order ({seeds}), so that others count at a look"


def _negative(weights: Mapping[str, float]) -> dict[str, float]:
    return {arm: -weight for arm, weight in weights.items()}


def _key(entry: Entry) -> str:
    return registration_key(entry.study, entry.number)
