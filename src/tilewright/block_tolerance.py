"""How far outputs may be off when a machine multiplies in a block format.

An error bound that holds for any values grows with every layer and soon allows anything. So the error is
taken from an experiment: the model is evaluated in numpy with the operands of its products rounded to
blocks, and compared with the exact outputs. A program cuts its blocks elsewhere (where its boxes and shards
begin), so its error is another draw of the same kind, not the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilewright.dtypes import BLOCK_SOURCES, BlockFormat, DType
from tilewright.graph import Array, Graph, Op
from tilewright.hwmodel.target import Target
from tilewright.reference import evaluate
from tilewright.simulator.block_floats import rounded
from tilewright.verification import compare, default_tolerance

DRAWS = 2.0
"""Largest errors of two cuts into blocks differ by less than this factor."""


def machine_tolerance(
    target: Target, graph: Graph, inputs: Mapping[str, Array], exact: Mapping[str, Array]
) -> dict[str, float] | None:
    """Return the tolerance of outputs on a machine; None if it rounds products no more than others do.

    Args:
        target: The machine.
        graph: The model.
        inputs: Its inputs.
        exact: Its outputs without rounding to blocks.
    """
    block_format = target.tile.matrix.block_format
    return None if block_format is None else block_tolerances(graph, inputs, exact, block_format)


def block_tolerances(
    graph: Graph,
    inputs: Mapping[str, Array],
    exact: Mapping[str, Array],
    block_format: BlockFormat,
) -> dict[str, float]:
    """Return the tolerance of each float output, relative to its largest magnitude.

    Args:
        graph: The model.
        inputs: Its inputs.
        exact: Its outputs without rounding to blocks.
        block_format: The format of the machine's products.

    Returns:
        Twice the error that rounding to blocks makes in the reference, and the tolerance of the element type.
    """

    def change(op: Op, operands: Sequence[Array]) -> Sequence[Array]:
        return _rounded_operands(op, operands, block_format)

    found = evaluate(graph, inputs, change)
    return {
        check.name: DRAWS * check.relative_error
        + default_tolerance(DType.from_numpy(exact[check.name].dtype))
        for check in compare(found, exact)
    }


def _rounded_operands(
    op: Op, operands: Sequence[Array], block_format: BlockFormat
) -> Sequence[Array]:
    """Return the operands of a product rounded along the contracted dimension, of others unchanged."""
    if op.kind not in ("matmul", "conv"):
        return operands
    if any(DType.from_numpy(x.dtype) not in BLOCK_SOURCES for x in operands[:2]):
        return operands
    left, right, *rest = operands
    if op.kind == "conv":
        filters = rounded(right.reshape(len(right), -1), -1, block_format).reshape(right.shape)
        return (rounded(left, 1, block_format), filters, *rest)
    last, before = left.ndim - 1, right.ndim - 2
    along_left = op.ints("perm_a")[last] if "perm_a" in op.attrs else last
    along_right = op.ints("perm_b")[before] if "perm_b" in op.attrs else before
    return (
        rounded(left, along_left, block_format),
        rounded(right, along_right, block_format),
        *rest,
    )
