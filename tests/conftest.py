"""How the tests share two cores: two processes (see the Makefile), each with one thread."""

import functools
import re
import signal
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

HOME = Path(__file__).parent.parent
WHOLE = re.compile(r"def \w+\([^)]*\b(cluster|finished)\b")
"""What a file of tests of the orchestrator has in it that needs a whole study."""


@functools.cache
def group_of(file: str) -> str:
    """What the tests of a file share fixtures with: each other, or all that need whole studies."""
    ours = file.startswith("tests/orchestrator/")
    return "studies" if ours and WHOLE.search((HOME / file).read_text()) else file


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
            return group_of(nodeid.split("::")[0])

    config.option.loadscopereorder = False  # the order of the items is that of the groups
    return Groups(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups with the most slow tests come first, so that no process waits long for the other."""
    groups = {item: group_of(item.nodeid.split("::")[0]) for item in items}
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()) or item.path.name == "test_runs.py":
            item.add_marker(pytest.mark.slow)
    slow = Counter(groups[item] for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (groups[item] != "studies", -slow[groups[item]]))


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> None:
    """What a test draws, as timm does for weights, hangs on no test before it."""
    torch.manual_seed(zlib.crc32(fixturedef.argname.encode()))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """See above."""
    torch.manual_seed(zlib.crc32(item.nodeid.encode()))


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_signal_of_another_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that a test calls in this process listens for signals: later tests send some.

    Nor may it end this process seconds after a signal, as it would end its own.
    """
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(signal, "set_wakeup_fd", lambda *_, **__: -1)
    yield
    for one, handler in handlers.items():
        signal.signal(one, handler)
