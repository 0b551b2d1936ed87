"""What a kernel's code may do beyond its plan, so that the engines of a tile wait less for each other.

Plans count two buffers for an operand that streams: one is filled while the other one is read. When a load or
a product takes longer than usual, because it shares links or the scratchpad's port with something else, the
next one is late. A third buffer, where the scratchpad has room, makes up for that.

While the first boxes of a kernel are loaded, nothing is multiplied; while its last result box is finished and
stored, nothing is loaded. A product whose first and last result boxes are cut in parts begins with the first
part, and stores all but the last part meanwhile. Each part fills the matrix unit anew, so it pays where such
loads take a share of the program's time, as in short programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tilewright.extract.kernel import Family, Kernel, box_loads, buffers, reduction_boxes
from tilewright.extract.kernel_price import first_load_cycles
from tilewright.extract.plan import Memory, Plan, Tiling
from tilewright.extract.planned import planned_kernel
from tilewright.extract.profile import sram_profile
from tilewright.graph import dequantises
from tilewright.hwmodel.target import Target

_BUFFERS = 2
"""That plans count for an operand that streams."""
_PARTS = 4
_LEAST_LOAD = 0.02
"""Of a program's cycles, what the first loads of a kernel take at least if it is cut in parts."""
_LEAST_BUFFERED = 0.2
"""Of a program's cycles, what kernels with third buffers take at least: they gain up to a tenth of it."""
_SPARE_SHARE = 0.9
"""Of the scratchpad, what third buffers may fill; packing leaves gaps."""


@dataclass(frozen=True, slots=True)
class Eagerness:
    """What one kernel may do beyond its plan."""

    thrice: frozenset[str] = frozenset()
    """The kernel's buffers of which there are three instead of two."""
    parts: int = 1
    """In which the first and the last result box are made."""


PLANNED = Eagerness()

Eager = Sequence[Eagerness]
"""By op: what its kernel does beyond the plan; empty if none does."""


def eager_kernels(plan: Plan, target: Target) -> Iterator[Eager]:
    """Yield what kernels may do beyond a plan: third buffers, then parts as well."""
    cycles = sum(planned.cost.latency_cycles for planned in plan.ops)
    room_bytes = int(_SPARE_SHARE * target.tile.sram.size_bytes)
    buffered, cut = [PLANNED] * len(plan.ops), [PLANNED] * len(plan.ops)
    buffered_cycles = 0.0
    for at, row in enumerate(sram_profile(plan, target).rows):
        planned = plan.ops[at]
        if planned.tiling is None or planned.op.kind != "matmul":
            continue
        kernel, tiling = planned_kernel(planned, plan.types, plan.mesh), planned.tiling
        buffered[at] = cut[at] = Eagerness(third_buffers(kernel, tiling, room_bytes - row))
        if buffered[at].thrice:
            buffered_cycles += planned.cost.latency_cycles
        load_cycles = first_load_cycles(kernel, tiling, target)
        if may_be_cut(kernel, tiling) and load_cycles >= _LEAST_LOAD * cycles:
            cut[at] = replace(cut[at], parts=_PARTS)
    if buffered_cycles >= _LEAST_BUFFERED * cycles > 0.0:
        yield tuple(buffered)
    if any(eager.parts > 1 for eager in cut):
        yield tuple(cut)


def third_buffers(kernel: Kernel, tiling: Tiling, spare_bytes: int) -> frozenset[str]:
    """Return the buffers of streamed operands of which one more fits the spare bytes."""
    found = set()
    streamed = {
        f"operand{n}"
        for n, memory in enumerate(kernel.operand_memory)
        if memory is Memory.DRAM and box_loads(kernel, tiling, n) > _BUFFERS
    }
    for buffer in buffers(kernel, tiling):
        if buffer.name in streamed and buffer.size_bytes <= spare_bytes:
            found.add(buffer.name)
            spare_bytes -= buffer.size_bytes
    return frozenset(found)


def may_be_cut(kernel: Kernel, tiling: Tiling) -> bool:
    """Whether each result box of a kernel is one product, of operands that it does not make or gather.

    Where sums are scattered, boxes are sent while the next ones are made anyway.
    """
    return (
        kernel.family is Family.CONTRACT
        and kernel.on_matrix_unit
        and kernel.loop_in_pieces is None
        and not dequantises(kernel.attrs)
        and reduction_boxes(kernel, tiling) == 1
    )
