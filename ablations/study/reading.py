"""A study file as the mapping that it is, before anything is checked of what it says."""

from pathlib import Path
from typing import Any

import yaml

from ablations.spec import BASELINE
from trainers.config import nearest, shown
from trainers.config.explain import brief
from trainers.config.values import ValueLoader, read_yaml
from trainers.errors import StudyError

MOST_CHARACTERS = 10**6


class _Loader(ValueLoader):
    """Refuses a key that is no text or comes twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for written, _ in node.value:
            key = self.construct_object(written, deep=True)
            if not isinstance(key, str):
                text = written.value if isinstance(written, yaml.ScalarNode) else shown(key)
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"key {text} is read as {shown(key)}, and keys must be names; quote it: "
                    f'"{text}"',
                    written.start_mark,
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {shown(key)} is given twice", node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_study(path: Path, scale: str | None = None) -> dict[str, Any]:
    """The mapping of a study file, at one of its scales if it has some.

    What is there and says nothing, such as `gates:` with nothing below it, is left out, and so is
    the baseline where it is the first arm. Raises StudyError, one line.
    """
    raw = _at_scale(_read(path), scale, path)
    arms = raw.get("arms")
    if isinstance(arms, list) and arms[:1] in ([BASELINE], [{BASELINE: {}}], [{BASELINE: None}]):
        raw["arms"] = arms[1:]
    return raw


def names_in(path: Path) -> list[str]:
    """The names of the studies that a file states, one for each of its scales; none without a name.

    Raises StudyError, one line, for what is no mapping.
    """
    raw = _read(path)
    name, scales = raw.get("name"), raw.get("scales")
    if not isinstance(name, str):
        return []
    return (
        [f"{name}-{scale}" for scale in scales] if isinstance(scales, dict) and scales else [name]
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_CHARACTERS + 1)
    except (OSError, ValueError) as error:
        raise StudyError(f"study file {path} cannot be read: {error}; give a YAML file") from error
    if len(text) > MOST_CHARACTERS:
        raise StudyError(
            f"study file {path} has more than {MOST_CHARACTERS:,} characters; give a study"
        )
    try:
        raw = read_yaml(text, _Loader)
    except ValueError as error:
        raise StudyError(f"study file {path} {brief(str(error))}") from error
    if not isinstance(raw, dict):
        raise StudyError(f"study file {path} must be a mapping with name, recipe, seeds, arms, …")
    return _without_nothing(raw)


def _without_nothing(mapping: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if value is not None}


def _at_scale(raw: dict[str, Any], scale: str | None, path: Path) -> dict[str, Any]:
    """The file's mapping with one of its scales put in. Raises StudyError for none or a wrong one.

    What is not shaped as it should be is left for the checks that follow.
    """
    scales = raw.get("scales")
    if not isinstance(scales, dict) or not scales:
        if scale is not None:
            raise StudyError(f"{path}: has no scales, so --scale {brief(scale)} cannot be chosen")
        return raw
    if scale not in scales:
        given = "none was given" if scale is None else f"{shown(scale)} is none of them"
        hint = "" if scale is None else nearest(scale, list(scales))
        raise StudyError(
            f"{path}: is written for several scales, and {given}{hint}; give "
            + brief(f"--scale {' or --scale '.join(scales)}")
        )
    scales = {name: {} if one is None else one for name, one in scales.items()}
    raw = {**raw, "scales": scales}
    chosen = scales[scale]
    if not isinstance(chosen, dict):
        return raw
    chosen = _without_nothing(chosen)
    put = {
        name: chosen[name]
        for name in ("recipe", "dataset", "seeds", "looks", "resources")
        if chosen.get(name)
    }
    common = raw.get("set", {})
    if isinstance(chosen.get("set"), dict) and isinstance(common, dict):
        put["set"] = {**common, **chosen["set"]}
    return {
        **raw,
        **put,
        "name": f"{raw.get('name')}-{scale}",
        "scales": {**scales, scale: chosen},
    }
