"""Micro-batches: a model for a part of its batch, several of which follow each other through the stages."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from tilewright.errors import CompileError
from tilewright.graph import Graph, Op, Port, TensorType
from tilewright.rules.inference import infer_type
from tilewright.rules.pipeline.legality import Legality, rebatched


def micro_batched(graph: Graph, count: int, legality: Legality) -> Graph:
    """Return the model for one of `count` equal pieces of its batch.

    The batch is dimension 0 of the first input, and of every other input of that size. What the model
    computes for the whole batch is the concatenation, along dimension 0, of what it computes for the pieces.

    Args:
        graph: The model.
        count: Number of pieces.
        legality: The rules that say where the batch is in a result.

    Raises:
        CompileError: The batch has no such pieces, or an operator mixes it.
    """
    size = graph.inputs[0].shape[0] if graph.inputs and graph.inputs[0].shape else 1
    if count < 1 or size % count:
        raise CompileError(
            f"model '{graph.name}': its batch of {size} has no {count} equal pieces; "
            "choose a divisor of it"
        )
    places = {p.tensor: 0 for p in graph.inputs if p.shape and p.shape[0] == size}
    types = {
        name: _smaller(kind, places[name], count) if name in places else kind
        for name, kind in graph.types.items()
    }
    ops = []
    for op in graph.ops:
        made = _batched_op(graph, op, places, size, count, legality)
        if made is not op:
            dim = places[op.output]
            types[op.output] = _smaller(graph.types[op.output], dim, count)
            _check_type(made, types)
        ops.append(made)
    return replace(
        graph,
        name=f"{graph.name} in {count}",
        inputs=tuple(_port(port, places, count) for port in graph.inputs),
        outputs=tuple(_output(graph, port, places, count) for port in graph.outputs),
        types=MappingProxyType(types),
        ops=tuple(ops),
    )


def _batched_op(
    graph: Graph, op: Op, places: dict[str, int], size: int, count: int, legality: Legality
) -> Op:
    """Return an operator for a piece of the batch, and note where its result has it."""
    dims = tuple(places.get(name, -1) for name in op.inputs)
    if max(dims, default=-1) < 0:
        return op
    dim = legality.batch_dim(op, graph.types, dims, size)
    if dim is None:
        raise CompileError(
            f"model '{graph.name}' cannot run in micro-batches: {op.kind} '{op.name}' mixes the samples of "
            f"its batch of {size}, or no rule says that it does not; compile the whole batch"
        )
    places[op.output] = dim
    return rebatched(op, dim, count)


def _smaller(kind: TensorType, dim: int, count: int) -> TensorType:
    shape = list(kind.shape)
    shape[dim] //= count
    return TensorType(tuple(shape), kind.dtype)


def _check_type(op: Op, types: dict[str, TensorType]) -> None:
    inputs = tuple(types[name] for name in op.inputs)
    found = infer_type(op.kind, op.attrs, inputs, types[op.output].dtype)
    assert found == types[op.output], f"{op.kind} '{op.name}' makes {found} of a piece of the batch"


def _port(port: Port, places: dict[str, int], count: int) -> Port:
    if port.tensor not in places:
        return port
    return replace(port, shape=(port.shape[0] // count, *port.shape[1:]))


def _output(graph: Graph, port: Port, places: dict[str, int], count: int) -> Port:
    if places.get(port.tensor) != 0:
        raise CompileError(
            f"model '{graph.name}' cannot run in micro-batches: output '{port.name}' does not have the batch "
            "as its first dimension; compile the whole batch"
        )
    return _port(port, places, count)
