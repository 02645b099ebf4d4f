"""Weights under timm's names, or under those of their authors, into a model of timm's."""

import contextlib
import functools
import io
import math
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from trainers.adapters.weights_file import is_aside, set_aside
from trainers.errors import CheckpointError, first_line, printable


def size_of_positions(model: Any, weights: Mapping[str, Tensor]) -> int | None:
    """The side of the images whose square grid the positions in `weights` have, pixels; None
    where they have the model's own, or do not tell."""
    theirs, own = weights.get("pos_embed"), getattr(model, "pos_embed", None)
    if theirs is None or own is None or theirs.ndim != 3:
        return None
    counts = {theirs.shape[1] - slots for slots in (0, 1, model.num_prefix_tokens)}
    sides = {math.isqrt(count) for count in counts if count > 0 == count - math.isqrt(count) ** 2}
    if len(sides) != 1 or math.prod(model.patch_embed.grid_size) in counts:
        return None
    patch: int = model.patch_embed.feat_ratio()
    return sides.pop() * patch


def take_weights(model: nn.Module, name: str, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Take every value of `model`, timm's `name`, from `weights`; the names it has no use for.

    timm's own filter translates what authors published under other names. Raises CheckpointError,
    one line, when a value that the features of tokens need is missing, of another shape, or would
    be resampled for other patches, or when a name is left over that is not known.
    """
    import timm

    kernel = weights.get("patch_embed.proj.weight")
    own = getattr(model.get_submodule("patch_embed").proj, "weight", None)
    given, wanted = ([] if t is None or t.ndim != 4 else list(t.shape[2:]) for t in (kernel, own))
    if given and wanted and given != wanted:
        sizes = ["×".join(map(str, sides)) for sides in (given, wanted)]
        raise CheckpointError(f"weights are of patches of {sizes[0]} pixels, not {sizes[1]}")
    architecture = timm.model_entrypoint(name.partition(".")[0])
    translate = sys.modules[architecture.__module__].checkpoint_filter_fn
    if architecture.__module__.endswith(".deit"):
        translate = functools.partial(translate, adapt_layer_scale=True)
    try:
        # The filter of Eva prints.
        with contextlib.redirect_stdout(io.StringIO()):
            translated = translate(dict(weights), model)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            "weights do not fit this model: timm cannot translate them "
            f"({printable(first_line(error))})"
        ) from error
    _check_biases(weights, translated)
    kept, aside = set_aside(translated, model.state_dict().keys())
    dropped = {n for n in weights if is_aside(n) and n not in translated}
    try:
        left = model.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        reason = "; ".join(line.strip().rstrip(".") for line in str(error).splitlines()[1:])
        raise CheckpointError(f"weights do not fit this model: {printable(reason)}") from error
    missing = [name for name in left.missing_keys if not is_aside(name)]
    problems = [f"missing {', '.join(missing)}"] if missing else []
    problems += [f"left over {', '.join(left.unexpected_keys)}"] if left.unexpected_keys else []
    if problems:
        raise CheckpointError(f"weights do not fit this model: {printable('; '.join(problems))}")
    return tuple(sorted({*aside, *dropped}))


def _check_biases(weights: Mapping[str, Tensor], translated: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError when biases of queries or values that do something are left out.

    timm's filter leaves out those of DINOv3 for a name without them. Those of keys do nothing.
    """
    for name, bias in weights.items():
        if name.endswith(".attn.qkv.bias") and name not in translated:
            queries, _, values = bias.chunk(3)
            split = name.replace("qkv.bias", "q_bias")
            if split not in translated and bool(queries.any() or values.any()):
                raise CheckpointError(
                    f"weights do not fit this model: it has no {name}, which is not zero; the name "
                    "of one that has it ends in _qkvb"
                )
