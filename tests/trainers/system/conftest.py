"""Stores of the tests: servers of S3 and of Google's protocol in this process, Azure's emulator."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainers.system.azurite import ACCOUNT, KEY, azurite
from tests.trainers.system.object_server import ObjectServer, credentials, object_server
from trainers.system import object_store
from trainers.system.store import Store, open_store


@pytest.fixture(scope="session")
def running_s3() -> Iterator[ObjectServer]:
    with object_server("s3") as server:
        yield server


@pytest.fixture(scope="session")
def running_gs() -> Iterator[ObjectServer]:
    with object_server("gs") as server:
        yield server


@pytest.fixture
def scheme() -> str:
    """The protocol of `server`: s3 or gs."""
    return "s3"


@pytest.fixture
def server(
    scheme: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ObjectServer]:
    """A server without faults; what waits for it is quick."""
    running: ObjectServer = request.getfixturevalue(f"running_{scheme}")
    credentials(running, monkeypatch, scheme)
    monkeypatch.setattr(object_store, "SHORTEST_PAUSE_S", 0.001)
    monkeypatch.setattr(object_store, "LONGEST_PAUSE_S", 0.01)
    yield running
    running.faults, running.rate = [], 0.0


@pytest.fixture
def address(server: ObjectServer, scheme: str, tmp_path: Path) -> str:
    return f"{scheme}://bucket/{tmp_path.name}/root"


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
