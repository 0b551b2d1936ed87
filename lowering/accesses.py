"""Which bytes of which buffers a micro touches on its own tile.

An access is summarised by its hull: the half-open byte interval, relative to the buffer, from the
first to the last byte over the domain and over all tile coordinates.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright.errors import ProgramError
from tilewright.lowering.isa import Opcode, Space
from tilewright.lowering.micro import Buffer, LinearProgram, Micro, Operand

_FEW = 4
"""Accesses that are compared faster one by one than as arrays."""


class Touch(NamedTuple):
    """An access of a micro to a buffer of its own tile (or of DRAM)."""

    buffer: int
    low: int
    """First byte, relative to the buffer."""
    high: int
    """One past the last byte."""
    is_write: bool
    terms: tuple[tuple[int, int], ...]
    """(distance in bytes > 0, count >= 2) of each way the access steps, largest distance first."""
    item_bytes: int
    coefficients: tuple[int, ...]
    leader_axes: int
    """Mask of the axes on which only coordinate 0 makes this access."""


def span_bytes(terms: tuple[tuple[int, int], ...], item_bytes: int) -> int:
    """Return the length of the hull of an access."""
    return item_bytes + sum(distance * (count - 1) for distance, count in terms)


@lru_cache(maxsize=65536)
def _steps(
    strides: tuple[int, ...],
    domain: tuple[int, ...],
    coefficients: tuple[int, ...],
    sizes: tuple[int, ...],
    leader_axes: int,
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return the lowest offset of an access on all tiles and its terms with positive distances."""
    low, terms = 0, []
    tiles = tuple(1 if leader_axes >> a & 1 else size for a, size in enumerate(sizes))
    for stride, count in zip(strides + coefficients, domain + tiles, strict=True):
        if stride == 0 or count < 2:
            continue
        low += min(0, stride) * (count - 1)
        terms.append((abs(stride), count))
    return low, tuple(sorted(terms, reverse=True))


def _whole_touch(number: int, size_bytes: int, rank: int, *, is_write: bool = True) -> Touch:
    """Return the access to a whole buffer."""
    return Touch(number, 0, size_bytes, is_write, (), size_bytes, (0,) * rank, 0)


def _touch(
    micro: Micro,
    operand: Operand,
    buffers: tuple[Buffer, ...],
    sizes: tuple[int, ...],
    *,
    is_write: bool,
    is_table: bool = False,
) -> Touch:
    buffer = buffers[operand.buffer]
    if micro.opcode is Opcode.HOST:
        return _whole_touch(operand.buffer, buffer.size_bytes, len(sizes), is_write=is_write)
    counts = micro.domain
    if is_table and counts:
        counts = (micro.count, *counts[1:])
    leader_axes = micro.axes if micro.opcode is Opcode.ST and is_write else 0
    strides = operand.strides or (0,) * len(micro.domain)
    coefficients = operand.coefficients or (0,) * len(sizes)
    low, terms = _steps(strides, counts, coefficients, sizes, leader_axes)
    item_bytes = operand.dtype.itemsize_bytes
    low += operand.offset_bytes
    high = low + span_bytes(terms, item_bytes)
    if low < 0 or high > buffer.size_bytes:
        raise ProgramError(
            f"{micro.opcode.name} of plan step {micro.tag}: bytes [{low}, {high}) of buffer "
            f"'{buffer.name}', expected within [0, {buffer.size_bytes}); "
            "fix the kernel generator that emitted it"
        )
    return Touch(operand.buffer, low, high, is_write, terms, item_bytes, coefficients, leader_axes)


def touches(micro: Micro, buffers: tuple[Buffer, ...], sizes: tuple[int, ...]) -> tuple[Touch, ...]:
    """Return the accesses that a micro makes on its own tile, reads before writes.

    `ready` and `arrive` write their destination; SND does not (it writes other tiles, between their
    ready and arrive). A HOST micro touches the DRAM buffers that it names from end to end: it reads
    `sources` and writes `dst`; without `dst`, all that it names count as written, and if it names
    none, all DRAM buffers do.

    Args:
        micro: The instruction.
        buffers: Table of all buffers.
        sizes: Size of each logical axis.

    Raises:
        ProgramError: An access leaves its buffer.
    """
    is_host = micro.opcode is Opcode.HOST and micro.dst is None
    if is_host and not micro.sources:
        whole = ((b.number, b.size_bytes) for b in buffers if b.space is Space.DRAM)
        return tuple(_whole_touch(number, size_bytes, len(sizes)) for number, size_bytes in whole)
    found = []
    for number, source in enumerate(micro.sources):
        is_table = micro.opcode is Opcode.GTH and number == 0
        found.append(_touch(micro, source, buffers, sizes, is_write=is_host, is_table=is_table))
    if micro.dst is not None and micro.opcode is not Opcode.SND:
        found.append(_touch(micro, micro.dst, buffers, sizes, is_write=True))
    return tuple(found)


