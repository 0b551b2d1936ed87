"""Results that take the place of an operand: one buffer instead of two where nobody can tell.

An element-wise instruction may write what it reads, byte for byte in the same order (ISA.md). So a buffer
whose first bytes are written so from another one lies on top of it, if every byte of the other is read for
the last time no later than it is written over. Whoever comes later sees one buffer and orders its accesses
as any others. Where the instruction would have to wait for readers that it need not wait for otherwise, the
buffers stay apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.accesses import Touch, are_disjoint, buffers_of, touches, written_by
from tilewright.lowering.isa import Engine, Opcode, Space
from tilewright.lowering.micro import LinearProgram, Micro, Operand

_COMPARED = 4096
"""Pairs of accesses that are compared for one pair of buffers; those with more stay apart."""

_Uses = list[tuple[int, Touch]]
"""Accesses with the positions of their micros, in order."""


def reuse_in_place(linear: LinearProgram, mesh: LogicalMesh) -> LinearProgram:
    """Return the program with fewer buffers in its run phase; it computes the same.

    Args:
        linear: Micros in an order that is correct when executed one by one.
        mesh: The logical mesh of the group that runs them.
    """
    uses, complete = _uses(linear, mesh), _complete_before(linear.run)
    place: dict[int, int] = {}
    for position, micro in enumerate(linear.run):
        if micro.opcode is not Opcode.VEC or micro.accumulate or micro.dst is None:
            continue
        made = micro.dst.buffer
        if made not in uses or uses[made][0][0] != position:
            continue
        for source in micro.sources:
            old = place.get(source.buffer, source.buffer)
            if not _is_same(micro.dst, source) or old not in uses:
                continue
            is_known = all(
                at >= position or at <= complete[position][linear.run[at].engine]
                for at, _ in uses[old]
            )
            if is_known and _fits(linear, uses, old, made):
                uses[old] = sorted([*uses[old], *uses.pop(made)], key=lambda use: use[0])
                place[made] = old
                break
    return replace(linear, run=tuple(_moved(micro, place) for micro in linear.run))


def _uses(linear: LinearProgram, mesh: LogicalMesh) -> dict[int, _Uses]:
    """Return the accesses to each buffer of the scratchpad that only the run phase uses."""
    lasting = {number for micro in linear.load for number in buffers_of(micro)}
    lasting |= {b.number for b in linear.buffers if b.pinned or b.space is not Space.L1}
    found: dict[int, _Uses] = {}
    for position, micro in enumerate(linear.run):
        for touch in touches(micro, linear.buffers, mesh.sizes):
            if touch.buffer not in lasting:
                found.setdefault(touch.buffer, []).append((position, touch))
    return found


def _complete_before(run: Sequence[Micro]) -> list[tuple[int, ...]]:
    """Return, for each micro, up to which position each engine is through when it starts.

    That follows from the order of its own engine and from who wrote last what it and others read. It only
    decides what is worth while.
    """
    clocks = [(-1,) * len(Engine)] * len(Engine)
    writers: dict[int, tuple[int, ...]] = {}
    found = []
    for position, micro in enumerate(run):
        known = [writers[s.buffer] for s in micro.sources if s.buffer in writers]
        before = tuple(map(max, zip(clocks[micro.engine], *known, strict=True)))
        found.append(before)
        after = tuple(position if e == micro.engine else at for e, at in enumerate(before))
        clocks[micro.engine] = after
        for number in written_by(micro):
            writers[number] = after
    return found


def _is_same(a: Operand, b: Operand) -> bool:
    """Whether two operands are the same bytes of their buffers in the same order."""
    return (a.offset_bytes, a.dtype.itemsize_bytes, a.coefficients, a.strides) == (
        *(b.offset_bytes, b.dtype.itemsize_bytes, b.coefficients, b.strides),
    )


def _fits(linear: LinearProgram, uses: dict[int, _Uses], old: int, made: int) -> bool:
    """Whether one buffer may lie on another: what is written over is not looked at any more."""
    if linear.buffers[old].size_bytes != linear.buffers[made].size_bytes or old == made:
        return False
    first = uses[made][0][0]
    later = [(position, touch) for position, touch in uses[old] if position >= first]
    written = [(position, touch) for position, touch in uses[made] if touch.is_write]
    if any(touch.is_write for _, touch in later) or len(later) * len(written) > _COMPARED:
        return False
    return all(_is_over(linear.run, use, written) for use in later)


def _is_over(
    run: Sequence[Micro], read: tuple[int, Touch], written: Iterable[tuple[int, Touch]]
) -> bool:
    """Whether nothing is written over what is read before that, or only by the reader in its place."""
    position, touch = read
    for when, other in written:
        if when < position and not are_disjoint(touch, other):
            return False
        if when == position and not (_is_in_place(run[when], touch) or are_disjoint(touch, other)):
            return False
    return True


def _is_in_place(micro: Micro, read: Touch) -> bool:
    """Whether an instruction's accesses to a buffer that it reads are all the same as its result's."""
    assert micro.dst is not None, "it writes"
    mine = [source for source in micro.sources if source.buffer == read.buffer]
    return micro.opcode is Opcode.VEC and all(_is_same(micro.dst, source) for source in mine)


def _moved(micro: Micro, place: dict[int, int]) -> Micro:
    """Return a micro on the buffers where things lie now."""
    if not any(number in place for number in buffers_of(micro)):
        return micro

    def moved(operand: Operand) -> Operand:
        return replace(operand, buffer=place.get(operand.buffer, operand.buffer))

    dst = None if micro.dst is None else moved(micro.dst)
    return replace(micro, dst=dst, sources=tuple(moved(source) for source in micro.sources))
