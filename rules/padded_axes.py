"""Which dimensions of a graph's tensors can be longer together: rows that pass from operator to operator.

A transformer of 197 tokens has tensors of 197 rows from its input to its output. No axis of a mesh divides
197, so all of them would be on every tile; with 208 rows, of which 11 repeat earlier ones, the mesh splits
them. Dimensions that must have one size are a *class* here: those that a loop of some operator walks along,
and nothing else. What the added rows hold is known of each tensor (`Fill`): where an operator combines rows,
they must be nothing to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite

import numpy as np
from networkx.utils import UnionFind

from tilewright.constants import known
from tilewright.graph import Graph, Op, TensorType
from tilewright.reference import run_pipeline
from tilewright.rules.annotations import annotate
from tilewright.rules.index_maps import along
from tilewright.rules.loopnest import LoopNest, OperandMap, Role

Axis = tuple[str, int]
"""A dimension of a tensor: its name, and the number of the dimension."""

PRODUCTS = frozenset({"matmul", "conv"})
_MOVEMENTS = frozenset({"reshape", "transpose", "slice", "expand", "gather", "concat"})


class Fill(StrEnum):
    """What a tensor holds in the rows that are added to one of its dimensions."""

    ROWS = "rows"  # copies of its own rows, in every tensor of the class the same ones
    ZERO = "zero"
    ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passing:
    """How an operator lets dimensions of its operands pass.

    Attributes:
        loops: The loops that may be longer; the dimensions that they walk along are of one class.
        axes: Of each operand, the dimensions that loops in `loops` walk along.
        made: The dimensions of the result that they walk along, with what the added rows then hold.
        within: Of each operand, the other dimensions that may be longer, since what is read of them stays.
        masked: Whether added rows of the last dimension must be masked first (softmax).
    """

    loops: tuple[tuple[Axis, ...], ...] = ()
    axes: tuple[frozenset[int], ...]
    made: Mapping[int, Fill] = field(default_factory=dict)
    within: tuple[frozenset[int], ...]
    masked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisClass:
    """Dimensions of one size that only get longer together.

    Attributes:
        size: Of each of the dimensions.
        axes: The dimensions, in the graph's order.
        products: Operators with products that have a loop along them.
        convolutions: How many of these are convolutions.
        conversions: Dimensions of values that are made without the added rows, or used without them.
        is_of_weights: Whether a constant operand of a product has one of the dimensions.
    """

    size: int
    axes: tuple[Axis, ...]
    products: int
    convolutions: int
    conversions: int
    is_of_weights: bool


def passing(graph: Graph) -> tuple[Passing, ...]:
    """Return how each operator lets dimensions pass, in the graph's order."""
    return _Walk(graph).passings()


def axis_classes(graph: Graph, passings: Sequence[Passing]) -> tuple[AxisClass, ...]:
    """Return the classes of dimensions that a loop of a product walks along.

    Args:
        graph: A valid graph.
        passings: What `passing` says of it.
    """
    return tuple(_Classes(graph, passings).found())


