"""One trial of a run root: its seal, its digests, its key, and the table kept of its records."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ablations.registration import Entry
from dashboards.tables.values import VALUES, content_of, made_from_of, table_of
from dashboards.verification.finding import Finding, Kind, compared, is_digest, sha256_of
from dashboards.verification.tables import same_table, writers_of
from trainers.config.change import content_of as trial_content_of
from trainers.errors import InputError
from trainers.runs.by_image import AT_START, BY_IMAGE
from trainers.runs.records import is_segment, parse
from trainers.runs.stored_trial import SavedState, StoredTrial, read_manifest, sealed
from trainers.runs.trial import keys_of

CHAIN = "data/chain"

_IN_ATTEMPT = re.compile(r"attempts/(\d{4,})/(.+)")
_MANIFEST = re.compile(r"checkpoint-(\d+)\.json")


@dataclass(kw_only=True)
class Checked:
    """A trial that was checked."""

    key: str
    result: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    values: bytes | None = None
    """the table of its values, made from its records; None where the one kept is that, or there
    is no result"""
    crops: dict[int, float] = field(default_factory=dict)
    """hash chain of the crops seen up to a step"""
    begun: bool = False
    findings: list[Finding] = field(default_factory=list)
    digests: set[str] = field(default_factory=set)
    """keys of files that are as some digest says"""
    unsealed: set[str] = field(default_factory=set)
    """keys of files of which nothing has a digest: no number rests on them"""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong with its result and the files that verdicts rest on."""
        names = [PurePath(one.where).name for one in self.findings if one.kind != "differs"]
        rested_on = ("result.json", BY_IMAGE, AT_START)
        return not any(name in rested_on or is_segment(name) for name in names)

    def found(self, kind: Kind, where: str, what: str) -> None:
        """Note what is wrong with a file, once."""
        if all((one.kind, one.where) != (kind, where) for one in self.findings):
            self.findings.append(Finding(kind=kind, where=where, what=what))


def check_trial(trial: StoredTrial, named: Sequence[Entry], arms: str) -> Checked:
    """All of it that can be computed again; `named` are the registrations that name it."""
    checked = Checked(key=trial.key)
    names = {one.key.removeprefix(f"{trial.folder}/") for one in trial.store.list(trial.folder)}
    checked.begun = any(_IN_ATTEMPT.fullmatch(name) for name in names)
    if names:
        _check_manifests(trial, names, checked)
        _check_result(trial, names, writers_of(named), checked)
        _check_config(trial, named, arms, checked)
        _check_leases(trial, names, checked)
    _check_known(trial, names, named, checked)
    keys = {f"{trial.folder}/{name}" for name in names}
    wrong = {one.where for one in checked.findings}
    checked.unsealed = keys - checked.digests - wrong
    return checked


def _check_result(
    trial: StoredTrial, names: set[str], writers: Collection[str], checked: Checked
) -> None:
    content = trial.store.get(trial.result_key)
    if content is None:
        for number in trial.attempts():
            lease = trial.lease(number)
            if lease is not None and lease.outcome == "finished":
                what = f"attempt {number} has ended as finished"
                checked.found("missing", trial.result_key, what)
        return
    result = _unsealed(content)
    try:
        if result is None or trial.finished() is None:
            raise InputError
    except InputError:
        what = "it is not as it was written: its digest is another"
        checked.found("damaged", trial.result_key, what)
        return
    checked.result = result
    checked.digests.add(trial.result_key)
    folder = trial.attempt_folder(result["attempt"])
    by = trial.result_key
    whole = [
        _is_whole(trial, f"{folder}/{name}", digest, by, checked)
        for name, digest in result["files"].items()
    ]
    for key, digest in trial.of_images(result).items():
        _is_whole(trial, key, digest, by, checked)
    for name in result.get("checkpoints", {}).values():
        manifest = f"{name.removesuffix('.safetensors')}.json"
        for needed in (name, manifest):
            if not any(one == needed or one.startswith(f"{needed}/") for one in names):
                checked.found("missing", f"{trial.folder}/{needed}", f"{by} names it")
    if all(whole):
        _check_records(trial, result, writers, checked)


def _is_whole(trial: StoredTrial, key: str, stated: Any, by: str, checked: Checked) -> bool:
    if key in checked.digests:
        return True
    finding = compared(trial.store, key, stated if is_digest(stated) else {}, by)
    if finding is None:
        checked.digests.add(key)
    else:
        checked.found(finding.kind, finding.where, finding.what)
    return finding is None


def _unsealed(content: bytes) -> dict[str, Any] | None:
    """What a sealed file says; None where one of its bytes is another."""
    try:
        found = json.loads(content)
        said = {name: value for name, value in found.items() if name != "sha256"}
    except (ValueError, AttributeError):
        return None
    return said if sealed(said) == content else None


