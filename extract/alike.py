"""Nodes that are priced alike: the same operator on the same types, split in the same ways."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from tilewright.rules.alternatives import Alternatives, Implementation, LogicalNode


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
        tuple((one.split_dims, one.operands, one.result, one.macros) for one in implementations),
    )
