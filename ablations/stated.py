"""How each hypothesis was stated, which follows from the registrations of its study alone."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ablations.registration import LOCK, Entry

Word = Literal["confirmatory", "amended", "exploratory"]

WORDS: tuple[Word, ...] = ("confirmatory", "amended", "exploratory")
"""The words for how a hypothesis was stated, the strongest first."""

_WORDING = ("claim", "rationale", "direction", "control")
"""Fields of a hypothesis on which no p-value of its family rests."""


@dataclass(frozen=True)
class Stated:
    """How a hypothesis, or a claim, was stated, and the line that says why."""

    word: Word
    why: str

    def to_json(self) -> dict[str, str]:
        """Fields by name."""
        return asdict(self)


def stated(chain: Sequence[Entry]) -> dict[str, Stated]:
    """How each hypothesis of the newest registration was stated, by name.

    exploratory: a result of one of its arms existed when its present form was stated, of trials
    that any registration up to then gives these arms, whichever study made them. amended: else,
    where its form, or a version, changed after the first registration. confirmatory: else.

    Its form is all that bears on its verdict: its own fields, the claims that name it, the gates on
    any arm, what p-values of its family rest on, what its arms change, that no other arm has gone,
    base, data, and what is said of the whole study. One that comes back was stated when it did.
    """
    return {name: _stated(chain, name) for name in chain[-1].resolved.hypotheses}


def stated_claims(newest: Entry, of: Mapping[str, Stated]) -> dict[str, Stated]:
    """The same of each claim: the weakest word of its hypotheses."""
    found = {}
    for name, claim in newest.resolved.claims.items():
        word = max((of[one].word for one in claim.hypotheses), key=WORDS.index)
        weakest = [one for one in claim.hypotheses if of[one].word == word]
        why = f"{', '.join(weakest)}: {of[weakest[0]].why}"
        if len({of[one].why for one in weakest}) > 1:
            why = f"so were {', '.join(weakest)}"
        found[name] = Stated(word, why)
    return found


def lines_of(of: Mapping[str, Stated]) -> list[str]:
    """A line for each way in which something was stated, with the names of what was."""
    names: dict[Stated, list[str]] = {}
    for name, one in of.items():
        names.setdefault(one, []).append(name)
    return [f"{one.word}: {', '.join(those)} ({one.why})" for one, those in names.items()]


def known_of(chain: Sequence[Entry], number: int, arms: Sequence[str]) -> tuple[int, int]:
    """How many results of `arms` existed at a place in the chain, and how many runs of them had
    recorded something without a result.

    An arm is found by its name and, where it had another, by what it changes.
    """
    changes_now = [change for arm, change in chain[number].resolved.arms.items() if arm in arms]
    keys = {
        trial.key
        for entry in chain[: number + 1]
        for trial in entry.trials
        if trial.arm in arms or entry.resolved.arms.get(trial.arm) in changes_now
    }
    return len(keys & chain[number].known.keys()), len(keys & set(chain[number].under_way))


def _stated(chain: Sequence[Entry], name: str) -> Stated:
    if chain[-1].number == 0:
        return Stated("exploratory", f"{LOCK} does not say which results existed when it was made")
    first = len(chain) - 1
    while first and _same_form(chain[first - 1], chain[first], name):
        first -= 1
    arms = _arms(chain[-1], name)
    at = f"in registration {chain[first].number} of {chain[first].created}"
    known, under_way = known_of(chain, first, arms)
    before = "before any result of its arms"
    if under_way:
        before += f", with {under_way} of their runs under way"
    if akin := len({one.key for one in chain[first].elsewhere if one.arm in arms}):
        before += f"; other studies had {akin} results of such arms at these seeds"
    if known:
        results = "a result" if known == 1 else f"{known} results"
        return Stated("exploratory", f"stated {at}, when {results} of its arms existed")
    later = [
        (place, chain[place])
        for place in range(first + 1, len(chain))
        if chain[place - 1].versions != chain[place].versions
    ]
    said = [f"changed {at} ({chain[first].reason}), {before}"] if first else []
    said += [
        f"versions changed in registration {entry.number} of {entry.created} ({entry.reason}), "
        f"when {known_of(chain, place, arms)[0]} results of its arms existed"
        for place, entry in later
    ]
    if said:
        return Stated("amended", "; ".join(said))
    return Stated("confirmatory", f"stated {at}, {before}")


def _same_form(before: Entry, now: Entry, name: str) -> bool:
    """Whether nothing that bears on the verdict of a hypothesis differs, versions apart."""
    if name not in before.plain["hypotheses"] or _form(before, name) != _form(now, name):
        return False
    # Where no arm of the study moves its end point it is `insensitive`, not `refuted`: without an
    # arm that does, the label is another. One more arm cannot hide what was there.
    if any(one not in now.resolved.arms.values() for one in before.resolved.arms.values()):
        return False
    # Nor does an arm count there that misses a gate. How runs end is not gated.
    if before.resolved.hypotheses[name].metric:
        arms = before.resolved.arms
        if _gates(before, arms) != _gates(now, arms):
            return False
    moved = {arm for arm, _, _ in before.trial_keys ^ now.trial_keys}
    return before.versions != now.versions or not moved & set(_arms(now, name))


def _form(entry: Entry, name: str) -> dict[str, Any]:
    plain, own = entry.plain, _arms(entry, name)
    family = {other: _behind_its_p(plain["hypotheses"][other]) for other in _family(entry, name)}
    claims = {i: claim for i, claim in plain["claims"].items() if name in claim["hypotheses"]}
    arms = {*own, *(arm for mate in family for arm in _arms(entry, mate))}
    return {
        "own": plain["hypotheses"][name],
        "family": family,
        "sequence": [one for one in entry.sequence if one == name or one in family],
        "claims": claims,
        "arms": {arm: plain["arms"][arm] for arm in arms},
        "base": entry.knobs,
        "data": entry.dataset.get("digest"),
        "study": entry.of_all,
    }


def _gates(entry: Entry, arms: Container[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """What each gate asks of each of these arms, by the names of both."""
    return {
        (name, arm): {**gate, "arms": None}
        for name, gate in entry.plain["gates"].items()
        for arm in gate["arms"]
        if arm in arms
    }


def _family(entry: Entry, name: str) -> list[str]:
    """The other hypotheses whose p-values bear on the adjusted one of this."""
    over_all = dict(entry.of_all.get("multiplicity") or {}).get("over") == "study"
    stated_so = entry.plain["hypotheses"]

    def groups(one: str) -> set[Any]:
        secondary = [True] if stated_so[one].get("secondary") else []
        return {stated_so[one]["family"], *secondary}

    def holds(one: str) -> bool:
        return bool(stated_so[one]["direction"] == "holds")

    alike = [one for one in stated_so if one != name and holds(one) == holds(name)]
    return [one for one in alike if over_all or groups(one) & groups(name)]


def _arms(entry: Entry, name: str) -> tuple[str, ...]:
    """Every arm that a hypothesis rests on, those of its control among them."""
    return entry.resolved.hypotheses[name].arms


def _behind_its_p(hypothesis: Mapping[str, Any]) -> dict[str, Any]:
    """What the p-values of its family rest on; of `holds` they are about its margin."""
    holds = hypothesis["direction"] == "holds"
    left_out = _WORDING if holds else (*_WORDING, "smallest_effect")
    return {field: value for field, value in hypothesis.items() if field not in left_out}
