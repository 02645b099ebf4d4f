"""Knobs that do nothing as long as another one has the value that it has."""

import types
from collections.abc import Callable, Mapping

from trainers.config.change import flatten
from trainers.config.train import TrainConfig


def _is(*values: str) -> Callable[[object], bool]:
    return lambda value: value in values


Others = str | tuple[str, ...]

_PATCH_LOSSES = ("loss.masked", "loss.dense")

ALIVE_WITH: Mapping[str, tuple[Others, Callable[[object], bool]]] = types.MappingProxyType(
    {
        "augment.local_size": ("augment.local_crops", bool),
        "augment.local_scale": ("augment.local_crops", bool),
        "augment.blur_local": ("augment.local_crops", bool),
        "augment.brightness": ("augment.jitter", bool),
        "augment.contrast": ("augment.jitter", bool),
        "augment.saturation": ("augment.jitter", bool),
        "augment.hue": ("augment.jitter", bool),
        "compute.packed": ("augment.local_crops", bool),
        "model.interpolation_offset": ("model.patch_position", _is("learned")),
        "model.rotary_base": ("model.patch_position", _is("rotary")),
        "model.rotary_origin": ("model.patch_position", _is("rotary")),
        "model.cls_position": ("model.cls", bool),
        "model.cls_window": ("model.cls", bool),
        "model.cls_uniform": ("model.cls", bool),
        "model.cls_tied_patch": ("model.cls_position", _is("tied")),
        "model.cls_coordinate": ("model.cls_position", _is("sincos", "rotary")),
        "head.patches": (_PATCH_LOSSES, bool),
        "loss.mask_kind": ("loss.masked", bool),
        "loss.mask_share": ("loss.masked", bool),
        "loss.mask_probability": ("loss.masked", bool),
        "targets.patch_temperature": (_PATCH_LOSSES, bool),
        "targets.patch_temperature_start": ("targets.patch_temperature", bool),
        "targets.center_momentum": ("targets.kind", _is("centering")),
        "targets.sinkhorn_iterations": ("targets.kind", _is("sinkhorn")),
        "targets.temperature_start": ("targets.temperature_warmup_steps", bool),
        "teacher.momentum": ("teacher.kind", _is("ema")),
        "teacher.momentum_end": ("teacher.kind", _is("ema")),
        "checkpoints.keep_best_is": ("checkpoints.keep_best", bool),
        "evaluation.linear_blocks": ("evaluation.probes", bool),
        "evaluation.linear_penalty": ("evaluation.probes", bool),
        "evaluation.position_images": ("evaluation.probes", bool),
    }
)
"""Of such a knob, the other one (or several), and whether a value of it lets it do something."""


def idle(knob: str, config: TrainConfig) -> str:
    """Why `knob` does nothing in `config`, as words that follow "while"; empty if it may."""
    if knob not in ALIVE_WITH:
        return ""
    others, lets = ALIVE_WITH[knob]
    names = (others,) if isinstance(others, str) else others
    # A site of one's own may hide patches, and reads what it likes of the loss.
    if config.loss.further and names[0].startswith("loss."):
        return ""
    values = {name: flatten(config)[name] for name in names}
    if any(map(lets, values.values())):
        return ""
    return " and ".join(f"{name} is {value!r}" for name, value in values.items())
