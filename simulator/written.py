"""Follows which bytes of all memories of a program have been written."""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.lowering.isa import Access, Instruction, Opcode, Space
from tilewright.lowering.program import Program
from tilewright.simulator.actors import union
from tilewright.simulator.footprint import StridedSet, normalised
from tilewright.simulator.initialised import InitialisedMap, common_unit
from tilewright.simulator.scheduling import Phase
from tilewright.simulator.touches import (
    LocalTouch,
    SharedTouch,
    Touch,
    moving_axes,
    sample_coordinates,
)


def _accesses(instruction: Instruction) -> tuple[Access, ...]:
    return (
        instruction.sources if instruction.dst is None else (instruction.dst, *instruction.sources)
    )


def _written_axes(instruction: Instruction, sizes: tuple[int, ...]) -> int:
    """Return the axes along which tiles' scratchpads are written at different addresses."""
    dst = instruction.dst
    if dst is None or dst.space == Space.DRAM:
        return 0
    axes = sum(
        1 << a for a, (c, n) in enumerate(zip(dst.coefficients, sizes, strict=True)) if c and n > 1
    )
    # after a multicast, the places of all its senders are written on every tile
    return axes & ~instruction.axes if instruction.opcode == Opcode.MCS else axes


def _numbers(access: Access) -> Iterator[int]:
    yield from (access.base, access.dtype.itemsize_bytes, *access.coefficients, *access.strides)


class Written:
    """Initialisation of DRAM and of the scratchpads of a sample of each group's tiles.

    Only axes along which tiles write different addresses are sampled; along the others, what
    is written on one tile is written on all.
    """

    def __init__(self, program: Program, phases: list[tuple[int, str, Phase]]) -> None:
        self._sizes = [g.mesh.sizes for g in program.groups]
        self._varying = [0] * len(program.groups)
        units: dict[Space, set[int]] = {Space.L1: set(), Space.DRAM: set()}
        for group, _, phase in phases:
            for stream in phase.streams.values():
                for instruction in stream:
                    self._varying[group] |= _written_axes(instruction, self._sizes[group])
                    for access in _accesses(instruction):
                        units[access.space].update(_numbers(access))
        self.samples = [
            sample_coordinates(s, v) for s, v in zip(self._sizes, self._varying, strict=True)
        ]
        ready = [*program.inputs, *(t for t, _ in program.constants)]
        tensors = [*ready, *(t for r in program.host_regions for t in (*r.inputs, *r.outputs))]
        for tensor in tensors:
            units[Space.DRAM].update((tensor.address, tensor.size_bytes))
        local_unit, shared_unit = (common_unit(sorted(units[s])) for s in (Space.L1, Space.DRAM))
        self._local = [InitialisedMap(program.sram_bytes, len(s), local_unit) for s in self.samples]
        self._shared = InitialisedMap(program.dram_bytes, 1, shared_unit)
        for tensor in ready:
            if tensor.size_bytes:
                self._shared.write([StridedSet(tensor.address, tensor.size_bytes, ())])

    def account(self, group: int, touch: Touch) -> bool:
        """Follow an access; return whether it reads bytes that were never written."""
        if isinstance(touch, SharedTouch):
            target, pieces = self._shared, [union(touch.actors, self._sizes[group])]
        else:
            target = self._local[group]
            samples = self.samples[group]
            if moving_axes(touch, self._sizes[group]) & self._varying[group]:
                pieces = [self._sampled(group, touch, at) for at in samples]
            else:
                pieces = [self._sampled(group, touch, samples[0])] * len(samples)
        if touch.write:
            target.write(pieces)
            return False
        return target.unwritten(pieces)

    def _sampled(self, group: int, touch: LocalTouch, coordinates: tuple[int, ...]) -> StridedSet:
        """Return a tile's bytes, together with those of the tiles along axes that are not sampled."""
        sizes, base = self._sizes[group], touch.base
        dims = list(touch.dims)
        for axis, n in enumerate(sizes):
            if self._varying[group] >> axis & 1:
                base += touch.coefficients[axis] * ((coordinates[axis] + touch.moved[axis]) % n)
            else:
                dims.append((touch.coefficients[axis], n))
        return normalised(base, touch.itemsize, tuple(dims))
