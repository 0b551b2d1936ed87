"""Random choice problems and their optima, counted out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Edge, Usage

Values = NDArray[np.float64]


def random_problem(
    rng: np.random.Generator,
    *,
    count: int,
    density: float = 0.0,
    forbidden: float = 0.0,
    limit: float | None = None,
    options: int = 5,
) -> ChoiceProblem:
    """Return a chain with extra edges; each row's use is that of a few neighbouring variables."""
    sizes = rng.integers(2, options + 1, count)
    costs = tuple(rng.integers(0, 30, size).astype(float) for size in sizes)
    pairs = [(v, v + 1) for v in range(count - 1)]
    pairs += [(a, b) for b in range(count) for a in range(b - 1) if rng.random() < density]
    edges = []
    for left, right in pairs:
        matrix = rng.integers(0, 20, (4, 3)).astype(float)
        matrix[rng.random(matrix.shape) < forbidden] = FORBIDDEN
        left_ports, right_ports = rng.integers(0, 4, sizes[left]), rng.integers(0, 3, sizes[right])
        edges.append(Edge(left, right, left_ports, right_ports, matrix))
    usages = [
        Usage(v, v, min(v + int(rng.integers(1, 4)), count), rng.integers(0, 10, sizes[v]) * 1.0)
        for v in range(count)
        if limit is not None
    ]
    rows = count if limit is not None else 0
    return ChoiceProblem(costs, tuple(edges), tuple(usages), rows, limit or 0.0)


def optional_problem(rng: np.random.Generator, count: int, *, limit: float | None) -> ChoiceProblem:
    """Return an AND/OR choice: option 0 of most variables is "not computed", consumers forbid it."""
    costs, edges, usages = [], [], []
    for v in range(count):
        size = int(rng.integers(2, 5))
        own = rng.integers(1, 30, size).astype(float)
        if v < count - 1:
            own[0] = 0.0
        costs.append(own)
        amounts = rng.integers(0, 10, size).astype(float)
        if v < count - 1:
            amounts[0] = 0.0
        usages.append(Usage(v, v, min(v + 2, count), amounts))
        users = [u for u in range(v) if v - u <= 3 and rng.random() < 0.6]
        for u in users:
            needs = (rng.random(size) < 0.5).astype(np.int64)
            if v < count - 1:
                needs[0] = 0
            made = np.minimum(np.arange(len(costs[u])), 2).astype(np.int64)
            matrix = np.array([[0.0, FORBIDDEN], [0.0, float(rng.integers(0, 9))], [0.0, 3.0]])
            edges.append(Edge(u, v, made, needs, matrix))
    if limit is None:
        return ChoiceProblem(tuple(costs), tuple(edges), (), 0, 0.0)
    return ChoiceProblem(tuple(costs), tuple(edges), tuple(usages), count, limit)


def chain_optimum(problem: ChoiceProblem) -> float:
    """Return the optimum of a chain by Viterbi's recursion."""
    best = problem.costs[0].copy()
    for edge in problem.edges:
        full = edge.matrix[np.ix_(edge.left_ports, edge.right_ports)]
        best = (best[:, None] + full).min(axis=0) + problem.costs[edge.right]
    return float(best.min())


def all_costs(problem: ChoiceProblem) -> Values:
    """Return the cost of every choice as an array with an axis for each variable; for few variables."""
    count = len(problem.costs)
    total = np.zeros((1,) * count)
    for v, own in enumerate(problem.costs):
        total = total + own.reshape([-1 if axis == v else 1 for axis in range(count)])
    for edge in problem.edges:
        full = edge.matrix[np.ix_(edge.left_ports, edge.right_ports)]
        shape = [1] * count
        shape[edge.left], shape[edge.right] = full.shape
        total = total + (full if edge.left < edge.right else full.T).reshape(shape)
    return np.asarray(total)


def all_fitting(problem: ChoiceProblem) -> NDArray[np.bool_]:
    """Return for every choice whether it is within the limit in each row."""
    count = len(problem.costs)
    fitting = np.ones((1,) * count, dtype=bool)
    for row in range(problem.rows):
        use = np.zeros((1,) * count)
        for usage in problem.usages:
            if usage.low <= row < usage.high:
                axes = [-1 if axis == usage.variable else 1 for axis in range(count)]
                use = use + usage.amounts.reshape(axes)
        fitting = fitting & (use <= problem.limit)
    return np.asarray(fitting)


def optimum(problem: ChoiceProblem) -> float:
    costs = np.where(all_fitting(problem), all_costs(problem), np.inf)
    return float(costs.min())
