"""Serialized e-graphs: the JSON of egraph-serialize and the extraction gym.

    {"nodes": {id: {"op", "cost", "eclass", "children": [ids]}, ...}, "root_eclasses": [classes]}

A child names an e-node and means the class of that e-node.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.errors import ModelError
from tilewright.extract.general.egraph import EGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedEGraph:
    """An e-graph with the names that its file uses.

    Attributes:
        graph: The e-graph, its roots being those that have an e-node.
        nodes: The name of each e-node.
        classes: The name of each class.
        empty_roots: Roots of the file without any e-node; there is nothing to choose for them.
    """

    graph: EGraph
    nodes: tuple[str, ...]
    classes: tuple[str, ...]
    empty_roots: tuple[str, ...]

    def named(self, chosen: Mapping[int, int]) -> dict[str, str]:
        """Return a choice with the names of the file, classes in the order of the file."""
        return {self.classes[group]: self.nodes[chosen[group]] for group in sorted(chosen)}


def read_egraph(path: Path) -> NamedEGraph:
    """Read a serialized e-graph.

    Raises:
        ModelError: The file cannot be read, is no JSON or does not have the form above.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"'{path}': cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ModelError(f"'{path}': is not JSON: {error}") from None
    return parse_egraph(document, str(path))


def parse_egraph(document: Any, where: str) -> NamedEGraph:
    """Return the e-graph of a JSON document; `where` names it in errors.

    Raises:
        ModelError: The document does not have the form of a serialized e-graph.
    """
    if not isinstance(document, dict):
        raise ModelError(f"'{where}': expected an object with 'nodes' and 'root_eclasses'")
    nodes, roots = document.get("nodes"), document.get("root_eclasses")
    if not isinstance(nodes, dict) or not isinstance(roots, list):
        raise ModelError(
            f"'{where}': expected 'nodes' to be an object and 'root_eclasses' a list, "
            f"found {type(nodes).__name__} and {type(roots).__name__}"
        )
    if not roots:
        raise ModelError(f"'{where}': 'root_eclasses' is empty; name the classes to extract")
    try:
        return _named(nodes, roots)
    except _BadNodeError as error:
        raise ModelError(f"'{where}': {error}") from None


class _BadNodeError(Exception):
    """What is wrong with which e-node."""


def _named(nodes: dict[str, Any], roots: list[Any]) -> NamedEGraph:
    numbers: dict[str, int] = {}
    owner: list[int] = []
    cost: list[float] = []
    for name, node in nodes.items():
        try:
            group = node["eclass"]
            price = node["cost"]
        except (TypeError, KeyError):
            raise _BadNodeError(f"e-node '{name}' needs 'eclass' and 'cost'") from None
        if not isinstance(group, str):
            raise _BadNodeError(f"e-node '{name}': 'eclass' is {group!r}, expected a string")
        if isinstance(price, bool) or not isinstance(price, int | float):
            raise _BadNodeError(f"e-node '{name}': 'cost' is {price!r}, expected a number")
        owner.append(numbers.setdefault(group, len(numbers)))
        cost.append(float(price))
    number_of = dict(zip(nodes, owner, strict=True))
    children = tuple(_children(name, node, number_of) for name, node in nodes.items())
    named = [str(root) for root in roots]
    present = {root: numbers[root] for root in named if root in numbers}
    return NamedEGraph(
        graph=EGraph(
            owner=tuple(owner),
            cost=tuple(cost),
            children=children,
            roots=tuple(sorted(present.values())),
            class_count=len(numbers),
        ),
        nodes=tuple(nodes),
        classes=tuple(numbers),
        empty_roots=tuple(root for root in named if root not in numbers),
    )


def _children(name: str, node: dict[str, Any], number_of: Mapping[str, int]) -> tuple[int, ...]:
    listed = node.get("children", [])
    if not isinstance(listed, list):
        raise _BadNodeError(
            f"e-node '{name}': 'children' is {listed!r}, expected a list of e-nodes"
        )
    try:
        # In the order of the file, each class once.
        return tuple(dict.fromkeys([number_of[child] for child in listed]))
    except (KeyError, TypeError):
        missing = next(child for child in listed if child not in list(number_of))
        raise _BadNodeError(f"e-node '{name}': its child '{missing}' is not in 'nodes'") from None
