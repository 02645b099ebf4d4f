"""What was not done as it was planned before there were results."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ablations.registration import Entry, registration_key
from ablations.stated import known_of
from ablations.verdicts.reasons import seed_list
from dashboards.tables.trials import places_of
from dashboards.verification.finding import Finding
from dashboards.verification.trials import Checked
from trainers.errors import listed

_DESIGN = "design"
"""Field of a study that says at which numbers of seeds it is looked at."""


def check_deviations(chain: Sequence[Entry], checked: Mapping[str, Checked]) -> list[Finding]:
    """Seeds left out or added, looks that were not planned, arms that were redefined, hypotheses
    and claims that were left out."""
    found = [*_begun_knowing(chain[0]), *_left_out(chain[-1], checked)]
    for place in range(1, len(chain)):
        found += _changed_knowing(chain, place)
    return found


def _finding(entry: Entry, what: str) -> Finding:
    key = registration_key(entry.study, entry.number)
    return Finding(kind="deviated", where=key, what=what)


def _begun_knowing(first: Entry) -> Iterator[Finding]:
    """Seeds stated beside others whose results existed, as one does who goes on until it fits."""
    keys = {(arm, seed): key for arm, seed, key in places_of(first)}
    seeds, names = first.resolved.seeds, defaultdict(list)
    for name, hypothesis in first.resolved.hypotheses.items():
        known = tuple(
            seed
            for seed in seeds
            if all(keys[arm, seed] in first.known for arm in hypothesis.weights)
        )
        if 0 < len(known) < len(seeds):
            names[known].append(name)
    for known, those in names.items():
        added = [seed for seed in seeds if seed not in known]
        yield _finding(
            first,
            f"{_seeds(added)} added to {seed_list(known)}, whose results existed "
            f"({', '.join(those)})",
        )


def _changed_knowing(chain: Sequence[Entry], place: int) -> Iterator[Finding]:
    """What an amendment changed of the plan when results of what it changed existed."""
    before, now = chain[place - 1], chain[place]
    if not (known := _knowing(len(now.known), len(now.under_way))):
        return
    old, new = before.resolved.seeds, now.resolved.seeds
    if added := [seed for seed in new if seed not in old]:
        yield _finding(now, f"{_seeds(added)} added{known}")
    if left := [seed for seed in old if seed not in new]:
        yield _finding(now, f"{_seeds(left)} left out{known}")
    if before.of_all.get(_DESIGN) != now.of_all.get(_DESIGN):
        yield _finding(now, f"looks were redefined{known}")
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
        of_arm = _knowing(*known_of(chain, place, [arm]))
        if of_arm and now.plain["arms"][arm] != change:
            yield _finding(now, f"arm {arm} was redefined{of_arm}")
    yield from _silenced(chain, place)


def _silenced(chain: Sequence[Entry], place: int) -> Iterator[Finding]:
    """Hypotheses and claims that an amendment left out when results of their arms existed."""
    before, now = chain[place - 1].resolved, chain[place].resolved
    arms_of = {name: one.arms for name, one in before.hypotheses.items()}
    left = {f"hypothesis {i}": arms_of[i] for i in arms_of if i not in now.hypotheses}
    for name, claim in before.claims.items():
        if name not in now.claims:
            arms = (arm for one in claim.hypotheses for arm in arms_of[one])
            left[f"claim {name}"] = tuple(arms)
    for what, those in left.items():
        if known := _knowing(*known_of(chain, place, those)):
            yield _finding(chain[place], f"{what} was left out{known}")


def _knowing(known: int, under_way: int) -> str:
    """What there was to look at, in words; empty where nothing was."""
    said = [f"knowing {known} {'result' if known == 1 else 'results'}"] if known else []
    said += [f"with {under_way} {'run' if under_way == 1 else 'runs'} under way"] * bool(under_way)
    return ", " + ", ".join(said) if said else ""


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
