"""A trial in a run root, as whoever reads it finds it: attempts, records, and one result."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trainers.config.map_steps import MOST_MAP_STEPS, evenly
from trainers.errors import InputError
from trainers.runs.by_image import AT_START, BY_IMAGE, ByImage
from trainers.runs.by_image import parse as parse_by_image
from trainers.runs.lease import Lease
from trainers.runs.maps import KeptMaps, step_of
from trainers.runs.maps import parse as parse_maps
from trainers.runs.records import Digest, Record, digest_of, is_segment, parse
from trainers.system.store import Store

TRIALS = "trials"
"""Folder of a run root that holds every trial, whichever studies name it."""

_MANIFEST = re.compile(r"checkpoint-(\d+)\.json")

RESULT_STATUSES = ("finished", "collapsed", "diverged")

Kept = TypeVar("Kept")

_AGAIN = "restore the file, or run the same command again, which trains that run again"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt ended without a result."""

    kind: str
    """whose fault it is: `user`, `ours` or `infrastructure`; empty if nobody has judged"""
    message: str
    """one line"""
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """A checkpoint that counts: what its manifest says."""

    attempt: int
    step: int
    name: str
    """of its file or folder, in the folder of the attempt"""
    files: Mapping[str, Digest]
    """of the checkpoint, by name in the folder of the attempt"""
    records: Mapping[str, Digest]
    """segments of the attempt up to it, by name"""
    machines: tuple[dict[str, Any], ...]
    """what has been computed on up to it"""
    registrations: tuple[str, ...]
    """SHA-256 of those under which it was computed; empty ones: outside a study"""
    kept: Mapping[str, str]
    """earlier checkpoints that stay: their names in the folder of the trial, by step"""
    of_images: Mapping[str, Digest]
    """what evaluations up to it kept of single images, by name in the folder of the trial"""


