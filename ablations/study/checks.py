"""What hypotheses, gates and claims of a study file name must be there."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.spec import Gate, Hypothesis, name_problem
from ablations.study.factorial import factor_of
from ablations.study.ladders import check_along
from ablations.study.schema import Change, StudyFile
from ablations.study.study import Study
from ablations.verdicts.rule import FEWEST_SEEDS
from trainers.config import TrainConfig, nearest, shown
from trainers.config.recipe import is_code
from trainers.config.size import share_problem
from trainers.errors import listed, printable
from trainers.metrics import EVALUATED, LABELLED, METRICS
from trainers.reported import why_missing

ACCURACIES = {name for name in LABELLED if name.endswith("_top1")}
"""Metrics that a reference measured on the data can be compared with."""

NAMED = {"hypotheses": "hypothesis", "gates": "gate", "claims": "claim", "scales": "scale"}
"""Keys of a study file whose values have names, and what one of them is called."""


def check_names(raw: Mapping[str, Any]) -> list[str]:
    return [
        f"{singular} {shown(name)}: {problem}"
        for kind, singular in NAMED.items()
        if isinstance(raw.get(kind), dict)
        for name in raw[kind]
        if (problem := name_problem(name))
    ]


def check_claims(raw: Mapping[str, Any]) -> list[str]:
    declared, hypotheses = raw.get("claims"), raw.get("hypotheses")
    known = list(hypotheses) if isinstance(hypotheses, dict) else []
    claims = declared.items() if isinstance(declared, dict) else ()
    bodies = [(name, body) for name, body in claims if isinstance(body, dict)]
    return [
        *(
            f"claim {claim}: crossing is made of a hypothesis with direction: crosses; state one"
            for claim, body in bodies
            if "crossing" in body
        ),
        *(
            f"claim {claim}: no hypothesis {name!r}{nearest(name, known)}"
            for claim, body in bodies
            if isinstance(body.get("hypotheses"), list)
            for name in body["hypotheses"]
            if isinstance(name, str) and name not in known
        ),
    ]


def check_expectations(
    raw: Mapping[str, Any],
    arms: Mapping[str, Change],
    cells: Mapping[str, tuple[str, ...]],
) -> list[str]:
    """Problems of hypotheses and gates with arms and metrics that are not there."""
    problems = []
    for kind, singular in (("hypotheses", "hypothesis"), ("gates", "gate")):
        declared = raw.get(kind)
        for name, body in declared.items() if isinstance(declared, dict) else []:
            if not isinstance(body, dict):
                continue
            mentioned = body.get("contrast" if kind == "hypotheses" else "arms")
            names, control = _names(mentioned), _names(body.get("control"))
            if body.get("interaction"):
                lines = _check_interaction(body, cells)
            elif body.get("over") == "cells":
                lines = _check_levels(mentioned, names, cells)
                names = []
            elif body.get("along"):
                known = [arm for arm in (*names, *control) if arm in arms]
                lines = check_along(body["along"], known, cells)
            else:
                lines = []
            lines += [
                f"no arm {arm!r} in this study{nearest(arm, list(arms))} "
                f"(allowed: {', '.join(arms)})"
                for arm in (*names, *control)
                if arm not in arms
            ]
            if "rungs" in body:
                lines.append("rungs is made of `direction: crosses`; leave it out")
            lines += _check_metrics(body)
            problems += [f"{singular} {name}: {line}" for line in lines]
    return problems


def _names(mentioned: object) -> list[str]:
    """The names in a contrast, a control or a list of arms; what is no text has a line already."""
    if isinstance(mentioned, str):
        return [mentioned] if mentioned else []
    names = mentioned if isinstance(mentioned, (list, dict)) else []
    return [one for one in names if isinstance(one, str)]


def _check_interaction(body: Mapping[str, Any], cells: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Problems of an interaction, as the file states it: two levels of each of two factors."""
    if body.get("contrast"):
        return ["interaction and contrast are given together; leave one out"]
    pairs = body["interaction"]
    if not (
        isinstance(pairs, list)
        and len(pairs) == 2
        and all(isinstance(pair, list) and list(map(type, pair)) == [str, str] for pair in pairs)
    ):
        # It has a line already.
        return []
    lines = [line for pair in pairs for line in _check_levels(pair, pair, cells)]
    factors = [factor_of(level, other, cells) for level, other in pairs]
    if not lines and factors[0] == factors[1]:
        lines = ["the two pairs of an interaction are levels of one factor; name two factors"]
    return lines


def _check_levels(
    contrast: object, names: Sequence[str], cells: Mapping[str, tuple[str, ...]]
) -> list[str]:
    """Problems of a contrast over cells, as the file states it: two levels of one factor."""
    if isinstance(contrast, dict):
        # In a Hypothesis it may be one: what over_cells makes of the two levels.
        return [
            "over: cells needs a contrast [level, level it is compared with], got a mapping; leave "
            "over out to weigh single arms"
        ]
    if len(names) == 2 and factor_of(names[0], names[1], cells) is None:
        return [f"no factor of the factorial has the levels {' and '.join(names)}"]
    return []


