"""Strongly connected components of a graph of small whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator


def components(
    vertices: Iterable[int], successors: Callable[[int], Iterable[int]]
) -> list[list[int]]:
    """Strongly connected components, each after those that it reaches.

    Source:
        Tarjan, "Depth-first search and linear graph algorithms", 1972, without recursion.
    """
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[list[int]] = []
    for start in vertices:
        if start in index:
            continue
        work: list[tuple[int, Iterator[int]]] = []

        def enter(vertex: int, work: list[tuple[int, Iterator[int]]] = work) -> None:
            index[vertex] = low[vertex] = len(index)
            stack.append(vertex)
            on_stack.add(vertex)
            work.append((vertex, iter(successors(vertex))))

        enter(start)
        while work:
            vertex, following = work[-1]
            for other in following:
                if other not in index:
                    enter(other)
                    break
                if other in on_stack:
                    low[vertex] = min(low[vertex], index[other])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[vertex])
                if low[vertex] == index[vertex]:
                    members: list[int] = []
                    while not members or members[-1] != vertex:
                        members.append(stack.pop())
                        on_stack.discard(members[-1])
                    found.append(members)
    return found
