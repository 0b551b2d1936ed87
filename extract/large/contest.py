"""The contest's files: instances of intra-operator parallelism in, lists of strategies out.

An instance has nodes (each takes one strategy, with a cost and a memory use during an interval of time),
edges (a cost for each pair of strategies) and a limit of the memory used at any time.

Source: Google, "ASPLOS 2025 contest on intra-operator parallelism for distributed deep learning".
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.errors import ModelError
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs, Edge, Indices, Usage

_FORBIDDEN_IN_FILE = 1e18
_MOST, _MOST_TOTAL = 1e10, 1e9
"""Costs, and what a choice costs in all by a rough guess, are scaled by a power of two to stay below."""


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """An instance as a choice problem, whose costs are the file's times `scale`, a power of two."""

    problem: ChoiceProblem
    scale: float
    edges: int


def read_contest(path: Path) -> Contest:
    """Read an instance, .json or .json.gz.

    Raises:
        ModelError: The file cannot be read or is no such instance.
    """
    raw = _load(path)
    try:
        return _contest(raw["problem"])
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        reason = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelError(
            f"{path}: not an instance of the contest: {reason}; expected problem.nodes (intervals, "
            "costs, usages), problem.edges (nodes, costs) and problem.usage_limit"
        ) from None


def _load(path: Path) -> Any:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return json.loads(data)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (EOFError, ValueError, zlib.error) as error:
        raise ModelError(f"{path}: not JSON: {error}; expected .json or .json.gz") from None
    except RecursionError:
        raise ModelError(f"{path}: not an instance of the contest: nested too deeply") from None


def _contest(problem: dict[str, Any]) -> Contest:
    nodes, edges = problem["nodes"], problem["edges"]
    costs = [_numbers(own, f"costs of node {v}") for v, own in enumerate(nodes["costs"])]
    amounts = [_numbers(own, f"usages of node {v}") for v, own in enumerate(nodes["usages"])]
    if len(amounts) != len(costs) or len(nodes["intervals"]) != len(costs):
        raise ValueError("nodes differ in the number of costs, usages and intervals")
    for v, (own, used) in enumerate(zip(costs, amounts, strict=True)):
        if len(own) != len(used) or not len(own):
            raise ValueError(f"node {v} has {len(own)} costs and {len(used)} usages")
        if (used < 0).any():
            raise ValueError(f"node {v} has a negative usage")
    pairs, matrices = _matrices(edges, [len(own) for own in costs])
    scale = _scale(costs, matrices)
    costs = [_scaled(own, scale) for own in costs]
    ports: dict[int, Indices] = {n: np.arange(n) for n in {len(own) for own in costs}}
    kept = []
    for (left, right), matrix in zip(pairs, matrices, strict=True):
        scaled = _scaled(matrix, scale)
        if left == right:
            costs[left] = costs[left] + np.diag(scaled)
        else:
            ends = ports[scaled.shape[0]], ports[scaled.shape[1]]
            kept.append(Edge(left, right, *ends, scaled))
    limit = problem.get("usage_limit")
    if limit is None:
        free = ChoiceProblem(tuple(costs), tuple(kept), (), 0, 0.0)
        return Contest(free, scale, len(pairs))
    usages, rows = _usages(nodes["intervals"], amounts)
    found = ChoiceProblem(tuple(costs), tuple(kept), usages, rows, float(limit))
    return Contest(found, scale, len(pairs))


def _numbers(values: Any, what: str) -> Costs:
    try:
        numbers = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{what} are not a list of numbers") from None
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError(f"{what} are not a list of numbers")
    return numbers


def _matrices(edges: dict[str, Any], sizes: list[int]) -> tuple[list[tuple[int, int]], list[Costs]]:
    if len(edges["nodes"]) != len(edges["costs"]):
        raise ValueError("edges differ in the number of nodes and costs")
    pairs, matrices = [], []
    for number, (ends, values) in enumerate(zip(edges["nodes"], edges["costs"], strict=True)):
        if len(ends) != 2 or not all(isinstance(v, int) and 0 <= v < len(sizes) for v in ends):
            raise ValueError(f"edge {number} joins {ends}, expected two of {len(sizes)} nodes")
        left, right = ends
        matrix = _numbers(values, f"costs of edge {number}")
        if matrix.size != sizes[left] * sizes[right]:
            expected = f"{sizes[left]} x {sizes[right]}"
            raise ValueError(f"edge {number} has {matrix.size} costs, expected {expected}")
        pairs.append((left, right))
        matrices.append(matrix.reshape(sizes[left], sizes[right]))
    return pairs, matrices


def _scale(costs: list[Costs], matrices: list[Costs]) -> float:
    """Return a power of two that keeps finite costs, and what a choice roughly costs, in range."""
    most, total = 1.0, 0.0
    for values in chain(costs, matrices):
        finite = values[np.abs(values) < _FORBIDDEN_IN_FILE]
        if finite.size:
            most = max(most, float(np.abs(finite).max()))
            total += abs(float(np.median(finite)))
    return 2.0 ** -max(0, math.ceil(math.log2(max(most / _MOST, total / _MOST_TOTAL, 1.0))))


def _scaled(values: Costs, scale: float) -> Costs:
    return np.where(values >= _FORBIDDEN_IN_FILE, FORBIDDEN, values * scale)


def _usages(intervals: Any, amounts: list[Costs]) -> tuple[tuple[Usage, ...], int]:
    """Return usages in rows: of the times, only those with a largest set of live nodes.

    What is live from one time to the next is live at the time before unless something starts, and at
    the next unless something ends: rows with neither are covered by their neighbours.
    """
    ends: NDArray[np.int64] = np.array(intervals, dtype=np.int64).reshape(len(amounts), 2)
    lives = [v for v, used in enumerate(amounts) if ends[v, 0] < ends[v, 1] and used.any()]
    starts, stops = np.unique(ends[lives, 0]), np.unique(ends[lives, 1])
    times = np.union1d(starts, stops)
    is_row = np.isin(times[:-1], starts) & np.isin(times[1:], stops)
    before: Indices = np.concatenate(([0], np.cumsum(is_row)))
    lows = before[np.searchsorted(times, ends[lives, 0])]
    highs = before[np.searchsorted(times, ends[lives, 1])]
    usages = tuple(
        Usage(v, int(low), int(high), amounts[v])
        for v, low, high in zip(lives, lows, highs, strict=True)
    )
    return usages, int(is_row.sum())
