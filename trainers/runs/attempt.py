"""One attempt at a trial: it writes its own folder of the run root, and nothing else of it.

What counts is decided by order: what an evaluation keeps of single images before its records,
records before the manifest of the checkpoint that follows them, the files of a checkpoint before
its manifest, all of an attempt before the result, which is put only where nobody was first.
"""

import contextlib
import dataclasses
import json
import secrets
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trainers.config import TrainConfig
from trainers.errors import first_line
from trainers.runs.by_image import AT_START, BY_IMAGE, ByImage, content_of
from trainers.runs.lease import Held, Holder, Lease, Outcome, Watch, expires_s
from trainers.runs.maps import KeptMaps, name_of
from trainers.runs.maps import content_of as content_of_maps
from trainers.runs.origin import Origin, drop
from trainers.runs.records import Digest, Records, digest_of
from trainers.runs.stored_trial import (
    SavedState,
    StoredTrial,
    digest_of_file,
    manifest,
    manifest_key,
    sealed,
)
from trainers.system.store import Store
from trainers.training.saving import remove


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
        last = trial.newest()
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
        own = Lease(
            holder=Holder.this(),
            driver=driver,
            from_attempt=0,
            from_step=-1,
            steps=steps,
            nonce=secrets.token_hex(8),
        )
        key = f"{trial.attempt_folder(last + 1)}/lease.json"
        if trial.store.put(key, own.content(), if_absent=True):
            if trial.store.local is not None:
                for number in range(1, last + 1):
                    drop(trial.store.local / trial.attempt_folder(number))
            return Attempt(trial, last + 1, own)
    return None


class Attempt:
    """An attempt that this process has claimed; also the Keeper of its checkpoints."""

    def __init__(self, trial: StoredTrial, number: int, lease: Lease) -> None:
        self.trial, self.store, self.number = trial, trial.store, number
        self.prefix = trial.attempt_folder(number)
        self.held = Held(self.store, f"{self.prefix}/lease.json", lease, self._has_successor)
        self.records = Records(self.store, self.prefix)
        self.machines: list[dict[str, Any]] = []
        """what has been computed on, earlier attempts first"""
        self.registrations: list[str] = []
        """SHA-256 of those under which it was computed, in the same order"""
        self._kept: dict[str, str] = {}
        self._of_images: dict[str, Digest] = {}
        self._up_to: dict[int, tuple[dict[str, Digest], dict[str, Digest]]] = {}
        self._states: dict[str, SavedState] = {}
        self._by_image: dict[str, Digest] = {}

    def begin(
        self, start: Origin, config: TrainConfig, machine: dict[str, Any], registration: str = ""
    ) -> None:
        """Write down from where it goes on, and what it trains, for whom. Raises StoreError."""
        origin = start.state
        text = json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        # All attempts have one configuration, but where the data lie: that may have moved.
        if self.trial.config() != text.encode():
            self.store.put(self.trial.config_key, text.encode())
        earlier = [] if origin is None else [one for one in origin.machines if one != machine]
        self.machines = [*earlier, machine]
        asked = () if origin is None else origin.registrations
        self.registrations = [*(one for one in asked if one != registration), registration]
        if origin is not None:
            self._kept = {**origin.kept, str(origin.step): _name_of(origin)}
            self._of_images = dict(origin.of_images)
            self.held.starts_at(origin.step)
            self.held.change(from_attempt=origin.attempt, from_step=origin.step, step=origin.step)
            self.records = Records(self.store, self.prefix, before=start.records)

    def begun(self, step: int) -> None:
        """See Keeper."""
        self._up_to[step] = self.records.cut(), dict(self._of_images)

    def keep(self, step: int, path: Path, stays: Callable[[int], bool]) -> None:
        """See Keeper. Raises OSError."""
        self._kept = {old: name for old, name in self._kept.items() if stays(int(old))}
        own = {str(one.step): _name_of(one) for one in self._states.values() if stays(one.step)}
        files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        digests = {}
        for file in files:
            name = file.relative_to(path.parent).as_posix()
            digests[name] = digest_of_file(file)
            self.store.put_file(f"{self.prefix}/{name}", file)
        records, of_images = self._up_to.pop(step, ({}, {}))
        state = SavedState(
            attempt=self.number,
            step=step,
            name=path.name,
            files=digests,
            records=records,
            machines=tuple(self.machines),
            registrations=tuple(self.registrations),
            kept={**self._kept, **own},
            of_images=of_images,
        )
        self.store.put(manifest_key(self.trial, self.number, step), manifest(state))
        self._states[path.name] = state

    def drop(self, path: Path) -> None:
        """See Keeper. Raises OSError."""
        state = self._states.pop(path.name, None)
        if state is not None:
            self.store.delete(manifest_key(self.trial, self.number, state.step))
        remove(path)
        if state is not None and self.store.local is None:
            for name in state.files:
                self.store.delete(f"{self.prefix}/{name}")

    def evaluated(
        self,
        step: int,
        names: Tensor,
        by_image: Mapping[str, Tensor],
        maps: Mapping[str, Tensor],
    ) -> None:
        """See Keeper. Raises StoreError."""
        if maps:
            arrays = {name: one.numpy() for name, one in maps.items()}
            shown = KeptMaps(
                images=names[: arrays["attention"].shape[1]].numpy(),
                pixels=arrays.get("pixels"),
                attention=arrays["attention"],
                heads=arrays["heads"],
                rollout=arrays.get("rollout"),
                influence=arrays.get("influence"),
            )
            self._keep_of_images(name_of(step), content_of_maps(shown))
        if by_image:
            values = {metric: value.numpy() for metric, value in by_image.items()}
            content = content_of(ByImage(images=names.numpy(), values=values))
            if step == 0:
                self._keep_of_images(AT_START, content)
            else:
                self.store.put(f"{self.prefix}/{BY_IMAGE}", content)
                self._by_image = {BY_IMAGE: digest_of(content)}

    def _keep_of_images(self, name: str, content: bytes) -> None:
        key = f"{self.prefix}/{name}"
        self.store.put(key, content)
        # One that ends where it has begun evaluates again.
        kept = {old: one for old, one in self._of_images.items() if not old.endswith(f"/{name}")}
        self._of_images = {**kept, key.removeprefix(f"{self.trial.folder}/"): digest_of(content)}

    def commit(self, result: Mapping[str, Any]) -> bool:
        """Put the result, with digests of the configuration and of this attempt's files.

        False if another was first.
        """
        files = {**self.records.cut(), **self._by_image}
        checkpoints = dict(self._kept)
        for state in self._states.values():
            files |= state.files
            checkpoints[str(state.step)] = _name_of(state)
        content = {
            **result,
            "attempt": self.number,
            "config": digest_of(self.trial.config() or b""),
            "checkpoints": checkpoints,
            "files": files,
            "of_images": self._of_images,
        }
        return self.store.put(self.trial.result_key, sealed(content), if_absent=True)

    def fail(self, kind: str, error: BaseException, output: str = "") -> None:
        """Write down why it ended without a result, for `dinolab logs`. Raises StoreError."""
        message = f"{type(error).__name__}: {first_line(error)}"
        text = "".join(traceback.format_exception(error))
        _write_failure(self.store, self.prefix, kind, message, text, output)

    def end(self, outcome: Outcome) -> None:
        """Let go of it. A store that does not answer is no matter."""
        self.held.end(outcome)

    def _has_successor(self) -> bool:
        return self.trial.newest() > self.number


