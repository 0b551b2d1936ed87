"""Where each tensor of the graph comes from, seen through what the rules found equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.graph import Graph
from tilewright.rules.alternatives import Alternatives, TensorClass
from tilewright.rules.roll import Block, Instance, Rolled

Variable = tuple[int, int]
"""Block number and class number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The source of a value.

    `tensor` is the one name by which plans call it; `made` says which instance computes it as which
    variable, None for model inputs and constants.
    """

    tensor: str
    made: tuple[int, Variable] | None


def find_origins(
    graph: Graph, rolled: Rolled, alternatives: tuple[Alternatives, ...]
) -> Mapping[str, Origin]:
    """Return the origin of every tensor that some block names.

    A tensor that rules found equal to an input (a cast to its own type, say) has the input's origin.
    """
    found = {port.tensor: Origin(tensor=port.tensor, made=None) for port in graph.inputs}
    found |= {name: Origin(tensor=name, made=None) for name in graph.constants}
    for number, instance in enumerate(rolled.instances):
        block = rolled.blocks[instance.block]
        for tensor in alternatives[instance.block].classes:
            if not tensor.names:
                continue
            origin = _origin(number, instance, block, tensor, found)
            for name in tensor.names:
                found.setdefault(instance.tensors[name], origin)
    return found


def leaf_name(block: Block, tensor: TensorClass) -> str:
    """Return the name under which an input or constant class enters its block.

    Constants that are computed from others have no such name; their first one stands for them.
    """
    leaves = {port.tensor for port in block.graph.inputs} | set(block.graph.constants)
    return next((name for name in tensor.names if name in leaves), tensor.names[0])


def _origin(
    number: int, instance: Instance, block: Block, tensor: TensorClass, found: Mapping[str, Origin]
) -> Origin:
    if tensor.is_input:
        return found[instance.tensors[leaf_name(block, tensor)]]
    if tensor.is_constant:
        return Origin(tensor=instance.tensors[leaf_name(block, tensor)], made=None)
    variable = (instance.block, tensor.number)
    return Origin(tensor=instance.tensors[tensor.names[0]], made=(number, variable))
