"""Splits of matrix products and convolutions: the loops that weights and activations share."""

from __future__ import annotations

from tilewright.graph import Op
from tilewright.rules.loopnest import LoopDim
from tilewright.rules.partition.ruleset import partition

_MESH_TENSORFLOW = "Mesh-TensorFlow (NeurIPS 2018)"
_UNITY = "Unity (OSDI 2022); Alpa (OSDI 2022)"


@partition.splits(source=_UNITY)
def matmul_rows(op: Op, loop: LoopDim) -> bool:
    """A[m/p, k] B[k, n] = C[m/p, n]: each tile has some rows and the whole of B."""
    return op.kind == "matmul" and loop.name == "m"


@partition.splits(source=_UNITY)
def matmul_columns(op: Op, loop: LoopDim) -> bool:
    """A[m, k] B[k, n/p] = C[m, n/p]: each tile has some columns of B, say weights of its own."""
    return op.kind == "matmul" and loop.name == "n"


@partition.splits(source=_UNITY)
def matmul_contracting_axis(op: Op, loop: LoopDim) -> bool:
    """A[m, k/p] B[k/p, n] = a part of the sum C[m, n], which a collective completes."""
    return op.kind == "matmul" and loop.name == "k"


@partition.splits(source="GShard (ICLR 2021) for experts; data parallelism")
def matmul_first_batch_axis(op: Op, loop: LoopDim) -> bool:
    """A[b/p, m, k] B[b/p, k, n] = C[b/p, m, n] on the first batch dimension: samples or experts."""
    return op.kind == "matmul" and loop.name == "b0"


@partition.splits(source="Megatron-LM (arXiv 1909.08053): attention heads")
def matmul_heads(op: Op, loop: LoopDim) -> bool:
    """A[b, h/p, m, k] B[b, h/p, k, n] = C[b, h/p, m, n] on an inner batch dimension: heads."""
    return op.kind == "matmul" and loop.name.startswith("b") and loop.name != "b0"


@partition.splits(source="data parallelism")
def conv_batch(op: Op, loop: LoopDim) -> bool:
    """conv(X[n/p, ...], W) = Y[n/p, ...]: each tile has some images and all weights."""
    return op.kind == "conv" and loop.name == "n"


@partition.splits(source=_UNITY)
def conv_output_channels(op: Op, loop: LoopDim) -> bool:
    """conv(X, W[o/p, ...]) = Y[n, o/p, h, w]: each tile has some filters; whole groups at once."""
    return op.kind == "conv" and loop.name in ("o", "g")


@partition.splits(source=_UNITY)
def conv_input_channels(op: Op, loop: LoopDim) -> bool:
    """conv(X[n, c/p, h, w], W[o, c/p, r, s]) = a part of the sum Y."""
    return op.kind == "conv" and loop.name == "c"


@partition.splits(source=_MESH_TENSORFLOW)
def conv_space(op: Op, loop: LoopDim) -> bool:
    """conv(X[n, c, h/p, w], W) = Y[n, o, h/p, w] where windows do not overlap: no halo is needed."""
    return op.kind == "conv" and loop.name in ("h", "w")


@partition.splits(source="linearity of the sum over the window")
def conv_window(op: Op, loop: LoopDim) -> bool:
    """conv(X, W[o, c, r/p, s]) = a part of the sum Y, where the window's rows are pieces of X."""
    return op.kind == "conv" and loop.name in ("r", "s")
