"""E-graphs as arrays, and what an extraction from one is.

Nothing here knows tensors: an e-graph is a set of classes of e-nodes, each with a cost and the classes
of its children. An *extraction* chooses one e-node for each class that the roots need, without cycles;
its cost is the sum over the chosen e-nodes, each counted once however often it is used (DAG cost).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tilewright.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class EGraph:
    """An e-graph whose classes and e-nodes are numbered from 0.

    Attributes:
        owner: The class of each e-node.
        cost: The cost of each e-node, finite; may be negative.
        children: The classes that each e-node needs.
        roots: The classes that must be extracted.
        class_count: Number of classes; a class may be empty.

    Raises:
        ModelError: The arrays do not fit each other or a cost is not finite.
    """

    owner: tuple[int, ...]
    cost: tuple[float, ...]
    children: tuple[tuple[int, ...], ...]
    roots: tuple[int, ...]
    class_count: int

    def __post_init__(self) -> None:
        """Check lengths, class numbers and costs."""
        lengths = {len(self.owner), len(self.cost), len(self.children)}
        if len(lengths) > 1:
            raise ModelError(
                f"e-graph: {len(self.owner)} owners, {len(self.cost)} costs and "
                f"{len(self.children)} lists of children; there must be one of each per e-node"
            )
        known = range(self.class_count)
        numbers = {*self.owner, *self.roots}
        numbers.update(*self.children)
        if strange := sorted(number for number in numbers if number not in known):
            raise ModelError(
                f"e-graph: there is no class {strange[0]}; classes are 0 to {self.class_count - 1}"
            )
        for node, cost in enumerate(self.cost):
            if not math.isfinite(cost):
                raise ModelError(f"e-node {node}: cost is {cost}, expected a finite number")


class Proof(StrEnum):
    """What the bound of an extraction rests on, from nothing left to decide to a mere bound."""

    reductions = "reductions"
    """Reductions that keep an optimum left nothing to choose: the bound is the cost."""

    path = "path"
    """The dearest chain of classes that need each other is as dear as the extraction."""

    relaxation = "relaxation"
    """The linear relaxation of what the reductions left is as dear as the extraction."""

    search = "search"
    """Branch and bound (HiGHS) found nothing cheaper in what the reductions left."""

    bound = "bound"
    """Not proven optimal: the best bound that the time allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """The chosen e-nodes and how far from the cheapest they can be.

    Attributes:
        chosen: The e-node of each needed class; in no class that is not needed.
        cost: Sum of the costs of the chosen e-nodes.
        bound: No extraction costs less.
        proof: What the bound rests on.
        steps: What was done, a line each, with sizes.
    """

    chosen: Mapping[int, int]
    cost: float
    bound: float
    proof: Proof
    steps: tuple[str, ...]

    @property
    def gap(self) -> float:
        """(cost - bound) / |cost|; 0 when proven."""
        return (self.cost - self.bound) / max(abs(self.cost), 1e-12)

    @property
    def is_optimal(self) -> bool:
        """Whether the bound proves the choice."""
        return self.proof is not Proof.bound


def needed_cost(graph: EGraph, choice: Mapping[int, int]) -> tuple[float, dict[int, int]]:
    """Return the cost of a choice and its part that the roots need.

    Raises:
        KeyError: A needed class has no e-node in `choice`.
    """
    chosen: dict[int, int] = {}
    open_classes = list(graph.roots)
    while open_classes:
        group = open_classes.pop()
        if group not in chosen:
            chosen[group] = choice[group]
            open_classes.extend(graph.children[choice[group]])
    return math.fsum(graph.cost[node] for node in chosen.values()), chosen
