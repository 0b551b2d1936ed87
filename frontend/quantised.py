"""Weights that a model stores as 8-bit integers: integers, and one scale that makes them floats.

Exporters write the dequantisation as `DequantizeLinear` or as casts and products; zero points, reshapes and
transposes come in between. Here it becomes two operators on constants,

    mul(cast(q), scale)

with everything else done to the constants, so that rules and repeats have one form to look for. No bit of
the floats changes: a zero point is subtracted from integers, where the model subtracts it from floats that
hold them exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tilewright.constants import Constants, absent, known
from tilewright.dtypes import DType
from tilewright.frontend.editing import remove_dead
from tilewright.graph import Array, Graph, Op, TensorType, parse_pipeline, unused_name

QUANTISED = frozenset({DType.I8, DType.U8})
LEAST_ELEMENTS = 1 << 12
"""Smaller tables are folded into floats, and so are vectors (zero points)."""


def is_quantised(tensor: TensorType) -> bool:
    """Whether a constant of this type stays integers when it is cast to floats."""
    is_table = sum(size > 1 for size in tensor.shape) >= 2
    return tensor.dtype in QUANTISED and is_table and tensor.elements >= LEAST_ELEMENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weight:
    """Integers on their way to floats: (values - zero) * scale, of one rank all three."""

    source: str
    """Name of the constant that the integers come from."""
    values: Array
    zero: Array | None = None
    scale: Array | None = None

    def moved(self, shape: tuple[int, ...]) -> _Weight | None:
        """Return the weight in a shape with other dimensions of size 1; None for any other shape."""
        if [n for n in shape if n > 1] != [n for n in self.values.shape if n > 1]:
            return None
        places = [i for i, n in enumerate(self.values.shape) if n > 1]

        def along(array: Array) -> Array:
            sizes = iter([array.shape[i] for i in places])
            return array.reshape([next(sizes) if n > 1 else 1 for n in shape])

        return self._each(along)

    def transposed(self, perm: tuple[int, ...]) -> _Weight:
        """Return the transposed weight."""
        return self._each(lambda array: array.transpose(perm))

    def _each(self, move: Callable[[Array], Array]) -> _Weight:
        return replace(
            self,
            values=move(self.values),
            zero=None if self.zero is None else move(self.zero),
            scale=None if self.scale is None else move(self.scale),
        )

    def centred(self) -> Array:
        """Return the integers without their zero point, of 16 bits where 8 do not hold them."""
        if self.zero is None:
            return np.ascontiguousarray(self.values)
        wide = self.values.astype(np.int16) - self.zero.astype(np.int16)
        bounds = np.iinfo(np.int8)
        fits = bounds.min <= wide.min() and wide.max() <= bounds.max
        return wide.astype(np.int8) if fits else wide


def keep_quantised(graph: Graph) -> Graph:
    """Return the graph with the dequantisation of each constant as a cast and one product."""
    constants = known(graph.constants)
    found: dict[str, _Weight] = {}
    for op in graph.ops:
        weight = _after(graph, constants, found, op)
        if weight is not None:
            found[op.output] = weight
    rewriter = _Rewriter(graph, found)
    ops = [made for op in graph.ops for made in rewriter.written(op)]
    if not rewriter.is_changed:
        return graph
    return remove_dead(
        replace(graph, ops=tuple(ops)),
        MappingProxyType(rewriter.types),
        Constants(rewriter.constants, absent(graph.constants)),
    )


def _after(
    graph: Graph, constants: Mapping[str, Array], found: Mapping[str, _Weight], op: Op
) -> _Weight | None:
    """Return the weight that an operator makes of a constant or of a weight."""
    if op.kind == "map":
        return _mapped(graph, constants, found, op)
    weight = found.get(op.inputs[0]) if op.inputs else None
    if weight is None:
        return None
    if op.kind == "reshape":
        return weight.moved(op.ints("shape"))
    return weight.transposed(op.ints("perm")) if op.kind == "transpose" else None


def _mapped(
    graph: Graph, constants: Mapping[str, Array], found: Mapping[str, _Weight], op: Op
) -> _Weight | None:
    """Return the weight after a cast, a shift by the zero point, or the product with the scale."""
    ((fn, args), *others) = parse_pipeline(op.text("fn"))
    if others:
        return None
    x, *rest = op.inputs
    if fn == "cast" and x in constants and is_quantised(graph.types[x]):
        is_weight = DType(args[0]).is_float
        return _Weight(source=x, values=constants[x]) if is_weight else None
    if fn == "mul" and x not in found:
        x, *rest = op.inputs[::-1]
    weight = found.get(x)
    if weight is None or weight.scale is not None:
        return None
    type_ = graph.types[op.output]
    if type_.shape != weight.values.shape or any(name not in constants for name in rest):
        return None
    if fn in ("mul", "mul_const"):
        return replace(weight, scale=_operand(constants, rest, args, type_))
    if fn not in ("sub", "add_const") or weight.zero is not None:
        return None
    zero = _operand(constants, rest, args, type_).astype(np.float64)
    zero = np.negative(zero) if fn == "add_const" else zero
    return replace(weight, zero=zero) if _is_zero_point(zero) else None


def _operand(
    constants: Mapping[str, Array], rest: list[str], args: tuple[str, ...], type_: TensorType
) -> Array:
    """Return the second operand of a map: a constant, or the number that its function is written with."""
    if rest:
        return constants[rest[0]]
    return np.full((1,) * type_.rank, float(args[0])).astype(type_.dtype.numpy)


def _is_zero_point(numbers: NDArray[np.float64]) -> bool:
    """Whether numbers are whole and as small as those of 8-bit integers."""
    is_small = np.abs(numbers) <= np.iinfo(np.uint8).max
    return bool(np.all(is_small & (numbers == np.round(numbers))))


class _Rewriter:
    """Writes weights in the one form, where something else than a weight is made of them."""

    def __init__(self, graph: Graph, found: Mapping[str, _Weight]) -> None:
        self.types = dict(graph.types)
        self.constants = dict(known(graph.constants))
        self.is_changed = False
        self._found = found
        self._read = {port.tensor for port in graph.outputs}
        for op in graph.ops:
            if op.outputs[0] not in found:
                self._read.update(op.inputs)

    def written(self, op: Op) -> tuple[Op, ...]:
        """Return what takes the place of an operator."""
        weight = self._found.get(op.outputs[0])
        if weight is None or weight.scale is None or op.output not in self._read:
            return (op,)
        is_plain = op.kind == "map" and op.attrs["fn"] == "mul" and op.inputs[1] in self.constants
        if is_plain and weight.zero is None and weight.values is self.constants[weight.source]:
            return (op,)
        self.is_changed = True
        type_ = self.types[op.output]
        integers = self._add(f"{op.output}.integers", weight.centred())
        scale = self._add(f"{op.output}.scale", np.ascontiguousarray(weight.scale))
        cast = unused_name(f"{op.output}.cast", self.types)
        self.types[cast] = type_
        first = Op(
            name=cast,
            kind="map",
            inputs=(integers,),
            outputs=(cast,),
            attrs=MappingProxyType({"fn": f"cast({type_.dtype})"}),
        )
        attrs = MappingProxyType({"fn": "mul"})
        return first, replace(op, kind="map", inputs=(cast, scale), attrs=attrs)

    def _add(self, stem: str, array: Array) -> str:
        name = unused_name(stem, self.types)
        self.constants[name] = array
        self.types[name] = TensorType(array.shape, DType.from_numpy(array.dtype))
        return name
