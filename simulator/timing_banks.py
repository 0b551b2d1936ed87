"""Banks of scratchpads that hold their addresses in blocks: which of them an instruction uses, and how much.

Each bank is a server of its own: it reads or writes its part of the scratchpad's rate, and payloads that
meet in one share that. The words of an operand come one after the other, so that it is never faster than one
bank; over the time of an instruction, its bytes fall on the banks where they lie. Where banks are
interleaved, every access uses all of them alike, and the scratchpad's port says all there is to say. A
gather from the scratchpad is spread over its whole table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Scratchpad, Target
from tilewright.lowering.isa import Access, Instruction, Opcode, Space

Shares = tuple[tuple[int, float], ...]
"""Banks and the bytes of each for a byte of payload, by bank."""


class Traffic(NamedTuple):
    """What an instruction moves through one operand."""

    access: Access
    domain: tuple[int, ...]
    """What the access runs over."""
    size_bytes: float
    """Reads and writes, repeated ones too."""
    is_result: bool = False


@dataclass(frozen=True, slots=True)
class BankUse:
    """What a payload takes of banks; one entry for all tiles, or one for each position in the mesh."""

    own: tuple[Shares, ...]
    """Of the scratchpad of the tile that executes."""
    far: tuple[Shares, ...]
    """Of each receiver's, by position of the receiver if it is a shared read, else of the sender."""

    def own_at(self, position: int) -> Shares:
        """Return what the tile at a position takes of its own banks."""
        return self.own[position] if len(self.own) > 1 else self.own[0]

    def far_at(self, position: int) -> Shares:
        """Return what is taken of the banks of a receiver."""
        return self.far[position] if len(self.far) > 1 else self.far[0]


def bank_use(
    target: Target,
    mesh: LogicalMesh,
    instruction: Instruction,
    traffic: Iterable[Traffic],
    payload_bytes: float,
    *,
    is_shared: bool,
) -> BankUse | None:
    """Return what an instruction's payload takes of banks.

    Args:
        target: A machine whose banks are blocks.
        mesh: The logical mesh of the group.
        instruction: Without loops, so that its addresses are those of one execution.
        traffic: What each operand moves.
        payload_bytes: What the instruction moves as one.
        is_shared: Whether the tiles of a sub-mesh read from DRAM as one.

    Returns:
        None if it moves nothing through a scratchpad.
    """
    opcode = instruction.opcode
    own: list[Traffic] = []
    far: list[Traffic] = []
    for item in traffic:
        if item.access.space is not Space.L1 or not item.size_bytes:
            continue
        is_far = item.is_result and (is_shared or opcode in (Opcode.SND, Opcode.MCS))
        if is_far:
            far.append(item)
        if not is_far or opcode is Opcode.MCS:  # who casts is among the receivers
            own.append(item)
    if not own and not far:
        return None
    sram = target.tile.sram
    # a send reads what is meant for its receiver
    shift = instruction.shift if opcode is Opcode.SND else 0
    readers = _coordinates(mesh, instruction.axes, shift)
    makers = _coordinates(mesh, 0, 0)
    return BankUse(
        _by_position(sram, own, readers, payload_bytes),
        _by_position(sram, far, makers, payload_bytes),
    )


def bank_limit(sram: Scratchpad, traffic: Iterable[Traffic], payload_bytes: float) -> float:
    """Return the payload bytes a cycle at which one bank serves the largest operand."""
    most = max((t.size_bytes for t in traffic if t.access.space is Space.L1), default=0.0)
    return sram.bank_bytes_per_cycle * payload_bytes / most if most else inf


def _coordinates(mesh: LogicalMesh, axes: int, shift: int) -> tuple[tuple[int, ...], ...]:
    """Return the coordinates of each position, or of the one `shift` further along the one axis."""
    moved = [shift if axes >> axis & 1 else 0 for axis in range(mesh.rank)]
    return tuple(
        tuple((c + s) % n for c, s, n in zip(place, moved, mesh.sizes, strict=True))
        for place in product(*map(range, mesh.sizes))
    )


def _by_position(
    sram: Scratchpad,
    traffic: Sequence[Traffic],
    coordinates: tuple[tuple[int, ...], ...],
    payload_bytes: float,
) -> tuple[Shares, ...]:
    if not any(any(item.access.coefficients) for item in traffic):
        coordinates = coordinates[:1]
    found = []
    for place in coordinates:
        total = np.zeros(sram.banks)
        for item in traffic:
            access = item.access
            coefficients = access.coefficients or (0,) * len(place)
            base = access.base + sum(k * c for k, c in zip(coefficients, place, strict=True))
            parts = bank_parts(sram, access, item.domain, base)
            total += parts * item.size_bytes / payload_bytes
        found.append(tuple((bank, float(total[bank])) for bank in np.flatnonzero(total).tolist()))
    return (found[0],) if len(set(found)) == 1 else tuple(found)


def bank_parts(
    sram: Scratchpad, access: Access, domain: tuple[int, ...], base: int
) -> NDArray[np.float64]:
    """Return which part of an access's bytes lies in each bank, [banks].

    Args:
        sram: The scratchpad, its banks in blocks.
        access: Gives strides and the size of an element.
        domain: Sizes of the dimensions.
        base: Address of the first element.
    """
    run, low = access.dtype.itemsize_bytes, base
    steps: list[tuple[int, int]] = []
    dims = zip(access.strides, domain, strict=True)
    for stride, size in sorted((abs(s), n) for s, n in dims if s and n > 1):
        if stride == run and not steps:
            run *= size
        else:
            steps.append((stride, size))
    low += sum(s * (n - 1) for s, n in zip(access.strides, domain, strict=True) if s < 0)
    high = low + run + sum(stride * (size - 1) for stride, size in steps)
    parts = np.zeros(sram.banks)
    first, last = (min(at // sram.bank_bytes, sram.banks - 1) for at in (low, high - 1))
    if first == last:
        parts[first] = 1.0
        return parts
    starts = np.array([low], dtype=np.int64)
    for stride, size in steps:
        starts = (starts[:, None] + stride * np.arange(size)).reshape(-1)
    for bank in range(first, last + 1):
        begin = bank * sram.bank_bytes
        end = high if bank == last else begin + sram.bank_bytes
        inside = np.minimum(starts + run, end) - np.maximum(starts, begin)
        parts[bank] = np.maximum(inside, 0).sum()
    return parts / (run * prod(size for _, size in steps))
