"""Attention statistics of a ViT-S/16: ours, and timm's AttentionExtract with NumPy."""

import importlib.util

from benchmarks import attention_extract, ours
from benchmarks.contest import OURS, Contender, Outcome, ratio
from benchmarks.gpu.record import Part, goal
from benchmarks.gpu.task import Task
from benchmarks.measure import LAYERS, MODEL, compare, make_forward, make_measure

RATIO = 10.0
"""Goal: times AttentionExtract with NumPy."""

BATCH = 32
"""Images at once, both sides."""

MEMORY = (16.0, 1024.0)
"""MiB of attention weights that ours holds at once: the default, and what a card has room for."""

TOY, TOY_LAYERS = "test_vit", (4, 5)


def run(task: Task, part: Part) -> None:
    """Ours on our own model first, which needs no library; then both on the same one of timm."""
    (own,) = task.turns(
        [
            Contender(
                name=OURS,
                make=ours.make_measure,
                arguments=(task.large, _batch(task), MEMORY[0], task.device),
            )
        ]
    )
    if own.failure:
        part.fail("ours on our own model", own.failure)
    else:
        part.figure("own_model", own.rate)
        part.row(f"statistics of our own {task.large.name}, fp32", f"{own.rate:,.1f} images/s")
    if importlib.util.find_spec("timm") is None:
        part.note("timm is not installed, so the peer is not measured: pip install timm.")
        return
    model = TOY if task.toy else MODEL
    layers = TOY_LAYERS if task.toy else LAYERS
    apart = compare(model, min(4, _batch(task)), MEMORY[0], task.device, layers)
    part.figure("largest_difference", apart)
    part.note(f"the largest difference of a statistic between both sides is {apart:.1e}.")
    _contest(task, part, model)


def _batch(task: Task) -> int:
    return 2 if task.toy else BATCH


def _contest(task: Task, part: Part, model: str) -> None:
    batch, device = _batch(task), task.device
    names = {memory: f"ours, {memory:.0f} MiB of weights at once" for memory in MEMORY}
    contenders = [
        Contender(name=name, make=make_measure, arguments=(model, batch, memory, device))
        for memory, name in names.items()
    ]
    contenders += [
        Contender(name="the model alone", make=make_forward, arguments=(model, batch, device)),
        Contender(
            name=attention_extract.NAME,
            make=attention_extract.make_measure,
            arguments=(model, batch, device),
            steps=1,  # which takes seconds, on the CPU
        ),
    ]
    done: dict[str, Outcome] = {}
    for one in task.turns(contenders, rounds=3, steps=4, warmup=1):
        if one.failure:
            part.fail(one.name, one.failure)
        else:
            done[one.name] = one
            part.figure(one.name, one.rate)
    peer = done.get(attention_extract.NAME)
    for name, one in done.items():
        if one is peer:
            continue
        both = ratio(one, peer) if peer else None
        is_ours = name in names.values()
        part.row(
            f"statistics of {model}, {name}",
            f"{one.rate:,.1f} images/s",
            f"{peer.rate:,.1f} images/s" if peer else "",
            str(both) if both else "",
            goal(f"≥ {RATIO:.0f}×", met=both.median >= RATIO) if both and is_ours else "",
        )
