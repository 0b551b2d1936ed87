"""Data that must last: constants in DRAM, and what the load phase leaves for all runs.

Proven by sets of bytes: what is written has no byte in common with the constants, and what the run
phase writes none with what the load phase wrote. Sets are strided over tiles, domain and loops, so one
comparison stands for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from tilewright.lowering.isa import Opcode, Space
from tilewright.lowering.program import DramTensor, Program
from tilewright.simulator.footprint import Dims, StridedSet, normalised, overlap
from tilewright.simulator.verifier.bounds import operands
from tilewright.simulator.verifier.nest import Placed, placed
from tilewright.simulator.verifier.verdict import (
    Finding,
    Property,
    not_proven,
    proven,
    refuted,
)

MAX_MARKS = 1 << 28
"""Bytes that are compared one by one, of all sets together."""


@dataclass(frozen=True, slots=True)
class _Use:
    """Bytes that an instruction uses on all tiles and in all iterations."""

    what: str
    bytes: StridedSet


def _dense(what: str, tensor: DramTensor) -> Iterator[_Use]:
    if size := tensor.size_bytes:
        yield _Use(f"{what} '{tensor.name}'", StridedSet(tensor.address, size, ()))


def _stores(program: Program, items: Iterable[Placed], space: Space) -> list[_Use]:
    """Return what instructions write in a space."""
    found: dict[StridedSet, _Use] = {}
    for item in items:
        i = item.instruction
        for name, access, dims in operands(item, program.groups[item.group].mesh.sizes):
            if access.space is space and name == "dst":
                piece = normalised(access.base, access.dtype.itemsize_bytes, dims)
                if piece not in found:
                    found[piece] = _Use(item.describe(program.tags), piece)
        if space is Space.DRAM and i.opcode is Opcode.HOST:
            for tensor in program.host_regions[i.count].outputs:
                for use in _dense(f"{item.describe(program.tags)} for", tensor):
                    found.setdefault(use.bytes, use)
    return list(found.values())


def _meeting(left: Sequence[_Use], right: Sequence[_Use]) -> tuple[_Use, _Use, bool] | None:
    """Return two uses with a common byte and whether that is certain; None if there are none."""
    events = [
        (*use.bytes.hull, side, use) for side, uses in enumerate((left, right)) for use in uses
    ]
    active: tuple[list[tuple[int, _Use]], ...] = ([], [])
    work = 0
    for low, high, side, use in sorted(events, key=lambda event: event[:3]):
        others = active[1 - side]
        others[:] = [entry for entry in others if entry[0] > low]
        for _, other in others:
            one, two = (use, other) if side == 0 else (other, use)
            work += 1 + _marks(one.bytes, two.bytes)
            if work > MAX_MARKS:
                return one, two, False
            if overlap(one.bytes, two.bytes):
                return one, two, True
        active[side].append((high, use))
    return None


def _marks(a: StridedSet, b: StridedSet) -> int:
    """Return the work of comparing two sets byte by byte."""

    def work(piece: StridedSet, dims: Dims) -> int:
        low, high = piece.hull
        return max(high - low, piece.itemsize * prod(n for _, n in dims))

    return 0 if not a.dims and not b.dims else max(work(a, a.dims), work(b, b.dims))


def check_lasting(program: Program) -> Finding:
    """Decide whether a run leaves constants and resident data as they are."""
    constants = [u for t, _ in program.constants for u in _dense("constant", t)]
    # outputs are read after a run, never written but by stores: a constant may be one
    inputs = [u for t in program.inputs for u in _dense("input", t)]
    found = _meeting(constants, inputs + _stores(program, placed(program), Space.DRAM))
    if found is not None:
        return _overlapping(found, "share bytes of DRAM; the next run would read something else")
    resident = 0
    for group in range(len(program.groups)):
        mine = [item for item in placed(program) if item.group == group]
        loaded = _stores(program, (i for i in mine if i.phase == "load"), Space.L1)
        resident += len(loaded)
        written = _stores(program, (i for i in mine if i.phase == "run"), Space.L1)
        found = _meeting(loaded, written)
        if found is not None:
            # whether a run still reads those bytes from the load phase depends on their order
            return _overlapping(
                (found[0], found[1], False),
                "write the same bytes of L1; whether a run reads them before that is not followed",
            )
    return proven(
        Property.LASTING,
        f"{len(constants):,} constants and {resident:,} resident pieces, none of them written by a run",
    )


def _overlapping(found: tuple[_Use, _Use, bool], why: str) -> Finding:
    one, other, is_certain = found
    text = f"{one.what} and {other.what} {why}"
    return (
        refuted(Property.LASTING, text)
        if is_certain
        else not_proven(Property.LASTING, f"possibly {text}")
    )
