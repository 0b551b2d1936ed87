"""How importers are declared and what they see of a node.

An importer is a function from a `NodeContext` to the node's output values:

    @importer("Relu")
    def import_relu(c: NodeContext) -> Value:
        '''max(x, 0).'''
        return c.b.map("relu", c.x)

It may raise `FallbackError(reason)`: the node is then evaluated if all inputs are known, else replaced
by its function body if ONNX defines one, else left to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto

from tilewright.constants import absent_error
from tilewright.errors import ModelError, ShapeError
from tilewright.frontend.builder import Builder
from tilewright.frontend.values import FallbackError, Value

ImportResult = Value | tuple[Value, ...]
ImportFunction = Callable[["NodeContext"], ImportResult]


@dataclass(frozen=True, slots=True)
class Importer:
    """A function that imports some operator types of one domain."""

    keys: tuple[tuple[str, str], ...]
    function: ImportFunction


def importer(*op_types: str, domain: str = "") -> Callable[[ImportFunction], Importer]:
    """Declare a function as the importer of operator types."""

    def wrap(function: ImportFunction) -> Importer:
        return Importer(tuple((domain, op_type) for op_type in op_types), function)

    return wrap


def collect(modules: Iterable[ModuleType]) -> Mapping[tuple[str, str], ImportFunction]:
    """Return (domain, operator type) -> function for all importers in modules."""
    table: dict[tuple[str, str], ImportFunction] = {}
    for module in modules:
        for item in vars(module).values():
            if isinstance(item, Importer):
                for key in item.keys:
                    assert key not in table, f"two importers for {key}"
                    table[key] = item.function
    return MappingProxyType(table)


@dataclass(frozen=True, slots=True)
class NodeContext:
    """A node with its input values; the view that importers have."""

    node: NodeProto
    opset: int
    """Version of the node's domain that the model imports."""
    b: Builder
    inputs: tuple[Value | None, ...]

    # -- inputs

    def opt(self, index: int) -> Value | None:
        """Return an optional input."""
        return self.inputs[index] if index < len(self.inputs) else None

    def inp(self, index: int) -> Value:
        """Return a required input."""
        value = self.opt(index)
        if value is None:
            raise ModelError(f"{self.b.label}: input {index} is missing")
        return value

    @property
    def x(self) -> Value:
        """The first input."""
        return self.inp(0)

    @property
    def values(self) -> tuple[Value, ...]:
        """All inputs that are present."""
        return tuple(v for v in self.inputs if v is not None)

    def known(self, index: int, what: str) -> np.ndarray:
        """Return the data of an input that must be known."""
        data = self.inp(index).data
        if missing := self.b.missing_of([self.inp(index)]):
            raise absent_error(f"{self.b.label}: {what}", missing)
        if data is None:
            raise FallbackError(f"{what} is not constant")
        return np.asarray(data)

    def known_ints(self, index: int, what: str) -> tuple[int, ...]:
        """Return a known 1-D (or scalar) integer input."""
        return tuple(int(v) for v in self.known(index, what).reshape(-1))

    def uses_output(self, index: int) -> bool:
        """Return whether the node names an output."""
        return index < len(self.node.output) and bool(self.node.output[index])

    # -- attributes

    def attribute(self, name: str, kind: AttributeProto.AttributeType) -> AttributeProto | None:
        """Return an attribute of a type, None when absent."""
        found: AttributeProto | None = next(
            (a for a in self.node.attribute if a.name == name), None
        )
        if found is not None and found.type != kind:
            raise ModelError(f"{self.b.label}: attribute '{name}' has the wrong type")
        return found

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        a = self.attribute(name, AttributeProto.INT)
        return default if a is None else a.i

    def number(self, name: str, default: float) -> float:
        """Return a float attribute."""
        a = self.attribute(name, AttributeProto.FLOAT)
        return default if a is None else a.f

    def text(self, name: str, default: str) -> str:
        """Return a string attribute."""
        a = self.attribute(name, AttributeProto.STRING)
        return default if a is None else a.s.decode("utf-8", "replace")

    def ints(self, name: str) -> tuple[int, ...] | None:
        """Return a list of integers, None when absent."""
        a = self.attribute(name, AttributeProto.INTS)
        return None if a is None else tuple(a.ints)

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """Return a list of floats, None when absent."""
        a = self.attribute(name, AttributeProto.FLOATS)
        return None if a is None else tuple(a.floats)

    def proto(self, name: str) -> TensorProto | None:
        """Return a tensor attribute."""
        a = self.attribute(name, AttributeProto.TENSOR)
        return None if a is None else a.t

    # -- helpers

    def axis(self, axis: int, rank: int) -> int:
        """Return an axis counted from the front.

        Raises:
            ShapeError: It is out of range.
        """
        if not -rank <= axis < rank:
            raise ShapeError(f"{self.b.label}: axis {axis} is outside a tensor of rank {rank}")
        return axis + rank if axis < 0 else axis

    def axes(self, axes: Iterable[int], rank: int) -> tuple[int, ...]:
        """Return sorted axes counted from the front, without repeats."""
        found = sorted(self.axis(a, rank) for a in axes)
        if len(set(found)) != len(found):
            raise ShapeError(f"{self.b.label}: axes {tuple(found)} repeat")
        return tuple(found)
