"""A study file (YAML) becomes a checked Study, or one line for each of its problems."""

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator
from statsmodels.stats.power import TTestPower

from ablations.library import library
from ablations.spec import BASELINE, Ablation, Arm, Claim, Declared, Gate, Hypothesis
from ablations.verdicts.judge import FEWEST_SEEDS
from trainers.config import TrainConfig, diff, explain, flatten, nearest, override
from trainers.config.recipe import ValueLoader, recipe
from trainers.errors import ConfigError, StudyError
from trainers.metrics import EVALUATED, METRICS

Change = dict[str, Any]
Levels = dict[str, tuple[Change, Ablation | None]]
"""Of one factor: each level's name, change, and the ablation that it comes from if not inline."""

LABELLED = ("knn/", "gap/", "linear_probe/")
"""How the names of metrics begin that exist only on a data set with labels."""


class Resources(Declared):
    """What one trial is given."""

    workers: Annotated[int, Field(ge=1)] = Field(1, description="processes that train one model")
    cpus_per_worker: Annotated[int, Field(ge=1)] = Field(1, description="CPU threads of a worker")
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="auto: one GPU a worker where the cluster has GPUs, else CPU"
    )


class Scale(Declared):
    """What one size of a study has in place of the file's own."""

    recipe: str = Field("", description="base recipe; empty: the file's own")
    dataset: str = Field("", description="data set; empty: the file's own")
    set: Change = Field({}, description="knobs changed in every arm, over those of the file")
    seeds: int = Field(0, ge=0, description="how many; 0: the file's own")
    resources: Resources = Resources()


class StudyFile(Declared):
    """The fields of a study file."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*$", description="name of the study and of its run folder"
    )
    recipe: str = Field(description="base recipe, see `dinolab list recipes`")
    dataset: str = Field(
        "digits",
        description="`digits`, `photographs`, or the path of a folder of images (its sub-folders "
        "are the labels)",
    )
    set: Change = Field({}, description="knobs changed in every arm, the baseline included")
    seeds: int | list[Annotated[int, Field(ge=0)]] = Field(
        description="how many (0, 1, 2, ...), or a list; arms are paired by seed"
    )
    arms: list[str | dict[str, Change]] = Field(
        [], description="names from `dinolab list ablations`, or `name: {knob: value}`"
    )
    factorial: list[list[str | dict[str, Change]]] = Field(
        [],
        description="factors, each a list of levels: `baseline` first, then as in `arms`; every "
        "combination is an arm, its name the levels joined by +",
    )
    hypotheses: dict[str, Hypothesis] = Field(
        {}, description="what is expected, by name; empty: what the catalogue's arms expect"
    )
    claims: dict[str, Claim] = Field({}, description="what hypotheses decide together, by name")
    gates: dict[str, Gate] = Field({}, description="what must hold in an arm for it to count")
    resources: Resources = Resources()
    scales: dict[str, Scale] = Field(
        {}, description="sizes of the same study; `--scale NAME` chooses one"
    )

    @field_validator("seeds")
    @classmethod
    def _some_distinct_seeds(cls, seeds: int | list[int]) -> int | list[int]:
        listed = list(range(seeds)) if isinstance(seeds, int) else seeds
        if not listed or len(set(listed)) < len(listed):
            raise ValueError("must be 1 or more, each seed once")
        return seeds


@dataclass(frozen=True, kw_only=True)
class Study:
    """A checked study: what runs, and what is expected of it."""

    name: str
    recipe: str
    base: TrainConfig
    arms: Mapping[str, Change]
    """of each arm, what it changes in the base; the baseline comes first and changes nothing"""
    seeds: tuple[int, ...]
    hypotheses: Mapping[str, Hypothesis]
    gates: Mapping[str, Gate]
    resources: Resources
    claims: Mapping[str, Claim] = field(default_factory=dict)
    cells: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """of each arm of the factorial, its level of each factor"""
    confounds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """of each arm, what it is declared to change beside what it is about"""

    def config(self, arm: str, seed: int) -> TrainConfig:
        """The whole configuration of one run."""
        return override(self.base, {**self.arms[arm], "seed": seed})

    def to_json(self) -> dict[str, Any]:
        """The resolved study in JSON types."""
        return {
            "name": self.name,
            "recipe": self.recipe,
            "seeds": list(self.seeds),
            "arms": {arm: dict(change) for arm, change in self.arms.items()},
            "hypotheses": {i: h.model_dump(mode="json") for i, h in self.hypotheses.items()},
            "claims": {i: c.model_dump(mode="json") for i, c in self.claims.items()},
            "gates": {i: g.model_dump(mode="json") for i, g in self.gates.items()},
            "resources": self.resources.model_dump(mode="json"),
        }


class _Loader(ValueLoader):
    """Safe YAML that reads 1e-3 as the number it is and refuses a key that is no text or comes
    twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (written, _) in zip(keys, node.value, strict=True):
            if not isinstance(key, str):
                text = written.value if isinstance(written, yaml.ScalarNode) else key
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f'key {text} is read as {key!r}, and keys must be names; quote it: "{text}"',
                    written.start_mark,
                )
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def ablation(name: str, paths: Sequence[Path] = ()) -> Ablation:
    """The ablation of that name, from the catalogue, an installed package or one of `paths`.

    Raises ConfigError with the nearest name, or with what is wrong in the file.
    """
    known = library(paths)
    if name not in known:
        raise ConfigError(
            f"arm {name}: not in the catalogue{nearest(name, list(known))} (allowed: "
            f"{', '.join(known)}; or inline: `{name}: {{knob: value}}`; or from files of your own: "
            "--ablations PATH)"
        )
    return known[name].load()


