"""What a trial gets of a cluster, and how many trials run at once."""

from itertools import product

import pydantic
import pytest

from ablations.study.schema import Resources
from orchestrator.resources import (
    GIB,
    WATCHER_CPUS,
    Node,
    place,
    seats_of,
    share_of_this_machine,
    trials_free,
    worker_counts,
    workers_for,
)
from trainers.config import override
from trainers.config.recipe import recipe
from trainers.errors import InputError


def nodes(*machines, **more):
    """A machine for each (CPUs, GPUs)."""
    return [
        Node(name=f"node{number}", cpus=cpus, gpus=gpus, **more)
        for number, (cpus, gpus) in enumerate(machines)
    ]


@pytest.mark.parametrize(
    ("resources", "machines", "concurrent"),
    [
        ({}, [(2, 0)], 2),
        ({"cpus_per_worker": 2}, [(5, 0)], 2),
        ({"workers": 2}, [(2, 0)], 1),
        ({}, [(16, 4)], 4),
        ({"workers": 4}, [(64, 8)], 2),
        ({"device": "cpu"}, [(16, 4)], 16),
        ({"workers": 2}, [(1, 0), (1, 0)], 1),
        ({"cpus_per_worker": 2}, [(3, 0), (3, 0)], 2),
        ({"workers": 4}, [(64, 2), (4, 8)], 1),
        ({"gpus_per_worker": 0.25}, [(16, 2)], 8),
        ({"gpus_per_worker": 0.6}, [(16, 2)], 2),
        ({"gpus_per_worker": 0.1}, [(4, 2)], 4),
        ({"gpus_per_worker": 0.1}, [(40, 1)], 10),
    ],
)
def test_as_many_trials_run_as_the_machines_hold(resources, machines, concurrent):
    assert place(Resources(**resources), nodes(*machines)).concurrent == concurrent


@pytest.mark.parametrize(
    ("strategy", "machines", "concurrent"),
    [
        ("STRICT_PACK", [(3, 0), (3, 0)], 2),
        ("STRICT_PACK", [(1, 0), (5, 0)], 2),
        ("STRICT_SPREAD", [(3, 0), (1, 0)], 1),
        ("STRICT_SPREAD", [(3, 0), (1, 0), (2, 0)], 3),
        ("STRICT_SPREAD", [(2, 0), (2, 0)], 2),
        ("SPREAD", [(3, 0), (3, 0)], 3),
    ],
)
def test_workers_of_a_trial_lie_where_its_strategy_lets_them(strategy, machines, concurrent):
    asked = Resources(workers=2, placement_strategy=strategy)
    made = place(asked, nodes(*machines))
    assert (made.concurrent, made.strategy) == (concurrent, strategy)


@pytest.mark.parametrize(
    ("strategy", "machines", "said"),
    [
        ("STRICT_PACK", [(1, 0), (1, 0)], "2 workers of 1 CPUs, 0 GPUs, all on one machine, and"),
        ("STRICT_SPREAD", [(8, 0)], "2 workers of 1 CPUs, 0 GPUs, each on another machine, and"),
    ],
)
def test_a_strategy_that_no_machines_allow_is_one_line(strategy, machines, said):
    with pytest.raises(InputError, match=said):
        place(Resources(workers=2, placement_strategy=strategy), nodes(*machines))


@pytest.mark.parametrize(
    ("workers", "cpus_per_worker", "machines"),
    [
        (2, 1, [(1, 0), (1, 0)]),
        (4, 1, [(64, 2), (4, 8)]),
        (2, 1, [(256, 0)]),
        (8, 3, [(24, 0), (7, 0)]),
    ],
)
def test_those_who_watch_groups_fit_beside_as_many_workers_and_no_more(
    workers, cpus_per_worker, machines
):
    made = place(
        Resources(workers=workers, cpus_per_worker=cpus_per_worker, device="cpu"), nodes(*machines)
    )
    for cpus, _ in machines:
        held = cpus // made.cpus_per_worker
        assert held * made.group_cpus + made.concurrent * WATCHER_CPUS <= cpus
        assert (held + 1) * made.group_cpus > cpus


def test_memory_and_labels_are_asked_of_each_machine():
    two = [
        Node(name="large", cpus=8, memory=64 * GIB, labels={"disk": "fast"}),
        Node(name="small", cpus=8, memory=8 * GIB, labels={"disk": "slow"}),
    ]
    assert place(Resources(memory_per_worker_gib=16), two).concurrent == 4
    assert place(Resources(memory_per_worker_gib=4), two).concurrent == 10
    slow = place(Resources(memory_per_worker_gib=4, node_labels={"disk": "slow"}), two)
    assert (slow.concurrent, slow.labels) == (2, {"disk": "slow"})
    assert slow.asked(1) == {"CPU": 1, "memory": 4 * GIB}
    with pytest.raises(InputError, match=r"GPUs, disk=none, .* large: .* disk=fast \| small: "):
        place(Resources(node_labels={"disk": "none"}), two)


