"""A choice problem's options and edges as flat arrays, as compiled code reads them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright.extract.choice import ChoiceProblem, Costs, Indices

Ports = NDArray[np.int32]


class Flat(NamedTuple):
    """Options by variable, and edges by *half*: an edge as one of its ends sees it.

    Halves of a variable stand together, in the order of the edges. Ports that no option has are gone.
    """

    first: Indices
    """First option of each variable, and the number of all options."""
    half_first: Indices
    """First half of each variable, and the number of all halves."""
    other: Indices
    """The variable at the other end of each half."""
    mate: Indices
    """The half of the other end."""
    ports_at: Indices
    """Where in `ports` the ports of the variable's options begin."""
    ports: Ports
    width: Indices
    """Number of ports at this end."""
    message_at: Indices
    """Where a value for each port of this end begins, in an array for all halves."""
    matrix_at: Indices
    """Where in `matrix` the costs begin, [ports of this end, ports of the other end]."""
    matrix: Costs
    weight: Costs
    """Share of a variable's belief that each of its messages carries."""


def flatten(problem: ChoiceProblem) -> Flat:
    """Return the flat arrays of a problem, without its costs of options and its usages."""
    count = len(problem.costs)
    ends = np.array([(e.left, e.right) for e in problem.edges], dtype=np.int64).reshape(-1, 2)
    owner = ends.reshape(-1)
    place = np.argsort(owner, kind="stable")
    number = np.empty_like(place)
    number[place] = np.arange(len(place))
    # halves 2 e and 2 e + 1 of edge e stand at number[2 e] and number[2 e + 1]
    mate = number[place ^ 1]
    other = owner[place ^ 1]
    before = np.bincount(owner[place], weights=other < owner[place], minlength=count)
    degree = np.bincount(owner, minlength=count)
    table = _Table(problem)
    return Flat(
        first=_starts([len(own) for own in problem.costs]),
        half_first=_starts(degree),
        other=other,
        mate=mate,
        ports_at=np.asarray(table.ports_at, dtype=np.int64)[place],
        ports=np.concatenate((np.zeros(0, np.int32), *table.ports)),
        width=(width := np.asarray(table.width, dtype=np.int64)[place]),
        message_at=_starts(width)[:-1],
        matrix_at=np.asarray(table.matrix_at, dtype=np.int64)[place],
        matrix=np.concatenate((np.zeros(0), *table.matrices)),
        weight=1.0 / np.maximum(1.0, np.maximum(before, degree - before)),
    )


class _Table:
    """Ports and matrices of all halves; arrays that edges share are kept once."""

    def __init__(self, problem: ChoiceProblem) -> None:
        self.ports: list[Ports] = []
        self.ports_at: list[int] = []
        self.width: list[int] = []
        self.matrices: list[Costs] = []
        self.matrix_at: list[int] = []
        self._known_ports: dict[int, tuple[int, Indices]] = {}
        self._known_matrices: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._ports_end = self._matrix_end = 0
        for edge in problem.edges:
            rows = self._add_ports(edge.left_ports)
            columns = self._add_ports(edge.right_ports)
            key = (id(edge.matrix), id(edge.left_ports), id(edge.right_ports))
            if key not in self._known_matrices:
                matrix = edge.matrix
                if (len(rows), len(columns)) != matrix.shape:
                    matrix = matrix[np.ix_(rows, columns)]
                self._known_matrices[key] = (self._add_matrix(matrix), self._add_matrix(matrix.T))
            self.matrix_at += self._known_matrices[key]

    def _add_ports(self, ports: Indices) -> Indices:
        if id(ports) not in self._known_ports:
            present, inverse = np.unique(ports, return_inverse=True)
            self._known_ports[id(ports)] = self._ports_end, present
            self.ports.append(inverse.reshape(-1).astype(np.int32))
            self._ports_end += len(ports)
        start, present = self._known_ports[id(ports)]
        self.ports_at.append(start)
        self.width.append(len(present))
        return present

    def _add_matrix(self, matrix: Costs) -> int:
        self.matrices.append(np.ascontiguousarray(matrix).reshape(-1))
        self._matrix_end += matrix.size
        return self._matrix_end - matrix.size


def _starts(sizes: list[int] | Indices) -> Indices:
    return np.concatenate(([0], np.cumsum(np.asarray(sizes, dtype=np.int64)))).astype(np.int64)
