"""The choice problem that reductions rewrite: classes, their alternatives, who uses whom.

It starts as the e-graph and gets smaller. An *alternative* is what remains of an e-node: a cost, the
classes it needs, and its *origin*, the e-nodes that it stands for. `recover` turns a choice of
alternatives back into one of e-nodes.
"""

from __future__ import annotations

from collections.abc import Iterable

from tilewright.errors import InfeasibleError
from tilewright.extract.general.components import components
from tilewright.extract.general.egraph import EGraph

# A binary tree of e-nodes; joining two origins must not copy them, chains get long.
type Origin = int | tuple[Origin, Origin] | None


class NoExtractionError(InfeasibleError):
    """A required class has no acyclic extraction; `group` is its number."""

    def __init__(self, group: int, name: str) -> None:
        """Say which class, by the name its user knows."""
        super().__init__(
            f"class {name} must be extracted, but each of its e-nodes needs the class itself or one "
            "without e-nodes; add an e-node whose children can be extracted, or take another root"
        )
        self.group = group


class Workspace:
    """A choice problem under reduction.

    Attributes:
        cost, owner, needs, origin: Of each alternative ever made, by its number.
        alternatives: The alternatives of each class that are still there.
        users: The alternatives that need each class.
        live: The classes that are left to decide.
        required: The classes that every extraction contains.
        paid: Cost of what is decided already.
        decided: Origins of what is decided already.
        dirty: Classes that something changed about.
        component: Number of the strongly connected component of a class; those that a component
            reaches have lower numbers. Edges are only removed or shortened after it was found, so
            that it stays valid, if coarse.
        component_size: Classes in each component.
        tainted: Classes below which a negative cost may be needed.
    """

    def __init__(self, graph: EGraph) -> None:
        """Copy what the roots can reach and what has an acyclic extraction.

        Raises:
            NoExtractionError: A root has no acyclic extraction.
        """
        self.cost: list[float] = []
        self.owner: list[int] = []
        self.needs: list[set[int]] = []
        self.origin: list[Origin] = []
        self.alternatives: list[set[int]] = [set() for _ in range(graph.class_count)]
        self.users: list[set[int]] = [set() for _ in range(graph.class_count)]
        self.required: set[int] = set(graph.roots)
        self.paid: list[float] = []
        self.decided: list[Origin] = []
        self.dirty: set[int] = set()
        self.component: dict[int, int] = {}
        self.component_size: dict[int, int] = {}
        self.tainted: set[int] = set()
        usable = _usable_nodes(graph)
        self.live: set[int] = set(graph.roots)
        open_classes = sorted(self.live)
        for root in open_classes:
            if not usable[root]:
                raise NoExtractionError(root, str(root))
        while open_classes:
            group = open_classes.pop()
            for node in usable[group]:
                needs = set(graph.children[node])
                self.add(group, graph.cost[node], needs, node)
                for child in needs - self.live:
                    self.live.add(child)
                    open_classes.append(child)
        self.dirty |= self.live

    def add(self, group: int, cost: float, needs: set[int], origin: Origin) -> int:
        """Add an alternative to a class; return its number."""
        number = len(self.cost)
        self.cost.append(cost)
        self.owner.append(group)
        self.needs.append(needs)
        self.origin.append(origin)
        self.alternatives[group].add(number)
        for child in needs:
            self.users[child].add(number)
        return number

    def add_leaf(self, cost: float) -> int:
        """Add a class that is nothing but a cost; return its number."""
        group = len(self.alternatives)
        self.alternatives.append(set())
        self.users.append(set())
        self.live.add(group)
        self.component[group] = -1 - group
        self.component_size[-1 - group] = 1
        self.add(group, cost, set(), None)
        return group

    def remove(self, alternative: int) -> None:
        """Remove an alternative from its class."""
        group = self.owner[alternative]
        self.alternatives[group].discard(alternative)
        self.dirty.add(group)
        for child in self.needs[alternative]:
            self.users[child].discard(alternative)
            self.dirty.add(child)

    def change_needs(self, alternative: int, needs: set[int]) -> None:
        """Replace the classes that an alternative needs."""
        before = self.needs[alternative]
        for child in before - needs:
            self.users[child].discard(alternative)
            self.dirty.add(child)
        for child in needs - before:
            self.users[child].add(alternative)
        self.needs[alternative] = needs
        self.dirty.add(self.owner[alternative])

    def drop(self, group: int) -> None:
        """Drop a class that nothing needs any more, and its alternatives."""
        for alternative in sorted(self.alternatives[group]):
            self.remove(alternative)
        self.live.discard(group)
        self.required.discard(group)

    def drop_unreachable(self) -> None:
        """Drop the classes that no required class reaches."""
        reached = set(self.required)
        open_classes = list(reached)
        while open_classes:
            for alternative in self.alternatives[open_classes.pop()]:
                for child in self.needs[alternative] - reached:
                    reached.add(child)
                    open_classes.append(child)
        for group in sorted(self.live - reached):
            self.drop(group)

    def refresh(self) -> None:
        """Find components and tainted classes anew."""
        found = components(sorted(self.live), self.below)
        self.component = {group: i for i, members in enumerate(found) for group in members}
        self.component_size = {i: len(members) for i, members in enumerate(found)}
        tainted = {
            group for group in self.live if any(self.cost[a] < 0 for a in self.alternatives[group])
        }
        open_classes = list(tainted)
        while open_classes:
            for user in self.users[open_classes.pop()]:
                if self.owner[user] not in tainted:
                    tainted.add(self.owner[user])
                    open_classes.append(self.owner[user])
        self.tainted = tainted

    def below(self, group: int) -> set[int]:
        """Return the classes that some alternative of a class needs."""
        return set().union(*(self.needs[a] for a in self.alternatives[group]))

    def is_on_a_cycle(self, group: int) -> bool:
        """Whether a choice might be cyclic through a class."""
        return self.component_size[self.component[group]] > 1

    def size(self) -> str:
        """Return classes, open choices and alternatives left, for reports."""
        open_choices = sum(len(self.alternatives[group]) > 1 for group in self.live)
        return f"{len(self.live)} classes, {open_choices} open, {self.alternative_count()} e-nodes"

    def alternative_count(self) -> int:
        """Count the alternatives left."""
        return sum(len(self.alternatives[group]) for group in self.live)


