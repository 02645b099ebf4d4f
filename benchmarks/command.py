"""What the command lines of all benchmarks share."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.setting import SETTINGS, Setting


def common_arguments(parser: argparse.ArgumentParser) -> None:
    """Peers, setting, length and output."""
    parser.add_argument("--original", metavar="PATH", help="folder of the original implementation")
    parser.add_argument("--setting", choices=SETTINGS, help="model and crops; by device if absent")
    parser.add_argument("--batch", type=int, help="images a step")
    parser.add_argument("--prototypes", type=int, help="outputs K of the head")
    parser.add_argument("--precision", help="of our matrix products, such as bfloat16")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each contender")
    parser.add_argument("--steps", type=int, default=2, help="steps a turn")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the first round")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each contender")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="the GPU, if there is one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here, too")
    parser.add_argument(
        "--set",
        dest="change",
        type=_change,
        action="append",
        default=[],
        metavar="KNOB=VALUE",
        help="a knob of our configuration; may be repeated",
    )


def _change(text: str) -> tuple[str, Any]:
    name, value = text.split("=", 1)
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def device_of(given: argparse.Namespace) -> str:
    """The device asked for, or the best there is."""
    return given.device or ("cuda" if torch.cuda.is_available() else "cpu")


def setting_of(given: argparse.Namespace, *, on_gpu: str, on_cpu: str) -> Setting:
    """The setting asked for, or the device's, with batch, prototypes and precision as asked for."""
    setting = SETTINGS[given.setting or (on_gpu if device_of(given) == "cuda" else on_cpu)]
    changes = {
        name: getattr(given, name)
        for name in ("batch", "prototypes", "precision")
        if getattr(given, name)
    }
    return dataclasses.replace(setting, **changes)


def no_peer(name: str, argument: str) -> str:
    """What is printed in the place of a peer that was not given."""
    return f"{name}: not given, so not compared; give {argument}"
