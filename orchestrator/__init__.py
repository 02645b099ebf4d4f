"""Orchestration of dinolab. For a program or a notebook: `run`, `load_results`, `measure`."""

import importlib
from typing import Any

__all__ = ["load_results", "measure", "run"]


def __getattr__(name: str) -> Any:
    # Whoever imports the package for a command or a worker has no use for them.
    if name in __all__:
        return getattr(importlib.import_module("orchestrator.library"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
