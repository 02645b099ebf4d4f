"""RAY: what a driver and its attempts tell each other, by way of the cluster's head.

Each raises RayError where the head does not answer.
"""

from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

_NAMESPACE = "dinolab_moves"


def name_of(driver: str, key: str, since: int) -> str:
    """What the attempt of `driver` that follows number `since` is called on the cluster."""
    return f"{driver}/{key}/{since}"


def ask(name: str, why: str) -> None:
    """Ask an attempt to save, and to end."""
    _internal_kv_put(f"{name}?", why, overwrite=True, namespace=_NAMESPACE)


def why_asked(name: str) -> str:
    """Why an attempt has been asked to end; empty if it has not."""
    return (_internal_kv_get(f"{name}?", namespace=_NAMESPACE) or b"").decode()


def tell_machine(name: str, machine: str) -> None:
    """Tell that a worker of an attempt runs on a machine, by Ray's identifier."""
    _internal_kv_put(f"{name}@{machine}", b"", overwrite=True, namespace=_NAMESPACE)


def machines_of(name: str) -> frozenset[str]:
    """The machines that the workers of an attempt run on, as far as told."""
    start = f"{name}@"
    found = _internal_kv_list(start, namespace=_NAMESPACE)
    return frozenset(one.decode().removeprefix(start) for one in found)


def forget(name: str) -> None:
    """Take away what the cluster knows of an attempt."""
    for start in (f"{name}?", f"{name}@"):
        for one in _internal_kv_list(start, namespace=_NAMESPACE):
            _internal_kv_del(one, namespace=_NAMESPACE)
