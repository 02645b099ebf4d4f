"""How the tests share two cores: two processes (see the Makefile), each with one thread."""

import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch

STUDIES = (
    "orchestrator/cli/test_choosing.py",
    "orchestrator/cli/test_cli.py",
    "orchestrator/cli/test_start.py",
    "orchestrator/driver/test_runs.py",
    "orchestrator/tracking/test_mirror.py",
    "reliability/test_commands.py",
)
"""Files whose tests run whole studies."""


def group_of(nodeid: str) -> str:
    """What a test shares its fixtures with: its file, or all that run whole studies."""
    file = nodeid.split("::")[0]
    return "studies" if file.endswith(STUDIES) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a group in one process: a study is run once, and no two clusters at once.

    Marks do not reach a scheduler: since pytest 9.2 the names that xdist gives them are not read.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False  # the order of the items is that of the groups
    return Groups(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups with the most slow tests come first, so that no process waits long for the other."""
    slow: Counter[str] = Counter()
    for item in items:
        group = group_of(item.nodeid)
        if "cluster" in getattr(item, "fixturenames", ()) or item.path.name == "test_runs.py":
            assert group == "studies", f"{item.nodeid} runs a whole study: list its file in STUDIES"
            item.add_marker(pytest.mark.slow)
        slow[group] += item.get_closest_marker("slow") is not None
    items.sort(key=lambda item: (group_of(item.nodeid) != "studies", -slow[group_of(item.nodeid)]))


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
