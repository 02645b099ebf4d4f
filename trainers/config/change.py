"""Configurations changed and compared by dotted knobs.

:func:`override` names the nearest knob when one does not exist. :func:`diff` is its inverse:
``diff(base, override(base, c))`` is exactly ``c`` for every change ``c`` that changes something.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from trainers.config.explain import brief, explain, nearest
from trainers.config.pin import digest_of
from trainers.config.train import TrainConfig
from trainers.errors import ConfigError


def flatten(config: BaseModel) -> dict[str, Any]:
    """Dotted knob name -> JSON value, depth first."""
    return dict(leaves(config.model_dump(mode="json")))


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every leaf of nested mappings, depth first."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def override(base: TrainConfig, change: Mapping[str, Any]) -> TrainConfig:
    """`base` with the dotted knobs of `change` set.

    Raises ConfigError, one line for each problem: an unknown knob (with the nearest name), a value
    of the wrong type or out of range, a combination that does not fit together.
    """
    tree = base.model_dump(mode="json")
    known = flatten(base)
    problems = []
    for name, value in change.items():
        if name not in known:
            problems.append(brief(f"{name}: no such knob{nearest(name, known)}"))
            continue
        *groups, leaf = name.split(".")
        place = tree
        for group in groups:
            place = place[group]
        place[leaf] = value
    if not problems:
        try:
            return TrainConfig.model_validate_json(json.dumps(tree))
        except ValidationError as error:
            problems = explain(error)
        except TypeError as error:
            problems = [brief(f"{', '.join(change)}: not a value that JSON knows: {error}")]
    raise ConfigError("\n".join(problems))


def diff(base: TrainConfig, other: TrainConfig) -> dict[str, Any]:
    """The dotted knobs in which `other` differs from `base`, with the values of `other`."""
    before = flatten(base)
    return {name: value for name, value in flatten(other).items() if value != before[name]}


def trial_content(config: TrainConfig) -> dict[str, Any]:
    """The part of a configuration that makes a run what it is.

    All but where the data lie, how often it saves, and where starting weights lie whose digest is
    known: none changes what the folder of a finished run holds. Which checkpoints stay
    (`checkpoints.*`) counts: it changes no metric, but another folder comes out.
    """
    return content_of(config.model_dump(mode="json"))


def content_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a configuration as JSON, whichever version of dinolab wrote it.

    Raises KeyError where it is none.
    """
    content = {**config, "data": {**config["data"]}, "model": {**config["model"]}}
    del content["data"]["source"], content["checkpoint_every"]
    weights = content["model"]["weights"]
    content["model"]["weights"] = digest_of(weights) or weights
    return content


def fingerprint(config: TrainConfig) -> str:
    """Hexadecimal SHA-256 of the canonical JSON of `trial_content`."""
    canonical = json.dumps(trial_content(config), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
