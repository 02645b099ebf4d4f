"""RAY: a machine is to be taken away: what trains there saves, and goes on elsewhere."""

import contextlib
import threading
from typing import Self

import ray
from ray.exceptions import RayError

from orchestrator.driver.nodes import nodes_to_go
from orchestrator.retry import PreemptedError
from trainers.training import stopping

LOOKED_EVERY_S = 5.0
"""How often a worker asks; clouds give notice of 30 seconds at least."""


class Notices:
    """While a trial is trained in this process: a notice for its machine asks the run to end.

    A context manager, which raises PreemptedError in place of the run's own `Interrupted`.
    """

    def __init__(self) -> None:
        self._over = threading.Event()

    def __enter__(self) -> Self:
        # Whoever asks without Ray would start one.
        if ray.is_initialized():
            threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        # It is not waited for, since it may itself wait for a head that does not answer.
        self._over.set()
        if isinstance(error, stopping.Interrupted):
            raise PreemptedError(f"its machine is to be taken away: {error.saved}") from None

    def _look(self) -> None:
        here = ray.get_runtime_context().get_node_id()
        while not self._over.wait(LOOKED_EVERY_S):
            # A head that does not answer now says it the next time.
            with contextlib.suppress(RayError):
                if here in nodes_to_go():
                    stopping.ask_to_end()
