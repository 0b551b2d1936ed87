"""The order in which the values of a block are computed."""

from __future__ import annotations

from tilewright.rules.alternatives import Alternatives, LogicalNode


def computed_classes(alternatives: Alternatives) -> tuple[int, ...]:
    """Return the classes that must be computed at run time, producers before consumers.

    Tensors of the graph come in its order; what rules made comes right before the first tensor that may be
    made from it, so that values do not wait for others that have nothing to do with them.
    """
    nodes: dict[int, list[LogicalNode]] = {}
    for node in alternatives.nodes:
        for result in node.results or (node.result,):
            if not alternatives.classes[result].is_constant:
                nodes.setdefault(result, []).append(node)
    seen: dict[int, None] = {}
    for root in (c for c in nodes if alternatives.classes[c].names):
        stack = [root]
        while stack:
            number = stack[-1]
            arguments = [a for node in nodes[number] for a in node.args if a in nodes]
            missing = [] if number in seen else [a for a in arguments if a not in seen]
            if missing:
                stack += reversed(missing)
            else:
                seen.setdefault(stack.pop())
    return tuple(seen)
