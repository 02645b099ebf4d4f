"""The weights of a ViT in an ONNX file, by the names that they had where it was exported.

An export keeps the names of biases, norms and convolutions. The matrix of a linear layer it stores
turned round and without a name, multiplied in a `MatMul` node, after which an `Add` node adds the
bias: so the matrix gets its name from the bias. Positions that were cut into that of [CLS] and
those of patches are put together again. Nothing of the graph is executed.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.adapters.pretrained import HEAD_FEATURES
from trainers.adapters.weights_file import Weights, named_network
from trainers.errors import CheckpointError, InputError, first_line, printable

_UNNAMED = re.compile(r"^onnx::")
"""What PyTorch's exporter calls a constant that it has made of a parameter."""

_RENAMED = {
    r"^layers\.": "encoder.layer.",
    r"\.attention\.q_proj\.": ".attention.attention.query.",
    r"\.attention\.k_proj\.": ".attention.attention.key.",
    r"\.attention\.v_proj\.": ".attention.attention.value.",
    r"\.attention\.o_proj\.": ".attention.output.dense.",
}
"""Of transformers 5, names of parameters in memory, and as it saves them."""

_FIELDS = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)
"""With which the fields of the message begin that may follow its version."""

_FIRST_BIAS = re.compile(r"(?:^|\.)(?:mlp\.fc1|intermediate\.dense)\.bias$")