def _name_of(state: SavedState) -> str:
    """Of a checkpoint, in the folder of the trial."""
    return f"attempts/{state.attempt:04d}/{state.name}"


def _write_failure(
    store: Store, prefix: str, kind: str, message: str, text: str, output: str
) -> None:
    content = {"kind": kind, "message": message, "traceback": text}
    store.put(f"{prefix}/log.txt", f"{output}{text or message}".rstrip().encode() + b"\n")
    store.put(f"{prefix}/failure.json", json.dumps(content, indent=1).encode())


def _newest_of(trial: StoredTrial, driver: str, since: int = 0) -> int:
    """The newest attempt after the `since`-th that `driver` asked for; 0 when there is none."""
    for number in reversed(trial.attempts()):
        lease = trial.lease(number)
        if number > since and lease is not None and lease.driver == driver:
            return number
    return 0


def end_lease(trial: StoredTrial, driver: str, outcome: Outcome) -> None:
    """End the lease of the newest attempt of `driver`, whose process is gone. Raises StoreError."""
    if number := _newest_of(trial, driver):
        lease = trial.lease(number)
        if lease is not None and not lease.outcome:
            ended = dataclasses.replace(lease, beat=lease.beat + 1, outcome=outcome)
            trial.store.put(f"{trial.attempt_folder(number)}/lease.json", ended.content())


def record_failure(
    trial: StoredTrial,
    *,
    since: int,
    driver: str,
    kind: str,
    message: str,
    text: str = "",
    output: str = "",
    outcome: Outcome = "failed",
) -> int:
    """Write down for `driver` why its attempt after the `since`-th is over, and end its lease.

    What the attempt has said of it itself stays. An error that came before one could be made gets
    an attempt of its own. Returns its number; 0 when somebody else is at the trial. `text` is the
    traceback, `output` the last lines of what was printed. Raises StoreError, and InputError when
    the result is damaged.
    """
    if number := _newest_of(trial, driver, since):
        prefix = trial.attempt_folder(number)
        if trial.store.get(f"{prefix}/failure.json") is None:
            _write_failure(trial.store, prefix, kind, message, text, output)
        end_lease(trial, driver, outcome)
        return number
    attempt = claimed(trial, steps=0, driver=driver, over=(since,), waits=False)
    if attempt is None:
        return 0
    try:
        _write_failure(trial.store, attempt.prefix, kind, message, text, output)
    finally:
        attempt.end(outcome)
    return attempt.number


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder on this machine that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="dinolab-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
