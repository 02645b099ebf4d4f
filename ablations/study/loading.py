"""A study file (YAML) becomes a checked Study, or one line for each of its problems."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ablations.spec import BASELINE, Claim, Declared, Gate, Hypothesis
from ablations.study.arms import check_base, check_change, declared_arms, expectations_of
from ablations.study.checks import check_claims, check_expectations
from ablations.study.factorial import Levels, cell_arms, cells_of, factors_of, over_cells
from ablations.study.schema import Change, Resources, Scale, StudyFile
from ablations.study.study import Study
from trainers.config import TrainConfig, explain, nearest, override
from trainers.config.recipe import ValueLoader, recipe
from trainers.errors import ConfigError, StudyError


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
    factors = factors_of(raw.get("factorial"), ablations, problems)
    cells = cells_of(factors)
    base, arms, expected, confounds = _resolve(raw, factors, ablations, problems)
    hypotheses = dict(declared.hypotheses) if declared else {}
    problems += check_expectations(raw, arms, cells)
    problems += check_claims(raw)
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
            name: over_cells(hypothesis, cells)
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
    for name, change, combined in cell_arms(factors, problems):
        if base is not None:
            lines = [line for one in combined.values() for line in check_base(base, one)]
            problems += [f"cell {name}: {line}" for line in lines or check_change(base, change)]
        arms[name] = change
        confounds[name] = tuple(
            text for level, one in combined.items() for text in one.arms[level].confounds
        )
    for name, change, found in declared_arms(raw.get("arms"), paths, problems):
        if name in arms:
            problems.append(f"arm {name}: given twice, or the name of the base")
        elif base is not None:
            lines = check_base(base, found) if found else []
            problems += [f"arm {name}: {line}" for line in lines or check_change(base, change)]
        arms[name] = change
        confounds[name] = found.arms[name].confounds if found else ()
        if found:
            expected |= expectations_of(name, found.arms[name], found.claim)
    return base, arms, expected, confounds


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
