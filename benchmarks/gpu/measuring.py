"""Attention statistics of a ViT-S/16: ours, and timm's AttentionExtract with NumPy."""

import dataclasses
import importlib.util
import traceback

from benchmarks import attention_extract, ours
from benchmarks.contest import OURS, Contender, Outcome, ratio
from benchmarks.gpu.record import Part, goal
from benchmarks.gpu.task import Task
from benchmarks.measure import LAYERS, MODEL, compare, make_forward, make_measure

RATIO = 10.0
"""Goal: times AttentionExtract with NumPy."""

BATCH = 32
"""Images at once."""

PEER_BATCH = 4
"""Images at once of the peer, whose statistics, on the CPU, take as long for each of any number."""

MEMORY = (16.0, 1024.0)
"""MiB of attention weights that ours holds at once: as in training, and what a card has."""

TOY, TOY_LAYERS = "test_vit", (4, 5)


def run(task: Task, part: Part) -> None:
    """Ours on our own model, which needs no library, and both on the same one of timm."""
    task = dataclasses.replace(task, preloaded=(*task.preloaded, "timm"))
    task.prepare()
    has_timm = importlib.util.find_spec("timm") is not None
    if has_timm:
        _compare(task, part)
    (own,) = task.turns(
        [
            Contender(
                name=OURS,
                make=ours.make_measure,
                arguments=(task.large, _batch(task), MEMORY[0], task.device),
            )
        ],
        rounds=3,
        steps=4,
        warmup=1,
    )
    if own.failure:
        part.fail("ours on our own model", own.failure)
    else:
        part.figure("own_model", own.rate)
        part.row(f"statistics of our own {task.large.name}, fp32", f"{own.rate:,.1f} images/s")
    if not has_timm:
        part.note("timm is not installed, so the peer is not measured: pip install timm.")
        return
    _contest(task, part, _model(task))


def _batch(task: Task) -> int:
    return 2 if task.toy else BATCH


def _model(task: Task) -> str:
    return TOY if task.toy else MODEL


def _compare(task: Task, part: Part) -> None:
    layers = TOY_LAYERS if task.toy else LAYERS
    try:
        apart = compare(_model(task), min(4, _batch(task)), MEMORY[0], task.device, layers)
    except Exception:  # noqa: BLE001 (both sides are measured, whatever it was)
        part.fail("the difference between both sides", traceback.format_exc())
        return
    part.figure("largest_difference", apart)
    part.note(f"the largest difference of a statistic between both sides is {apart:.1e}.")


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
            arguments=(model, min(batch, PEER_BATCH), device),
            steps=1,  # which takes seconds, on the CPU
        ),
    ]
    part.note(f"ours measures {batch} images at once, the peer {min(batch, PEER_BATCH)}.")
    done: dict[str, Outcome] = {}
    for one in task.turns(contenders, rounds=2, steps=4, warmup=1):
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
