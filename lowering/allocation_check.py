"""An independent, naive check of allocations: compares every pair of buffers."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.errors import ProgramError
from tilewright.lowering.allocation import LiveBuffer


def check_allocation(
    buffers: Sequence[LiveBuffer],
    offsets: Sequence[int],
    *,
    capacity_bytes: int,
    alignment_bytes: int,
) -> None:
    """Check alignment, bounds and that buffers alive together are apart.

    Args:
        buffers: What was placed.
        offsets: Address of each buffer.
        capacity_bytes: Size of the memory.
        alignment_bytes: Every address must be a multiple of it.

    Raises:
        ProgramError: The allocation is wrong; names the first buffer or pair at fault.
    """
    if len(buffers) != len(offsets):
        raise ProgramError(f"{len(offsets)} addresses for {len(buffers)} buffers")
    for buffer, offset in zip(buffers, offsets, strict=True):
        if offset % alignment_bytes:
            raise ProgramError(f"'{buffer.name}' at {offset}, not a multiple of {alignment_bytes}")
        if offset < 0 or (
            buffer.start < buffer.end and offset + buffer.size_bytes > capacity_bytes
        ):
            raise ProgramError(
                f"'{buffer.name}' takes [{offset}, {offset + buffer.size_bytes}) of {capacity_bytes}"
            )
    for i, (a, a_low) in enumerate(zip(buffers, offsets, strict=True)):
        for b, b_low in zip(buffers[:i], offsets[:i], strict=True):
            in_time = a.start < b.end and b.start < a.end and a.start < a.end and b.start < b.end
            in_space = a_low < b_low + b.size_bytes and b_low < a_low + a.size_bytes
            if in_time and in_space and a.size_bytes and b.size_bytes:
                raise ProgramError(f"'{b.name}' at {b_low} and '{a.name}' at {a_low} overlap")
