"""RAY: a run is to end here: what it has come to is saved, and it goes on elsewhere.

Since its machine is to be taken away, or since its driver asks it to, as `moving` decides.
"""

import contextlib
import threading
from typing import Self

import ray
from ray.exceptions import RayError

from orchestrator.driver.messages import tell_machine, why_asked
from orchestrator.driver.nodes import nodes_to_go
from orchestrator.retry import PreemptedError
from trainers.training import stopping

LOOKED_EVERY_S = 5.0
"""How often a worker asks; clouds give notice of 30 seconds at least."""

ANOTHER_WAS_ASKED = "another worker was asked to end"
"""What a worker knows that has not been asked itself."""

_TAKEN_AWAY = "its machine is to be taken away"


class Notices:
    """While the attempt `name` is trained in this process: a notice asks the run to end.

    A context manager, which raises PreemptedError in place of the run's own `Interrupted`.
    """

    def __init__(self, name: str) -> None:
        self._name, self._why = name, ""
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
            raise PreemptedError(f"{self._why or ANOTHER_WAS_ASKED}: {error.saved}") from None

    def _look(self) -> None:
        here, is_told, wait_s = ray.get_runtime_context().get_node_id(), False, 0.0
        while not self._over.wait(wait_s):
            wait_s = LOOKED_EVERY_S
            # A head that does not answer now says it the next time.
            with contextlib.suppress(RayError):
                if not is_told:
                    tell_machine(self._name, here)
                is_told = True
                self._why = _TAKEN_AWAY if here in nodes_to_go() else why_asked(self._name)
                if self._why:
                    stopping.ask_to_end()
