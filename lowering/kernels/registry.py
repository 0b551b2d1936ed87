"""The generators by family, and the one entry point to them."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.extract.kernel import Family, Kernel
from tilewright.extract.plan import Tiling
from tilewright.lowering.eager import PLANNED, Eagerness
from tilewright.lowering.emit import Builder, Storage
from tilewright.lowering.kernels.context import KernelContext
from tilewright.lowering.kernels.halo import exchange_halo
from tilewright.lowering.kernels.vocabulary import local_rows

Generator = Callable[[KernelContext], None]

_GENERATORS: dict[Family, Generator] = {}


def generates(family: Family) -> Callable[[Generator], Generator]:
    """Register a function as the generator of a kernel family."""

    def register(function: Generator) -> Generator:
        assert family not in _GENERATORS, f"{family} has two generators"
        assert function.__doc__, f"the generator of {family} has no docstring"
        _GENERATORS[family] = function
        return function

    return register


def emit_kernel(
    builder: Builder,
    kernel: Kernel,
    tiling: Tiling,
    operands: tuple[Storage, ...],
    result: Storage,
    name: str,
    eagerness: Eagerness = PLANNED,
) -> None:
    """Emit the micros of a kernel.

    Args:
        builder: Takes the micros and the kernel's buffers.
        kernel: What to run.
        tiling: How it is cut.
        operands: Where the operands lie: shards in the scratchpad, or global tensors in DRAM addressed
            by the kernel's shardings.
        result: Where the result goes, likewise.
        name: Prefix of the names of buffers.
        eagerness: What to do beyond the plan.
    """
    if kernel.family is Family.ALIAS or kernel.result_type.elements == 0:
        return
    context = KernelContext(builder, kernel, tiling, operands, result, name, eagerness)
    if kernel.halo:
        context.operands = (exchange_halo(context), *operands[1:])
    if kernel.vocabulary:
        context.operands = (operands[0], local_rows(context))
    _GENERATORS[kernel.family](context)
