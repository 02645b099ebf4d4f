"""A study file (YAML) becomes a checked Study, or one line for each of its problems."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ablations.design import Design
from ablations.hypothesis import CROSSES
from ablations.library import Known, library
from ablations.spec import (
    A_STUDYS,
    BASELINE,
    LONGEST_NAME,
    NOT_AN_ARMS,
    Ablation,
    Claim,
    Gate,
    Hypothesis,
    Multiplicity,
    name_problem,
)
from ablations.statistics.sequential_p import fewest_for_e_process
from ablations.study.arms import (
    changed,
    check_base,
    declared_arms,
    expectations_of,
    measured_otherwise,
)
from ablations.study.checks import (
    check_claims,
    check_code,
    check_expectations,
    check_looks,
    check_names,
    check_reported,
    check_shares,
)
from ablations.study.factorial import Levels, cell_arms, cells_of, factors_of, over_cells
from ablations.study.families import in_families
from ablations.study.ladders import (
    along_factor,
    check_crossings,
    check_spelt,
    spelt_crossings,
    without_crossings,
)
from ablations.study.reading import read_study
from ablations.study.schema import FORMS, MOST_ARMS, MOST_RUNS, Change, Resources, Scale, StudyFile
from ablations.study.study import Study
from ablations.verdicts.rule import FEWEST_SEEDS
from trainers.adapters.timm_shapes import spelled
from trainers.config import TrainConfig, nearest, override
from trainers.config.explain import brief, explained
from trainers.config.recipe import recipe
from trainers.errors import ConfigError, StudyError
from trainers.method.site import sites
from trainers.system.storage import absolute_source

LONGEST_CELL = 200
"""Bytes of the joined names of a cell's levels."""


def load_study(
    path: Path,
    dataset: str | None = None,
    ablations: Sequence[Path] = (),
    scale: str | None = None,
    workers: tuple[int, int] | None = None,
) -> Study:
    """Read and check a study file; `dataset` and `workers` replace the file's own.

    `workers` are the fewest of a trial and the most; 0 for no more than the fewest.

    A file with scales is read at one of them, whose name becomes part of the study's.

    Arms may name ablations of the catalogue, of installed packages, and of `ablations`: files, or
    folders of them.

    Raises StudyError with one line for each problem: an unknown key, a knob that does not exist, a
    value of the wrong type, an arm equal to its base, a hypothesis about an arm that is not there
    or a metric that an arm does not report. Raises ConfigError for `ablations` that are none.
    """
    raw, crossing = without_crossings(read_study(path, scale))
    if dataset is not None:
        raw["dataset"] = dataset
    known = library(ablations)
    problems: list[str] = []
    declared = None
    try:
        declared = StudyFile.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        problems += _lines(error)
    except (TypeError, ValueError) as error:
        problems.append(f"holds a value that JSON does not know: {error}")
    factors = factors_of(raw.get("factorial"), known, problems)
    cells = cells_of(factors)
    resolved = _resolve(raw, factors, known, ablations, problems)
    problems += check_names(raw)
    problems += check_expectations(raw, resolved.arms, cells)
    problems += check_claims(raw)
    problems += check_crossings(raw, crossing)
    claims: dict[str, Claim] = {}
    hypotheses: dict[str, Hypothesis] = {}
    seeds: Sequence[int] = ()
    resources = _with_workers(declared.resources if declared else Resources(), workers, problems)
    if declared and not problems:
        stated = declared.hypotheses or resolved.expected
        stated, of_crossings = spelt_crossings(stated, crossing, cells)
        claims = {**declared.claims, **of_crossings}
        stated = in_families(stated, claims, declared.multiplicity)
        hypotheses = {
            name: along_factor(over_cells(one, cells), cells) for name, one in stated.items()
        }
        problems += check_spelt(hypotheses)
        seeds = declared.seeds if isinstance(declared.seeds, list) else range(declared.seeds)
        if (runs := len(resolved.arms) * len(seeds)) > MOST_RUNS:
            problems.append(
                f"{len(resolved.arms)} arms × {len(seeds)} seeds are {runs:,} runs, "
                f"{MOST_RUNS:,} is the most"
            )
        problems += check_looks(declared, hypotheses, len(seeds), _fewest(hypotheses))
        problems += check_reported(hypotheses, declared.gates, resolved.configs)
        problems += check_shares(resolved.configs, resources.workers)
    if problems or declared is None or resolved.base is None:
        lines = "\n".join(f"{path}: {brief(problem)}" for problem in dict.fromkeys(problems))
        raise StudyError(lines)
    return Study(
        name=declared.name,
        recipe=declared.recipe,
        base=resolved.base,
        arms=resolved.arms,
        seeds=tuple(seeds),
        hypotheses=hypotheses,
        claims=claims,
        multiplicity=declared.multiplicity,
        cells=cells,
        gates=declared.gates,
        resources=resources,
        confounds=resolved.confounds,
        design=_design(declared, len(seeds), _fewest(hypotheses)),
    )


def _fewest(hypotheses: Mapping[str, Hypothesis]) -> int:
    """Fewest seeds with which an e-process can decide every one of them."""
    strictest = min((one.alpha for one in hypotheses.values()), default=0.05)
    return max(FEWEST_SEEDS, fewest_for_e_process(strictest))


def _design(declared: StudyFile, seeds: int, fewest: int) -> Design | None:
    """The sequential design that is declared, whose fields were checked; None without one."""
    if declared.spending == "e-process":
        looks: Sequence[int] = range(fewest, seeds + 1)
    else:
        looks = declared.looks
    if not looks:
        return None
    return Design(
        looks=tuple(looks), spending=declared.spending or "obf", futility=declared.futility
    )


