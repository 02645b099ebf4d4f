"""How the tests share two cores: two processes (see the Makefile), each with one thread."""

import signal
from collections.abc import Iterator

import pytest
import torch


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares a fixture: the tests of a file, and all that run whole studies.

    So a study is run once, and no two clusters at once.
    """
    for item in items:
        whole = "cluster" in getattr(item, "fixturenames", ()) or item.path.name == "test_runs.py"
        if whole:
            item.add_marker(pytest.mark.slow)
        group = "studies" if whole else item.path.as_posix()
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_signal_of_another_test() -> Iterator[None]:
    """A command that a test calls in this process listens for signals: later tests send some."""
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    yield
    signal.set_wakeup_fd(-1)
    for one, handler in handlers.items():
        signal.signal(one, handler)
