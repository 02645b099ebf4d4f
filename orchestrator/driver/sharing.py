"""RAY: the studies that run on one cluster divide it, so that none waits for another to end."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from ray.exceptions import RayError
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

TURN_S = 60.0
"""for which a seat is one driver's, where there are fewer seats than drivers"""

_NAMESPACE = "dinolab_wants"


def dealt(seats: int, wants: Mapping[str, int], turn: int) -> dict[str, int]:
    """How many seats each driver gets of the trials that it `wants` to run, by driver.

    One at a time goes to each that still wants one, so that the shares differ by one at most, but
    of those that want less (max-min fair). Who is first changes with the `turn`.
    """
    names = sorted(wants)
    first = turn % len(names) if names else 0
    order = names[first:] + names[:first]
    got = dict.fromkeys(names, 0)
    while seats and (waiting := [name for name in order if got[name] < wants[name]]):
        for name in waiting[:seats]:
            got[name] += 1
        seats -= min(seats, len(waiting))
    return got


class Sharing:
    """A driver among those that train on a cluster's devices of one kind. A context manager.

    Each tells the cluster how many trials it wants to run at once. Those whose job is over do not
    count, and nothing has to be cleaned up after one that was killed.
    """

    def __init__(
        self, device: str, wanted: Callable[[], int], most: int | None, say: Callable[[str], None]
    ) -> None:
        """`wanted` tells how many trials there are to run, of which it runs `most` at once.

        One that may take the place of several counts as so many.
        """
        import ray

        self._device, self._wanted, self._most, self._say = device, wanted, most, say
        self._job = ray.get_runtime_context().get_job_id()
        self._wants: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A cluster that is gone would be waited for; else the end of the job does the same.
        if kind is None:
            _internal_kv_del(self._job, namespace=_NAMESPACE)

    def share(self, seats: int) -> int:
        """How many of so many trials at once are this driver's."""
        before = len(self._wants)
        # A head that does not answer now: as it was.
        with contextlib.suppress(RayError):
            wants = self._wanted() if self._most is None else min(self._wanted(), self._most)
            told = {"device": self._device, "wants": wants}
            _internal_kv_put(self._job, json.dumps(told), overwrite=True, namespace=_NAMESPACE)
            self._wants = {self._job: wants, **self._others()}
        others = len(self._wants) - 1
        if others < 1:
            return seats
        if len(self._wants) != before:
            some = "study is" if others == 1 else "studies are"
            self._say(f"note: {others} other {some} at work on this cluster, which is shared")
        return dealt(seats, self._wants, int(time.time() // TURN_S))[self._job]

    def _others(self) -> dict[str, int]:
        import ray

        names = {name.decode() for name in _internal_kv_list("", namespace=_NAMESPACE)}
        if not names - {self._job}:
            return {}
        alive = {job["JobID"] for job in ray._private.state.state.job_table() if not job["IsDead"]}
        found = {}
        for name in names - {self._job}:
            if name not in alive:
                _internal_kv_del(name, namespace=_NAMESPACE)
            elif content := _internal_kv_get(name, namespace=_NAMESPACE):
                told = json.loads(content)
                if told["device"] == self._device and told["wants"]:
                    found[name] = int(told["wants"])
        return found


@contextlib.contextmanager
def processes_given_up(when_full: Callable[[], bool]) -> Iterator[None]:
    """Let Tune keep the process of a trial that has ended for the next one only while not full.

    Tune always keeps one, and with it what a study of somebody else waits for.
    """
    from ray.tune.execution import tune_controller

    former: Any = tune_controller._ObjectCache  # type: ignore[attr-defined]

    class Cache(former):  # type: ignore[misc]
        @property
        def _may_keep_one(self) -> bool:
            return not when_full()

        @_may_keep_one.setter
        def _may_keep_one(self, _: bool) -> None:
            pass

    tune_controller._ObjectCache = Cache  # type: ignore[attr-defined]
    try:
        yield
    finally:
        tune_controller._ObjectCache = former  # type: ignore[attr-defined]
