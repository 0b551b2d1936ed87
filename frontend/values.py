"""What the importers pass around: values with their real shape, and the internal exceptions."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from onnx import TensorProto

from tilewright.dtypes import DType
from tilewright.graph import Array, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor during import.

    `name` is its name inside the graph. `shape` is the shape that ONNX sees, possibly (); inside the
    graph rank 0 is (1,). A value whose shape or element type is None lives on the host only:
    sequences, strings, shapes that depend on data.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: DType | None
    data: Array | None = None
    """The value itself, of shape `shape`, when it is known."""
    proto: TensorProto | None = None
    """The original of a constant whose element type the graph does not have (or has widened)."""

    @property
    def is_tensor(self) -> bool:
        """Whether core operators can read it."""
        return self.shape is not None and self.dtype is not None

    @property
    def dims(self) -> tuple[int, ...]:
        """The real shape; the value must be a tensor."""
        assert self.shape is not None, f"{self.name} has no static shape"
        return self.shape

    @property
    def element(self) -> DType:
        """The element type; the value must be a tensor."""
        assert self.dtype is not None, f"{self.name} has no element type"
        return self.dtype

    @property
    def rank(self) -> int:
        """Number of dimensions as ONNX sees it."""
        return len(self.dims)

    @property
    def inner(self) -> TensorType:
        """The type inside the graph, where rank 0 is (1,)."""
        return TensorType(inner_shape(self.dims), self.element)

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.dims)


def inner_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape inside the graph: (1,) for a scalar."""
    return shape or (1,)


class FallbackError(Exception):
    """Raised by an importer that leaves its node to the next way in; the text is the reason."""
