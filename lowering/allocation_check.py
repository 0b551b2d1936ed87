"""An independent, naive check of allocations: compares every pair of buffers."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.errors import ProgramError
from tilewright.lowering.live_buffer import LiveBuffer


def check_allocation(
    buffers: Sequence[LiveBuffer],
    offsets: Sequence[int],
    *,
    capacity_bytes: int,
    alignment_bytes: int,
) -> None:
    """Check alignment, fixed addresses, bounds and that buffers in use together are apart.

    Args:
        buffers: What was placed.
        offsets: Address of each buffer.
        capacity_bytes: Size of the memory.
        alignment_bytes: Every address must be a multiple of it, and of the buffer's own alignment.

    Raises:
        ProgramError: The allocation is wrong; names the first buffer or pair at fault.
    """
    if len(buffers) != len(offsets):
        raise ProgramError(f"{len(offsets)} addresses for {len(buffers)} buffers")
    for buffer, offset in zip(buffers, offsets, strict=True):
        for multiple in (alignment_bytes, buffer.alignment_bytes):
            if offset % multiple:
                raise ProgramError(f"'{buffer.name}' at {offset}, not a multiple of {multiple}")
        if buffer.offset is not None and offset != buffer.offset:
            raise ProgramError(f"'{buffer.name}' at {offset}, must be at {buffer.offset}")
        if offset < 0 or (
            buffer.start < buffer.end and offset + buffer.size_bytes > capacity_bytes
        ):
            raise ProgramError(
                f"'{buffer.name}' takes [{offset}, {offset + buffer.size_bytes}) of {capacity_bytes}"
            )
    for i, (a, a_low) in enumerate(zip(buffers, offsets, strict=True)):
        for b, b_low in zip(buffers[:i], offsets[:i], strict=True):
            if _overlap(a, a_low, b, b_low):
                raise ProgramError(f"'{b.name}' at {b_low} and '{a.name}' at {a_low} overlap")


def _overlap(a: LiveBuffer, a_low: int, b: LiveBuffer, b_low: int) -> bool:
    """Whether two buffers use the same byte at the same time."""
    start, end = max(a.start, b.start), min(a.end, b.end)
    if start >= end or a_low >= b_low + b.size_bytes or b_low >= a_low + a.size_bytes:
        return False
    # what is in use changes only where a gap begins or ends
    changes = {start} | {t for x in (a, b) for gap in x.gaps for t in (gap.start, gap.end)}
    for time in sorted(t for t in changes if start <= t < end):
        a_first, a_last = _bytes_in_use(a, time)
        b_first, b_last = _bytes_in_use(b, time)
        if max(a_low + a_first, b_low + b_first) < min(a_low + a_last, b_low + b_last):
            return True
    return False


def _bytes_in_use(buffer: LiveBuffer, time: int) -> tuple[int, int]:
    """Return the bytes, relative to its start, that a live buffer uses at a time, half-open."""
    for gap in buffer.gaps:
        if gap.start <= time < gap.end:
            return gap.window or (0, 0)
    return (0, buffer.size_bytes)