_PATCHES = "embeddings.patch_embeddings.projection.weight"
_POSITIONS = "embeddings.position_embeddings"
_CLS = "embeddings.cls_token"
_REGISTERS = "embeddings.register_tokens"
_LAMBDA = "encoder.layer.0.layer_scale1.lambda1"
_LAYER = re.compile(r"^encoder\.layer\.(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """What an ONNX file says of a ViT."""

    weights: Weights
    """by names without wrappers"""
    activation: str
    """of its layers: `gelu`, or `gelu_pytorch_tanh`"""
    norm_epsilon: float | None
    """of its layer norms; None where it has none"""


def is_onnx(path: Path) -> bool:
    """Whether a file begins as one of ONNX does: with its version, a small number, and then another
    of its fields."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError:
        return False
    # A file of safetensors begins with a number of eight bytes, the last of which are 0.
    return (
        len(start) == 8
        and start[0] == 0x08
        and start[1] < 0x40
        and start[2] in _FIELDS
        and any(start[4:])
    )


def read_onnx(path: Path) -> OnnxFile:
    """The network in an ONNX file, its wrappers taken off.

    Raises InputError where the package `onnx` is missing, and CheckpointError, one line, for a file
    that is damaged, holds no named weights, or computes something else than a ViT that can be read.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise InputError(
            f"{path} is an ONNX file, which needs the package onnx: pip install 'dinolab[onnx]'"
        ) from error
    try:
        graph = onnx.load(path).graph
        arrays = {one.name: np.array(numpy_helper.to_array(one)) for one in graph.initializer}
        arrays |= {
            node.output[0]: np.array(numpy_helper.to_array(one.t))
            for node in graph.node
            if node.op_type == "Constant"
            for one in node.attribute
            if one.name == "value"
        }
        held = {one.name: torch.from_numpy(arrays[one.name]) for one in graph.initializer}
    except Exception as error:
        # What the parser raises for damage is an exception of its own, or of protobuf's.
        raise CheckpointError(
            f"ONNX file {path} cannot be read: {printable(first_line(error))}"
        ) from error
    try:
        read = named_network(_named(held, graph.node))
        tensors = {_as_saved(name): tensor for name, tensor in read.tensors.items()}
        return OnnxFile(
            weights=dataclasses.replace(read, tensors=tensors),
            activation=_activation(graph.node),
            norm_epsilon=_norm_epsilon(graph.node, arrays),
        )
    except CheckpointError as error:
        raise CheckpointError(f"ONNX file {path}: {error}") from error


def _as_saved(name: str) -> str:
    for pattern, saved in _RENAMED.items():
        name = re.sub(pattern, saved, name)
    return name


def _activation(nodes: Any) -> str:
    """Which GELU its layers compute. Raises CheckpointError where it is none, or not the same one.

    Tensors do not say it, and with another activation they are another network. It is what lies
    between the first linear layer of an MLP, whose bias is added there, and the next product.
    """
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in nodes:
        for name in node.input:
            readers[name].append(node)
    found = set()
    for node in nodes:
        if node.op_type not in ("Add", "Gemm") or not any(map(_FIRST_BIAS.search, node.input)):
            continue
        between: list[Any] = []
        waiting = [*readers[node.output[0]]]
        while waiting:
            one = waiting.pop()
            if one.op_type in ("MatMul", "Gemm") or any(one is seen for seen in between):
                continue
            between.append(one)
            waiting += [reader for name in one.output for reader in readers[name]]
        found.add(_gelu(between))
    if len(found) != 1 or "" in found:
        raise CheckpointError(
            f"the layers of its graph have no GELU, or not all the same: found "
            f"{', '.join(sorted(one or 'another activation' for one in found)) or 'no layers'}"
        )
    return found.pop()


def _gelu(nodes: Sequence[Any]) -> str:
    """The name of the GELU that some nodes compute; empty where they compute none."""
    operations = {node.op_type for node in nodes}
    # One operation since version 20 of the operators, several before.
    said = {one.s for node in nodes if node.op_type == "Gelu" for one in node.attribute}
    if b"tanh" in said or ("Tanh" in operations and "Erf" not in operations):
        return "gelu_pytorch_tanh"
    return "gelu" if operations & {"Gelu", "Erf"} else ""


def _norm_epsilon(nodes: Any, arrays: Mapping[str, Any]) -> float | None:
    """The epsilon of its layer norms. Raises CheckpointError where they have several."""
    found = {
        float(np.float32(one.f))
        for node in nodes
        if node.op_type == "LayerNormalization"
        for one in node.attribute
        if one.name == "epsilon"
    }
    added = {node.output[0]: node for node in nodes if node.op_type == "Add"}
    # Before version 17 of the operators: what is added to the variance below the root.
    found |= {
        float(arrays[name].reshape(-1)[0])
        for node in nodes
        if node.op_type == "Sqrt" and node.input[0] in added
        for name in added[node.input[0]].input
        if name in arrays and arrays[name].size == 1
    }
    if len(found) > 1:
        said = ", ".join(f"{one:g}" for one in sorted(found))
        raise CheckpointError(f"its norms add several epsilons: {said}")
    return found.pop() if found else None


def _named(held: Mapping[str, Tensor], nodes: Any) -> dict[str, Tensor]:
    """Constants by the names of parameters; those that have none are left out."""
    named = {name: tensor for name, tensor in held.items() if not _UNNAMED.match(name)}
    multiplied = {node.output[0]: node for node in nodes if node.op_type == "MatMul"}
    for node in nodes:
        if node.op_type != "Add":
            continue
        bias = next((name for name in node.input if name.endswith(".bias") and name in held), None)
        product = next((multiplied[name] for name in node.input if name in multiplied), None)
        matrix = product and next((name for name in product.input if name in held), None)
        if bias and matrix:
            named[f"{bias.removesuffix('bias')}weight"] = held[matrix].T.contiguous()
    tokens = [n for n in named if n.endswith("embeddings.cls_token") and named[n].ndim == 3]
    for cls_token in tokens:
        positions = cls_token.removesuffix("cls_token") + "position_embeddings"
        if positions not in named:
            named[positions] = _positions(held, named[cls_token])
    return named


def _positions(held: Mapping[str, Tensor], cls_token: Tensor) -> Tensor:
    """Positions of [CLS] and of patches [1, 1 + N, D], from the two constants they were cut into.

    Raises CheckpointError where there are other than one of each.
    """
    width = cls_token.shape[-1]
    unnamed = [
        tensor
        for name, tensor in held.items()
        if _UNNAMED.match(name) and tensor.ndim == 3 and tensor.shape[::2] == (1, width)
    ]
    first = [one for one in unnamed if one.shape[1] == 1]
    others = [one for one in unnamed if one.shape[1] > 1]
    if len(first) != 1 or len(others) != 1:
        raise CheckpointError(
            "positions of [CLS] and of patches cannot be told from other constants: found "
            f"{len(first)} and {len(others)} of their shapes"
        )
    return torch.cat([first[0], others[0]], dim=1)


def described(found: OnnxFile, heads: int | None) -> dict[str, Any]:
    """What the `config.json` of Hugging Face's would say of a ViT with these tensors.

    Raises CheckpointError where they are not those of one.
    """
    tensors = found.weights.tensors
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    is_dino = _LAMBDA in tensors
    first = "encoder.layer.0."
    old, new = f"{first}intermediate.dense.bias", f"{first}mlp.fc1.bias"
    needed = {_PATCHES: 4, _POSITIONS: 3, _CLS: 3, old if old in tensors else new: 1}
    registers = shapes.get(_REGISTERS)
    for name, axes in {**needed, **({_REGISTERS: 3} if registers else {})}.items():
        if name not in shapes:
            raise CheckpointError(f"no ViT of a known kind: it has no {name}")
        if len(shapes[name]) != axes or 0 in shapes[name]:
            raise CheckpointError(f"{name} has the shape {list(shapes[name])}, which no ViT has")
    width, _, patch_size, _ = shapes[_PATCHES]
    (hidden,) = shapes[old if old in tensors else new]
    kind = "deit" if "embeddings.distillation_token" in tensors else "vit"
    if is_dino:
        kind = "dinov2" if registers is None else "dinov2_with_registers"
    said: dict[str, Any] = {
        "hidden_act": found.activation,
        "model_type": kind,
        "hidden_size": width,
        "intermediate_size": hidden,
        "mlp_ratio": hidden / width,
        "num_hidden_layers": 1 + max(int(m[1]) for name in tensors if (m := _LAYER.match(name))),
        "num_attention_heads": heads or max(1, width // HEAD_FEATURES),
        # One position is that of [CLS], another may be that of a distillation token.
        "image_size": math.isqrt(shapes[_POSITIONS][1] - 1) * patch_size,
        "patch_size": patch_size,
    }
    if found.norm_epsilon is not None:
        said["layer_norm_eps"] = found.norm_epsilon
    return said if registers is None else {**said, "num_register_tokens": registers[1]}
