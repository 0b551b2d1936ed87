"""Check an extraction by walking it in the JSON document that it was made from.

Shares nothing with the extractor, not even its reader: names only, plain recursion over a stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tilewright.errors import CompileError


class WalkError(CompileError):
    """A choice is no extraction: a class without e-node, a wrong e-node or a cycle."""


def walk(document: Mapping[str, Any], choices: Mapping[str, str]) -> float:
    """Return the DAG cost of `choices`, found by walking from the roots.

    Args:
        document: A serialized e-graph, `nodes` and `root_eclasses`. Roots that have no e-node at all
            are passed over: nobody can choose one for them.
        choices: The name of the chosen e-node for the name of each needed class.

    Raises:
        WalkError: A needed class has no choice, the choice is not of that class, or the choice is
            cyclic.
    """
    nodes = document["nodes"]
    inhabited = {node["eclass"] for node in nodes.values()}
    begun: set[str] = set()
    finished: set[str] = set()
    cost = 0.0
    for root in document["root_eclasses"]:
        if root not in inhabited:
            continue
        path = [(root, False)]
        while path:
            name, is_return = path.pop()
            if is_return:
                finished.add(name)
                continue
            if name in finished:
                continue
            if name in begun:
                raise WalkError(f"class '{name}' needs itself: the choice is cyclic")
            begun.add(name)
            if name not in choices:
                raise WalkError(f"class '{name}' is needed, but no e-node is chosen for it")
            node = nodes.get(choices[name])
            if node is None or node["eclass"] != name:
                raise WalkError(f"class '{name}': '{choices[name]}' is not one of its e-nodes")
            cost += node["cost"]
            path.append((name, True))
            path.extend(
                (below, False)
                for below in [nodes[child]["eclass"] for child in node.get("children", [])]
                if below not in finished
            )
    return cost
