"""A block graph as rows of the e-graph's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tilewright.graph import Graph
from tilewright.rules.constructors import constructor_of, encode
from tilewright.rules.encoding import (
    EMPTY_LIST,
    TABLES,
    row_cons,
    row_constant,
    row_leaf,
    row_type,
)
from tilewright.rules.signatures import Typing

Rows = list[tuple[int | str, ...]]


@dataclass(frozen=True, slots=True)
class Inserted:
    """Tensor numbers of a block graph and the rows that build it."""

    numbers: Mapping[str, int]
    leaves: tuple[str, ...]
    tables: tuple[tuple[Any, Rows], ...]


def tensor_numbers(graph: Graph) -> dict[str, int]:
    """Return a number for each tensor: inputs, constants by name, then results in order."""
    names = [port.tensor for port in graph.inputs]
    names += sorted(graph.constants)
    names += [name for op in graph.ops for name in op.outputs]
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def rows_of(graph: Graph, typing: Typing) -> Inserted:
    """Return the rows that insert a graph.

    Args:
        graph: A valid graph.
        typing: Gets the graph's types.
    """
    numbers = tensor_numbers(graph)
    leaves = tuple(
        dict.fromkeys([*(port.tensor for port in graph.inputs), *sorted(graph.constants)])
    )
    by_constructor: dict[str, Rows] = {}
    cons: Rows = []
    lists: dict[tuple[int, int], int] = {}
    for op in graph.ops:
        constructor = constructor_of(op)
        operands = [numbers[name] for name in op.inputs]
        if constructor.operands is None:
            number = EMPTY_LIST
            for head in reversed(operands):
                if (head, number) not in lists:
                    lists[head, number] = len(lists) + 1
                    cons.append((lists[head, number], head, number))
                number = lists[head, number]
            operands = [number]
        for output, name in enumerate(op.outputs):
            texts = encode(constructor, op.attrs, output)
            row: tuple[int | str, ...] = (
                numbers[name],
                *operands,
                *texts,
                str(graph.types[name].dtype),
            )
            by_constructor.setdefault(constructor.name, []).append(row)
    types: Rows = [(n, typing.type_number(graph.types[name])) for name, n in numbers.items()]
    tables: list[tuple[Any, Rows]] = [
        (row_leaf, [(numbers[name],) for name in leaves]),
        (row_constant, [(numbers[name],) for name in sorted(graph.constants)]),
        (row_type, types),
        (row_cons, cons),
        *((TABLES[name].row, rows) for name, rows in by_constructor.items()),
    ]
    return Inserted(numbers, leaves, tuple(tables))
