"""Every error dinolab raises on purpose.

::

    DinolabError                 anything below; its text is one line for a person
    ├── InputError               what was given cannot be used: exit code 2, nothing was written
    │   ├── ConfigError          a knob: unknown, of the wrong type or out of range
    │   ├── DataError            a data set: missing, empty, unreadable
    │   ├── StudyError           a study file: one line for each problem, all at once
    │   └── RootError            the run folder cannot be written, or holds something else
    ├── PlanError                a worker found other data or other code than were planned
    ├── CheckpointError          a checkpoint is corrupt or belongs to another configuration
    ├── OutOfMemoryError         a step or an evaluation needs more memory than there is
    ├── LostWorkerError          another worker of the run has ended
    ├── ClusterError             the Ray that trials run on has ended
    ├── UnwrittenError           a checkpoint could not be written; an OSError too
    └── StoreError               a run root does not answer, is full or gone; an OSError too

Each message says what was given, what is allowed, and what to do. All can be pickled, so that they
travel between processes unchanged.
"""

from collections.abc import Sequence


def first_line(error: BaseException) -> str:
    """The first line of what `error` says, or its kind when it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def printable(text: str) -> str:
    """`text` in one line that any terminal can show: odd characters as their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason(error: Exception) -> str:
    """What an error says, in one line of at most 300 characters."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:300]


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first `most` names in a row, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class DinolabError(Exception):
    """Base of every error that dinolab raises on purpose."""


class InputError(DinolabError):
    """What was given cannot be used; nothing has been written (exit code 2)."""


class ConfigError(InputError):
    """A knob is unknown, has the wrong type or lies outside its range."""


class DataError(InputError):
    """A data set is missing, empty or unreadable."""


class StudyError(InputError):
    """A study file has problems; the message has one line for each of them."""


class RootError(InputError):
    """The run folder cannot be written, or already holds something else."""


class PlanError(DinolabError):
    """A worker found other data or other code than its run was planned with."""


class CheckpointError(DinolabError):
    """A checkpoint is corrupt or belongs to another configuration."""


class DivergedError(DinolabError):
    """What a network makes of images is not finite."""


class OutOfMemoryError(DinolabError):
    """A step or an evaluation needs more memory than there is; the message names the knobs."""


class ClusterError(DinolabError):
    """The Ray that trials run on has ended."""


class LostWorkerError(DinolabError):
    """Another worker of the run has ended; what it says itself is the reason."""


class UnwrittenError(DinolabError, OSError):
    """A checkpoint could not be written: a full disk, a lost file system."""


class StoreError(DinolabError, OSError):
    """A run root cannot be read or written now: a full disk, a lost mount, no network."""
