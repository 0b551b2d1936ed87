"""Rows that no axis of the mesh divides, padded in the whole graph.

Rules pad the weights of one product (`algebra/padding.py`). Rows of activations pass through many operators,
and through the blocks that are saturated one by one; they are padded here, before that:

    x [197, 768] -> ... -> y [197, 768]
        ->  concat(x, x[186:197]) [208, 768] -> ... -> slice(y) [197, 768]

The added rows are copies of real ones, so that no function is given a number that it would not see anyway. A
softmax along padded rows gets a mask, after which they are zero, and products may sum over them.

What that is worth depends on the rest of the model and on the machine. So nothing is decided here: these are
the graphs that may be planned, the one as it is given among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType

import numpy as np

from tilewright.constants import Constants, absent, known
from tilewright.graph import Array, AttrValue, Graph, Op, TensorType, unused_name
from tilewright.rules.padded_axes import Axis, AxisClass, Passing, axis_classes, passing
from tilewright.rules.padded_sizes import useful_sizes

_MOST_GRAPHS = 4
"""That are offered: where groups of rows have more sizes together, all groups grow in step."""

_SHAPE_ATTRIBUTES = MappingProxyType({"reshape": "shape", "expand": "shape", "slice": "sizes"})
"""By kind, the attribute with the shape of the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Dimensions of one size, and what they are padded to.

    Attributes:
        count: The size as it is given.
        products: Operators with products that have a loop along one of them.
        size: The size that they get.
    """

    count: int
    products: int
    size: int

    @property
    def note(self) -> str:
        """What is done, in a sentence."""
        return f"{self.count} rows of {self.products} products are padded to {self.size}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Padding:
    """A graph equal to the one given, in which some groups of rows are longer.

    Attributes:
        graph: The graph; `notes` say what is longer.
        rows: All groups that could be, in order of size.
    """

    graph: Graph
    rows: tuple[Rows, ...] = ()

    @property
    def added(self) -> int:
        """Rows that are added, once for each product that has them."""
        return sum((rows.size - rows.count) * rows.products for rows in self.rows)

    @property
    def text(self) -> str:
        """The sizes in short: `197 -> 208`, or `as given`."""
        longer = [f"{rows.count} -> {rows.size}" for rows in self.rows if rows.size != rows.count]
        return ", ".join(longer) or "as given"


def paddings(graph: Graph, multiples: tuple[int, ...]) -> tuple[Padding, ...]:
    """Return the graph, and equal graphs with rows that axes of the mesh divide.

    A class of dimensions may be padded if more products have a loop along it than values are converted.
    Classes of one size are padded alike.

    Args:
        graph: A valid graph, as a frontend makes it.
        multiples: Sizes of the axes of the mesh.

    Returns:
        The graph as it is given, then those with added rows, fewest first.
    """
    passings = passing(graph)
    groups: dict[int, list[AxisClass]] = {}
    for found in axis_classes(graph, passings):
        if _may_be_worth_it(found):
            groups.setdefault(found.size, []).append(found)
    sizes = {size: useful_sizes(size, multiples) for size in sorted(groups)}
    sizes = {size: own for size, own in sizes.items() if len(own) > 1}
    made = [
        _padding(graph, passings, {size: (groups[size], new) for size, new in chosen.items()})
        for chosen in _combined(sizes)
    ]
    return tuple(sorted(made, key=lambda padding: padding.added))


def _combined(sizes: Mapping[int, tuple[int, ...]]) -> Sequence[Mapping[int, int]]:
    """Return new sizes of all groups: every combination, or all groups grown in step if that is too many."""
    chosen = list(product(*sizes.values()))
    if len(chosen) > _MOST_GRAPHS:
        steps = max(map(len, sizes.values()))
        chosen = [tuple(own[min(n, len(own) - 1)] for own in sizes.values()) for n in range(steps)]
    return [dict(zip(sizes, one, strict=True)) for one in chosen]


def _padding(
    graph: Graph, passings: Sequence[Passing], chosen: Mapping[int, tuple[list[AxisClass], int]]
) -> Padding:
    """Return the graph in which groups have the sizes chosen."""
    rows = tuple(
        Rows(count=count, products=sum(found.products for found in classes), size=size)
        for count, (classes, size) in chosen.items()
    )
    longer = {
        axis: size
        for count, (classes, size) in chosen.items()
        if size != count
        for found in classes
        for axis in found.axes
    }
    if not longer:
        return Padding(graph=graph, rows=rows)
    notes = (own.note for own in rows if own.size != own.count)
    made = with_added_rows(graph, passings, longer)
    return Padding(graph=replace(made, notes=(*graph.notes, *notes)), rows=rows)


def with_added_rows(graph: Graph, passings: Sequence[Passing], sizes: Mapping[Axis, int]) -> Graph:
    """Return an equal graph in which dimensions of whole classes are longer.

    Args:
        graph: A valid graph.
        passings: What `passing` says of it.
        sizes: The new size of each dimension of these classes, at most twice the old one.
    """
    return _Padder(graph, sizes).run(passings)


def _may_be_worth_it(found: AxisClass) -> bool:
    return not found.is_of_weights and found.conversions < found.products


class _Padder:
    """Writes the padded graph. Tensors keep their names where an operator makes them, rows added or not."""

    def __init__(self, graph: Graph, sizes: Mapping[Axis, int]) -> None:
        self._graph = graph
        self._sizes = sizes
        self._types = dict(graph.types)
        self._constants: dict[str, Array] = dict(known(graph.constants))
        self._ops: list[Op] = []
        self._made: dict[str, frozenset[int]] = {}
        """The dimensions in which a tensor has the added rows when it is made."""
        self._forms: dict[tuple[str, frozenset[int]], str] = {}
        """Names of tensors with the added rows in some dimensions."""

    def run(self, passings: Sequence[Passing]) -> Graph:
        """Return the graph."""
        for op, found in zip(self._graph.ops, passings, strict=True):
            self._add(op, found)
        outputs = tuple(
            replace(port, tensor=self._form(port.tensor, frozenset()))
            for port in self._graph.outputs
        )
        return replace(
            self._graph,
            ops=tuple(self._ops),
            outputs=outputs,
            types=MappingProxyType(self._types),
            constants=Constants(self._constants, absent(self._graph.constants)),
        )

    def _padded_axes(self, name: str) -> frozenset[int]:
        """Return the dimensions of a tensor that are of a padded class."""
        rank = self._graph.types[name].rank
        return frozenset(number for number in range(rank) if (name, number) in self._sizes)

    def _add(self, op: Op, found: Passing) -> None:
        """Add an operator on operands with the added rows where its loops may have them."""
        inputs = tuple(
            self._form(name, self._padded_axes(name) & (axes | within))
            for name, axes, within in zip(op.inputs, found.axes, found.within, strict=True)
        )
        if found.masked:
            rows = self._graph.types[op.inputs[0]].shape[-1]
            if self._types[inputs[0]].shape[-1] != rows:
                inputs = (self._masked(inputs[0], rows),)
        for name in op.outputs:
            self._made[name] = frozenset(found.made) & self._padded_axes(name)
            self._types[name] = self._type(name, self._made[name])
        self._ops.append(replace(op, inputs=inputs, attrs=self._attrs(op)))

    def _attrs(self, op: Op) -> Mapping[str, AttrValue]:
        """Return the attributes of an operator, those with the shape of its result as it is now."""
        key = _SHAPE_ATTRIBUTES.get(op.kind)
        if key is None:
            return op.attrs
        return MappingProxyType({**op.attrs, key: self._types[op.output].shape})

    def _type(self, name: str, axes: frozenset[int]) -> TensorType:
        """Return the type of a tensor with the added rows in some dimensions."""
        kind = self._graph.types[name]
        return replace(
            kind,
            shape=tuple(
                self._sizes[name, i] if i in axes else size for i, size in enumerate(kind.shape)
            ),
        )

    def _form(self, name: str, axes: frozenset[int]) -> str:
        """Return the name of a tensor with the added rows in some dimensions; make it if it is not there."""
        made = self._made.get(name, frozenset())
        if axes == made:
            return name
        if (name, axes) not in self._forms:
            form = name
            if not axes >= made:
                form = self._cut(name, axes & made)
            for number in sorted(axes - made):
                form = self._lengthened(name, form, number)
            self._forms[name, axes] = form
        return self._forms[name, axes]

    def _cut(self, name: str, axes: frozenset[int]) -> str:
        """Cut the added rows off in all but some dimensions."""
        kind = self._type(name, axes)
        return self._op(
            "slice", f"{name}.unpadded", (name,), kind, _from(kind.rank, {}, kind.shape)
        )

    def _lengthened(self, name: str, form: str, number: int) -> str:
        """Add rows to one dimension: copies of the last ones."""
        kind = self._types[form]
        size = kind.shape[number]
        shape = tuple(self._sizes[name, i] if i == number else n for i, n in enumerate(kind.shape))
        added = tuple(n - size if i == number else n for i, n in enumerate(shape))
        last = self._op(
            "slice",
            f"{name}.padding",
            (form,),
            replace(kind, shape=added),
            _from(kind.rank, {number: size - added[number]}, added),
        )
        long = replace(kind, shape=shape)
        return self._op("concat", f"{name}.padded", (form, last), long, {"axis": number})

    def _masked(self, name: str, rows: int) -> str:
        """Let the added rows of the last dimension be far below all others."""
        kind = self._types[name]
        values = np.zeros((*(1,) * (kind.rank - 1), kind.shape[-1]), kind.dtype.numpy)
        values[..., rows:] = kind.dtype.lowest / 2  # stays finite with any score added
        mask = unused_name(f"{name}.mask", self._types)
        self._types[mask] = TensorType(values.shape, kind.dtype)
        self._constants[mask] = values
        return self._op("map", f"{name}.masked", (name, mask), kind, {"fn": "add"})

    def _op(
        self,
        kind: str,
        stem: str,
        inputs: tuple[str, ...],
        result: TensorType,
        attrs: Mapping[str, AttrValue],
    ) -> str:
        name = unused_name(stem, self._types)
        self._types[name] = result
        self._ops.append(Op(name=name, kind=kind, inputs=inputs, outputs=(name,), attrs=attrs))
        return name


def _from(rank: int, starts: Mapping[int, int], sizes: tuple[int, ...]) -> Mapping[str, AttrValue]:
    """Return the attributes of a slice."""
    begin = tuple(starts.get(i, 0) for i in range(rank))
    return MappingProxyType({"starts": begin, "sizes": sizes, "steps": (1,) * rank})
