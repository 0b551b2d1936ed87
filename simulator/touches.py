"""From instructions to the memory accesses they make: where, by which tile, reading or writing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.isa import Access, Instruction, Opcode, Space
from tilewright.lowering.program import HostRegion
from tilewright.simulator.actors import EVERY, ActorSet, conflicting, union
from tilewright.simulator.footprint import Dims, StridedSet, normalised, overlap, reach


@dataclass(frozen=True, slots=True)
class Relation:
    """Which tile accesses my scratchpad: those at `offset` from me plus any distance along `axes`."""

    offset: tuple[int, ...]
    axes: int = 0

    @property
    def is_own(self) -> bool:
        """Whether it is only the tile itself."""
        return not self.axes and not any(self.offset)


@dataclass(frozen=True, slots=True)
class LocalTouch:
    """An access to each tile's scratchpad; all tiles' pieces lie in their own memory.

    Args:
        write: Whether it writes.
        actor: Who does it.
        base: First byte for coordinates 0.
        itemsize: Bytes of one element.
        dims: Strided dimensions, with the senders of a multicast.
        coefficients: Bytes per coordinate of the addressing tile.
        moved: What to add (modulo the sizes) to the memory's coordinates to get those of the addressing tile.
    """

    write: bool
    actor: Relation
    base: int
    itemsize: int
    dims: Dims
    coefficients: tuple[int, ...]
    moved: tuple[int, ...]

    def piece(self, coordinates: tuple[int, ...], sizes: tuple[int, ...]) -> StridedSet:
        """Return the bytes in the scratchpad of the tile at some coordinates."""
        base = self.base
        for c, at, move, n in zip(self.coefficients, coordinates, self.moved, sizes, strict=True):
            base += c * ((at + move) % n)
        return normalised(base, self.itemsize, self.dims)

    def actors(self, coordinates: tuple[int, ...], sizes: tuple[int, ...]) -> ActorSet:
        """Return which tiles touch which bytes of the scratchpad of the tile at some coordinates."""
        senders = self.actor.axes.bit_count()
        whole = self.piece(coordinates, sizes).base
        rows = zip(coordinates, self.actor.offset, sizes, strict=True)
        only = [(at + offset) % n for at, offset, n in rows]
        shares = [0] * len(sizes)
        inside = (axis for axis in range(len(sizes)) if self.actor.axes >> axis & 1)
        for axis, (share, _) in zip(inside, self.dims[:senders], strict=True):
            only[axis], shares[axis] = EVERY, share
        # normalising moved the base to the lowest byte; the piece starts at coordinate 0
        lowest, _ = reach(self.dims)
        piece = normalised(whole - lowest, self.itemsize, self.dims[senders:])
        return ActorSet(piece, tuple(shares), tuple(only))

    def everywhere(self, sizes: tuple[int, ...]) -> StridedSet:
        """Return the bytes on all tiles together."""
        dims = (*zip(self.coefficients, sizes, strict=True), *self.dims)
        return normalised(self.base, self.itemsize, dims)

    def hull(self, sizes: tuple[int, ...]) -> tuple[int, int]:
        """Return the smallest interval that holds the bytes on all tiles."""
        return self.everywhere(sizes).hull


@dataclass(frozen=True, slots=True)
class SharedTouch:
    """An access to DRAM by all tiles, or by those at coordinate 0 of some axes."""

    write: bool
    actors: ActorSet

    def everywhere(self, sizes: tuple[int, ...]) -> StridedSet:
        """Return the bytes of all tiles together."""
        return union(self.actors, sizes)

    def hull(self, sizes: tuple[int, ...]) -> tuple[int, int]:
        """Return the smallest interval that holds the bytes of all tiles."""
        return self.everywhere(sizes).hull


Touch = LocalTouch | SharedTouch


def _dims(access: Access, domain: tuple[int, ...]) -> Dims:
    return tuple((s, n) for s, n in zip(access.strides, domain, strict=True) if s)


def _local(access: Access, dims: Dims, mesh: LogicalMesh, *, write: bool) -> LocalTouch:
    own = (0,) * mesh.rank
    size = access.dtype.itemsize_bytes
    return LocalTouch(write, Relation(own), access.base, size, dims, access.coefficients, own)


def _touch(
    access: Access, domain: tuple[int, ...], mesh: LogicalMesh, *, write: bool, leaders: int = 0
) -> Touch:
    dims = _dims(access, domain)
    if access.space == Space.L1:
        return _local(access, dims, mesh, write=write)
    piece = normalised(access.base, access.dtype.itemsize_bytes, dims)
    alone = [bool(leaders >> axis & 1) for axis in range(mesh.rank)]
    shares = tuple(0 if one else c for one, c in zip(alone, access.coefficients, strict=True))
    return SharedTouch(write, ActorSet(piece, shares, tuple(0 if one else EVERY for one in alone)))


def _send_touches(instruction: Instruction, mesh: LogicalMesh) -> Iterator[Touch]:
    source, dst = instruction.sources[0], instruction.dst
    assert dst is not None
    axis = instruction.axes.bit_length() - 1
    shift = instruction.shift % mesh.sizes[axis]
    to_receiver = tuple(shift if a == axis else 0 for a in range(mesh.rank))
    to_sender = tuple(-shift if a == axis else 0 for a in range(mesh.rank))
    own = Relation((0,) * mesh.rank)
    read_dims, write_dims = _dims(source, instruction.domain), _dims(dst, instruction.domain)
    size = dst.dtype.itemsize_bytes
    yield LocalTouch(False, own, source.base, size, read_dims, source.coefficients, to_receiver)
    yield LocalTouch(
        True, Relation(to_sender), dst.base, size, write_dims, dst.coefficients, to_sender
    )


def _multicast_touches(instruction: Instruction, mesh: LogicalMesh) -> Iterator[Touch]:
    source, dst = instruction.sources[0], instruction.dst
    assert dst is not None
    yield _local(source, _dims(source, instruction.domain), mesh, write=False)
    senders = [a for a in range(mesh.rank) if instruction.axes >> a & 1]
    dims = (
        *((dst.coefficients[a], mesh.sizes[a]) for a in senders),
        *_dims(dst, instruction.domain),
    )
    rest = tuple(0 if a in senders else c for a, c in enumerate(dst.coefficients))
    own = (0,) * mesh.rank
    yield LocalTouch(
        True, Relation(own, instruction.axes), dst.base, dst.dtype.itemsize_bytes, dims, rest, own
    )


def touches(
    instruction: Instruction, mesh: LogicalMesh, regions: tuple[HostRegion, ...]
) -> Iterator[Touch]:
    """Yield the accesses of an instruction, reads first.

    A host region counts as an access by every tile: the program does not say which one starts it.
    """
    if instruction.opcode == Opcode.HOST:
        region = regions[instruction.count]
        for write, tensors in ((False, region.inputs), (True, region.outputs)):
            for tensor in tensors:
                if tensor.size_bytes:
                    piece = StridedSet(tensor.address, tensor.size_bytes, ())
                    yield SharedTouch(
                        write, ActorSet(piece, (0,) * mesh.rank, (EVERY,) * mesh.rank)
                    )
    elif instruction.opcode == Opcode.SND:
        yield from _send_touches(instruction, mesh)
    elif instruction.opcode == Opcode.MCS:
        yield from _multicast_touches(instruction, mesh)
    elif instruction.dst is not None:
        for number, source in enumerate(instruction.sources):
            domain = instruction.domain
            if instruction.opcode == Opcode.GTH and number == 0:
                domain = (instruction.count, *domain[1:])
            yield _touch(source, domain, mesh, write=False)
        leaders = instruction.axes if instruction.opcode == Opcode.ST else 0
        if instruction.accumulate:
            yield _touch(instruction.dst, instruction.domain, mesh, write=False)
        yield _touch(instruction.dst, instruction.domain, mesh, write=True, leaders=leaders)


def sample_coordinates(sizes: tuple[int, ...], axes: int) -> list[tuple[int, ...]]:
    """Return the tiles with coordinates 0, 1 or the last on some axes and 0 on the others."""
    choices = [
        sorted({0, min(1, n - 1), n - 1}) if axes >> a & 1 else [0] for a, n in enumerate(sizes)
    ]
    return list(product(*choices))


def moving_axes(touch: LocalTouch, sizes: tuple[int, ...]) -> int:
    """Return the axes (mask) along which an access has other addresses on other tiles."""
    return sum(
        1 << a
        for a, (c, n) in enumerate(zip(touch.coefficients, sizes, strict=True))
        if c and n > 1
    )


def local_overlap(a: LocalTouch, b: LocalTouch, sizes: tuple[int, ...]) -> bool:
    """Whether two scratchpad accesses share a byte, on any of a representative sample of tiles."""
    axes = moving_axes(a, sizes) | moving_axes(b, sizes)
    return any(
        overlap(a.piece(at, sizes), b.piece(at, sizes)) for at in sample_coordinates(sizes, axes)
    )


def local_conflict(
    x: LocalTouch, y: LocalTouch, sizes: tuple[int, ...], unordered: NDArray[np.bool_]
) -> bool:
    """Whether actors p of x and q of y with unordered[p - q] share a byte of some tile's scratchpad."""
    if not local_overlap(x, y, sizes):
        return False
    if not x.actor.axes and not y.actor.axes:
        return True
    # which sender meets the other access' tile differs from tile to tile, even if no address does
    axes = moving_axes(x, sizes) | moving_axes(y, sizes) | x.actor.axes | y.actor.axes
    return any(
        conflicting(x.actors(at, sizes), y.actors(at, sizes), sizes, unordered)
        for at in sample_coordinates(sizes, axes)
    )
