"""The store: facts of a folder, of S3 and Google's with and without errors, and of Azure."""

import os
import pickle
import random
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.trainers.system.injecting import Injecting, StoppedError
from trainers.errors import RootError, StoreError
from trainers.system import object_store
from trainers.system.store import LocalStore, Store, open_store

# What others warn of in their own code is not ours.
pytestmark = [
    pytest.mark.filterwarnings(rf"ignore:::{name}\..*")
    for name in ("moto", "botocore", "flask", "werkzeug")
]


@pytest.fixture(
    params=["folder", "s3", "s3, a third of the requests fail", "gs", "gs, as many fail", "azure"]
)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def scheme(kind: str) -> str:
    return kind[:2]


@pytest.fixture
def store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if kind == "folder":
        return open_store(tmp_path / "root", make=True)
    objects: Store = request.getfixturevalue("azure" if kind == "azure" else "objects")
    if "fail" in kind:
        request.getfixturevalue("server").rate = 1 / 3
    return objects


def keys(store: Store, prefix: str = "") -> list[str]:
    return [one.key for one in store.list(prefix)]


def test_what_is_put_is_got_and_what_is_not_is_none(store: Store):
    assert store.get("a/b") is None
    for content in (b"", b"one", bytes(range(256)) * 1000):
        assert store.put("a/b", content)
        assert store.get("a/b") == content
    assert store.get("a") is None
    assert store.get("a/b/c") is None


def test_of_puts_if_absent_the_first_alone_counts(store: Store):
    assert store.put("a/b", b"first", if_absent=True)
    assert not store.put("a/b", b"second", if_absent=True)
    assert store.get("a/b") == b"first"
    store.delete("a/b")
    assert store.put("a/b", b"third", if_absent=True)
    assert store.get("a/b") == b"third"


def test_of_many_at_once_one_claims_and_its_bytes_stay(store: Store):
    def claim(number: int) -> int | None:
        content = str(number).encode()
        return number if store.put(f"{number // 8}/lease", content, if_absent=True) else None

    with ThreadPoolExecutor(8) as pool:
        won = [one for one in pool.map(claim, range(10 * 8)) if one is not None]
    assert [one // 8 for one in won] == list(range(10))
    assert [store.get(f"{one // 8}/lease") for one in won] == [str(one).encode() for one in won]


def test_lists_name_everything_below_sorted_and_nothing_beside(store: Store):
    names = ["b/2", "b/10", "b/1/x", "ba", "a/b/c/d", "b-c/x", "b/{1}=%20 é+~"]
    for name in names:
        store.put(name, name.encode())
    assert keys(store) == sorted(names)
    assert keys(store, "b") == sorted(name for name in names if name.startswith("b/"))
    assert keys(store, "a/b") == ["a/b/c/d"]
    assert keys(store, "nothing") == keys(store, "ba") == []
    assert {one.key: one.size for one in store.list()} == {
        name: len(name.encode()) for name in names
    }
    assert all(one.changed > 1e9 for one in store.list())


def test_names_are_of_objects_and_of_what_lies_deeper_each_once(store: Store):
    for name in ("b/2", "b/1/x", "b/1/y/z", "c", *(f"many/{n:02d}/x" for n in range(10))):
        store.put(name, b"")
    assert store.names() == ["b", "c", "many"]
    assert store.names("b") == ["1", "2"]
    assert store.names("many") == [f"{n:02d}" for n in range(10)]
    assert store.names("nothing") == store.names("c") == []


def test_deleting_twice_is_deleting_once(store: Store):
    store.put("a/b", b"")
    store.put("a/c", b"")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/there")
    assert keys(store) == ["a/c"]
    store.delete("a/c")
    assert store.names() == []


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 3333])
def test_files_go_there_and_back_whole(
    store: Store, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
):
    content = random.Random(size).randbytes(size)
    (tmp_path / "sent").write_bytes(content)
    store.put_file("a/b", tmp_path / "sent")
    monkeypatch.setattr(object_store, "PART", 1000)
    assert store.get("a/b") == content
    (tmp_path / "received").write_bytes(b"old")
    assert not store.get_file("a/c", tmp_path / "received")
    assert (tmp_path / "received").read_bytes() == b"old"
    assert store.get_file("a/b", tmp_path / "received")
    assert (tmp_path / "received").read_bytes() == content
    assert {one.name for one in tmp_path.iterdir()} <= {"sent", "received", "root"}


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/..", ".a", "a/.b"])
def test_a_key_has_no_empty_and_no_hidden_names(store: Store, key: str, tmp_path: Path):
    for use in (
        store.get,
        store.delete,
        lambda key: store.put(key, b""),
        lambda key: store.put(key, b"", if_absent=True),
        lambda key: store.put_file(key, tmp_path / "x"),
        lambda key: store.get_file(key, tmp_path / "x"),
    ):
        with pytest.raises(ValueError, match="not a key"):
            use(key)


