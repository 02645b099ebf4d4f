"""Seconds that a variable of the environment gives."""

import math
import os

from trainers.errors import ConfigError


def seconds_given(variable: str, default: float, most: float) -> float:
    """What the variable says, `default` where it is not set or empty; from 1 to `most`.

    Raises ConfigError.
    """
    given = os.environ.get(variable) or str(default)
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= most:
        raise ConfigError(f"{variable}={given}: give seconds, from 1 to {most:.0f}")
    return seconds
