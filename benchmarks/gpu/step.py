"""One update of ViT-S/16: ours, the original in its own fp16 mode, and plain matrix products."""

import dataclasses
import time
from typing import Any

import torch

from benchmarks import original, ours
from benchmarks.command import no_peer
from benchmarks.contest import OURS, Contender, Outcome, ratio
from benchmarks.gpu.record import Part, goal
from benchmarks.gpu.task import Task
from benchmarks.setting import Setting, make_ceiling
from trainers.training.pace import peak_of

RATIO, RATE = 2.5, 3000.0
"""Goals: times the original, and images/s on an H100."""

CONTEST, ALONE, COMPILING = 30.0, 15.0, 45.0
"""Seconds that a contest takes at the least, that ours takes alone, and what compiling adds."""

CEILING = "ceiling"


def run(task: Task, part: Part) -> None:
    """The contest without our speed knobs first, since it cannot fail to compile; then with all of
    them; then each knob by itself, what equal bits cost, and twice the batch."""
    plain, setting = _fitting(task, part)
    if setting is None:
        return
    found = _Found(part, setting.batch)
    found.add({}, _show(task, part, plain, setting, {}))
    if task.fast and _may(task, task.fast, CONTEST):
        found.add(task.fast, _contest(task, part, setting, task.fast))
    for change in _variants(task.fast):
        found.add(change, _alone(task, part, setting, change, found))
    if found.best not in ({}, task.fast) and _may(task, found.best, CONTEST):
        _contest(task, part, setting, found.best)
    _alone(task, part, setting, found.best, found, reproducible=False)
    if not task.toy:
        twice = dataclasses.replace(setting, batch=2 * setting.batch)
        _alone(task, part, twice, found.best, found)


def _may(task: Task, change: dict[str, Any], seconds: float) -> bool:
    """Whether enough time is left for what takes so many seconds, and compiling if it is on."""
    return task.toy or task.left > seconds + COMPILING * _compiles(change)


def _compiles(change: dict[str, Any]) -> bool:
    return any("compile" in name for name in change)


class _Found:
    """The fastest knobs so far, kept for the parts that follow."""

    def __init__(self, part: Part, batch: int) -> None:
        self.part, self.batch = part, batch
        self.best: dict[str, Any] = {}
        self.rate = self.plain = 0.0

    def add(self, change: dict[str, Any], outcome: Outcome | None) -> None:
        """What our side did with some knobs, if it did not fail."""
        if not outcome:
            return
        if not change:
            self.plain = outcome.rate
        if outcome.rate > self.rate:
            self.best, self.rate = change, outcome.rate
            best = {"knobs": change, "rate": outcome.rate, "batch": self.batch}
            self.part.figure("best", best)


def _variants(fast: dict[str, Any]) -> list[dict[str, Any]]:
    """Each alone, and all without each, if that is not the same; what compiles comes last."""
    found = [{name: value} for name, value in fast.items()]
    found += [{other: v for other, v in fast.items() if other != name} for name in fast]
    seen = [{}, fast]
    new = [change for place, change in enumerate(found) if change not in seen + found[:place]]
    return sorted(new, key=_compiles)


