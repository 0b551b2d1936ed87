"""Nodes that are priced alike: the same operator on the same types, split in the same ways."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from tilewright.extract.kernel import ON_THE_WAY
from tilewright.rules.alternatives import Alternatives, Implementation, LogicalNode


def moved_alike(alternatives: Alternatives, node: LogicalNode) -> Hashable:
    """Return a value that is equal for nodes that move the same if they are split in the same way.

    They may compute different things on the way, as products with more or less of an epilogue do.
    """
    tensors = [alternatives.classes[argument] for argument in node.args]
    return (
        node.kind,
        node.attrs.get("fn") == "identity",  # a copy
        tuple(
            sorted((name, value) for name, value in node.attrs.items() if name not in ON_THE_WAY)
        ),
        node.nest,
        tuple((tensor.type, tensor.is_constant) for tensor in tensors),
        alternatives.classes[node.result].type,
    )


def way_alike(implementation: Implementation) -> Hashable:
    """Return a value that is equal for implementations that differ in their node alone."""
    one = implementation
    return one.split_dims, one.operands, one.result, one.macros


def priced_alike(
    alternatives: Alternatives, node: LogicalNode, implementations: Sequence[Implementation]
) -> Hashable:
    """Return a value that is equal for nodes whose kernels and options differ in the node alone.

    A model has few different ones: the layers of a transformer, and in each of them its products and
    what rules made of them, repeat themselves.

    Args:
        alternatives: The block of the node.
        node: The node.
        implementations: The ways to run it, in the order in which they are looked at.
    """
    tensors = [alternatives.classes[argument] for argument in node.args]
    return (
        node.kind,
        tuple(sorted(node.attrs.items())),
        node.nest,
        tuple((tensor.type, tensor.is_constant) for tensor in tensors),
        alternatives.classes[node.result].type,
        tuple(map(way_alike, implementations)),
    )