class StoredTrial:
    """The trial `key` of a run root."""

    def __init__(self, store: Store, key: str) -> None:
        self.store = store
        self.key = key
        self.folder = f"{TRIALS}/{key}"
        self.config_key = f"{self.folder}/config.json"
        self.result_key = f"{self.folder}/result.json"

    @property
    def shown(self) -> str:
        """Where it is, for people."""
        return f"{self.store.shown}/{self.folder}"

    def attempt_folder(self, number: int) -> str:
        """The folder of an attempt, as a prefix of keys."""
        return f"{self.folder}/attempts/{number:04d}"

    def finished(self) -> dict[str, Any] | None:
        """The result, or None while there is none; a collapsed or diverged run is finished.

        Raises InputError, one line, when it is damaged.
        """
        content = self.store.get(self.result_key)
        if content is None:
            return None
        result = self._object(content, self.result_key)
        named = [result.get("files"), result.get("of_images", {})]
        digest = result.pop("sha256", None)
        if (
            digest not in (None, _digest_of_object(result))
            or result.get("status") not in RESULT_STATUSES
            or not all(type(result.get(name)) is int for name in ("step", "steps", "attempt"))
            or not all(isinstance(files, dict) for files in named)
            or not all(isinstance(one, dict) for files in named for one in files.values())
        ):
            raise InputError(
                f"{self.store.shown}/{self.result_key} is damaged: it is no result of a run; "
                f"{_AGAIN}"
            )
        return result

    def begun(self) -> bool:
        """Whether an attempt would need no starting weights. Raises as `finished`."""
        return self.finished() is not None or bool(self.manifests())

    def records(self) -> list[Record]:
        """Every record, in order of steps: of the result if there is one, or else the newest.

        Raises InputError, one line, when one is damaged, or missing beside a result.
        """
        result = self.finished()
        if result is not None:
            return [
                record
                for key, digest in sorted(self.segments_of(result).items())
                for record in parse(self.intact(key, digest), f"{self.store.shown}/{key}")
            ]
        return [
            record
            for key in self.newest_segments()[1]
            for record in parse(self.store.get(key) or b"", f"{self.store.shown}/{key}")
        ]

    def segments_of(self, result: Mapping[str, Any]) -> dict[str, Digest]:
        """The segments of records that a result rests on: digests by key."""
        files = self._files_of(result).items()
        return {key: digest for key, digest in files if is_segment(key.rpartition("/")[2])}

    def of_images(self, result: Mapping[str, Any]) -> dict[str, Digest]:
        """What evaluations of a result's attempts kept of single images: digests by key.

        Empty where none was kept.
        """
        kept = result.get("of_images", {})
        return {f"{self.folder}/{name}": digest for name, digest in kept.items()}

    def by_image(
        self, result: Mapping[str, Any], metrics: Collection[str], *, at_start: bool = False
    ) -> ByImage | None:
        """What a result has of `metrics` for each image; None where that was not kept.

        At its last step, or `at_start` at step 0. Raises InputError, one line, when the file is
        damaged or missing.
        """
        found, name = self._files_of(result), BY_IMAGE
        if at_start:
            found, name = self.of_images(result), AT_START
        key = next((one for one in found if one.endswith(f"/{name}")), None)
        if key is None:
            return None
        return self._parsed(
            key, found[key], lambda content: parse_by_image(content, metrics), "values of images"
        )

    def maps(self, result: Mapping[str, Any]) -> dict[int, KeptMaps]:
        """Maps of a few images that a result has, by step, ascending; none where none was kept.

        Of one of before, which may have kept more, those of MOST_MAP_STEPS. Raises InputError, one
        line, when a file is damaged or missing.
        """
        kept, keys = self.of_images(result), self._keys_of_maps(result)
        return {
            step: self._parsed(keys[step], kept[keys[step]], parse_maps, "maps of images")
            for step in evenly(sorted(keys), MOST_MAP_STEPS)
        }

    def has_maps(self, result: Mapping[str, Any]) -> bool:
        """Whether a result has `maps`."""
        return bool(self._keys_of_maps(result))

    def _keys_of_maps(self, result: Mapping[str, Any]) -> dict[int, str]:
        found = {step_of(key.rpartition("/")[2]): key for key in self.of_images(result)}
        return {step: key for step, key in found.items() if step is not None}

    def newest_segments(self) -> tuple[int, list[str]]:
        """The newest attempt that has records, and the keys of its segments in order; 0 if none."""
        for number in reversed(self.attempts()):
            folder = self.attempt_folder(number)
            if names := [name for name in self.store.names(folder) if is_segment(name)]:
                return number, [f"{folder}/{name}" for name in names]
        return 0, []

    def failed(self) -> Failure | None:
        """Why the newest attempt ended without a result, or None. Raises InputError, one line."""
        numbers = self.attempts()
        if not numbers:
            return None
        key = f"{self.attempt_folder(numbers[-1])}/failure.json"
        content = self.store.get(key)
        if content is None:
            return None
        found = self._object(content, key)
        return Failure(
            kind=str(found.get("kind", "")),
            message=str(found.get("message", "no message")),
            traceback=str(found.get("traceback", "")),
        )

    def attempts(self) -> list[int]:
        """The numbers of the attempts, from 1, ascending."""
        names = self.store.names(f"{self.folder}/attempts")
        return sorted(int(name) for name in names if name.isdecimal())

    def newest(self) -> int:
        """The number of the newest attempt that has been claimed; 0 when there is none."""
        last = max(self.attempts(), default=0)
        if last and self.store.get(f"{self.attempt_folder(last)}/lease.json") is None:
            return last - 1  # a kill has left an empty folder
        return last

    def lease(self, number: int) -> Lease | None:
        """Who is at an attempt; None when that is damaged."""
        return Lease.read(self.store.get(f"{self.attempt_folder(number)}/lease.json"))

    def config(self) -> bytes | None:
        """The configuration as JSON, or None when no attempt has been made."""
        return self.store.get(self.config_key)

    def manifests(self) -> list[tuple[int, int]]:
        """Step and attempt of each checkpoint that counts, the newest first."""
        found = []
        for number in self.attempts():
            for name in self.store.names(self.attempt_folder(number)):
                if of_step := _MANIFEST.fullmatch(name):
                    found.append((int(of_step[1]), number))
        return sorted(found, reverse=True)

    def states(self) -> list[SavedState]:
        """Checkpoints that count, the newest first; those with a damaged manifest are left out."""
        found = []
        for step, number in self.manifests():
            with contextlib.suppress(InputError):
                found.append(self.state(number, step))
        return found

    def state(self, number: int, step: int) -> SavedState:
        """What a manifest says. Raises InputError, one line, when it is damaged."""
        key = manifest_key(self, number, step)
        state = read_manifest(number, self.store.get(key))
        if state is None or state.step != step:
            raise InputError(
                f"{self.store.shown}/{key} is damaged: it is no manifest of a checkpoint; the run "
                "goes on from the one before, or begins anew"
            )
        return state

    def intact(self, key: str, digest: Digest) -> bytes:
        """The file `key`, which has that digest. Raises InputError, one line, if it has not."""
        content = self.store.get(key)
        if content is None or digest_of(content) != digest:
            what = "is missing" if content is None else "is damaged: its digest is another"
            raise InputError(f"{self.store.shown}/{key} {what}; {_AGAIN}")
        return content

    def damage(self) -> str:
        """What is wrong with the result or files that it rests on, in a line; empty if nothing."""
        try:
            if result := self.finished():
                self.records()
                self.by_image(result, ())
                for key, digest in self.of_images(result).items():
                    self.intact(key, digest)
        except InputError as error:
            return str(error)
        return ""

    def set_aside_damaged(self, say: Callable[[str], None]) -> None:
        """Where the result or files that it rests on are damaged, move it aside and say so."""
        if damage := self.damage():
            say(f"{damage}: set aside as {self.set_aside()}")

    def set_aside(self) -> str:
        """Move a result that cannot be used out of the way; returns where it lies now."""
        content = self.store.get(self.result_key) or b""
        number = len(self.store.names(f"{self.folder}/damaged")) + 1
        key = f"{self.folder}/damaged/{number:04d}/result.json"
        self.store.put(key, content)
        # Another driver may have done the same, and a new result be there.
        if self.store.get(self.result_key) == content:
            self.store.delete(self.result_key)
        return f"{self.store.shown}/{key}"

    def _files_of(self, result: Mapping[str, Any]) -> dict[str, Digest]:
        """Files of the attempt that has the result: digests by key."""
        folder = self.attempt_folder(result["attempt"])
        return {f"{folder}/{name}": digest for name, digest in result["files"].items()}

    def _parsed(self, key: str, digest: Digest, parse: Callable[[bytes], Kept], what: str) -> Kept:
        """What `parse` finds in the file `key`; raises InputError where that is not `what`."""
        content = self.intact(key, digest)
        try:
            return parse(content)
        except ValueError:
            raise InputError(
                f"{self.store.shown}/{key} is damaged: it holds no {what}; {_AGAIN}"
            ) from None

    def _object(self, content: bytes, key: str) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InputError(f"{self.store.shown}/{key} is damaged: not a JSON object; {_AGAIN}")
        return found


