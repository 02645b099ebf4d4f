"""Where an attempt starts: the newest checkpoint that is whole with all that was kept before it."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from trainers.errors import InputError
from trainers.runs.records import Digest, lines_up_to
from trainers.runs.stored_trial import SavedState, StoredTrial, digest_of_file, manifest_key

_NAME = ".origin"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A checkpoint and the records up to it, or a new start."""

    state: SavedState | None
    records: bytes
    """up to there, as lines"""
    damaged: tuple[str, ...]
    """newer checkpoints that were passed over, and why"""


def origin(trial: StoredTrial, folder: Path) -> Origin:
    """The newest checkpoint that is whole, fetched as `fetched` does, or a new start.

    Whoever has made it may be still at work, and drop it for a newer one at any time. Raises
    StoreError.
    """
    while True:
        damaged: dict[str, None] = {}  # several may rest on one damaged file
        for step, number in trial.manifests():
            try:
                state = trial.state(number, step)
                records = _records_of(trial, state)
                for name, digest in state.of_images.items():
                    trial.intact(f"{trial.folder}/{name}", digest)
                fetched(trial, state, folder)
            except InputError as error:
                if trial.store.get(manifest_key(trial, number, step)) is None:
                    break
                damaged[str(error)] = None
                continue
            return Origin(state=state, records=records, damaged=tuple(damaged))
        else:
            return Origin(state=None, records=b"", damaged=tuple(damaged))


def _records_of(trial: StoredTrial, state: SavedState) -> bytes:
    folder = trial.attempt_folder(state.attempt)
    return b"".join(
        lines_up_to(trial.intact(f"{folder}/{name}", digest), state.step, name)
        for name, digest in sorted(state.records.items())
    )


def fetched(trial: StoredTrial, state: SavedState, folder: Path) -> Path:
    """The checkpoint, as a file or folder in `folder` that nobody else drops.

    Raises InputError when a file of it is missing or damaged.
    """
    prefix = trial.attempt_folder(state.attempt)
    drop(folder)
    for name, digest in state.files.items():
        own = folder / _NAME / name
        own.parent.mkdir(parents=True, exist_ok=True)
        found = digest_of_file(own) if _brought(trial, f"{prefix}/{name}", own) else None
        _refuse_another(f"{trial.store.shown}/{prefix}/{name}", found, digest)
    return path_of(state, folder)


def whole(trial: StoredTrial, state: SavedState, folder: Path) -> Path:
    """The checkpoint for who reads it once: where it lies on this machine, or as `fetched`.

    Raises InputError when a file of it is missing or damaged.
    """
    local = trial.store.local
    if local is None:
        return fetched(trial, state, folder)
    prefix = trial.attempt_folder(state.attempt)
    for name, digest in state.files.items():
        path = local / prefix / name
        found = digest_of_file(path) if path.is_file() else None
        _refuse_another(f"{trial.store.shown}/{prefix}/{name}", found, digest)
    return local / prefix / state.name


def path_of(state: SavedState, folder: Path) -> Path:
    """Where `fetched` puts a checkpoint."""
    return folder / _NAME / state.name


def drop(folder: Path) -> None:
    """Remove what `fetched` has put into `folder`."""
    shutil.rmtree(folder / _NAME, ignore_errors=True)


def _brought(trial: StoredTrial, key: str, own: Path) -> bool:
    """Whether the object is there, and now at `own`: the same file where that is possible."""
    local = trial.store.local
    if local is not None:
        try:
            os.link(local / key, own)
        except FileNotFoundError:
            return False
        except OSError:
            pass  # not every file system has links
        else:
            return True
    return trial.store.get_file(key, own)


def _refuse_another(shown: str, found: Digest | None, digest: Digest) -> None:
    if found != digest:
        what = "is missing" if found is None else "is damaged: its digest is another"
        raise InputError(f"{shown} {what}; the run goes on from the one before, or begins anew")
