"""Damage by hand: a line names the file, only that trial is trained again, values stay equal."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from ablations.stated import stated
from dashboards.tables.chain import read_chain
from tests.reliability.kills import Kills, changes
from tests.reliability.little import NAME, drive, files, in_a_process, measured, planned, wrong
from trainers.errors import InputError
from trainers.runs.saved_run import find_run
from trainers.runs.stored_trial import StoredTrial
from trainers.system.store import open_store

pytestmark = pytest.mark.slow

RESULT, CONFIG, VALUES = "result.json", "config.json", "values.parquet"
FIRST = "attempts/0001"
"""The only attempt at the trial that is damaged."""

START, MIDDLE = f"{FIRST}/metrics-000000000.jsonl", f"{FIRST}/metrics-000000002.jsonl"
IMAGES = f"{FIRST}/by_image.safetensors"
AT_START, MAPS = f"{FIRST}/by_image-0.safetensors", f"{FIRST}/maps-4.safetensors"
STATE, MANIFEST = f"{FIRST}/checkpoint-2.safetensors", f"{FIRST}/checkpoint-2.json"
REGISTRATION = f"studies/{NAME}/registrations/0001.json"


def empty(_: bytes) -> bytes:
    return b""


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def garbage(_: bytes) -> bytes:
    return b"\x00\xff\xfe garbage \x80" * 9


def flipped(content: bytes) -> bytes:
    """100 numbers of a checkpoint, of four bytes each, in the middle."""
    start = len(content) // 2
    changed = bytes(byte ^ 0xFF for byte in content[start : start + 400])
    return content[:start] + changed + content[start + 400 :]


def binary_line(content: bytes) -> bytes:
    first, rest = content.split(b"\n", 1)
    return b"\n".join([first, b"\x00\xff\xfe", rest])


def half_line(content: bytes) -> bytes:
    first, rest = content.split(b"\n", 1)
    return b"\n".join([first[: len(first) // 2], rest])


def one_digit(content: bytes) -> bytes:
    """A record that is one, of another value."""
    place = content.rindex(b"}") - 2
    return (
        content[:place]
        + (b"1" if content[place : place + 1] != b"1" else b"2")
        + content[place + 1 :]
    )


def twice(content: bytes) -> bytes:
    return content + content


def with_attempt_7(content: bytes) -> bytes:
    return json.dumps({**json.loads(content), "attempt": 7}).encode()


def without(*names: str) -> Callable[[bytes], bytes]:
    def left(content: bytes) -> bytes:
        return json.dumps({k: v for k, v in json.loads(content).items() if k not in names}).encode()

    return left


def of_attempt_7(content: bytes) -> bytes:
    """As from before results had digests of themselves."""
    return without("sha256")(with_attempt_7(content))


def other_step(content: bytes) -> bytes:
    return content.replace(b'"step": 2', b'"step": 3')


@dataclass(frozen=True)
class Damage:
    """What is done to a file of a trial, what is said, and what comes of it."""

    name: str
    file: str
    """in the folder of the trial; or of the study, or the root"""
    how: Callable[[bytes], bytes] | None
    """None: it is removed"""
    says: str = ""
    """what the one line has; empty: nothing is said"""
    resumed: int | None = None
    """the step from which the trial is trained again; None: it is not"""


AGAIN = "which trains that run again: set aside as"
REMEDY = f"restore the file, or run the same command again, {AGAIN}"
NO_RESULT = f"result.json is damaged: it is no result of a run; {REMEDY}"
NO_JSON = f"result.json is damaged: not a JSON object; {REMEDY}"
OTHER = f"its digest is another; {REMEDY}"
IS_OTHER = "its digest is another; the run goes on from the one before, or begins anew"
IS_MISSING = "is missing; the run goes on from the one before, or begins anew"
NO_MANIFEST = "it is no manifest of a checkpoint; the run goes on from the one before"

OF_A_FINISHED = [
    Damage("result empty", RESULT, empty, NO_JSON, 4),
    Damage("result cut", RESULT, cut, NO_JSON, 4),
    Damage("result garbage", RESULT, garbage, NO_JSON, 4),
    Damage("result a list", RESULT, lambda _: b"[]", NO_JSON, 4),
    Damage("result without files", RESULT, without("files", "sha256"), NO_RESULT, 4),
    Damage("result of another attempt", RESULT, with_attempt_7, NO_RESULT, 4),
    Damage("result of an attempt that is not there", RESULT, of_attempt_7, "is missing", 4),
    Damage("records binary line", START, binary_line, OTHER, 0),
    Damage("records half line", START, half_line, OTHER, 0),
    Damage("records one digit", MIDDLE, one_digit, OTHER, 1),
    Damage("records twice", MIDDLE, twice, OTHER, 1),
    Damage("records empty", MIDDLE, empty, OTHER, 1),
    Damage("records missing beside a result", MIDDLE, None, "is missing", 1),
    Damage("values of images of other numbers", IMAGES, flipped, OTHER, 4),
    Damage("values of images cut", IMAGES, cut, OTHER, 4),
    Damage("values of images missing", IMAGES, None, "is missing", 4),
    Damage("values of images at step 0 of other numbers", AT_START, flipped, OTHER, 0),
    Damage("values of images at step 0 missing", AT_START, None, "is missing", 0),
    Damage("maps of images of other bytes", MAPS, flipped, OTHER, 1),
    Damage("maps of images cut", MAPS, cut, OTHER, 1),
    Damage("maps of images missing", MAPS, None, "is missing", 1),
    Damage("values cut", VALUES, cut),
    Damage("values empty", VALUES, empty),
    Damage("values garbage", VALUES, garbage),
    Damage("configuration of a finished run empty", CONFIG, empty),
    Damage("lease of a finished run garbage", f"{FIRST}/lease.json", garbage),
    Damage("foreign file in a trial", "notes.txt", garbage),
    Damage("foreign file among attempts", "attempts/notes.txt", garbage),
    Damage("foreign file among trials", "../notes.txt", garbage),
]  # fmt: skip

OF_A_BEGUN = [
    Damage("checkpoint of 100 other values", STATE, flipped, IS_OTHER, 1),
    Damage("checkpoint cut", STATE, cut, IS_OTHER, 1),
    Damage("checkpoint missing beside its manifest", STATE, None, IS_MISSING, 1),
    Damage("manifest garbage", MANIFEST, garbage, NO_MANIFEST, 1),
    Damage("manifest of another step", MANIFEST, other_step, NO_MANIFEST, 1),
    Damage("manifest missing", MANIFEST, None, "", 1),
    Damage("records before a checkpoint half", MIDDLE, half_line, "its digest is another", 1),
    Damage("records after a checkpoint half", f"{FIRST}/metrics-000000003.jsonl", half_line, "", 2),
    Damage("maps before a checkpoint cut", f"{FIRST}/maps-0.safetensors", cut, "another", 0),
    Damage("lease garbage", f"{FIRST}/lease.json", garbage, "", 2),
    Damage("lease missing", f"{FIRST}/lease.json", None, "", 2),
    Damage("failure garbage", f"{FIRST}/failure.json", garbage, "", 2),
    Damage("configuration of a begun run empty", CONFIG, empty, "", 2),
    Damage("foreign folder among attempts", "attempts/0001.old/lease.json", garbage, "", 2),
]  # fmt: skip


def key_of_first() -> str:
    return planned(1)[0].trials[0].key


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A root in which the study has ended."""
    root = tmp_path_factory.mktemp("finished") / "root"
    process = in_a_process(root, 1)
    process.join()
    assert process.exitcode == 0
    return root


