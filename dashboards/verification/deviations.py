"""What was not done as it was planned before there were results."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set

from ablations.changes import differences
from ablations.registration import Entry, registration_key
from ablations.stated import known_of
from ablations.verdicts.reasons import seed_list
from dashboards.tables.trials import places_of
from dashboards.verification.asked import names_of
from dashboards.verification.finding import Finding, knowing
from dashboards.verification.trials import Checked
from dashboards.verification.turned import other_looks
from trainers.errors import listed

_ADJUSTED = "multiplicity"
"""Field of a study that says how p-values are adjusted for the number of hypotheses."""


def check_deviations(
    chain: Sequence[Entry], checked: Mapping[str, Checked], others: Sequence[Sequence[Entry]] = ()
) -> list[Finding]:
    """Seeds left out or added, looks that were not planned, arms, claims and gates that were
    redefined, hypotheses and others that were left out; `others` are the other studies of the
    root."""
    studied = _studied(chain, checked, others)
    found = [*_begun_knowing(chain[0], studied), *_left_out(chain[-1], checked)]
    for place in range(1, len(chain)):
        found += _changed_knowing(chain, place)
    return found


def _finding(entry: Entry, what: str) -> Finding:
    key = registration_key(entry.study, entry.number)
    return Finding(kind="deviated", where=key, what=what)


def _studied(
    chain: Sequence[Entry], checked: Mapping[str, Checked], others: Sequence[Sequence[Entry]]
) -> set[str]:
    """The keys of trials that another study had stated before this one was, as the root or their
    results say it."""
    here = {"", *(entry.digest for entry in chain)}
    named = {key for key, trial in checked.items() if set(names_of(trial)) - here}
    entries = (one for other in others for one in other if one.created < chain[0].created)
    return named | {trial.key for entry in entries for trial in entry.trials}


def _begun_knowing(first: Entry, studied: Set[str]) -> Iterator[Finding]:
    """Seeds stated beside those of a study whose results existed, as one does who goes on until it
    fits. What was trained outside a study is reuse, and what is stated of it exploratory."""
    keys = {(arm, seed): key for arm, seed, key in places_of(first)}
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = defaultdict(list)
    for name, hypothesis in first.resolved.hypotheses.items():
        trials = {
            seed: {keys[arm, seed] for arm in hypothesis.weights} for seed in first.resolved.seeds
        }
        added = tuple(seed for seed, those in trials.items() if those - first.known.keys())
        known = tuple(
            seed for seed, those in trials.items() if seed not in added and those <= studied
        )
        if added and known:
            found[added, known].append(name)
    for (added, known), names in found.items():
        yield _finding(
            first,
            f"{_seeds(added)} added to {seed_list(known)}, whose results existed "
            f"({', '.join(names)})",
        )


def _changed_knowing(chain: Sequence[Entry], place: int) -> Iterator[Finding]:
    """What an amendment changed of the plan when results of what it changed existed."""
    before, now = chain[place - 1], chain[place]
    if not (known := knowing(len(now.known), len(now.under_way))):
        return
    old, new = before.resolved.seeds, now.resolved.seeds
    if added := [seed for seed in new if seed not in old]:
        yield _finding(now, f"{_seeds(added)} added{known}")
    if left := [seed for seed in old if seed not in new]:
        yield _finding(now, f"{_seeds(left)} left out{known}")
    if looks := other_looks(before, now):
        yield _finding(now, f"{looks}{known}")
    if before.of_all.get(_ADJUSTED) != now.of_all.get(_ADJUSTED):
        yield _finding(now, f"how p-values are adjusted was redefined{known}")
    base = [
        knob
        for knob in {**before.knobs, **now.knobs}
        if before.knobs.get(knob) != now.knobs.get(knob)
    ]
    if before.dataset.get("digest") != now.dataset.get("digest"):
        base.append("the data")
    if base:
        yield _finding(now, f"all arms were redefined ({listed(base)}){known}")
    for arm, change in before.plain["arms"].items():
        if arm not in now.resolved.arms:
            yield _finding(now, f"arm {arm} was left out{known}")
            continue
        of_arm = knowing(*known_of(chain, place, [arm]))
        if of_arm and now.plain["arms"][arm] != change:
            yield _finding(now, f"arm {arm} was redefined{of_arm}")
    yield from _restated(chain, place)


def _restated(chain: Sequence[Entry], place: int) -> Iterator[Finding]:
    """What an amendment left out of hypotheses, claims and gates, and what it changed of claims and
    gates, when results of their arms existed."""
    before, now = chain[place - 1], chain[place]
    for group, one in (("hypotheses", "hypothesis"), ("claims", "claim"), ("gates", "gate")):
        old, new = before.plain[group], now.plain[group]
        for name in {**old, **new}:
            of_entry = before if name in old else now
            known = knowing(*known_of(chain, place, _arms_of(of_entry, group, name)))
            if known and name not in new:
                yield _finding(now, f"{one} {name} was left out{known}")
            elif known and group == "gates" and name not in old:
                yield _finding(now, f"gate {name} was added{known}")
            elif known and group != "hypotheses" and name in old and old[name] != new[name]:
                changed = "; ".join(differences("", old[name], new[name]))
                yield _finding(now, f"{one} {name} was redefined ({changed}){known}")


def _arms_of(entry: Entry, group: str, name: str) -> tuple[str, ...]:
    """Every arm that a hypothesis, a claim or a gate rests on."""
    resolved = entry.resolved
    if group == "gates":
        return resolved.gates[name].arms
    names = resolved.claims[name].hypotheses if group == "claims" else (name,)
    return tuple(arm for one in names for arm in resolved.hypotheses[one].arms)


def _seeds(seeds: Sequence[int]) -> str:
    return f"{seed_list(seeds)} {'was' if len(seeds) == 1 else 'were'}"


def _left_out(newest: Entry, checked: Mapping[str, Checked]) -> Iterator[Finding]:
    """Seeds that were not begun though later ones of their arm have results.

    Runs start in the order of seeds.
    """
    of_arm: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for arm, seed, key in places_of(newest):
        of_arm[arm].append((seed, key))
    where: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for arm, places in of_arm.items():
        ended = [number for number, (_, key) in enumerate(places) if checked[key].result]
        skipped = [seed for seed, key in places[: max(ended, default=0)] if not checked[key].begun]
        if skipped:
            where[tuple(skipped)].append(arm)
    for seeds, arms in where.items():
        what = f"{seed_list(seeds)} left out, and later seeds have results"
        yield Finding(kind="deviated", where=f"{newest.study}: {', '.join(arms)}", what=what)