def _fitting(task: Task, part: Part) -> tuple[list[Outcome], Setting | None]:
    """The first contest whose batch fits on the card beside the peer's, halved until it does."""
    setting = task.large
    while True:
        outcomes = _outcomes(task, setting, {})
        full = [one.name for one in outcomes if "out of memory" in one.failure.lower()]
        if not full:
            return outcomes, setting
        part.note(f"a batch of {setting.batch} did not fit ({', '.join(full)}).")
        if setting.batch == 1:
            return [], None
        setting = dataclasses.replace(setting, batch=setting.batch // 2)


def _outcomes(task: Task, setting: Setting, change: dict[str, Any]) -> list[Outcome]:
    contenders = [
        Contender(
            name=OURS,
            make=ours.make_step,
            arguments=(setting, task.device, change, task.threads),
        )
    ]
    if task.original:
        contenders.append(
            Contender(
                name=original.NAME,
                make=original.make_step,
                arguments=(task.original, setting, task.device),
            )
        )
    contenders.append(
        Contender(name=CEILING, make=make_ceiling, arguments=(setting, task.device), steps=20)
    )
    return task.turns(contenders)


def _contest(task: Task, part: Part, setting: Setting, change: dict[str, Any]) -> Outcome | None:
    """Ours with some knobs against the original; returns ours, if it did not fail."""
    return _show(task, part, _outcomes(task, setting, change), setting, change)


def _show(
    task: Task, part: Part, outcomes: list[Outcome], setting: Setting, change: dict[str, Any]
) -> Outcome | None:
    words = task.words(change)
    done = {one.name: one for one in outcomes if not one.failure}
    for one in outcomes:
        if one.failure:
            part.fail(f"{one.name}, {words}", one.failure)
    part.figure(
        f"contest: {words}",
        {name: dataclasses.asdict(one) | {"rate": one.rate} for name, one in done.items()},
    )
    mine, peer, top = (done.get(name) for name in (OURS, original.NAME, CEILING))
    if not mine:
        return None
    what = f"step of {setting.name}, batch {setting.batch}, {setting.precision}, {words}"
    reached, met = "", ""
    if peer:
        both = ratio(mine, peer)
        reached = str(both)
        met = goal(f"≥ {RATIO}×", met=both.median >= RATIO)
    else:
        part.note(no_peer(original.NAME, "--original PATH") + ".")
    part.row(what, _speed(mine), _speed(peer) if peer else "", reached, met)
    part.row(
        f"images a second, {words}",
        f"{mine.rate:,.0f}",
        goal=goal(f"≥ {RATE:,.0f} on an H100", met=mine.rate >= RATE),
    )
    if top:
        _ceiling(part, setting, task.device, mine, peer, top)
    return mine


def _speed(one: Outcome) -> str:
    """Images a second, milliseconds and memory."""
    gib = one.peak_bytes / 2**30
    return f"{one.rate:,.1f} images/s, {one.seconds_a_step * 1e3:.1f} ms, {gib:.1f} GiB"


def _ceiling(
    part: Part, setting: Setting, device: str, mine: Outcome, peer: Outcome | None, top: Outcome
) -> None:
    operations = setting.operations_an_image()
    part.figure("operations_an_image", operations)

    def share(one: Outcome, most: float) -> str:
        return f"{one.rate * operations / most:.0%}"

    part.row(
        f"share of plain products of these shapes, {top.rate / 1e12:.4g} TFLOP/s",
        share(mine, top.rate),
        share(peer, top.rate) if peer else "",
    )
    if nominal := peak_of(torch.device(device)):
        part.row(
            f"share of the card's nominal {nominal / 1e12:.0f} TFLOP/s",
            share(mine, nominal),
            share(peer, nominal) if peer else "",
        )


def _alone(
    task: Task,
    part: Part,
    setting: Setting,
    change: dict[str, Any],
    found: _Found,
    *,
    reproducible: bool = True,
) -> Outcome | None:
    """Ours with some knobs, measured without a peer beside it."""
    words = task.words(change) + ("" if reproducible else ", bits free to differ")
    if setting.batch != found.batch:
        words += f", batch {setting.batch}"
    if not _may(task, change, ALONE):
        part.note(f"too little time was left for {words}.")
        return None
    began = time.monotonic()
    arguments = (setting, task.device, change, task.threads * reproducible)
    (one,) = task.turns([Contender(name=OURS, make=ours.make_step, arguments=arguments)])
    if one.failure:
        part.fail(words, one.failure)
        return None
    start = time.monotonic() - began - sum(one.seconds)
    part.figure(f"knobs: {words}", dataclasses.asdict(one) | {"rate": one.rate, "start": start})
    part.row(
        f"ours, {words} (ready after {start:.0f} s)",
        _speed(one),
        ratio=f"{one.rate / found.plain:.2f}× without knobs" if found.plain else "",
    )
    return one
