"""The vocabulary of allocation: buffers that live for a while, and their gaps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A part of a live range in which a buffer is not used, or only in part."""

    start: int
    end: int
    """First time after the gap."""
    window: tuple[int, int] | None = None
    """Bytes in use during the gap, relative to the buffer's start, half-open; None: no byte is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveBuffer:
    """A buffer to place: alive from `start` (included) to `end` (excluded), in micros."""

    name: str
    size_bytes: int
    start: int
    end: int
    alignment_bytes: int = 1
    """The address is a multiple of it (and of what the whole memory asks for)."""
    gaps: tuple[Gap, ...] = ()
    """In order of time, apart from each other."""
    offset: int | None = None
    """The address, for a buffer that must lie there."""