@pytest.fixture(scope="module")
def begun(finished, tmp_path_factory):
    """One that was killed when the first trial had made its last checkpoint but one."""
    folder = tmp_path_factory.mktemp("begun")
    log = folder / "log"
    process = in_a_process(folder / "counted", 1, Kills(folder / "counted", log))
    process.join()
    last = next(n for n, text in enumerate(changes(log), start=1) if "checkpoint-4." in text)
    process = in_a_process(folder / "root", 1, Kills(folder / "root", folder / "log2", last))
    process.join()
    return folder / "root"


def damaged(source: Path, root: Path, damage: Damage) -> Path:
    """A copy of the root, in which it is done."""
    shutil.copytree(source, root)
    path = (root / "trials" / key_of_first() / damage.file).resolve()
    content = path.read_bytes() if path.is_file() else b""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if damage.how:
        path.write_bytes(damage.how(content))
        assert path.read_bytes() != content
    return path


def resumed_at(found: Mapping[str, bytes]) -> dict[str, int]:
    """The step from which each trial was trained that has a result, by key."""
    return {
        key.split("/")[1]: json.loads(content)["resumed_at"]
        for key, content in found.items()
        if key.endswith("/result.json") and "/damaged/" not in key
    }


@pytest.mark.parametrize("damage", OF_A_FINISHED + OF_A_BEGUN, ids=lambda damage: damage.name)
def test_damage_is_a_line_and_costs_the_trial_that_it_is_in_at_most(
    finished, begun, tmp_path, monkeypatch, damage
):
    monkeypatch.setenv("DINOLAB_LEASE_S", "1")
    root, said = tmp_path / "root", []
    damaged(finished if damage in OF_A_FINISHED else begun, root, damage)
    before = files(root)
    drive(root, 1, said.append)
    after = files(root)
    if damage.says:
        # The run that goes on may name the same file, since it goes on from before it.
        line, *more = said
        assert damage.says in line
        assert line.startswith(f"{root}/trials/{key_of_first()}/")
        assert len(more) <= 1
        assert {one.split(" is ")[0] for one in more} <= {line.split(" is ")[0]}
        assert not any("\n" in one for one in said)
    else:
        assert said == []
    foreign = [key for key in after if ("notes.txt" in key or ".old" in key)]
    for key in foreign:
        assert after[key] == before[key]
        (root / key).unlink()
    assert not wrong(root, measured(finished))
    if damage.resumed is not None:
        assert resumed_at(after)[key_of_first()] == damage.resumed
    # Of what was whole nothing was made again.
    made = {key for key in after if key.endswith("/result.json") and "/damaged/" not in key}
    changed = {key.split("/")[1] for key in made if after[key] != before.get(key)}
    if damage in OF_A_FINISHED:
        assert changed == (set() if damage.resumed is None else {key_of_first()})


