"""The tilings that extraction chooses from: saturated once for all kernel shapes of a model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import product
from math import gcd
from types import MappingProxyType

import numpy as np

from tilewright.extract.alike import moved_alike, way_alike
from tilewright.extract.kernel import (
    TWO_PRODUCTS,
    Family,
    Kernel,
    loop_order,
    stationary_type,
    tileable_dims,
)
from tilewright.extract.options import implementations_by_node, kernel_of
from tilewright.extract.plan import Memory
from tilewright.extract.tiling_choice import Candidates, tiling_key
from tilewright.extract.two_products import TwoProducts
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.loopnest import Role
from tilewright.rules.tiling.candidates import MOST_SIZES
from tilewright.rules.tiling.engine import TilingAlternatives, TilingRequest, tiling_alternatives
from tilewright.rules.tiling.ruleset import TilingRule

_MOST_COMBINATIONS = 400
"""Combinations of tile sizes for one kernel; beyond, every other size of the longest list is left out."""

MOST_BOXES = 1 << 16
"""Boxes of a kernel whose tile sizes are wanted: lowering writes the instructions of each box."""


def tiling_candidates(
    alternatives: tuple[Alternatives, ...],
    mesh: LogicalMesh,
    target: Target,
    rules: tuple[TilingRule, ...] | None = None,
    wanted: Mapping[str, int] = MappingProxyType({}),
) -> Mapping[tuple[object, ...], Candidates]:
    """Return the candidates of every kernel shape that occurs, by `tiling_key`.

    Where sizes are wanted of some loops, the candidates are those that have them all, which other loops and
    the order vary; kernels that cannot be cut so, or into too many boxes, have none.

    Args:
        alternatives: The saturated blocks.
        mesh: Their mesh.
        target: The machine.
        rules: The tiling rules that run; all of the package by default.
        wanted: Tile sizes by the names of loops, whether or not they would be candidates otherwise.
    """
    kernels: dict[tuple[object, ...], Kernel] = {}
    seen: dict[Hashable, set[Hashable]] = {}
    for found in alternatives:
        by_node = implementations_by_node(found)
        for node in found.nodes:
            if node.nest is None or node.kind in ("reshape", "host"):
                continue
            if found.classes[node.result].is_constant:
                continue
            alike = seen.setdefault(moved_alike(found, node), set())
            memories = (Memory.DRAM,) * len(node.args)
            for implementation in by_node.get(node.number, ()):
                way = way_alike(implementation)
                if way in alike:
                    continue
                alike.add(way)
                kernel = kernel_of(found, node, implementation, memories, Memory.DRAM, mesh)
                kernels.setdefault(tiling_key(kernel), kernel)
    requests = [
        _request(kernel, number, target, wanted) for number, kernel in enumerate(kernels.values())
    ]
    results = tiling_alternatives(requests, rules)
    return MappingProxyType(
        {
            key: _combine(kernel, found, wanted)
            for (key, kernel), found in zip(kernels.items(), results, strict=True)
        }
    )


def _request(
    kernel: Kernel, number: int, target: Target, wanted: Mapping[str, int]
) -> TilingRequest:
    dims = kernel.nest.dims
    tileable = set(tileable_dims(kernel))
    return TilingRequest(
        key=str(number),
        extents=tuple(dim.extent for dim in dims),
        is_tileable=tuple(i in tileable for i in range(len(dims))),
        is_parallel=tuple(dim.role is Role.PARALLEL for dim in dims),
        is_combining=tuple(dim.role is Role.REDUCTION for dim in dims),
        quanta=_quanta(kernel, target),
        wanted=tuple(wanted.get(dim.name) for dim in dims),
    )


def _quanta(kernel: Kernel, target: Target) -> tuple[int, ...]:
    """Return preferred multiples of tile sizes: whole array rows for sums, whole columns for outputs.

    What two products share, as the keys of attention, are outputs of one and the sum of the other; in pieces,
    all together should be a multiple. Of few every number is a candidate, since small boxes overlap better.
    """
    dims = kernel.nest.dims
    if kernel.family not in (*TWO_PRODUCTS, Family.CONTRACT):
        return (1,) * len(dims)
    matrix = target.tile.matrix
    columns = matrix.columns.get(stationary_type(kernel), 1)
    if kernel.family in TWO_PRODUCTS:
        pieces = kernel.gather.size if kernel.gather is not None else 1
        wanted = max(matrix.rows, columns)
        quantum = wanted // gcd(wanted, pieces)
        inner = TwoProducts(nest=kernel.nest).inner_loops
        return tuple(
            quantum if number in inner and dim.extent >= MOST_SIZES * quantum else 1
            for number, dim in enumerate(dims)
        )
    left, right, *_ = kernel.nest.operand_loops
    outputs = right - left
    quanta = []
    for number, dim in enumerate(dims):
        wanted = matrix.rows if dim.role is Role.REDUCTION else columns if number in outputs else 1
        quanta.append(wanted if dim.extent > wanted else 1)
    return tuple(quanta)


def _combine(kernel: Kernel, found: TilingAlternatives, wanted: Mapping[str, int]) -> Candidates:
    """Return all combinations of tile sizes with all choices of the outermost loop."""
    dims = kernel.nest.dims
    lists = [
        [size for size in sizes if size == wanted.get(dim.name, size)]
        for dim, sizes in zip(dims, found.sizes, strict=True)
    ]
    if not wanted.keys() <= {dim.name for dim in dims} or not all(lists):
        return Candidates(np.empty((0, len(dims))), np.empty((0, len(dims)), dtype=np.int64))
    while np.prod([len(sizes) for sizes in lists], dtype=float) > _MOST_COMBINATIONS:
        longest = max(lists, key=len)
        longest[:] = (
            [longest[0], *longest[2:-1:2], longest[-1]] if len(longest) > 2 else longest[:1]
        )
    sizes = np.array(list(product(*lists)), dtype=np.float64)
    if wanted:
        extents = [dim.extent for dim in dims]
        sizes = sizes[np.ceil(extents / np.maximum(sizes, 1)).prod(axis=1) <= MOST_BOXES]
    natural = loop_order(kernel)
    orders = [natural]
    for outer in found.outermost:
        orders.append((outer, *(dim for dim in natural if dim != outer)))
    unique = np.array(list(dict.fromkeys(orders)), dtype=np.int64)
    return Candidates(np.repeat(sizes, len(unique), axis=0), np.tile(unique, (len(sizes), 1)))
