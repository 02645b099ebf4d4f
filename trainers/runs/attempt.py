"""One attempt at a trial: it writes its own folder of the run root, and nothing else of it.

What counts is decided by order: records before the manifest of the checkpoint that follows them,
the files of a checkpoint before its manifest, all of an attempt before the result, which is put
only where nobody was first.
"""

import contextlib
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.config import TrainConfig
from trainers.errors import InputError, StoreError, first_line
from trainers.runs.lease import Held, Holder, Lease, Outcome, Watch, expires_s
from trainers.runs.records import Digest, Records, lines_up_to
from trainers.runs.stored_trial import SavedState, StoredTrial, digest_of_file, manifest
from trainers.training.saving import remove


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an attempt starts: at a checkpoint, or anew."""

    state: SavedState | None
    records: bytes
    """up to there, as lines"""
    damaged: tuple[str, ...]
    """newer checkpoints that were passed over, and why"""


def claimed(
    trial: StoredTrial,
    *,
    steps: int,
    driver: str,
    over: Collection[int],
    waits: bool,
    say: Callable[[str], None] = lambda _: None,
) -> "Attempt | None":
    """A new attempt at a trial that has no result; None when it has, or somebody is at it.

    `over` are attempts that are known to have ended. With `waits` it waits for the one that is at
    it, and says so once. Raises StoreError, and InputError when the result is damaged.
    """
    watch, said = Watch(), 0
    while not trial.finished():
        last = max(trial.attempts(), default=0)
        lease = trial.lease(last) if last else None
        if last and last not in over and not watch.is_over(str(last), lease):
            if not waits:
                return None
            if said != last:
                who = "" if lease is None else f" ({lease.holder.host} {lease.holder.pid})"
                say(f"another process{who} is at this run: waiting until it has ended")
                said = last
            time.sleep(min(1.0, expires_s() / 10))
            continue
        own = Lease(holder=Holder.this(), driver=driver, from_attempt=0, from_step=-1, steps=steps)
        key = f"{trial.attempt_folder(last + 1)}/lease.json"
        if trial.store.put(key, own.content(), if_absent=True):
            return Attempt(trial, last + 1, own)
    return None


def origin(trial: StoredTrial) -> Origin:
    """The newest checkpoint that is whole with all records before it, or a new start.

    Raises StoreError.
    """
    damaged = []
    for state in trial.states():
        try:
            records = b"".join(
                lines_up_to(content, state.step, name)
                for name, content in _records_of(trial, state)
            )
            for name, digest in state.files.items():
                _check_file(trial, f"{trial.attempt_folder(state.attempt)}/{name}", digest)
        except InputError as error:
            damaged.append(str(error))
            continue
        return Origin(state=state, records=records, damaged=tuple(damaged))
    return Origin(state=None, records=b"", damaged=tuple(damaged))


def _records_of(trial: StoredTrial, state: SavedState) -> Iterator[tuple[str, bytes]]:
    for name, digest in sorted(state.records.items()):
        key = f"{trial.attempt_folder(state.attempt)}/{name}"
        yield key, trial.intact(key, digest)


def _check_file(trial: StoredTrial, key: str, digest: Digest) -> None:
    """Raises InputError, one line, when a file of a checkpoint is missing or damaged."""
    local = trial.store.local
    if local is None:
        return  # whoever fetches it checks
    path = local.joinpath(*key.split("/"))
    try:
        found: Digest | None = digest_of_file(path)
    except FileNotFoundError:
        found = None
    _refuse_another(f"{trial.store.shown}/{key}", found, digest)


def _refuse_another(shown: str, found: Digest | None, digest: Digest) -> None:
    if found != digest:
        what = "is missing" if found is None else "is damaged: its digest is another"
        raise InputError(f"{shown} {what}; the run goes on from the one before, or begins anew")


def fetched(trial: StoredTrial, state: SavedState, folder: Path) -> Path:
    """The checkpoint as a file or folder on this machine, beside `folder` if it lies elsewhere.

    Raises InputError when a file of it is missing or damaged.
    """
    prefix = trial.attempt_folder(state.attempt)
    if trial.store.local is not None:
        return trial.store.local / prefix / state.name
    for name, digest in state.files.items():
        own = folder.parent / "origin" / name
        own.parent.mkdir(parents=True, exist_ok=True)
        there = trial.store.get_file(f"{prefix}/{name}", own)
        shown = f"{trial.store.shown}/{prefix}/{name}"
        _refuse_another(shown, digest_of_file(own) if there else None, digest)
    return folder.parent / "origin" / state.name


class Attempt:
    """An attempt that this process has claimed; also the Keeper of its checkpoints."""

    def __init__(self, trial: StoredTrial, number: int, lease: Lease) -> None:
        self.trial, self.store, self.number = trial, trial.store, number
        self.prefix = trial.attempt_folder(number)
        self.held = Held(self.store, f"{self.prefix}/lease.json", lease, self._has_successor)
        self.records = Records(self.store, self.prefix)
        self.machines: list[dict[str, Any]] = []
        """what has been computed on, earlier attempts first"""
        self._kept: dict[str, str] = {}
        self._up_to: dict[int, dict[str, Digest]] = {}
        self._states: dict[str, SavedState] = {}

    def begin(self, start: Origin, config: TrainConfig, machine: dict[str, Any]) -> None:
        """Write down from where it goes on, and what it trains. Raises StoreError."""
        origin = start.state
        text = json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        self.store.put(self.trial.config_key, text.encode(), if_absent=True)
        earlier = [] if origin is None else [one for one in origin.machines if one != machine]
        self.machines = [*earlier, machine]
        if origin is not None:
            self._kept = dict(origin.kept)
            for state in self.trial.states():
                if state.attempt == origin.attempt and state.step <= origin.step:
                    self._kept[str(state.step)] = f"attempts/{state.attempt:04d}/{state.name}"
            self.held.change(from_attempt=origin.attempt, from_step=origin.step, step=origin.step)
            self.records = Records(self.store, self.prefix, before=start.records)

    def begun(self, step: int) -> None:
        """See Keeper."""
        self._up_to[step] = self.records.cut()

    def keep(self, step: int, path: Path, stays: Callable[[int], bool]) -> None:
        """See Keeper. Raises OSError."""
        self._kept = {old: name for old, name in self._kept.items() if stays(int(old))}
        files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        digests = {}
        for file in files:
            name = file.relative_to(path.parent).as_posix()
            digests[name] = digest_of_file(file)
            self.store.put_file(f"{self.prefix}/{name}", file)
        state = SavedState(
            attempt=self.number,
            step=step,
            name=path.name,
            files=digests,
            records=self._up_to.pop(step, {}),
            machines=tuple(self.machines),
            kept=self._kept,
        )
        self.store.put(self._manifest_key(step), manifest(state))
        self._states[path.name] = state

    def drop(self, path: Path) -> None:
        """See Keeper. Raises OSError."""
        state = self._states.pop(path.name, None)
        if state is not None:
            self.store.delete(self._manifest_key(state.step))
        remove(path)
        if state is not None and self.store.local is None:
            for name in state.files:
                self.store.delete(f"{self.prefix}/{name}")

    def commit(self, result: Mapping[str, Any]) -> bool:
        """Put the result, with the digests of this attempt's files; False if another was first."""
        files = dict(self.records.cut())
        checkpoints = dict(self._kept)
        for state in self._states.values():
            files |= state.files
            checkpoints[str(state.step)] = f"attempts/{self.number:04d}/{state.name}"
        content = {**result, "attempt": self.number, "checkpoints": checkpoints, "files": files}
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        return self.store.put(self.trial.result_key, text.encode(), if_absent=True)

    def fail(self, kind: str, error: BaseException, output: str = "") -> None:
        """Write down why it ended without a result, for `dinolab logs`. Raises StoreError."""
        text = "".join(traceback.format_exception(error))
        content = {
            "kind": kind,
            "message": f"{type(error).__name__}: {first_line(error)}",
            "traceback": text,
        }
        self.store.put(f"{self.prefix}/log.txt", f"{output}{text}".encode())
        self.store.put(f"{self.prefix}/failure.json", json.dumps(content, indent=1).encode())

    def end(self, outcome: Outcome) -> None:
        """Let go of it. A store that does not answer is no matter."""
        self.held.end(outcome)

    def _manifest_key(self, step: int) -> str:
        return f"{self.prefix}/checkpoint-{step}.json"

    def _has_successor(self) -> bool:
        return self.trial.attempts()[-1:] > [self.number]


def record_failure(trial: StoredTrial, driver: str, kind: str, error: BaseException) -> None:
    """Write down an error that came before an attempt could be made, as one of its own."""
    with contextlib.suppress(StoreError, InputError):
        attempt = claimed(trial, steps=0, driver=driver, over=(), waits=False)
        if attempt is not None:
            try:
                attempt.fail(kind, error)
            finally:
                attempt.end("failed")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder on this machine that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="dinolab-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