def _usable_nodes(graph: EGraph) -> list[list[int]]:
    """List the e-nodes of each class whose children can be extracted without cycles."""
    users: list[list[int]] = [[] for _ in range(graph.class_count)]
    missing = [0] * len(graph.owner)
    usable: list[list[int]] = [[] for _ in range(graph.class_count)]
    ready: list[int] = []
    for node, needs in enumerate(graph.children):
        distinct = set(needs)
        if graph.owner[node] in distinct:
            continue
        missing[node] = len(distinct)
        for child in distinct:
            users[child].append(node)
        if not distinct:
            ready.append(node)
    while ready:
        node = ready.pop()
        group = graph.owner[node]
        usable[group].append(node)
        if len(usable[group]) == 1:
            for user in users[group]:
                missing[user] -= 1
                if not missing[user]:
                    ready.append(user)
    return [sorted(nodes) for nodes in usable]


def recover(graph: EGraph, origins: Iterable[Origin]) -> dict[int, int]:
    """Make an acyclic choice of the e-nodes in `origins`.

    Where they hold several e-nodes of a class, the one is taken that can be built first: then there is
    no cycle, and the others were paid for in vain.
    """
    nodes: set[int] = set()
    stack = list(origins)
    while stack:
        origin = stack.pop()
        if isinstance(origin, tuple):
            stack.extend(origin)
        elif origin is not None:
            nodes.add(origin)
    missing = {node: len(set(graph.children[node])) for node in nodes}
    users: dict[int, list[int]] = {}
    for node in sorted(nodes):
        for child in sorted(set(graph.children[node])):
            users.setdefault(child, []).append(node)
    choice: dict[int, int] = {}
    ready = sorted((node for node in nodes if not missing[node]), reverse=True)
    while ready:
        node = ready.pop()
        group = graph.owner[node]
        if group in choice:
            continue
        choice[group] = node
        for user in users.get(group, ()):
            missing[user] -= 1
            if not missing[user]:
                ready.append(user)
    return choice
