"""Recipes by name or file, and knobs as they are written on a command line."""

import importlib
import importlib.util
import pkgutil
import runpy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainers.config import TrainConfig, explain, nearest, shown
from trainers.config.explain import brief
from trainers.config.values import read_yaml
from trainers.errors import ConfigError

PACKAGE = "ablations.recipes"
"""Where named recipes lie; looked up at run time, so that training does without it."""


def recipe_names() -> list[str]:
    """Names of the recipes that are installed, sorted."""
    if importlib.util.find_spec(PACKAGE.split(".")[0]) is None:
        return []
    package = importlib.import_module(PACKAGE)
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def recipe(name: str) -> TrainConfig:
    """The configuration called `name`, or in a file: JSON as beside a run, or Python with RECIPE.

    Raises ConfigError with the nearest name, or with what is wrong in the file.
    """
    if name.endswith(".json") or is_code(name):
        return _from_file(name)
    known = recipe_names()
    if name not in known:
        raise ConfigError(
            brief(
                f"recipe {name}: no such recipe{nearest(name, known)} (allowed: "
                f"{', '.join(known)}, or a .json or .py file)"
            )
        )
    found: TrainConfig = importlib.import_module(f"{PACKAGE}.{name}").RECIPE
    return found


def is_code(name: str) -> bool:
    """Whether whoever asks for that recipe runs a file."""
    return name.endswith(".py")


def _from_file(name: str) -> TrainConfig:
    path = Path(name).expanduser()
    try:
        if not is_code(name):
            return TrainConfig.model_validate_json(path.read_text())
        found = runpy.run_path(str(path)).get("RECIPE")
    except OSError as error:
        raise ConfigError(f"recipe {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problems = "\n".join(f"recipe {path}: {line}" for line in explain(error))
        raise ConfigError(problems) from None
    except SyntaxError as error:
        raise ConfigError(f"recipe {path} is not Python: {error}") from None
    if not isinstance(found, TrainConfig):
        raise ConfigError(f"recipe {path} must set RECIPE to a TrainConfig, got {shown(found)}")
    return found


def knobs_given(pairs: list[str]) -> dict[str, Any]:
    """Knobs and values of texts such as `optimizer.learning_rate=1e-3`; values are YAML.

    Raises ConfigError for a text that is none.
    """
    change = {}
    for pair in pairs:
        knob, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(brief(f"--set {pair}: must be KNOB=VALUE, for example --set seed=3"))
        try:
            change[knob] = read_yaml(value)
        except ValueError:
            raise ConfigError(brief(f"--set {knob}: {shown(value)} is not a value")) from None
    return change