def _check_metrics(body: Mapping[str, Any]) -> list[str]:
    """Problems of a hypothesis or gate with metrics that are not there, or not at step 0."""
    lines = []
    over = body.get("at_least_over")
    since = "minus_start" if body.get("minus_start") else "at_least_over: step0"
    for metric in (body.get("metric"), body.get("metric_against") or None):
        if not isinstance(metric, str):
            continue
        if metric not in METRICS:
            lines.append(
                f"no metric {shown(metric)}{nearest(metric, list(METRICS))} "
                "(see `dinolab list metrics`)"
            )
        elif over in ("pixels", "mean_colour", "histogram") and metric not in ACCURACIES:
            lines.append(
                f"{metric} is no accuracy, which {over} could be compared with; leave "
                f"at_least_over out, or name one of {', '.join(sorted(ACCURACIES))}"
            )
        elif (body.get("minus_start") or over == "step0") and metric not in EVALUATED:
            lines.append(f"{metric} is not measured at step 0; leave {since} out")
    return lines


def check_reported(
    hypotheses: Mapping[str, Hypothesis],
    gates: Mapping[str, Gate],
    configs: Mapping[str, TrainConfig],
) -> list[str]:
    """Problems of hypotheses and gates with metrics that an arm of theirs does not report."""

    def used() -> Iterator[tuple[str, str, str]]:
        for name, one in hypotheses.items():
            for arm in one.weights:
                yield f"hypothesis {name}", one.metric_of(arm), arm
            for arm, metric in one.control_metrics:
                yield f"hypothesis {name}: control", metric, arm
        for name, gate in gates.items():
            for arm in gate.arms:
                yield f"gate {name}", gate.metric, arm

    without: dict[str, list[str]] = {}
    for what, metric, arm in used():
        if metric in METRICS and arm in configs and (why := why_missing(metric, configs[arm])):
            without.setdefault(f"{what}: {metric} needs {why}, which is not so in", []).append(arm)
    return [f"{line} {listed(arms)}" for line, arms in without.items()]


def check_looks(
    declared: StudyFile, hypotheses: Mapping[str, Hypothesis], seeds: int, fewest: int
) -> list[str]:
    """Problems of the sequential design of a study with that many seeds.

    `fewest` are those with which an e-process can decide anything.
    """
    looks, spending = declared.looks, declared.spending
    if spending == "e-process":
        if shares := [name for name, one in hypotheses.items() if one.endpoint]:
            return [
                f"spending: e-process has no intervals of shares, and an endpoint is one: "
                f"{listed(shares)}; give looks and obf or pocock"
            ]
        if looks:
            return [f"looks: e-process looks after every seed; leave looks {looks} out"]
        if seeds < fewest:
            return [f"spending: e-process needs {fewest} seeds or more to decide, got {seeds}"]
        return []
    if not looks:
        given = {"spending": spending, "futility": declared.futility}
        return [
            f"{name}: {value} needs looks, such as `looks: [8, 12, 16]`; give them, or leave "
            f"{name} out"
            for name, value in given.items()
            if value
        ]
    if looks != sorted(set(looks)) or looks[0] < FEWEST_SEEDS or looks[-1] != seeds:
        return [
            f"looks: must be numbers of seeds, ascending, the first {FEWEST_SEEDS} or more, the "
            f"last {seeds}, which is how many seeds there are; got {looks}"
        ]
    return []


def check_code(recipe: str, named: Sequence[Path]) -> str:
    """Why a study may not run a recipe that is code; empty if it may, or if it is none.

    Whoever opens a study of somebody else must not run code of theirs unawares: it is named beside
    the study, as its own ablations are, by its path or its folder's.
    """
    path = Path(recipe).expanduser()
    allowed = {one.expanduser().resolve() for one in named}
    if not is_code(recipe) or {path.resolve(), path.parent.resolve()} & allowed:
        return ""
    return (
        f"recipe '{printable(recipe)}' is code, which a study runs only where it is named: add "
        f"--ablations {printable(recipe)}"
    )


def check_shares(configs: Mapping[str, TrainConfig], workers: int) -> list[str]:
    """Problems of arms whose images of a step do not divide among workers."""
    problems: dict[str, str] = {}
    for arm, config in configs.items():
        if line := share_problem(config, workers):
            # What the base has, every arm has.
            problems.setdefault(line, arm)
    return [f"arm {arm}: {line}" for line, arm in problems.items()]


def needs_labels(study: Study) -> list[str]:
    """Hypotheses and gates that use a metric which exists only on a data set with labels."""
    used = [
        *(
            (name, {one.metric_of(arm) for arm in one.weights})
            for name, one in study.hypotheses.items()
        ),
        *((name, {gate.metric}) for name, gate in study.gates.items()),
    ]
    return [name for name, metrics in used if metrics & LABELLED]
