"""Simulated annealing over choices: one class at a time takes another e-node."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from time import monotonic

from tilewright.extract.general.components import components
from tilewright.extract.general.egraph import EGraph

# Moves between two looks at the clock.
CLOCK = 512
# The temperature falls to this part of the first one.
COLDEST = 0.01


class Annealing:
    """A choice for every class, kept acyclic, and how many chosen and needed e-nodes need each class."""

    def __init__(self, graph: EGraph, start: Mapping[int, int], seed: int) -> None:
        """Start from an acyclic choice for every class that the roots can reach."""
        self.graph = graph
        self.choice = [start.get(group, -1) for group in range(graph.class_count)]
        self.count = [0] * graph.class_count
        self.cost = 0.0
        self.random = random.Random(seed)
        options: list[list[int]] = [[] for _ in range(graph.class_count)]
        for node, group in enumerate(graph.owner):
            needs = graph.children[node]
            if group not in needs and all(child in start for child in needs):
                options[group].append(node)
        self.options = options
        self.open = [group for group, nodes in enumerate(options) if len(nodes) > 1]
        self.component = [-1] * graph.class_count
        below: list[set[int]] = [set() for _ in range(graph.class_count)]
        for node, group in enumerate(graph.owner):
            below[group].update(graph.children[node])
        for number, members in enumerate(components(range(graph.class_count), below.__getitem__)):
            if len(members) > 1:
                for group in members:
                    self.component[group] = number
        self._need(graph.roots)

    def _need(self, groups: tuple[int, ...]) -> None:
        """Count one more user of each class."""
        stack = list(groups)
        count, choice = self.count, self.choice
        while stack:
            group = stack.pop()
            count[group] += 1
            if count[group] == 1:
                self.cost += self.graph.cost[choice[group]]
                stack.extend(self.graph.children[choice[group]])

    def _release(self, groups: tuple[int, ...]) -> None:
        """Count one user less of each class."""
        stack = list(groups)
        count, choice = self.count, self.choice
        while stack:
            group = stack.pop()
            count[group] -= 1
            if not count[group]:
                self.cost -= self.graph.cost[choice[group]]
                stack.extend(self.graph.children[choice[group]])

    def _switch(self, group: int, node: int) -> None:
        """Let a needed class take another e-node."""
        before = self.choice[group]
        self._need(self.graph.children[node])
        self.choice[group] = node
        self.cost += self.graph.cost[node] - self.graph.cost[before]
        self._release(self.graph.children[before])

    def _would_be_cyclic(self, group: int, node: int) -> bool:
        """Whether a class would need itself with this e-node."""
        number = self.component[group]
        if number < 0:
            return False
        stack = [child for child in self.graph.children[node] if self.component[child] == number]
        seen = set(stack)
        while stack:
            child = stack.pop()
            if child == group:
                return True
            for below in self.graph.children[self.choice[child]]:
                if self.component[below] == number and below not in seen:
                    seen.add(below)
                    stack.append(below)
        return False

    def _move(self) -> tuple[int, int] | None:
        """Pick a random class and another e-node for it, None if the class has no say."""
        if not self.open:
            return None
        group = self.open[int(self.random.random() * len(self.open))]
        if not self.count[group]:
            return None
        options = self.options[group]
        node = options[int(self.random.random() * len(options))]
        if node == self.choice[group] or self._would_be_cyclic(group, node):
            return None
        return group, node

    def _typical_change(self) -> float:
        """Measure the mean change of cost of some moves, none of which is kept."""
        changes = []
        for _ in range(200):
            if move := self._move():
                before, cost = self.choice[move[0]], self.cost
                self._switch(*move)
                changes.append(abs(self.cost - cost))
                self._switch(move[0], before)
        changed = [change for change in changes if change > 0]
        return sum(changed) / len(changed) if changed else 0.0

    def run(self, moves: int, warmth: float, deadline: float) -> dict[int, int]:
        """Return the best choice seen in so many moves, or until the deadline.

        Args:
            moves: Number of moves to try.
            warmth: The first temperature, in mean changes of cost.
            deadline: When to stop, of `monotonic`.
        """
        best, best_cost = list(self.choice), self.cost
        hot = warmth * self._typical_change()
        if hot == 0:
            return _named(best)
        temperature = hot
        for step in range(moves):
            if step % CLOCK == 0:
                if monotonic() > deadline:
                    break
                temperature = hot * COLDEST ** (step / moves)
            move = self._move()
            if move is None:
                continue
            before, cost = self.choice[move[0]], self.cost
            self._switch(*move)
            worse = self.cost - cost
            if worse > 0 and self.random.random() >= math.exp(-worse / temperature):
                self._switch(move[0], before)
            elif self.cost < best_cost - 1e-9:
                best, best_cost = list(self.choice), self.cost
        return _named(best)


def _named(choice: list[int]) -> dict[int, int]:
    """Return the e-nodes of the classes that have one."""
    return {group: node for group, node in enumerate(choice) if node >= 0}