def _check_manifests(trial: StoredTrial, names: set[str], checked: Checked) -> None:
    """Every checkpoint that counts, also those of attempts that others went on from."""
    for name in sorted(names):
        attempt = _IN_ATTEMPT.fullmatch(name)
        step = _MANIFEST.fullmatch(attempt[2]) if attempt else None
        if attempt is None or step is None:
            continue
        key = f"{trial.folder}/{name}"
        content = trial.store.get(key) or b""
        state = read_manifest(int(attempt[1]), content)
        if state is None or _unsealed(content) is None or state.step != int(step[1]):
            checked.found("damaged", key, "it is not as it was written: its digest is another")
            continue
        checked.digests.add(key)
        for file, digest in _files_of(state, names):
            folder = trial.attempt_folder(state.attempt)
            _is_whole(trial, f"{folder}/{file}", digest, key, checked)
        for file, digest in state.of_images.items():
            # What a result rests on is looked at beside it; `dinolab gc` clears away the others.
            if file in names or "result.json" not in names:
                _is_whole(trial, f"{trial.folder}/{file}", digest, key, checked)


def _files_of(state: SavedState, names: set[str]) -> Iterator[tuple[str, Any]]:
    """What a manifest names; `dinolab gc` clears away records of attempts without a result."""
    yield from state.files.items()
    for name, digest in state.records.items():
        if f"attempts/{state.attempt:04d}/{name}" in names:
            yield name, digest


def _check_records(
    trial: StoredTrial, result: Mapping[str, Any], writers: Collection[str], checked: Checked
) -> None:
    """The table that is kept of the records, and what these say of the crops."""
    segments = trial.segments_of(result)
    try:
        table = table_of(
            record
            for key in sorted(segments)
            for record in parse(trial.store.get(key) or b"", f"{trial.store.shown}/{key}")
        )
    except InputError:
        checked.found("damaged", min(segments), "it holds a line that is no record")
        return
    rows = table.filter(pc.equal(table["metric"], CHAIN))
    checked.crops = dict(zip(rows["step"].to_pylist(), rows["value"].to_pylist(), strict=True))
    said, last = result.get("chain"), checked.crops.get(result["step"])
    if isinstance(said, str) and last is not None and said[:12] != f"{int(last):012x}":
        what = f"its chain of crops is not the one that the records end with ({CHAIN})"
        checked.found("differs", trial.result_key, what)
    _check_kept(trial, table, made_from_of(segments), writers, checked)


def _check_kept(
    trial: StoredTrial,
    table: pa.Table,
    made_from: bytes,
    writers: Collection[str],
    checked: Checked,
) -> None:
    key = f"{trial.folder}/{VALUES}"
    kept, made = trial.store.get(key), content_of(table, made_from)
    if kept is not None and same_table(kept, made, writers):
        checked.digests.add(key)
        return
    checked.values = made
    if kept is not None:
        checked.found("damaged", key, "it is not what the records of this trial give")


def _check_config(trial: StoredTrial, named: Sequence[Entry], arms: str, checked: Checked) -> None:
    content, result = trial.config(), checked.result
    if content is None:
        if result is not None:
            checked.found("missing", trial.config_key, f"{trial.result_key} is there")
        return
    stated = (result or {}).get("config")
    if stated and not _is_whole(trial, trial.config_key, stated, trial.result_key, checked):
        return
    try:
        config = json.loads(content)
        parts, seed = trial_content_of(config), int(config["seed"])
    except (ValueError, KeyError, TypeError, AttributeError):
        checked.found("damaged", trial.config_key, "it is no configuration")
        return
    checked.config = config
    for entry in named:
        digest = (result or {}).get("data") or _data_of(entry, trial.key)
        if digest is None:
            continue
        if next(keys_of(parts, digest, [seed], entry.code)) == trial.key:
            checked.digests.add(trial.config_key)
            continue
        what = (
            f"with data {digest[:12]} and the code of registration {entry.number} it is another "
            f"trial than this, which is that of {arms}"
        )
        checked.found("differs", trial.config_key, what)


def _data_of(entry: Entry, key: str) -> str | None:
    """The digest of the data of a trial, as far as a registration says it.

    An arm may have its images at another size, whose digest only a run says.
    """
    changes = [entry.resolved.arms.get(one.arm, {}) for one in entry.trials if one.key == key]
    if any(knob.startswith("data.") for change in changes for knob in change):
        return None
    return entry.dataset.get("digest")


def _check_leases(trial: StoredTrial, names: set[str], checked: Checked) -> None:
    for number in trial.attempts():
        key = f"{trial.attempt_folder(number)}/lease.json"
        if f"attempts/{number:04d}/lease.json" in names and trial.lease(number) is None:
            checked.found("damaged", key, "it is no lease of an attempt")


def _check_known(
    trial: StoredTrial, names: set[str], named: Sequence[Entry], checked: Checked
) -> None:
    """Results that a registration knew are those that are there, or that were set aside."""
    stated: dict[str, list[int]] = defaultdict(list)
    for entry in named:
        if trial.key in entry.known:
            stated[entry.known[trial.key]].append(entry.number)
    if not stated:
        return
    if any(one.where == trial.result_key for one in checked.findings):
        return
    results = [name for name in names if name == "result.json" or name.endswith("/result.json")]
    there = {sha256_of(trial.store.get(f"{trial.folder}/{name}") or b"") for name in results}
    for digest, numbers in stated.items():
        if digest in there:
            continue
        knew = f"registration {', '.join(map(str, numbers))} knew"
        if "result.json" in names:
            checked.found("differs", trial.result_key, f"{knew} another result of this trial")
        else:
            checked.found("missing", trial.result_key, f"{knew} it")
