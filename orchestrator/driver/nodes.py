"""RAY: the machines of the cluster: those there now, those it can add, and those about to go."""

import contextlib
import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import yaml

from ablations.study.schema import Resources
from orchestrator.resources import UNLIMITED, Node, node_of


def nodes_there() -> list[Node]:
    """The machines that the cluster has now, but those that are to be taken away."""
    import ray

    leaving = nodes_to_go()
    return [
        node_of(one["NodeManagerHostname"], one["Resources"], one.get("Labels") or {})
        for one in ray.nodes()
        if one["Alive"] and one["NodeID"] not in leaving
    ]


def nodes_free(*, but: Collection[str] = ()) -> list[Node]:
    """The same machines, but those with the identifiers `but`, with what nobody has of them now.

    Raises RayError.
    """
    import ray

    state, leaving = ray._private.state.state, {*nodes_to_go(), *but}
    labels = {one["NodeID"]: one.get("Labels") or {} for one in ray.nodes() if one["Alive"]}
    return [
        node_of(name, resources, labels[name])
        for name, resources in state.available_resources_per_node().items()
        if name in labels and name not in leaving
    ]


def nodes_to_go() -> Collection[str]:
    """Identifiers of the machines that are to be taken away; Ray puts nothing new on them.

    A cloud's notice of preemption, an autoscaler, or `ray drain-node` says it of them.
    """
    import ray

    # What `ray.train.get_preemption_info` asks; that one is a barrier, and for worker groups alone.
    found: dict[str, int] = ray._private.state.state.get_draining_nodes()
    return found.keys()


def nodes_addable(resources: Resources) -> list[Node]:
    """The kinds of machine that the cluster adds when they are asked for; none without autoscaler.

    Those that the cluster says, or the file that `ray up` leaves on its head; else, where there is
    an autoscaler, one kind that holds anything.
    """
    import ray

    if config := ray._private.state.state.get_cluster_config():
        return [
            replace(
                node_of(kind.name, kind.resources, None),
                count=UNLIMITED if kind.max_count < 0 else kind.max_count,
            )
            for kind in config.node_group_configs
            if kind.max_count
        ]
    with contextlib.suppress(OSError, yaml.YAMLError, AttributeError):
        launched = yaml.safe_load(Path("~/ray_bootstrap_config.yaml").expanduser().read_text())
        return [
            replace(node_of(name, kind.get("resources") or {}, None), count=count)
            for name, kind in launched["available_node_types"].items()
            if (count := kind.get("max_workers", launched.get("max_workers", 0)))
        ]
    if _has_autoscaler():
        gpus = UNLIMITED if resources.device == "gpu" else 0
        return [Node(name="machines on demand", cpus=UNLIMITED, gpus=gpus, labels=None)]
    return []


def _has_autoscaler() -> bool:
    """Whether machines of the cluster come from something that can add others."""
    from ray.experimental.internal_kv import _internal_kv_get

    # Without an autoscaler Ray reports each machine as a kind of its own, named by its id.
    said = json.loads(_internal_kv_get("__autoscaling_status") or b"{}")
    kinds = (said.get("autoscaler_report") or {}).get("node_type_mapping") or {}
    return any(kind != f"node_{machine}" for machine, kind in kinds.items())
