"""Deliveries that travel while a matrix product runs, so that nothing waits for them.

A product occupies the matrix unit alone. What is needed only once it is done can be delivered meanwhile: the
third operand of a fused product, and what a map reads beside a product. Lowering emits such deliveries in
front of the product (`tilewright.lowering.early`), so that of their cycles only those count that the product
does not cover. The cover claimed here is what the product takes at least, whatever its split and
tiling, rounded down to few levels: it is the same for many options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, log2, prod

from tilewright.extract.kernel import Kernel, has_matrix_type, result_boxes
from tilewright.extract.kernel_work import matrix_roles
from tilewright.extract.plan import Tiling
from tilewright.hwmodel.cost import KernelCost, matrix_cycles
from tilewright.hwmodel.target import Target
from tilewright.rules.alternatives import Alternatives, Implementation, LogicalNode
from tilewright.rules.splitting import localise

PRODUCTS = ("matmul", "conv")
THIRD = 2
"""Position of the third operand of a fused product."""


@dataclass(frozen=True, slots=True)
class LateOperand:
    """An operand that is needed only after a product, and the product's cycles, which cover its delivery.

    `asks_alone`: some ways to compute the product use the network themselves and cover nothing; the cover
    holds with the others.
    """

    position: int
    cover_cycles: float
    asks_alone: bool = False


NEVER = LateOperand(-1, 0.0)


def rounded_cycles(cycles: float) -> float:
    """Round down to 2^n or 1.5 2^n cycles.

    >>> [rounded_cycles(x) for x in (0.5, 64, 100, 305)]
    [0.0, 64.0, 96.0, 256.0]
    """
    if cycles < 1:
        return 0.0
    power = 2.0 ** floor(log2(cycles))
    return power * 1.5 if cycles >= power * 1.5 else power


def fused_cover_cycles(kernel: Kernel, tiling: Tiling, cost: KernelCost) -> float:
    """Return the matrix cycles before a fused product needs its third operand: one result box's.

    The accumulator of a box is free for the next one only after the box's epilogue.
    """
    return cost.matrix_cycles / max(1, result_boxes(kernel, tiling))


def is_fused_product(alternatives: Alternatives, node: LogicalNode) -> bool:
    """Whether a node is a matrix product whose epilogue reads a third operand made at run time."""
    if node.kind not in PRODUCTS or len(node.args) <= THIRD:
        return False
    left, third = alternatives.classes[node.args[0]], alternatives.classes[node.args[THIRD]]
    return has_matrix_type(left.type.dtype) and not third.is_constant


def late_operands(alternatives: Alternatives, target: Target) -> Mapping[int, LateOperand]:
    """Return, by node, the operand that a map reads beside a product that does not feed it.

    Of two products, the one that is made later covers the delivery of the other's result.
    """
    makers: dict[int, list[LogicalNode]] = {}
    for node in alternatives.nodes:
        makers.setdefault(node.result, []).append(node)
    rank = {result: position for position, result in enumerate(makers)}
    sources = _sources(alternatives)
    least = _LeastCycles(alternatives, makers, target)
    found = {}
    for node in alternatives.nodes:
        run_time = [a for a in node.args if not alternatives.classes[a].is_constant]
        if node.kind != "map" or len(set(run_time)) != 2 or len(run_time) != 2:
            continue
        for product in sorted(run_time, key=lambda c: -rank.get(c, -1)):
            (other,) = (a for a in run_time if a != product)
            cover = rounded_cycles(least.of(product))
            if cover and not sources[other] >> product & 1:
                position = node.args.index(other)
                found[node.number] = LateOperand(position, cover, least.has_macros(product))
                break
    return found


def _sources(alternatives: Alternatives) -> list[int]:
    """Return, for each class, the set of classes that it may be made from, as bits; itself too."""
    sources = [1 << c.number for c in alternatives.classes]
    is_changed = True
    while is_changed:  # a node may come before the last node of an argument's class
        is_changed = False
        for node in alternatives.nodes:
            through = 0
            for argument in node.args:
                through |= sources[argument]
            for result in node.results or (node.result,):
                is_changed |= bool(through & ~sources[result])
                sources[result] |= through
    return sources


class _LeastCycles:
    """The matrix cycles that a class takes at least, whichever way it is computed."""

    def __init__(
        self, alternatives: Alternatives, makers: Mapping[int, list[LogicalNode]], target: Target
    ) -> None:
        self._alternatives, self._makers, self._target = alternatives, makers, target
        self._implementations: dict[int, list[Implementation]] = {}
        for implementation in alternatives.implementations:
            self._implementations.setdefault(implementation.node, []).append(implementation)
        self._found: dict[int, float] = {}

    def of(self, number: int) -> float:
        """Return the least cycles of a class; 0 if some way to compute it is no matrix product."""
        if number not in self._found:
            self._found[number] = min(map(self._of_node, self._makers.get(number, ())), default=0.0)
        return self._found[number]

    def has_macros(self, number: int) -> bool:
        """Whether some way to compute a class uses the network while it runs."""
        return any(
            any(implementation.macros)
            for node in self._makers.get(number, ())
            for implementation in self._implementations.get(node.number, ())
        )

    def _of_node(self, node: LogicalNode) -> float:
        dtype = self._alternatives.classes[node.args[0]].type.dtype if node.args else None
        if node.kind not in PRODUCTS or dtype is None or not has_matrix_type(dtype):
            return 0.0
        assert node.nest is not None
        cycles = []
        for implementation in self._implementations.get(node.number, ()):
            if any(implementation.macros):
                continue
            nest = localise(node.nest, self._alternatives.mesh, implementation.split_dims)
            b, m, n, k = (
                prod(
                    d.extent
                    for d, r in zip(nest.dims, matrix_roles(nest), strict=True)
                    if r == role
                )
                for role in "bmnk"
            )
            cycles.append(matrix_cycles(self._target.tile, dtype, b, m, k, n))
        return min(cycles, default=0.0)
