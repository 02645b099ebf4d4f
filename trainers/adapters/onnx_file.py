"""The weights of a ViT in an ONNX file, by the names that they had where it was exported.

An export keeps the names of biases, norms and convolutions. The matrix of a linear layer it stores
turned round and without a name, multiplied in a `MatMul` node, after which an `Add` node adds the
bias: so the matrix gets its name from the bias. Positions that were cut into that of [CLS] and
those of patches are put together again. Nothing of the graph is executed.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
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

_LAMBDA = "encoder.layer.0.layer_scale1.lambda1"
_LAYER = re.compile(r"^encoder\.layer\.(\d+)\.")


def is_onnx(path: Path) -> bool:
    """Whether a file begins as one of ONNX does: with its version, and who made it."""
    try:
        with path.open("rb") as file:
            start = file.read(3)
    except OSError:
        return False
    # The fields 1 and 2 of the message, a small number and a text.
    return len(start) == 3 and start[0] == 0x08 and start[1] < 0x40 and start[2] == 0x12


def read_onnx(path: Path) -> tuple[Weights, str]:
    """The network in an ONNX file, its wrappers taken off, and its activation: `gelu`, or
    `gelu_pytorch_tanh`.

    Raises InputError where the package `onnx` is missing, and CheckpointError, one line, for a file
    that is damaged or holds no named weights of a network with such an activation.
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
        held = {
            one.name: torch.from_numpy(np.array(numpy_helper.to_array(one)))
            for one in graph.initializer
        }
    except Exception as error:
        # What the parser raises for damage is an exception of its own, or of protobuf's.
        raise CheckpointError(
            f"ONNX file {path} cannot be read: {printable(first_line(error))}"
        ) from error
    try:
        read = named_network(_named(held, graph.node))
        tensors = {_as_saved(name): tensor for name, tensor in read.tensors.items()}
        return dataclasses.replace(read, tensors=tensors), _activation(graph.node)
    except CheckpointError as error:
        raise CheckpointError(f"ONNX file {path}: {error}") from error


def _as_saved(name: str) -> str:
    for pattern, saved in _RENAMED.items():
        name = re.sub(pattern, saved, name)
    return name


def _activation(nodes: Any) -> str:
    """Which GELU the graph computes. Raises CheckpointError where it is none.

    Tensors do not say it, and with another activation they are another network.
    """
    operations = {node.op_type for node in nodes}
    # One operation since version 20 of the operators, several before.
    said = {one.s for node in nodes if node.op_type == "Gelu" for one in node.attribute}
    if b"tanh" in said or ("Tanh" in operations and "Pow" in operations):
        return "gelu_pytorch_tanh"
    if operations & {"Gelu", "Erf"}:
        return "gelu"
    raise CheckpointError("no GELU was found in its graph, which every ViT that can be read has")


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
    for cls_token in [name for name in named if name.endswith("embeddings.cls_token")]:
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


def described(tensors: Mapping[str, Tensor], activation: str, heads: int | None) -> dict[str, Any]:
    """What the `config.json` of Hugging Face's would say of a ViT with these tensors.

    Raises CheckpointError where they are not those of one.
    """
    try:
        patches = tensors["embeddings.patch_embeddings.projection.weight"]
        positions = tensors["embeddings.position_embeddings"]
        is_dino = _LAMBDA in tensors
        of_layer = "encoder.layer.0."
        old, new = f"{of_layer}intermediate.dense.bias", f"{of_layer}mlp.fc1.bias"
        hidden = tensors[old if old in tensors else new].numel()
        # One position is that of [CLS], another may be that of a distillation token.
        side = math.isqrt(positions.shape[1] - 1)
        width, patch_size = patches.shape[0], patches.shape[2]
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"no ViT of a known kind: it has no {error.args[0]}") from error
    registers = tensors.get("embeddings.register_tokens")
    distilled = "embeddings.distillation_token" in tensors
    kind = "deit" if distilled else "vit"
    if is_dino:
        kind = "dinov2" if registers is None else "dinov2_with_registers"
    found = {
        "hidden_act": activation,
        "model_type": kind,
        "hidden_size": width,
        "intermediate_size": hidden,
        "mlp_ratio": hidden / width,
        "num_hidden_layers": 1 + max(int(m[1]) for name in tensors if (m := _LAYER.match(name))),
        "num_attention_heads": heads or max(1, width // HEAD_FEATURES),
        "image_size": side * patch_size,
        "patch_size": patch_size,
    }  # fmt: skip
    return found if registers is None else {**found, "num_register_tokens": registers.shape[1]}
