"""Kernels one of whose loops runs over pieces on different tiles, and within a piece."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from tilewright.extract.kernel import Kernel
from tilewright.graph import TensorType
from tilewright.hwmodel.mesh import Sharding
from tilewright.rules.gathered import chunk_nest, cut_dim, cut_shape, cut_sharding
from tilewright.rules.loopnest import OperandMap

_chunk_nest = lru_cache(maxsize=1 << 12)(chunk_nest)  # tilings and prices are of the same nests


def in_pieces(kernel: Kernel, loop: int, size: int) -> Kernel:
    """Return a kernel with a loop, and the dimensions along it, as two: pieces, and inside a piece.

    Args:
        kernel: The kernel.
        loop: The loop.
        size: Number of pieces that a tile's loop runs over.
    """
    nest = kernel.nest
    length = nest.dims[loop].extent // size

    def cut(tensor: OperandMap, type_: TensorType) -> TensorType:
        return TensorType(cut_shape(type_.shape, cut_dim(tensor, loop), length), type_.dtype)

    def states(tensor: OperandMap, sharding: Sharding) -> Sharding:
        return cut_sharding(sharding, cut_dim(tensor, loop))

    return replace(
        kernel,
        nest=_chunk_nest(nest, loop, size),
        operand_types=tuple(map(cut, nest.operands, kernel.operand_types)),
        operand_shardings=tuple(map(states, nest.operands, kernel.operand_shardings)),
        result_type=cut(nest.result, kernel.result_type),
        result_sharding=states(nest.result, kernel.result_sharding),
    )


def one_piece(type_: TensorType, dim: int) -> TensorType:
    """Return the type of one of the pieces along a dimension."""
    return TensorType((*type_.shape[:dim], 1, *type_.shape[dim + 1 :]), type_.dtype)
