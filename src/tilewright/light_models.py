"""Give the light models of the onnx package weights that are worth computing with.

These files hold real topologies, but every weight is one constant (ConstantOfShape), so that all
activations of a layer are equal and a wrong permutation of them would go unnoticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import prod, sqrt

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from tilewright.errors import ModelError
from tilewright.graph import Array

MAX_WEIGHT_BYTES = 2 << 30

SCALES = {"scale": (0.8, 1.2), "variance": (0.8, 1.2), "branch scale": (0.2, 0.6)}
"""Bounds of uniform weights. Small scales on branches keep sums from growing block by block."""

_KEEP_SIGN = frozenset(
    "AveragePool Concat Dropout Flatten GlobalAveragePool LRN MaxPool Reshape Sum Transpose".split()
)
_INITIALIZERS_APART = 4
"""The first IR version in which initializers need not be inputs."""

_NORMALISATION_ROLES = ("x", "scale", "bias", "mean", "variance")


def seeded_weights(model: ModelProto, seed: int) -> ModelProto:
    """Return a model in which seeded random numbers replace the weights made by ConstantOfShape.

    Matrices and filters are normal with variance 1 / fan-in, twice that behind a Relu, so that
    activations keep their size from layer to layer; scales and variances of normalisations are
    uniform (see `SCALES`); all other vectors are normal with deviation 0.1. Statistics that a file
    stores for a BatchNormalization are replaced, too, for the weights they belong to are not there.
    A weight depends on the seed and its own name only.

    Args:
        model: A model such as those of `onnx_light_models`; it is left as it is.
        seed: Seed of all weights.

    Raises:
        ModelError: A shape is not stored in the model, or the weights take more than 2 GiB.
    """
    seeded = ModelProto()
    seeded.CopyFrom(model)
    graph = seeded.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {n.output[0]: n for n in graph.node if n.op_type == "ConstantOfShape"}
    shapes = {name: _shape(node, stored) for name, node in makers.items()}
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            shapes |= {name: tuple(stored[name].dims) for name in node.input[1:] if name in stored}
    total_bytes = 4 * sum(map(prod, shapes.values()))
    if total_bytes > MAX_WEIGHT_BYTES:
        raise ModelError(
            f"model '{graph.name}': its weights take {total_bytes:_} bytes, "
            f"at most {MAX_WEIGHT_BYTES:_} are drawn"
        )
    roles = _roles(graph.node, set(shapes))
    kept_tensors = [tensor for tensor in graph.initializer if tensor.name not in shapes]
    del graph.initializer[:]
    graph.initializer.extend(kept_tensors)
    for name, shape in shapes.items():
        array = _draw(shape, roles.get(name, ""), _generator(name, seed))
        graph.initializer.append(numpy_helper.from_array(array, name))
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    del graph.node[:]
    graph.node.extend(kept)
    _drop_unused(seeded)
    seeded.ir_version = max(seeded.ir_version, _INITIALIZERS_APART)
    return seeded


def _generator(name: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _shape(node: NodeProto, stored: Mapping[str, TensorProto]) -> tuple[int, ...]:
    if node.input[0] not in stored:
        raise ModelError(
            f"ConstantOfShape '{node.output[0]}': its shape '{node.input[0]}' is computed, "
            "expected an initializer"
        )
    return tuple(int(size) for size in numpy_helper.to_array(stored[node.input[0]]))


def _roles(nodes: list[NodeProto], weights: set[str]) -> dict[str, str]:
    """Return what each weight is for: "matrix", "scale", "variance", ... or "" for other vectors.

    Scales often reach their use through Unsqueeze.
    """
    source: dict[str, str] = {name: name for name in weights}
    summed = {name for node in nodes if node.op_type == "Sum" for name in node.input}
    rectified: set[str] = set()
    roles: dict[str, str] = {}
    for node in nodes:
        if node.op_type in ("Unsqueeze", "Reshape") and node.input[0] in source:
            source[node.output[0]] = source[node.input[0]]
        if node.op_type == "Relu" or (
            node.op_type in _KEEP_SIGN and any(name in rectified for name in node.input)
        ):
            rectified.add(node.output[0])
        for position, name in enumerate(node.input):
            if name in source:
                role = _role(node, position, summed)
                if role.startswith("matrix") and node.input[0] in rectified:
                    role = f"rectified {role}"
                roles.setdefault(source[name], role)
    return {name: role for name, role in roles.items() if role}


def _role(node: NodeProto, position: int, summed: set[str]) -> str:
    if node.op_type == "BatchNormalization":
        if position == 1 and node.output[0] in summed:
            return "branch scale"
        return _NORMALISATION_ROLES[position]
    if node.op_type == "Mul":
        return "scale"
    if node.op_type == "Gemm" and position == 1:
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return "matrix" if transposed else "matrix_in_out"
    return (
        {"Conv": "matrix", "MatMul": "matrix_in_out"}.get(node.op_type, "") if position == 1 else ""
    )


def _draw(shape: tuple[int, ...], role: str, rng: np.random.Generator) -> Array:
    if role in SCALES:
        return rng.uniform(*SCALES[role], shape).astype(np.float32)
    deviation = 0.1
    if "matrix" in role:
        fan_in = shape[-2] if role.endswith("in_out") else prod(shape[1:])
        deviation = sqrt((2 if role.startswith("rectified") else 1) / max(fan_in, 1))
    return (deviation * rng.standard_normal(shape, np.float32)).astype(np.float32)


def _drop_unused(model: ModelProto) -> None:
    """Remove shapes that nothing reads any more, also from the inputs that repeat initializers."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    used |= {port.name for port in graph.output}
    stored = [tensor for tensor in graph.initializer if tensor.name in used]
    dropped = {tensor.name for tensor in graph.initializer} - used
    inputs = [port for port in graph.input if port.name not in dropped]
    del graph.initializer[:]
    graph.initializer.extend(stored)
    del graph.input[:]
    graph.input.extend(inputs)
