"""RAY: what a worker group had reserved, and nobody gives back, since who asked for it is dead."""

import contextlib
import time
from typing import Any

import ray
from ray.core.generated import gcs_pb2
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group

LOOKED_FOR_S = 60.0
"""How long after a death Ray may take to know who is dead."""

LOOKED_EVERY_S = 2.0


class Reserved:
    """Gives back what groups of this driver's job have left reserved, for a while after a death.

    Ray Train has an actor that does it, which asks the head for what is dead. But where a machine
    has died with a worker and with the group's controller, the head can be so busy placing the
    lost worker again that it never answers, and never places anything else (Ray 2.60).
    """

    def __init__(self) -> None:
        self._until = self._looked_at = float("-inf")

    def somebody_died(self) -> None:
        """The process of a trial has died, and maybe others on its machine."""
        self._until = time.monotonic() + LOOKED_FOR_S

    def give_back(self) -> None:
        """Look for what is left, if somebody has died."""
        now = time.monotonic()
        if now < self._until and now - self._looked_at >= LOOKED_EVERY_S:
            self._looked_at = now
            # A head that does not answer now may the next time.
            with contextlib.suppress(RayError):
                for group in _left():
                    remove_placement_group(group)


def _left() -> list[PlacementGroup]:
    """What actors of this job had reserved that are dead; not what the driver has, as Tune does."""
    job = ray.get_runtime_context().get_job_id()
    accessor = ray._private.state.state._connect_and_get_accessor()
    kind: Any = gcs_pb2.PlacementGroupTableData  # type: ignore[attr-defined]
    table = map(kind.FromString, accessor.get_placement_group_table())
    return [
        PlacementGroup(ray.PlacementGroupID(one.placement_group_id))
        for one in table
        if one.creator_actor_dead
        and not ray.ActorID(one.creator_actor_id).is_nil()
        and one.creator_job_id.hex() == job
        and one.state != kind.REMOVED
    ]