def buffers_of(micro: Micro) -> tuple[int, ...]:
    """Return the numbers of all buffers that a micro names, on whatever tile."""
    named = [source.buffer for source in micro.sources]
    if micro.dst is not None:
        named.append(micro.dst.buffer)
    return tuple(named)


def written_by(micro: Micro) -> tuple[int, ...]:
    """Return the numbers of the buffers that a micro names and may write."""
    if micro.dst is not None:
        return (micro.dst.buffer,)
    return buffers_of(micro) if micro.opcode is Opcode.HOST else ()


def are_disjoint(a: Touch, b: Touch, distance_bytes: int = 0) -> bool:
    """Whether two accesses provably share no byte; False may also mean unknown.

    Besides comparing the hulls, reads addresses as numbers in base S for each distance S that
    occurs: if neither access carries out of its low digit, then they are disjoint when
    their high parts or their low parts are. That tells apart interleaved columns.

    Args:
        a: An access.
        b: Another one.
        distance_bytes: Address of b's buffer minus address of a's.
    """
    a_low, b_low = a.low, b.low + distance_bytes
    if a.high <= a_low or a.high <= b_low or b.high + distance_bytes <= a_low:
        return True
    # make both non-negative without changing their difference
    shift = -min(a_low, b_low, 0)
    for modulus in _moduli(a.terms, b.terms):
        first = _digits(a, a_low + shift, modulus)
        second = _digits(b, b_low + shift, modulus)
        if first is None or second is None:
            continue
        for (low_1, high_1), (low_2, high_2) in zip(first, second, strict=True):
            if high_1 <= low_2 or high_2 <= low_1:
                return True
    return False


def find_meeting(a: Touch, like: Touch, lows: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return which of many accesses may share a byte with another: those not `are_disjoint`.

    Args:
        a: An access.
        like: What the many have in common; only their first bytes differ.
        lows: First byte of each of the many, relative to a's buffer.
    """
    span = like.high - like.low
    near = np.flatnonzero((lows < a.high) & (lows + span > a.low))
    if a.high <= a.low or not len(near):
        return near[:0]
    if len(near) <= _FEW or lows[near].min() < 0:
        starts = lows[near].tolist()
        return near[[not are_disjoint(a, like, low - like.low) for low in starts]]
    for modulus in _moduli(a.terms, like.terms):
        first = _digits(a, a.low, modulus)
        high_digits, low_span = _digit_spans(like.terms, like.item_bytes, modulus)
        if first is None or low_span > modulus:
            continue
        (high_1, high_2), (low_1, low_2) = first
        quotients, remainders = np.divmod(lows[near], modulus)
        apart = (quotients >= high_2) | (quotients + high_digits < high_1)
        apart |= (remainders >= low_2) | (remainders + low_span <= low_1)
        near = near[~(apart & (remainders + low_span <= modulus))]
        if not len(near):
            break
    return near


@lru_cache(maxsize=65536)
def _moduli(a: tuple[tuple[int, int], ...], b: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Return the distances that occur in the terms of two accesses, largest first."""
    return tuple(sorted({distance for distance, _ in a + b}, reverse=True))


@lru_cache(maxsize=65536)
def _digit_spans(
    terms: tuple[tuple[int, int], ...], item_bytes: int, modulus: int
) -> tuple[int, int]:
    """Return by how much address // modulus grows over an access, and the bytes of the rest."""
    high_digits, low_span = 0, item_bytes
    for distance, count in terms:
        if distance % modulus == 0:
            high_digits += distance // modulus * (count - 1)
        else:
            low_span += distance * (count - 1)
    return high_digits, low_span


def _digits(touch: Touch, low: int, modulus: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the half-open ranges of address // modulus and address % modulus, if exact."""
    high_digits, low_span = _digit_spans(touch.terms, touch.item_bytes, modulus)
    quotient, remainder = divmod(low, modulus)
    if remainder + low_span > modulus:
        return None
    return (quotient, quotient + high_digits + 1), (remainder, remainder + low_span)


def live_ranges(linear: LinearProgram) -> tuple[tuple[int, int], ...]:
    """Return each buffer's live range over the micros of load, then run; half-open.

    Pinned buffers, and buffers that both phases touch (run may be repeated), live from end to end.
    Buffers that nothing touches have an empty range.
    """
    boundary, total = len(linear.load), len(linear.load) + len(linear.run)
    first = [total] * len(linear.buffers)
    last = [-1] * len(linear.buffers)
    for position, micro in enumerate((*linear.load, *linear.run)):
        for number in buffers_of(micro):
            if last[number] < 0:
                first[number] = position
            last[number] = position
    ranges = []
    for buffer, start, final in zip(linear.buffers, first, last, strict=True):
        if buffer.pinned or start < boundary <= final:
            ranges.append((0, max(total, 1)))
        else:
            ranges.append((start, final + 1) if final >= 0 else (0, 0))
    return tuple(ranges)
