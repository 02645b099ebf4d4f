"""What a study asked, what came out, how sure that is, what was not done, what would change it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablations.registration import ArmFacts
from ablations.stated import WORDS
from ablations.statistics.power import MOST_SEEDS, POWER
from ablations.verdicts.rule import is_small
from dashboards.definitions.text import IN_SHORT
from dashboards.figures.style import LABEL_COLOURS
from dashboards.tables.reading import StudyRun

JUDGED = ("What came out", "How sure", "What would change it")
"""Questions whose answers name labels and words of verdicts."""


def answers(study: StudyRun, verdicts: Mapping[str, Any]) -> dict[str, str]:
    """Each question with its answer in words; those that need verdicts only where there are any."""
    found = {"What was asked": _question(study, verdicts), "What came out": _judgement(verdicts)}
    if verdicts["hypotheses"]:
        found["How sure"] = _certainty(study, verdicts)
    found["What was not done"] = f"{_status(study)} {scope(study)}"
    if verdicts["hypotheses"]:
        found["What would change it"] = _changing(verdicts["hypotheses"].values())
    return found


def scope(study: StudyRun) -> str:
    """The images, models and steps beyond which a study says nothing."""
    data, config = study.entry.dataset, study.entry.config
    arms = [study.entry.arms.get(arm, ArmFacts()) for arm in study.arms]
    sizes = {facts.parameters for facts in arms if facts.parameters is not None}
    model = f"models of {_range(sizes)} parameters" if sizes else "models of this size"
    lengths = {facts.change.get("steps", config.get("steps", "unknown")) for facts in arms}
    numbers = [steps for steps in lengths if isinstance(steps, int)]
    others = [
        steps if "epoch" in steps else f"{steps} steps"
        for steps in sorted(str(one) for one in lengths if not isinstance(one, int))
    ]
    length = " or ".join([*others, *([f"{_range(numbers)} steps"] if numbers else [])])
    return (
        f"One data set ({data.get('source', 'unknown')}, {data.get('images', 'unknown')} images), "
        f"{model} and {length}. Nothing here shows that the same holds for "
        "other images, larger models or longer training."
    )


def _question(study: StudyRun, verdicts: Mapping[str, Any]) -> str:
    claims, hypotheses = (len(verdicts[group]) for group in ("claims", "hypotheses"))
    runs = f"{_counted(len(study.arms), 'arm')} at {_counted(len(study.seeds), 'seed')}"
    planned = f"Planned: {runs}, on {study.entry.dataset.get('source', 'unknown data')}."
    if claims:
        rest = "It rests" if claims == 1 else "They rest"
        what = f"Do {claims} claims hold?" if claims > 1 else "Does one claim hold?"
        return f"{what} {rest} on {_counted(hypotheses, 'hypothesis')}{_EACH} {planned}"
    return f"{_counted(hypotheses, 'hypothesis')}{_EACH} {planned}" if hypotheses else planned


_EACH = ", each with the smallest effect that counts."

_ANSWERS = ("supported", "equivalent", "refuted")
"""Labels of claims that are named: the others tell nothing yet."""
_MOST_NAMED = 4


def _judgement(verdicts: Mapping[str, Any]) -> str:
    """How many claims and hypotheses have which label, and what the labels mean."""
    if not verdicts["hypotheses"]:
        return "No hypotheses were declared."
    sentences: list[str] = []
    used: set[str] = set()
    for group, noun in (("claims", "claim"), ("hypotheses", "hypothesis")):
        counts = Counter(entry["verdict"]["label"] for entry in verdicts[group].values())
        if not counts:
            continue
        named = _named(verdicts["claims"]) if group == "claims" else {}
        parts = [
            f"{counts[label]} {label}{named.get(label, '')}"
            for label in LABEL_COLOURS
            if counts[label]
        ]
        rest = "; none is supported" * (group == "claims" and not counts["supported"])
        sentences.append(f"{_counted(counts.total(), noun)}: {', '.join(parts)}{rest}.")
        used |= counts.keys()
    meant = "; ".join(f"{label}: {IN_SHORT[label]}" for label in LABEL_COLOURS if label in used)
    return " ".join([*sentences, f"In short, {meant}."])


def _named(claims: Mapping[str, Any]) -> dict[str, str]:
    """Of a label that is an answer the claims that have it, where they are few."""
    names: dict[str, list[str]] = {}
    for name, entry in claims.items():
        names.setdefault(entry["verdict"]["label"], []).append(name)
    return {
        label: f" ({', '.join(names[label])})"
        for label in _ANSWERS
        if 0 < len(names.get(label, ())) <= _MOST_NAMED
    }


def _certainty(study: StudyRun, verdicts: Mapping[str, Any]) -> str:
    """On how many seeds it rests, and how hypotheses were stated."""
    entries = verdicts["hypotheses"].values()
    planned = _counted(len(study.seeds), "seed")
    ran = _range(entry["verdict"]["n"] for entry in entries)
    seeds = planned if ran == str(len(study.seeds)) else f"{ran} of {planned}"
    counts = Counter(entry["stated"]["word"] for entry in entries)
    words = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
    known = " Exploratory: results existed when it was stated, so its p-value is no evidence."
    return (
        f"Differences are means over {seeds}, drawn below with each seed and with intervals. "
        f"When they were stated: {words}."
    ) + known * ("exploratory" in counts)


def _status(study: StudyRun) -> str:
    """How many runs finished, and how the others ended."""
    counts = Counter(run.status for run in study.runs.values())
    sentence = f"{counts['finished']} of {_counted(len(study.runs), 'run')} finished"
    others = [
        f"{counts[status]} {status}"
        for status in ("missing", "failed", "collapsed", "diverged", "skipped")
        if counts[status]
    ]
    return sentence + (f"; {', '.join(others)}" if others else "") + "."


def _changing(entries: Iterable[Mapping[str, Any]]) -> str:
    """What would give other labels, and to how many of the hypotheses."""
    needs: Counter[str] = Counter()
    planned: list[int | None] = []
    exploratory = weak = 0
    for entry in entries:
        hypothesis, verdict = entry["hypothesis"], entry["verdict"]
        exploratory += entry["stated"]["word"] == "exploratory"
        if verdict["label"] != "inconclusive":
            needs[verdict["label"]] += 1
            by_mean = verdict["label"] == "supported" and hypothesis["direction"] != "holds"
            weak += by_mean and "strong" not in verdict["tags"]
        elif _is_small(hypothesis, verdict):
            needs["control"] += 1
        else:
            needs["seeds"] += 1
            # Of how runs end no number of seeds is planned.
            planned += [verdict["seeds_needed"]] if hypothesis["metric"] else []
    decided = needs["supported"] + needs["refuted"] + needs["equivalent"] - weak
    parts = [
        (needs["failed"], "failed: the runs that are missing, or arms that pass their gates"),
        (
            needs["insensitive"],
            "insensitive: a control that moves what is measured, or a smallest effect that is "
            "smaller; not more seeds",
        ),
        (needs["seeds"], f"inconclusive: a new study of more seeds{_planned(planned)}"),
        (needs["control"], "inconclusive: a declared control that is known to differ"),
        (
            weak,
            "supported, but not strong (the mean reaches the smallest effect, its interval does "
            "not): other seeds",
        ),
        (decided, "decided: other images, models or training; rarely other seeds"),
        (exploratory, "exploratory: a new study at other seeds, stated before there are results"),
    ]
    return " ".join(f"{count} {what}." for count, what in parts if count)


def _planned(seeds: Sequence[int | None]) -> str:
    """How many seeds new studies are to have, each for one hypothesis."""
    known = [one for one in seeds if one is not None]
    if not seeds:
        return ""
    most = f"up to {max(known):,}" if len(known) == len(seeds) else f"some over {MOST_SEEDS:,}"
    return f" ({most} of them for {100 * POWER:.0f} % power)"


def _is_small(hypothesis: Mapping[str, Any], verdict: Mapping[str, Any]) -> bool:
    """Whether an effect is shown to be small, and only a control is wanting."""
    ends, p = verdict["interval_equivalence"], verdict["p_equivalence"]
    if ends is None or p is None:
        return False
    return is_small(hypothesis["smallest_effect"], hypothesis["alpha"], tuple(ends), p)


def _range(numbers: Iterable[int]) -> str:
    low, high = min(found := list(numbers)), max(found)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _counted(count: int, noun: str) -> str:
    several = "hypotheses" if noun == "hypothesis" else f"{noun}s"
    return f"{count} {noun if count == 1 else several}"
