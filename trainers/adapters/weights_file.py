"""The tensors of one network in a file, whatever wrote the file.

What a file is, its contents tell and never its name: safetensors, or what `torch.save` wrote (zip
or older pickle). Reading never runs code from it.

A network in a file has wrappers in front of its names: keys of nested dictionaries (`state_dict`,
`teacher`) and prefixes (`module.`, `_orig_mod.`, `backbone.`), in any order and number. All of them
together are what stands before `patch_embed`, which every ViT has, and are taken off in one place,
`named_network`. Of several networks the teacher is taken, or another average of weights.
"""

import argparse
import datetime
import pathlib
import pickle
import re
import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from trainers.errors import CheckpointError, first_line, printable

_FIRST = re.compile(r"^(?P<wrapper>(?:[^.]+\.)*?)(?:patch_embed|embeddings\.patch_embeddings)\.")
"""A name that every ViT has, and what stands before it."""

_TRANSPARENT = re.compile(r"\b(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Wrappers of compilation, sharding and activation checkpointing, which may stand anywhere."""

_PLAIN = re.compile(r"^(?:module\.)+")
"""Wrapper of a network that has no `patch_embed`."""

_CHUNK = re.compile(r"^blocks\.\d+\.(\d+\.)")
"""DINOv2 trains blocks in chunks; the second number counts through all of them."""

_AVERAGED = re.compile(
    r"(?:^|_)(?:teacher|ema|momentum|target|averaged|swa)(?:_|$)|^encoder_k$", re.IGNORECASE
)
_FOLLOWED = re.compile(r"(?:^|_)(?:student|online|query|base)(?:_|$)|^encoder_q$")
"""Keys and prefixes of an average of weights, and of the network that it follows."""

_STATE = re.compile(r"^(?:optim|scheduler|lr_|scaler|amp|callbacks|loops|rng)")
"""Dictionaries of training, which hold no network."""

_DEEPEST = 8
"""Dictionaries in one another that are looked into."""

_SET_ASIDE = re.compile(
    r"^(?:(?!blocks\.|layers?\.|patch_embed\.)[^.]+\.)*?(?:"
    r"(?:\w+_)?heads?(?:_\w+)?|head_\w+|fc|fc_norm|pre_logits|(?:\w+_)?classifier|pooler|attn_pool"
    r"|(?:\w+_)?projectors?|(?:\w+_)?predictor\w*|(?:\w+_)?prototypes?|local_cls_norm"
    r"|mask_token\w*|masked_embed|(?:\w+_)?decoder\w*"
    r"|\w*loss\w*|criterion|center|queue\w*|text\w*|logit_scale|logit_bias"
    r")(?:\.|$)"
)
"""Heads, classifiers, pools, masks, decoders, losses and text towers."""

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One network of a file."""

    tensors: dict[str, Tensor]
    """by their names without wrappers; what stood outside of the network keeps its whole name"""
    set_aside: tuple[str, ...] = ()
    """names outside of the network that a backbone has no use for"""
    notes: tuple[str, ...] = ()
    """which network was taken, where there was a choice: a sentence"""


def read_weights(*files: Path) -> Weights:
    """The network that `files` hold together.

    Raises CheckpointError, one line, when a file is of no known kind or damaged, holds objects
    whose reading could run code, or when there are no tensors or several networks to choose from.
    """
    content: dict[str, Any] = {}
    for file in files:
        read = _read(file)
        if not isinstance(read, Mapping):
            kind = type(read).__name__
            raise CheckpointError(f"weights {file}: no named tensors of a network; found a {kind}")
        content |= read
    try:
        return named_network(content)
    except CheckpointError as error:
        raise CheckpointError(f"weights {files[0]}: {error}") from error


def named_network(content: Mapping[str, Any]) -> Weights:
    """The network in nested dictionaries of tensors, its wrappers taken off.

    Raises CheckpointError when there are no tensors, or several networks and no teacher.
    """
    mappings = dict(_mappings(content))
    wrappers: dict[tuple[str, ...], set[str]] = {}
    for path, tensors in mappings.items():
        if found := {match["wrapper"] for name in tensors if (match := _FIRST.match(name))}:
            wrappers[path] = found
    if not wrappers:
        # Of another kind: whatever is large, and its wrapper as far as can be told.
        most = max(map(len, mappings.values()), default=0)
        large = {path: tensors for path, tensors in mappings.items() if len(tensors) > most / 2}
        wrappers = {path: {_plain_wrapper(tensors)} for path, tensors in large.items()}
    if not wrappers:
        keys = printable(", ".join(map(str, list(content)[:8]))) or "nothing"
        raise CheckpointError(f"no named tensors of a network; found {keys}")
    networks = {
        ".".join((*path, wrapper)): (path, wrapper)
        for path in wrappers
        for wrapper in wrappers[path]
    }
    taken = _preferred(networks)
    path, wrapper = networks[taken]
    others = [other for place, other in networks.values() if place == path and other != wrapper]
    tensors, outside = {}, {}
    for name, tensor in mappings[path].items():
        owner = max((w for w in wrappers[path] if name.startswith(w)), key=len, default=None)
        if owner == wrapper:
            tensors[_CHUNK.sub(r"blocks.\1", name[len(wrapper) :])] = tensor
        elif owner is None and not any(name.startswith(_branch(o, wrapper)) for o in others):
            outside[name] = tensor
    unknown, aside = set_aside(outside)
    left = [label for label in networks if label != taken]
    left += [".".join(place) for place in mappings if place not in wrappers]
    notes: tuple[str, ...] = ()
    if left:
        also = ", ".join(sorted(map(_shown, left)))
        notes = (f"Weights are those of {_shown(taken)}; the file also holds {also}.",)
    return Weights(tensors=tensors | unknown, set_aside=aside, notes=notes)


def set_aside(
    tensors: Mapping[str, Tensor], wanted: Collection[str] = ()
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """`tensors` without heads, classifiers, masks and the like, and the names of those.

    What is `wanted` stays, whatever its name.
    """
    aside = tuple(sorted(name for name in tensors if name not in wanted and is_aside(name)))
    return {name: tensor for name, tensor in tensors.items() if name not in aside}, aside


def is_aside(name: str) -> bool:
    """Whether features of tokens do not depend on a tensor of this name."""
    return _SET_ASIDE.match(name) is not None


def _mappings(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The tensors of every dictionary that has some, by the keys that lead to it."""
    named = {str(name): value for name, value in content.items()}
    if tensors := {
        _TRANSPARENT.sub("", name): value.detach()
        for name, value in named.items()
        if isinstance(value, Tensor)
    }:
        yield path, tensors
    for name, value in named.items():
        if isinstance(value, Mapping) and not _STATE.match(name) and len(path) < _DEEPEST:
            yield from _mappings(value, (*path, name))


def _plain_wrapper(tensors: Mapping[str, Tensor]) -> str:
    starts = {match[0] if (match := _PLAIN.match(name)) else "" for name in tensors}
    return starts.pop() if len(starts) == 1 else ""


def _preferred(labels: Collection[str]) -> str:
    """The label of the teacher, else of another average, of the only network, of a student."""

    def rank(label: str) -> int:
        parts = label.split(".")
        if "teacher" in parts:
            return 0
        if any(part.startswith("gram_") for part in parts):  # frozen, in DINOv3
            return 3
        if any(_AVERAGED.search(part) for part in parts):
            return 1
        return 3 if any(_FOLLOWED.search(part) for part in parts) else 2

    best = min(map(rank, labels))
    first, *rest = sorted(label for label in labels if rank(label) == best)
    if rest:
        names = ", ".join(map(_shown, (first, *rest)))
        raise CheckpointError(f"several networks ({names}): save the one that is meant alone")
    return first


def _branch(other: str, taken: str) -> str:
    """What the names of one network begin with and those of another do not."""
    start = ""
    for part in other.split(".")[:-1]:
        start += f"{part}."
        if not taken.startswith(start):
            return start
    return other


def _shown(label: str) -> str:
    return printable(label.strip(".")) or "the one without a wrapper"


def _read(path: Path) -> object:
    """What the file holds. Raises CheckpointError, one line."""
    try:
        with path.open("rb") as opened:
            start = opened.read(64)
            length = int.from_bytes(start[:8], "little")
            if start[8:9] == b"{" and length < path.stat().st_size:
                return safetensors.torch.load_file(path)
            if start.startswith((_ZIP, _PICKLE)):
                opened.seek(0)
                # Of a path, torch would look at the ending.
                with torch.serialization.safe_globals(_harmless()):
                    return torch.load(opened, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"weights {path}: {_refusal(path, error)}") from error
    except Exception as error:  # a torn pickle raises anything
        if "TorchScript" in str(error):
            reason = "it is a program of TorchScript; torch.jit.load opens it, save its state_dict"
        else:
            reason = printable(first_line(error))
        raise CheckpointError(f"weights {path} cannot be read: {reason}") from error
    what = "neither safetensors nor saved by torch"
    if start.startswith(_POINTER):
        what = "a pointer of Git LFS to them; `git lfs pull` brings them"
    raise CheckpointError(f"weights {path} cannot be read: it is no file of weights, {what}")


def _refusal(path: Path, error: Exception) -> str:
    """Why a pickle was not read, without the advice of torch to read it all the same."""
    try:
        with torch.serialization.safe_globals(_harmless()), path.open("rb") as opened:
            classes = torch.serialization.get_unsafe_globals_in_checkpoint(opened)
    except (OSError, RuntimeError, ValueError):  # of older kinds of file it knows nothing
        classes = re.findall(r"GLOBAL (\S+) was not an allowed", str(error))
        classes += re.findall(r"Trying to instantiate (\S+)", str(error))
    if not classes:
        said = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
        return "cannot be read without running code from it" + (
            f": {printable(said[1])}" if said else ""
        )
    names = printable(", ".join(sorted(set(classes))[:4]))
    return (
        f"holds {names} beside its tensors, which is not read, since that could run code; "
        "torch.save(model.state_dict(), FILE) saves the tensors alone"
    )


def _harmless() -> list[Any]:
    """Classes beside tensors that hold values and do nothing, with all names they were saved by."""
    scalar, rebuilt = np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0]
    paths = [getattr(pathlib, name) for name in pathlib.__all__ if name.endswith("Path")]
    paths = [kind for kind in paths if issubclass(kind, pathlib.PurePath)]
    return [
        argparse.Namespace,
        types.SimpleNamespace,
        *(dict, float, frozenset, int, list, range),
        *(datetime.date, datetime.datetime, datetime.timedelta, datetime.timezone),
        TorchVersion,
        (_dictionary, "collections.defaultdict"),
        np.dtype,
        np.ndarray,
        *(getattr(np.dtypes, name) for name in np.dtypes.__all__),
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        *((rebuilt, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        *((_pure(kind), f"{home}.{kind.__name__}") for kind in paths for home in _PATHS),
    ]


def _dictionary(*_: Any) -> dict[Any, Any]:
    """In place of a `defaultdict`, which torch does not fill."""
    return {}


_PATHS = ("pathlib", "pathlib._local")


def _pure(kind: type[pathlib.PurePath]) -> type[pathlib.PurePath]:
    """A path of the same system that never touches the disk and can be made anywhere."""
    windows = issubclass(kind, pathlib.PureWindowsPath)
    return pathlib.PureWindowsPath if windows else pathlib.PurePosixPath