class _Walk:
    """Goes through the operators in order and keeps what the added rows of each dimension hold."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._fills: dict[Axis, Fill] = {}
        self._values = known(graph.constants)

    def passings(self) -> tuple[Passing, ...]:
        """Return how each operator lets dimensions pass."""
        return tuple(self._passing(op) for op in self._graph.ops)

    def _passing(self, op: Op) -> Passing:
        types = self._graph.types
        inputs = tuple(types[name] for name in op.inputs)
        nothing = (frozenset[int](),) * len(inputs)
        nest = None if len(op.outputs) > 1 else annotate(op, inputs, types[op.outputs[0]])
        if nest is None:
            return Passing(axes=nothing, within=nothing)
        loops: list[tuple[Axis, ...]] = []
        axes: list[set[int]] = [set() for _ in inputs]
        made: dict[int, Fill] = {}
        is_masked = False
        for loop, dim in enumerate(nest.dims):
            walked = _walked(op, nest, loop)
            if dim.extent < 2 or walked is None:
                continue
            read = [self._fills.get(axis, Fill.ROWS) for axis in walked.read]
            if dim.role is Role.PARALLEL:
                fill = self._parallel(op, walked, read)
            elif self._may_combine(op, read, inputs[0]):
                fill, is_masked = Fill.ZERO, is_masked or op.kind == "softmax"
            else:
                continue
            loops.append(walked.axes)
            for operand, number in walked.operand_axes:
                axes[operand].add(number)
            made |= dict.fromkeys(walked.made, fill)
        self._fills |= {(op.output, number): fill for number, fill in made.items()}
        return Passing(
            loops=tuple(loops),
            axes=tuple(map(frozenset, axes)),
            made=made,
            within=tuple(_within(op, number, nest) for number in range(len(inputs))),
            masked=is_masked,
        )

    def _may_combine(self, op: Op, read: Sequence[Fill], first: TensorType) -> bool:
        """Whether added rows are nothing to an operator that combines rows; a softmax gets a mask."""
        if op.kind == "softmax":
            return first.dtype.is_float and Fill.ANY not in read
        if op.kind == "matmul":
            return Fill.ZERO in read and Fill.ANY not in read
        if op.kind == "reduce":
            return op.text("fn") in ("max", "min") and set(read) == {Fill.ROWS}
        return False

    def _parallel(self, op: Op, walked: _Walked, read: Sequence[Fill]) -> Fill:
        """Return what the added rows of a result hold that has a row for each of its operands'."""
        if set(read) <= {Fill.ROWS}:
            return Fill.ROWS
        if Fill.ANY in read:
            return Fill.ANY
        if op.kind in _MOVEMENTS and set(read) == {Fill.ZERO}:
            return Fill.ZERO
        if op.kind == "matmul" or (op.kind == "reduce" and set(read) == {Fill.ZERO}):
            return Fill.ZERO
        return Fill.ZERO if op.kind == "map" and self._maps_to_zero(op, walked, read) else Fill.ANY

    def _maps_to_zero(self, op: Op, walked: _Walked, read: Sequence[Fill]) -> bool:
        """Whether a function of zeros, and of what else it reads, is zero."""
        fn = op.text("fn")
        zeros = {
            operand
            for (operand, _), fill in zip(walked.operand_axes, read, strict=True)
            if fill is Fill.ZERO
        }
        if fn.split("|")[0] == "mul":  # by values that are finite if those of the rows are
            values = [np.zeros(1, self._dtype(name)) for name in op.inputs]
        else:
            found = [
                np.zeros(1, self._dtype(name)) if number in zeros else self._single(name)
                for number, name in enumerate(op.inputs)
            ]
            values = [value for value in found if value is not None]
        if len(values) < len(op.inputs):
            return False
        with np.errstate(all="ignore"):
            result = np.asarray(run_pipeline(fn, values), np.float64)
        return bool(isfinite(result[0]) and result[0] == 0)

    def _dtype(self, name: str) -> np.dtype[np.generic]:
        return self._graph.types[name].dtype.numpy

    def _single(self, name: str) -> np.ndarray[tuple[int], np.dtype[np.generic]] | None:
        """Return the only element of a constant."""
        data = self._values.get(name)
        return data.reshape(-1) if data is not None and data.size == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Walked:
    """The dimensions that one loop walks along: of operands (operand, dimension), and of the result."""

    operand_axes: tuple[tuple[int, int], ...]
    read: tuple[Axis, ...]
    made: tuple[int, ...]
    axes: tuple[Axis, ...]


def _walked(op: Op, nest: LoopNest, loop: int) -> _Walked | None:
    """Return what a loop walks along; None if an index is made of it and of something else."""
    tensors = (*nest.operands, nest.result)
    found = [_alone(tensor, loop, nest.dims[loop].extent) for tensor in tensors]
    *operands, made = found
    if None in found or (not made and nest.dims[loop].role is Role.PARALLEL):
        return None
    numbers = [(i, n) for i, axes in enumerate(operands) for n in axes or ()]
    read = tuple((op.inputs[i], n) for i, n in numbers)
    return _Walked(
        operand_axes=tuple(numbers),
        read=read,
        made=made or (),
        axes=(*read, *((op.output, n) for n in made or ())),
    )


