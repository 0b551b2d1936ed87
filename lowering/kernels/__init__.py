"""Code generators of the kernel families; importing the package registers all of them."""

from tilewright.lowering.kernels import (
    attention,
    chain,
    contract,
    copy,
    elementwise,
    gather,
    reduce,
    rows,
)
from tilewright.lowering.kernels.registry import emit_kernel

__all__ = [
    "attention",
    "chain",
    "contract",
    "copy",
    "elementwise",
    "emit_kernel",
    "gather",
    "reduce",
    "rows",
]
