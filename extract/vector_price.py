"""The price of one vector instruction."""

from __future__ import annotations

from tilewright.extract.kernel_work import VectorWork
from tilewright.hwmodel.cost import KernelCost, vector_cost
from tilewright.hwmodel.target import Target


def vector_price(work: VectorWork, target: Target) -> KernelCost:
    """Return the cost of one of a kernel's equal vector instructions."""
    moved = work.elements * work.dtype.itemsize_bytes
    return vector_cost(
        target,
        work.fn,
        work.dtype,
        elements=work.elements,
        read_bytes=moved * (work.operands - 1),
        written_bytes=moved,
    )