def load_study(
    path: Path,
    dataset: str | None = None,
    ablations: Sequence[Path] = (),
    scale: str | None = None,
) -> Study:
    """Read and check a study file; `dataset` replaces the file's own.

    A file with scales is read at one of them, whose name becomes part of the study's.

    Arms may name ablations of the catalogue, of installed packages, and of `ablations`: files, or
    folders of them.

    Raises StudyError with one line for each problem: an unknown key, a knob that does not exist, a
    value of the wrong type, an arm equal to its base, a hypothesis about an arm or metric that is
    not there.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"study file {path} cannot be read: {error}; give a YAML file") from error
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        what = "" if isinstance(error, yaml.constructor.ConstructorError) else " is not YAML"
        raise StudyError(f"study file {path}{what}: {where}") from error
    if not isinstance(raw, dict):
        raise StudyError(f"study file {path} must be a mapping with name, recipe, seeds, arms, …")
    raw = _at_scale(raw, scale, path)
    if dataset is not None:
        raw["dataset"] = dataset
    problems: list[str] = []
    declared = None
    try:
        declared = StudyFile.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        problems += _without_union_noise(error)
    except (TypeError, ValueError) as error:
        # A date, say, or an alias that holds itself.
        problems.append(f"holds a value that JSON does not know: {error}")
    factors = _factors(raw.get("factorial"), ablations, problems)
    cells = _cells(factors)
    base, arms, expected, confounds = _resolve(raw, factors, ablations, problems)
    hypotheses = dict(declared.hypotheses) if declared else {}
    problems += _check_expectations(raw, arms, cells)
    problems += _check_claims(raw)
    if problems or declared is None or base is None:
        lines = "\n".join(f"{path}: {problem}" for problem in dict.fromkeys(problems))
        raise StudyError(lines)
    seeds = range(declared.seeds) if isinstance(declared.seeds, int) else declared.seeds
    return Study(
        name=declared.name,
        recipe=declared.recipe,
        base=base,
        arms=arms,
        seeds=tuple(seeds),
        hypotheses={
            name: _over_cells(hypothesis, cells)
            for name, hypothesis in (hypotheses or expected).items()
        },
        claims=declared.claims,
        cells=cells,
        gates=declared.gates,
        resources=declared.resources,
        confounds=confounds,
    )


def _without_union_noise(error: ValidationError) -> list[str]:
    """Lines of a pydantic error; what fits none of several forms is one line, not one for each."""
    forms = {
        r"arms\.\d+": "a catalogue name or `name: {knob: value}`",
        r"factorial\.\d+\.\d+": "a catalogue name or `name: {knob: value}`",
        r"hypotheses\..+\.contrast": "[arm, arm it is compared with], [arm] or {arm: weight}",
    }
    explained = explain(error)
    lines = []
    for line in explained:
        # A list is not short because its items are wrong.
        inside = line.partition(":")[0] + "."
        if "at least 1 item" in line and any(one.startswith(inside) for one in explained):
            continue
        for where, form in forms.items():
            if place := re.match(rf"({where})\.", line):
                line = f"{place[1]}: must be {form}"
        line = line.replace("extra inputs are not permitted", "no such key")
        unknown = re.match(r"(?:(.*)\.)?(\w+): no such key", line)
        if unknown:
            line = f"{unknown[0]}{nearest(unknown[2], _fields_at(unknown[1] or ''))}"
        lines.append(line)
    return lines


def _fields_at(place: str) -> list[str]:
    groups: dict[str, type[Declared]] = {
        "": StudyFile, "hypotheses": Hypothesis, "gates": Gate, "resources": Resources,
        "claims": Claim, "scales": Scale,
    }  # fmt: skip
    return list(groups.get(place.split(".")[0], StudyFile).model_fields)


def _resolve(
    raw: Mapping[str, Any],
    factors: Sequence[Levels],
    paths: Sequence[Path],
    problems: list[str],
) -> tuple[
    TrainConfig | None, dict[str, Change], dict[str, Hypothesis], dict[str, tuple[str, ...]]
]:
    """Base, arms, the catalogue's expectations and confounds, as far as they can be read.

    Adds problems.
    """
    base = None
    if isinstance(raw.get("recipe"), str):
        try:
            base = recipe(raw["recipe"])
        except ConfigError as error:
            problems.append(str(error))
    common = raw.get("set", {})
    if base is not None and isinstance(common, dict):
        source = {"data.source": str(raw.get("dataset", "digits"))}
        try:
            base = override(base, {**source, **common})
        except ConfigError as error:
            problems += [f"set: {line}" for line in str(error).splitlines()]

    arms: dict[str, Change] = {BASELINE: {}}
    expected: dict[str, Hypothesis] = {}
    confounds: dict[str, tuple[str, ...]] = {BASELINE: ()}
    for name, change, combined in _cell_arms(factors, problems):
        if base is not None:
            lines = [line for one in combined.values() for line in _check_base(base, one)]
            problems += [f"cell {name}: {line}" for line in lines or _check_change(base, change)]
        arms[name] = change
        confounds[name] = tuple(
            text for level, one in combined.items() for text in one.arms[level].confounds
        )
    for name, change, found in _declared_arms(raw.get("arms"), paths, problems):
        if name in arms:
            problems.append(f"arm {name}: given twice, or the name of the base")
        elif base is not None:
            lines = _check_base(base, found) if found else []
            problems += [f"arm {name}: {line}" for line in lines or _check_change(base, change)]
        arms[name] = change
        confounds[name] = found.arms[name].confounds if found else ()
        if found:
            expected |= _expected(name, found.arms[name], found.claim)
    return base, arms, expected, confounds


def _declared_arms(
    listed: object, paths: Sequence[Path], problems: list[str]
) -> Iterator[tuple[str, Change, Ablation | None]]:
    """Each arm with its change, and the ablation that it comes from if it is not inline."""
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, str):
            try:
                found = ablation(entry, paths)
            except ConfigError as error:
                problems += str(error).splitlines()
                continue
            for name, arm in found.arms.items():
                yield name, dict(arm.change), found
        elif isinstance(entry, dict):
            for name, change in entry.items():
                if isinstance(change, dict):
                    yield str(name), change, None


def _factors(factorial: object, paths: Sequence[Path], problems: list[str]) -> list[Levels]:
    """The levels of each factor, the baseline first, as far as they can be read. Adds problems.

    No two levels of a factorial have the same name, and so no two cells.
    """
    factors: list[Levels] = []
    seen = {BASELINE}
    for number, factor in enumerate(factorial if isinstance(factorial, list) else [], start=1):
        entries = factor if isinstance(factor, list) else []
        begins = entries[:1] == [BASELINE]
        if not begins:
            problems.append(
                f"factorial: factor {number} must be a list of levels that begins with "
                f"{BASELINE}, got {factor!r}"
            )
        levels: Levels = {BASELINE: ({}, None)}
        for entry in entries[begins:]:
            if isinstance(entry, dict) and len(entry) != 1:
                problems.append(
                    f"factorial: a level of factor {number} must be one `name: {{knob: value}}`, "
                    f"got {' and '.join(entry) or 'an empty mapping'}; make each level an item of "
                    "the list"
                )
            for name, change, found in _declared_arms([entry], paths, problems):
                if not name or "+" in name:
                    problems.append(
                        f"factorial: level {name!r} of factor {number} must have a name without +, "
                        "which joins the names of levels; give it another"
                    )
                elif name in seen:
                    problems.append(
                        f"factorial: level {name} of factor {number} is given twice, or the name "
                        "of the base; every level of every factor needs a name of its own"
                    )
                else:
                    levels[name] = change, found
                seen.add(name)
        factors.append(levels)
    return factors


def _cells(factors: Sequence[Levels]) -> dict[str, tuple[str, ...]]:
    """Of each combination of levels its name and levels; the first is the baseline."""
    if not factors:
        return {}
    return {
        "+".join(level for level in levels if level != BASELINE) or BASELINE: levels
        for levels in itertools.product(*factors)
    }


def _cell_arms(
    factors: Sequence[Levels], problems: list[str]
) -> Iterator[tuple[str, Change, dict[str, Ablation]]]:
    """Each cell but the baseline, with its change and the ablations that it combines, by level."""
    for name, cell in _cells(factors).items():
        change: Change = {}
        combined = {}
        for levels, level in zip(factors, cell, strict=True):
            more, found = levels[level]
            twice = [knob for knob in more if knob in change and change[knob] != more[knob]]
            if twice:
                problems.append(
                    f"cell {name}: two of its levels change {', '.join(twice)}; levels of "
                    "different factors must change different knobs"
                )
            change |= more
            if found:
                combined[level] = found
        if name != BASELINE:
            yield name, change, combined


def _over_cells(hypothesis: Hypothesis, cells: Mapping[str, tuple[str, ...]]) -> Hypothesis:
    """The same with `over: cells` spelt out as a weight for each cell."""
    if hypothesis.over != "cells":
        return hypothesis
    level, other = hypothesis.contrast
    factor = _factor_of(level, other, cells)
    assert factor is not None, "was checked before"
    weights: dict[str, float] = {}
    for sign, wanted in ((1, level), (-1, other)):
        chosen = [name for name, levels in cells.items() if levels[factor] == wanted]
        weights |= {name: sign / len(chosen) for name in chosen}
    return hypothesis.model_copy(update={"contrast": weights})


def _factor_of(level: str, other: str, cells: Mapping[str, tuple[str, ...]]) -> int | None:
    """The factor that has both levels, at which one is not the baseline."""
    for factor in range(len(next(iter(cells.values()), ()))):
        levels = {cell[factor] for cell in cells.values()}
        if {level, other} <= levels and {level, other} != {BASELINE}:
            return factor
    return None


def _at_scale(raw: dict[str, Any], scale: str | None, path: Path) -> dict[str, Any]:
    """The file's mapping with one of its scales put in. Raises StudyError for none or a wrong one.

    What is not shaped as it should be is left for the checks that follow.
    """
    scales = raw.get("scales")
    if not isinstance(scales, dict) or not scales:
        if scale is not None:
            raise StudyError(f"{path}: has no scales, so --scale {scale} cannot be chosen")
        return raw
    if scale not in scales:
        given = "none was given" if scale is None else f"{scale!r} is none of them"
        hint = "" if scale is None else nearest(scale, list(scales))
        raise StudyError(
            f"{path}: is written for several scales, and {given}{hint}; give --scale "
            f"{' or --scale '.join(scales)}"
        )
    chosen = scales[scale]
    if not isinstance(chosen, dict):
        return raw
    put = {
        name: chosen[name]
        for name in ("recipe", "dataset", "seeds", "resources")
        if chosen.get(name)
    }
    common = raw.get("set") or {}
    if isinstance(chosen.get("set"), dict) and isinstance(common, dict):
        put["set"] = {**common, **chosen["set"]}
    return {**raw, **put, "name": f"{raw.get('name')}-{scale}"}


def _check_claims(raw: Mapping[str, Any]) -> list[str]:
    claims, hypotheses = raw.get("claims"), raw.get("hypotheses")
    known = list(hypotheses) if isinstance(hypotheses, dict) else []
    return [
        f"claim {claim}: no hypothesis {name!r}{nearest(name, known)}"
        for claim, body in (claims.items() if isinstance(claims, dict) else ())
        if isinstance(body, dict) and isinstance(body.get("hypotheses"), list)
        for name in body["hypotheses"]
        if isinstance(name, str) and name not in known
    ]


def _expected(name: str, arm: Arm, claim: str) -> dict[str, Hypothesis]:
    """What a declared arm is expected to do, as hypotheses against the baseline."""
    return {
        f"{name}:{one.metric}": Hypothesis(
            claim=claim,
            metric=one.metric,
            contrast=(name, BASELINE),
            direction=one.direction,
            smallest_effect=one.by,
        )
        for one in arm.expectations
    }


def _check_base(base: TrainConfig, found: Ablation) -> list[str]:
    given = flatten(base)
    return [
        f"needs {knob} {value!r} in the base, which has {given[knob]!r}; set it under `set`, or "
        "leave the arm out"
        for knob, value in found.missing(base).items()
    ]


def _check_change(base: TrainConfig, change: Change) -> list[str]:
    if not change:
        return ["changes nothing: an arm must differ from the baseline"]
    try:
        changed = diff(base, override(base, change))
    except ConfigError as error:
        return str(error).splitlines()
    return [
        f"{knob} is {change[knob]!r} in the base already: an arm must differ from the baseline"
        for knob in change
        if knob not in changed
    ]


def _check_expectations(
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
            names = mentioned if isinstance(mentioned, (list, dict)) else []
            # What is no text has a line already.
            names = [one for one in names if isinstance(one, str)]
            if body.get("over") == "cells":
                lines = _check_levels(mentioned, names, cells)
            else:
                lines = [
                    f"no arm {arm!r} in this study{nearest(arm, list(arms))} "
                    f"(allowed: {', '.join(arms)})"
                    for arm in names
                    if arm not in arms
                ]
            lines += _check_metrics(body)
            problems += [f"{singular} {name}: {line}" for line in lines]
    return problems


def _check_levels(
    contrast: object, names: Sequence[str], cells: Mapping[str, tuple[str, ...]]
) -> list[str]:
    """Problems of a contrast over cells, as the file states it: two levels of one factor."""
    if isinstance(contrast, dict):
        # In a Hypothesis it may be one: what _over_cells makes of the two levels.
        return [
            "over: cells needs a contrast [level, level it is compared with], got a mapping; leave "
            "over out to weigh single arms"
        ]
    if len(names) == 2 and _factor_of(names[0], names[1], cells) is None:
        return [f"no factor of the factorial has the levels {' and '.join(names)}"]
    return []


def _check_metrics(body: Mapping[str, Any]) -> list[str]:
    """Problems of a hypothesis or gate with metrics that are not there, or not at step 0."""
    lines = []
    for metric in (body.get("metric"), body.get("metric_against") or None):
        if not isinstance(metric, str):
            continue
        if metric not in METRICS:
            lines.append(
                f"no metric {metric!r}{nearest(metric, list(METRICS))} (see `dinolab list metrics`)"
            )
        elif body.get("minus_start") and metric not in EVALUATED:
            lines.append(f"{metric} is not measured at step 0; leave minus_start out")
    return lines


def needs_labels(study: Study) -> list[str]:
    """Hypotheses and gates that use a metric which exists only on a data set with labels."""
    used = [
        *(
            (name, {one.metric_of(arm) for arm in one.weights})
            for name, one in study.hypotheses.items()
        ),
        *((name, {gate.metric}) for name, gate in study.gates.items()),
    ]
    return [
        name for name, metrics in used if any(metric.startswith(LABELLED) for metric in metrics)
    ]


def lint(study: Study) -> list[str]:
    """What a reader of the verdicts should know before anything runs; warnings, not errors."""
    warnings = []
    seeds = len(study.seeds)
    if seeds < FEWEST_SEEDS:
        warnings.append(
            f"{seeds} seeds: every verdict will be inconclusive; {FEWEST_SEEDS} is the fewest, "
            "8 a good default"
        )
    elif study.hypotheses:
        effect = TTestPower().solve_power(nobs=seeds, alpha=0.05, power=0.8)
        warnings.append(
            f"{seeds} seeds: 80 % power for a paired difference of {effect:.2f} standard "
            "deviations (two-sided t test at 0.05, before adjustment)"
        )
    families: dict[str, list[Hypothesis]] = {}
    for hypothesis in study.hypotheses.values():
        if hypothesis.direction != "holds" and hypothesis.test == "signflip":
            families.setdefault(hypothesis.family, []).append(hypothesis)
    for family, members in families.items():
        needed = 1 + math.ceil(math.log2(len(members) / min(h.alpha for h in members)))
        if seeds < needed and seeds >= FEWEST_SEEDS:
            warnings.append(
                f"family {family}: {len(members)} sign-flip tests at {seeds} seeds cannot reach "
                f"their alpha after Holm; {needed} seeds can"
            )
    if not study.hypotheses:
        warnings.append("no hypotheses: runs will be measured, and nothing decided")
    return warnings