def _lines(error: ValidationError) -> list[str]:
    """A line for each problem of a study file's fields."""
    found = error.errors()
    lines = []
    for problem in found:
        # Among the keys of the file stands the form that a value was taken for.
        first, *further = problem["loc"]
        where = (first, *(part for part in further if part not in FORMS))
        # A list is not short because its items are wrong.
        if problem["type"] == "too_short" and any(
            one["loc"][: len(where)] == where != one["loc"] for one in found
        ):
            continue
        hint = ""
        if problem["type"] == "literal_error" and where[::2] == ("hypotheses", "direction"):
            # It may stand in the file, and never here: two others are made of it.
            hint = f"; or {CROSSES}, with along"
        if problem["type"] == "extra_forbidden":
            # What stands under it is no part of what is wrong.
            problem |= {"msg": "no such key", "input": {}}
            hint = nearest(str(where[-1]), _fields_at(where))
        lines.append(explained({**problem, "loc": where}) + hint)
    return lines


def _fields_at(place: tuple[int | str, ...]) -> list[str]:
    groups: dict[str, type[BaseModel]] = {
        "hypotheses": Hypothesis, "gates": Gate, "resources": Resources, "claims": Claim,
        "scales": Scale, "multiplicity": Multiplicity,
    }  # fmt: skip
    group = groups.get(str(place[0]), StudyFile) if len(place) > 1 else StudyFile
    return list(group.model_fields)


@dataclass(kw_only=True)
class _Resolved:
    """Base and arms of a study, as far as they can be read."""

    base: TrainConfig | None = None
    arms: dict[str, Change] = field(default_factory=dict)
    configs: dict[str, TrainConfig] = field(default_factory=dict)
    """of each arm that has no problems"""
    expected: dict[str, Hypothesis] = field(default_factory=dict)
    confounds: dict[str, tuple[str, ...]] = field(default_factory=dict)


def _with_workers(
    resources: Resources, workers: tuple[int, int] | None, problems: list[str]
) -> Resources:
    """With so many workers instead, where they are given. Adds problems."""
    if workers is None:
        return resources
    changes = dict(zip(("workers", "most_workers"), workers, strict=True))
    try:
        return Resources.model_validate({**resources.model_dump(), **changes})
    except ValidationError as error:
        said = [one["msg"].removeprefix("Value error, ") for one in error.errors()]
        problems += [f"--workers: {line}" for line in said]
        return resources


def _resolve(
    raw: Mapping[str, Any],
    factors: Sequence[Levels],
    known: Mapping[str, Known],
    named: Sequence[Path],
    problems: list[str],
) -> _Resolved:
    """Adds problems."""
    base = _base(raw, named, problems)
    found = _Resolved(base=base, arms={BASELINE: {}}, confounds={BASELINE: ()})
    if base is not None:
        found.configs[BASELINE] = base
    for kind, name, change, origins in _arms(raw, factors, known, problems):
        if name in found.arms:
            problems.append(f"{kind} {name}: given twice, or the name of the base")
            continue
        if len(found.arms) >= MOST_ARMS:
            problems.append(f"arms: there are more than {MOST_ARMS:,}")
            break
        try:
            longest = LONGEST_CELL if kind == "cell" else LONGEST_NAME
            if problem := name_problem(name, longest):
                raise ConfigError(problem)
            if base is not None:
                for origin in origins.values():
                    check_base(base, origin)
                config, change = changed(base, change)
                sites(config.loss)
                found.configs[name] = config
        except ConfigError as error:
            problems += [f"{kind} {brief(name)}: {line}" for line in str(error).splitlines()]
        found.arms[name] = change
        said = [text for arm, origin in origins.items() for text in origin.arms[arm].confounds]
        found.confounds[name] = (*said, *measured_otherwise(change))
        if kind == "arm" and name in origins:
            origin = origins[name]
            found.expected |= expectations_of(name, origin.arms[name], origin.claim)
    return found


def _arms(
    raw: Mapping[str, Any],
    factors: Sequence[Levels],
    known: Mapping[str, Known],
    problems: list[str],
) -> Iterator[tuple[str, str, Change, Mapping[str, Ablation]]]:
    """Each cell and arm: which of both, name, change, and the ablations that it comes from, by the
    names of their arms. Adds problems."""
    for name, change, combined in cell_arms(factors, problems):
        yield "cell", name, change, combined
    for name, change, origin in declared_arms(raw.get("arms"), known, problems):
        yield "arm", name, change, {name: origin} if origin else {}


def _base(raw: Mapping[str, Any], named: Sequence[Path], problems: list[str]) -> TrainConfig | None:
    """The recipe with the study's data set and common knobs, as far as they fit. Adds problems."""
    if not isinstance(raw.get("recipe"), str):
        return None
    if line := check_code(raw["recipe"], named):
        problems.append(line)
        return None
    try:
        base = recipe(raw["recipe"])
        sites(base.loss)
    except ConfigError as error:
        problems += str(error).splitlines()
        return None
    common = raw.get("set", {})
    if not isinstance(common, dict):
        return base
    of_a_study = {knob: NOT_AN_ARMS[knob] for knob in A_STUDYS if knob in common}
    problems += [f"set: {knob} is not to be set: {why}" for knob, why in of_a_study.items()]
    change = {knob: value for knob, value in common.items() if knob not in of_a_study}
    chosen = raw.get("dataset")
    source = chosen if isinstance(chosen, str) and chosen else base.data.source
    change["data.source"] = absolute_source(source)
    try:
        common_base = override(base, spelled(change))
        sites(common_base.loss)
    except ConfigError as error:
        problems += [f"set: {line}" for line in str(error).splitlines()]
        return base
    return common_base
