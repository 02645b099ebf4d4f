"""Where attention goes, as shares: from [CLS], registers and patches to each of these."""

import itertools

import torch
from torch import Tensor

from trainers.globality.accumulator import Accumulator
from trainers.globality.by_image import CONTRASTS
from trainers.globality.tokens import Tokens

GROUP = "flow"

TITLES = {"cls": "[CLS]", "register": "registers", "patch": "patches"}
"""Kinds of tokens that attend and are attended to."""

DESCRIPTIONS = {
    f"{GROUP}/{one}/to_{other}": f"attention of {TITLES[one]} to {TITLES[other]}, share of all; "
    "0 to 1"
    for one, other in itertools.product(TITLES, TITLES)
} | {
    f"{GROUP}/{CONTRASTS[one]}/to_{other}": f"attention of {TITLES[one]} to {TITLES[other]}, share "
    "of all, minus that of patches; -1 to 1"
    for one, other in itertools.product(("cls", "register"), TITLES)
}


def flows(total: Accumulator, tokens: Tokens) -> Accumulator:
    """Mean share of the attention of each kind of token that goes to each kind.

    From the masses in `total`, which are relative to uniform attention: what a kind of token gives
    to the kinds that there are adds up to 1. Registers are a mean over them, patches over the
    measured ones.
    """
    found = Accumulator()
    for group, token, name, layer in total.values:
        if (group, name) != ("globality", "patch_mass") or token not in TITLES:
            continue

        def sums(measure: str, counted: int, token: str = token, layer: int = layer) -> Tensor:
            """Of shares: mass beyond uniform is ``(m - c/T) / (1 - c/T)``, linear in m."""
            count, beyond = total.values["globality", token, measure, layer]
            uniform = counted / tokens.count
            return beyond * (1 - uniform) + count * uniform

        count, to_patches = total.values[group, token, name, layer]
        to = {}
        if tokens.has_cls:
            to["cls"] = sums("self_mass" if token == "cls" else "cls_mass", 1)
        if token == "patch":
            to_patches = to_patches + sums("self_mass", 1)
        to["patch"] = to_patches
        if tokens.registers:
            # Of registers, only what each gives to itself is measured.
            to["register"] = (
                count - sum(to.values())
                if token == "register"
                else sums("register_mass", tokens.registers)
            )
        for other, shares in to.items():
            found.values[GROUP, token, f"to_{other}", layer] = torch.stack([count, shares])
    return found
