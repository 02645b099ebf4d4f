"""Stores of the tests: a folder, a real S3 server in this process, Azure's emulator."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainers.system.azurite import ACCOUNT, KEY, azurite
from tests.trainers.system.object_server import ObjectServer, credentials, object_server
from trainers.system import object_store
from trainers.system.store import Store, open_store


@pytest.fixture(scope="session")
def running() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


@pytest.fixture
def server(running: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """A server without faults; what waits for it is quick."""
    credentials(running, monkeypatch)
    monkeypatch.setattr(object_store, "SHORTEST_PAUSE_S", 0.001)
    monkeypatch.setattr(object_store, "LONGEST_PAUSE_S", 0.01)
    yield running
    running.faults, running.rate = [], 0.0


@pytest.fixture
def address(server: ObjectServer, tmp_path: Path) -> str:
    return f"s3://bucket/{tmp_path.name}/root"


@pytest.fixture
def objects(address: str) -> Store:
    return open_store(address, make=True)


@pytest.fixture(scope="session")
def azure_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azurite(tmp_path_factory.mktemp("azurite")) as address:
        yield address


@pytest.fixture
def azure(azure_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", azure_address)
    return open_store(f"az://container/{tmp_path.name}/root", make=True)
