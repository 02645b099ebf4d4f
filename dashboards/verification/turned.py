"""Hypotheses that were stated otherwise before their results were known: here, or in another study.

Reuse is welcome: what is stated as it was before, or asks something else of the same arms, is not
named here.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class _Stated:
    """A hypothesis of a registration."""

    entry: Entry
    name: str
    known: int
    """how many results of its arms existed then, or runs were under way"""

    @property
    def hypothesis(self) -> Hypothesis:
        return self.entry.resolved.hypotheses[self.name]

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each arm, by what that changes."""
        return _by_change(self.entry, self.hypothesis.weights)

    @property
    def fields(self) -> dict[str, Any]:
        """What it asks, as JSON types."""
        return self.hypothesis.model_dump(mode="json", exclude=_WORDING)

    @property
    def end_point(self) -> list[Any]:
        return [self.fields[name] for name in _END_POINT]

    @property
    def form(self) -> dict[str, Any]:
        """The same where two ways of saying one thing are alike: arms by what they change, and
        what falls as what rises the other way round."""
        weights, direction = self.weights, self.hypothesis.direction
        if not self.hypothesis.metric_against:
            falls = direction == "falls"
            is_even = direction in ("differs", "holds")
            if falls or (is_even and weights[min(weights)] < 0):
                weights = _negative(weights)
                direction = "rises" if falls else direction
        asked = {"contrast": weights, "direction": direction, "over": "", "interaction": None}
        control = _by_change(self.entry, self.hypothesis.control_weights)
        return {**self.fields, **asked, "control": control}


def check_turned(chain: Sequence[Entry], others: Chains) -> Iterator[Finding]:
    """Hypotheses of the newest registration of a study, and its looks, that were stated otherwise
    when fewer of their results existed; `others` are the other studies of the root."""
    for name in chain[-1].resolved.hypotheses:
        place = _since(chain, name)
        now = _at(chain, place, name)
        if not now.known:
            continue
        before = [*_before(chain[:place], now), *_shared(others, now)]
        if any(_is_same(one, now) for one in before):
            continue
        then = next((one for one in before if _is_about_the_same(one, now, chain[-1])), None)
        if then is not None:
            of_arms = knowing(*known_of(chain, place, now.hypothesis.arms))
            what = f"{_how(then, now)}{of_arms}"
            yield Finding(kind="deviated", where=_key(now.entry), what=what)
    yield from _other_looks(chain[0], others)


def _at(chain: Sequence[Entry], place: int, name: str) -> _Stated:
    arms = chain[place].resolved.hypotheses[name].arms
    return _Stated(entry=chain[place], name=name, known=sum(known_of(chain, place, arms)))


def _since(chain: Sequence[Entry], name: str) -> int:
    """Since when the chain asks what a hypothesis of its newest registration asks, by that name."""
    place = len(chain) - 1
    now = _at(chain, place, name)
    while place and name in chain[place - 1].resolved.hypotheses:
        if not _is_same(_at(chain, place - 1, name), now):
            break
        place -= 1
    return place


def _before(chain: Sequence[Entry], now: _Stated) -> list[_Stated]:
    """Of each hypothesis of a chain what was stated when the first results came, if there were
    fewer than `now` knew; what has the name of `now` first."""
    found: dict[str, _Stated] = {}
    for place, entry in enumerate(chain):
        for name in entry.resolved.hypotheses:
            one = _at(chain, place, name)
            fewest = found[name].known if name in found else now.known - 1
            if one.known <= fewest:
                found[name] = one
    return sorted(found.values(), key=lambda one: one.name != now.name)


def _shared(others: Chains, now: _Stated) -> Iterator[_Stated]:
    """What other studies had stated by then of arms of which `now` knew something."""
    seen = {*now.entry.known, *now.entry.under_way}
    for chain in others:
        for one in _before(chain, now):
            keys = {trial.key for trial in one.entry.trials if trial.arm in one.hypothesis.arms}
            if one.entry.created <= now.entry.created and keys & seen:
                yield one


def _is_same(then: _Stated, now: _Stated) -> bool:
    """Whether both ask the same; what an arm of one study changes is another matter."""
    is_here = then.entry.study == now.entry.study and then.name == now.name
    return then.form == now.form or (is_here and then.fields == now.fields)


def _is_about_the_same(then: _Stated, now: _Stated, newest: Entry) -> bool:
    is_named_so = then.name == now.name
    if then.entry.study == now.entry.study and is_named_so:
        return True
    if then.weights.keys() != now.weights.keys():
        return False
    is_gone = then.entry.study == now.entry.study and then.name not in newest.resolved.hypotheses
    return then.end_point == now.end_point or is_named_so or is_gone


def _how(then: _Stated, now: _Stated) -> str:
    of_study = ""
    if then.entry.study != now.entry.study:
        of_study = f" of study {then.entry.study} (registration {then.entry.number})"
    is_turned = then.form["contrast"] == _negative(now.form["contrast"])
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


def _by_change(entry: Entry, weights: Mapping[str, float]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for arm, weight in weights.items():
        found[json.dumps(entry.resolved.arms.get(arm, arm), sort_keys=True)] += weight
    return dict(found)


def _negative(weights: Mapping[str, float]) -> dict[str, float]:
    return {arm: -weight for arm, weight in weights.items()}


def _key(entry: Entry) -> str:
    return registration_key(entry.study, entry.number)