def _alone(tensor: OperandMap, loop: int, extent: int) -> tuple[int, ...] | None:
    """Return the dimensions that a loop walks along from end to end; None if it does otherwise to one."""
    touched = [i for i, m in enumerate(tensor) if any(t.dim == loop for t in m.terms)]
    return tuple(touched) if all(tensor[i] == along(extent, loop) for i in touched) else None


def _within(op: Op, operand: int, nest: LoopNest) -> frozenset[int]:
    """Return the dimensions of an operand of which an operator reads what its attributes or indices say."""
    if op.kind == "slice":
        return frozenset(range(len(nest.operands[operand])))
    if op.kind == "gather" and operand == 0:
        return frozenset({op.integer("axis")})
    return frozenset()


class _Classes:
    """Dimensions joined into classes."""

    def __init__(self, graph: Graph, passings: Sequence[Passing]) -> None:
        self._graph = graph
        self._passings = passings
        self._joined: UnionFind[Axis] = UnionFind()
        self._fixed = set(graph.constants)
        for op, found in zip(graph.ops, passings, strict=True):
            if op.kind != "host" and all(name in self._fixed for name in op.inputs):
                self._fixed.update(op.outputs)
            for axes in found.loops:
                self._joined.union(*axes)

    def found(self) -> Iterator[AxisClass]:
        """Yield the classes with products."""
        products, convolutions = self._of_products(PRODUCTS), self._of_products({"conv"})
        conversions = Counter(self._joined[axis] for axis in self._conversions())
        members: dict[Axis, list[Axis]] = {root: [] for root in products}
        for name, type_ in self._graph.types.items():
            for axis in ((name, number) for number in range(type_.rank)):
                root = self._joined[axis]
                if root in members:
                    members[root].append(axis)
        weights = self._of_weights()
        for root, axes in members.items():
            name, number = root
            yield AxisClass(
                size=self._graph.types[name].shape[number],
                axes=tuple(axes),
                products=products[root],
                convolutions=convolutions[root],
                conversions=conversions[root],
                is_of_weights=root in weights,
            )

    def _run_time(self) -> Iterator[tuple[Op, Passing]]:
        for op, found in zip(self._graph.ops, self._passings, strict=True):
            if not self._fixed.issuperset(op.outputs):
                yield op, found

    def _of_products(self, kinds: Collection[str]) -> Counter[Axis]:
        """Return how many products of some kinds have a loop along a class."""
        counts = Counter[Axis]()
        for op, found in self._run_time():
            if op.kind in kinds:
                counts.update({self._joined[first]: 1 for first, *_ in found.loops})
        return counts

    def _of_weights(self) -> set[Axis]:
        return {
            self._joined[name, number]
            for op, found in self._run_time()
            if op.kind in PRODUCTS
            for name, axes in zip(op.inputs, found.axes, strict=True)
            if name in self._fixed
            for number in axes
        }

    def _conversions(self) -> set[Axis]:
        """Return the dimensions of values that are made, or used, as they are."""
        ports = {port.tensor for port in (*self._graph.inputs, *self._graph.outputs)}
        found = {axis for name in ports for axis in self._axes(name)}
        for op, passed in self._run_time():
            for name in op.outputs:
                found |= {axis for axis in self._axes(name) if axis[1] not in passed.made}
            for operand, name in enumerate(op.inputs):
                free = passed.axes[operand] | passed.within[operand]
                if name not in self._fixed:
                    found |= {axis for axis in self._axes(name) if axis[1] not in free}
        return found

    def _axes(self, name: str) -> Iterator[Axis]:
        return ((name, number) for number in range(self._graph.types[name].rank))
