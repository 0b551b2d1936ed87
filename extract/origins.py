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
    leaves = [leaf_names(*pair) for pair in zip(rolled.blocks, alternatives, strict=True)]
    for number, instance in enumerate(rolled.instances):
        for tensor in alternatives[instance.block].classes:
            if not tensor.names:
                continue
            leaf = instance.tensors[leaves[instance.block][tensor.number]]
            origin = _origin(number, instance, leaf, tensor, found)
            for name in tensor.names:
                found.setdefault(instance.tensors[name], origin)
    return found


def leaf_names(block: Block, alternatives: Alternatives) -> Mapping[int, str]:
    """Return the name under which each input or constant class enters its block, by class.

    Classes without such a name, computed ones, have their first one; those that only rules made have none.
    """
    leaves = {port.tensor for port in block.graph.inputs} | set(block.graph.constants)
    return {
        tensor.number: next((name for name in tensor.names if name in leaves), tensor.names[0])
        for tensor in alternatives.classes
        if tensor.names
    }


def _origin(
    number: int, instance: Instance, leaf: str, tensor: TensorClass, found: Mapping[str, Origin]
) -> Origin:
    if tensor.is_input:
        return found[leaf]
    if tensor.is_constant:
        return Origin(tensor=leaf, made=None)
    variable = (instance.block, tensor.number)
    return Origin(tensor=instance.tensors[tensor.names[0]], made=(number, variable))
