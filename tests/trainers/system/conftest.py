"""Stores of the tests: a folder, and a real S3 server in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

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