def digest_of_file(path: Path) -> Digest:
    """The digest of a file, which may be large. Raises OSError."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": found, "bytes": path.stat().st_size}


def manifest(state: SavedState) -> bytes:
    """What `checkpoint-STEP.json` holds."""
    content = {
        "step": state.step,
        "name": state.name,
        "files": dict(state.files),
        "records": dict(state.records),
        "machines": list(state.machines),
        "registrations": list(state.registrations),
        "kept": dict(state.kept),
        "of_images": dict(state.of_images),
    }
    return sealed(content)


def sealed(content: dict[str, Any]) -> bytes:
    """`content` as JSON with a digest of itself, by which damage is seen."""
    digest = _digest_of_object(content)
    return (json.dumps({**content, "sha256": digest}, indent=1) + "\n").encode()


def _digest_of_object(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def manifest_key(trial: StoredTrial, attempt: int, step: int) -> str:
    """The key of the manifest of a checkpoint."""
    return f"{trial.attempt_folder(attempt)}/checkpoint-{step}.json"


def read_manifest(number: int, content: bytes | None) -> SavedState | None:
    """What a manifest says; None when it has not its digest."""
    try:
        found = json.loads(content or b"")
        if found.pop("sha256") != _digest_of_object(found):
            return None
        return SavedState(
            attempt=number,
            step=int(found["step"]),
            name=str(found["name"]),
            files={str(name): dict(digest) for name, digest in found["files"].items()},
            records={str(name): dict(digest) for name, digest in found["records"].items()},
            machines=tuple(dict(one) for one in found["machines"]),
            # Of before, when no attempt said so: as if outside a study.
            registrations=tuple(str(one) for one in found.get("registrations", [""])),
            kept={str(step): str(name) for step, name in found["kept"].items()},
            of_images={str(n): dict(digest) for n, digest in found.get("of_images", {}).items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