@pytest.mark.parametrize(
    "how", [empty, cut, garbage, lambda _: b"[]"], ids=["empty", "cut", "garbage", "list"]
)
def test_a_damaged_registration_is_one_line_and_nothing_is_written(finished, tmp_path, how):
    root = tmp_path / "root"
    shutil.copytree(finished, root)
    (root / REGISTRATION).write_bytes(how((root / REGISTRATION).read_bytes()))
    before = files(root)
    with pytest.raises(InputError) as raised:
        drive(root, 1)
    line = str(raised.value)
    assert "\n" not in line
    assert line.startswith(f"{root}/{REGISTRATION} is damaged")
    assert "restore the file, or remove it" in line
    assert files(root) == before
    (root / REGISTRATION).unlink()
    drive(root, 1)
    assert not wrong(root, measured(finished))
    words = {one.word for one in stated(read_chain(open_store(root), NAME)).values()}
    assert words == {"exploratory"}


def test_a_checkpoint_of_a_finished_run_that_was_changed_is_not_opened(finished, tmp_path):
    root = tmp_path / "root"
    path = damaged(finished, root, Damage("", f"{FIRST}/checkpoint-4.safetensors", flipped))
    with pytest.raises(InputError) as raised:
        find_run(path.parents[2])
    assert str(path) in str(raised.value)


def test_a_damaged_failure_is_named(begun, tmp_path):
    root = tmp_path / "root"
    path = damaged(begun, root, Damage("", f"{FIRST}/failure.json", garbage))
    with pytest.raises(InputError, match="is damaged: not a JSON object") as raised:
        StoredTrial(open_store(root), key_of_first()).failed()
    assert str(raised.value).startswith(str(path))