def test_a_root_is_there_for_another_that_opens_it(store: Store, tmp_path: Path):
    store.put("a", b"1")
    root = store.local or store.shown
    assert open_store(root).get("a") == open_store(root, make=True).get("a") == b"1"
    assert pickle.loads(pickle.dumps(store)).get("a") == b"1"


def test_a_root_that_is_a_file_is_said_to_be_one(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(RootError, match="is no folder: give another --root"):
        open_store(tmp_path / "file")


def test_an_empty_root_is_there_and_one_that_nobody_made_is_not(store: Store):
    root = str(store.local or store.shown)
    assert open_store(root).list() == []
    with pytest.raises(RootError, match="is not there: give another --root, or run a study first"):
        open_store(f"{root}-of-nobody")


# ---- a folder

WRITER = """
import sys
from pathlib import Path
from trainers.system.store import open_store
store = open_store(Path(sys.argv[1]), make=True)
start = len(store.names("claims"))
for n in range(start, 1_000_000):
    store.put("same/key", bytes([n % 256]) * (1 << 20))
    assert store.put(f"claims/{n:06d}", bytes([n % 256]) * 5000, if_absent=True)
    print(n, flush=True)
"""


def test_a_kill_leaves_objects_whole_or_not_at_all(tmp_path: Path):
    answered = -1
    for kill in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            for _ in range(random.Random(kill).randrange(1, 12)):
                answered = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            answered = max([answered, *map(int, process.stdout.read().split())])
        store = open_store(tmp_path)
        content = store.get("same/key") or b""
        assert content == content[:1] * (1 << 20)
        claims = store.names("claims")
        assert claims == [f"{n:06d}" for n in range(len(claims))]
        assert len(claims) in (answered + 1, answered + 2)
        for n, name in enumerate(claims):
            assert store.get(f"claims/{name}") == bytes([n % 256]) * 5000
        assert keys(store) == [*(f"claims/{name}" for name in claims), "same/key"]


def test_a_root_that_goes_away_is_an_error_and_no_absence(tmp_path: Path):
    store = open_store(tmp_path / "root", make=True)
    (tmp_path / "root").rmdir()
    (tmp_path / "x").write_bytes(b"")
    for do in (
        lambda: store.get("a"),
        lambda: store.get_file("a", tmp_path / "x"),
        lambda: store.put("a/b", b""),
        lambda: store.put_file("a/b", tmp_path / "x"),
        store.names,
        store.list,
    ):
        with pytest.raises(StoreError, match="is gone: bring it back"):
            do()
    assert not (tmp_path / "root").exists()


def test_who_puts_is_not_disturbed_by_who_deletes_the_last_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make = LocalStore._make_folders
    others = [1, 2, 3]

    def make_before_another_deletes(store: LocalStore, folder: Path) -> None:
        make(store, folder)
        if others and others.pop():
            folder.rmdir()

    monkeypatch.setattr(LocalStore, "_make_folders", make_before_another_deletes)
    store = open_store(tmp_path, make=True)
    assert store.put("a/b", b"1", if_absent=True)
    assert store.get("a/b") == b"1"


def test_a_mount_that_lost_its_answer_does_not_lose_a_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As over NFS: the link is made, the answer lost, and the request sent again is refused."""
    link = os.link

    def link_twice(*names: Path) -> None:
        link(*names)
        link(*names)

    monkeypatch.setattr(os, "link", link_twice)
    store = open_store(tmp_path, make=True)
    assert store.put("a", b"mine", if_absent=True)
    (tmp_path / "b").write_bytes(b"another's")
    assert not store.put("b", b"mine", if_absent=True)
    assert (store.get("a"), store.get("b")) == (b"mine", b"another's")


# ---- the store that stops, of other tests


@pytest.mark.parametrize("after", [False, True])
def test_a_stop_is_before_or_after_the_write(tmp_path: Path, after: bool):
    store = Injecting(open_store(tmp_path, make=True), at=2, after=after)
    store.put("a", b"")
    assert store.get("b") is None
    with pytest.raises(StoppedError):
        store.put("b", b"")
    assert keys(LocalStore(tmp_path)) == ["a", "b"][: 1 + after]
    assert store.operations == ["put a", "get b", "put b"]


def test_frozen_lists_are_late_and_what_is_got_is_not(tmp_path: Path):
    store = Injecting(open_store(tmp_path, make=True))
    store.put("a/b", b"")
    store.freeze()
    store.put("a/c", b"1")
    store.put("d", b"")
    assert (keys(store), store.names(), store.names("a")) == (["a/b"], ["a"], ["b"])
    assert store.get("a/c") == b"1"
    store.thaw()
    assert keys(store) == ["a/b", "a/c", "d"]


def test_what_cannot_be_written_leaves_no_folder_behind(tmp_path: Path):
    store = open_store(tmp_path)
    store.put("trials/a/config.json", b"{}")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited[1]))
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            store.put("trials/a/attempts/0001/lease.json", b"{}", if_absent=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert store.names("trials/a") == ["config.json"]
    assert store.put("trials/a/attempts/0001/lease.json", b"{}", if_absent=True)