@pytest.mark.parametrize(
    ("resources", "machines", "said"),
    [
        ({"workers": 3}, [(2, 0)], "3 workers of 1 CPUs, 0 GPUs"),
        ({"device": "gpu"}, [(8, 0)], "or resources.device: cpu"),
        (
            {"cpus_per_worker": 2},
            [(1, 0), (1, 0)],
            "node0: 1 CPUs, 0 GPUs . node1: 1 CPUs, 0 GPUs; ask",
        ),
        ({"memory_per_worker_gib": 3}, [(1, 0)], "1 worker of 1 CPUs, 0 GPUs, 3 GiB"),
        ({}, [], "the cluster has no machine;"),
        ({"workers": 2, "gpus_per_worker": 0.5}, [(8, 8)], "cannot share a GPU"),
    ],
)
def test_what_can_never_fit_is_one_line_that_lists_the_machines(resources, machines, said):
    with pytest.raises(InputError, match=said) as caught:
        place(Resources(**resources), nodes(*machines, memory=2 * GIB))
    assert "\n" not in str(caught.value)


def test_a_cluster_that_scales_from_zero_is_used_as_it_grows():
    head = [Node(name="head", cpus=0)]
    kind = [Node(name="gpus", cpus=8, gpus=4, labels=None, count=3)]
    asked = Resources(cpus_per_worker=2, node_labels={"ray.io/accelerator-type": "H100"})
    none = place(asked, head, kind)
    assert (none.concurrent, none.attainable, none.gpus_per_worker) == (0, 12, 1)
    grown = [*head, *nodes((8, 4), labels=asked.node_labels)]
    some = place(asked, grown, [Node(name="gpus", cpus=8, gpus=4, labels=None, count=2)])
    assert (some.concurrent, some.attainable) == (4, 12)
    assert place(asked, grown, kind, most=3).concurrent == 3
    with pytest.raises(InputError, match="it can add 3 × gpus: 8 CPUs, 4 GPUs"):
        place(Resources(cpus_per_worker=9), head, kind)


def test_a_share_of_a_laptop_leaves_cpus_to_others():
    assert share_of_this_machine(8, 2) == 6
    assert share_of_this_machine(8, 0) == 8
    with pytest.raises(InputError, match="--leave-cpus 2: this machine has 2 CPUs"):
        share_of_this_machine(2, 2)


def test_workers_of_a_trial_are_numbers_that_divide_its_batch():
    of_twelve = override(recipe("digits_tiny"), {"batch_size": 12})
    asked = Resources(workers=2, most_workers=9)
    assert worker_counts(of_twelve, asked) == [2, 3, 4, 6]
    assert worker_counts(of_twelve, Resources(workers=2, most_workers=99)) == [2, 3, 4, 6, 12]
    assert worker_counts(of_twelve, Resources(workers=2)) == [2]
    # Each worker needs an image for each of the parts of its step.
    parts = override(of_twelve, {"compute.accumulate": 4})
    assert worker_counts(parts, asked) == [2, 3]
    with pytest.raises(pydantic.ValidationError, match="most_workers 2 is less than workers 3"):
        Resources(workers=3, most_workers=2)
    with pytest.raises(pydantic.ValidationError, match="PACK or SPREAD, and not with STRICT_PACK"):
        Resources(workers=1, most_workers=2, placement_strategy="STRICT_PACK")


@pytest.mark.parametrize(
    ("free", "waiting", "workers"),
    [(8, 1, 8), (8, 2, 4), (8, 3, 2), (8, 5, 1), (8, 99, 1), (7, 1, 4), (1, 1, 1), (3, 1, 2)],
)
def test_a_trial_gets_more_workers_where_fewer_wait_than_there_is_place_for(free, waiting, workers):
    asked = Resources(workers=1, most_workers=8)
    assert workers_for([1, 2, 4, 8], asked, free, waiting) == workers


def test_trials_that_are_launched_in_turn_fit_and_none_waits_while_there_is_place():
    counts = [2, 3, 4, 6, 12]
    asked = Resources(workers=2, most_workers=12)
    for seats, trials in product(range(1, 14), range(1, 9)):
        free, waiting, taken = seats, trials, []
        while free and waiting:
            taken.append(workers_for(counts, asked, free, waiting))
            free -= seats_of(taken[-1], asked)
            waiting -= 1
        assert free >= 0
        assert sum(taken) <= 2 * seats
        assert len(taken) == min(seats, trials)


def test_no_workers_of_an_elastic_trial_share_a_gpu():
    elastic = Resources(workers=1, most_workers=2, gpus_per_worker=0.5)
    with pytest.raises(InputError, match="the 2 workers of one trial cannot share a GPU"):
        place(elastic, nodes((8, 8)))


def test_room_that_others_have_or_those_who_watch_is_known_from_what_is_free():
    asked = Resources(workers=1, most_workers=4, device="cpu")
    made = place(asked, nodes((4, 0), (1, 0)))
    free = [Node(name="a", cpus=4 - made.group_cpus - WATCHER_CPUS), Node(name="b", cpus=1)]
    assert trials_free(free, asked, made) == 4
    # One watches on b, and nothing else runs there.
    assert trials_free([Node(name="b", cpus=1 - WATCHER_CPUS)], asked, made) == 1
    assert trials_free([Node(name="b", cpus=1 - made.group_cpus)], asked, made) == 0
    pairs = Resources(workers=2, most_workers=4, device="cpu")
    assert trials_free(free, pairs, place(pairs, nodes((4, 0), (1, 0)))) == 2
