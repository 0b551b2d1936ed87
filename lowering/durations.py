"""How long a micro occupies its engine and the DRAM ports: the estimate behind the static schedule.

All tiles move in lock step, so that a transfer shares links and ports with the same one of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, prod

from tilewright.dtypes import DType
from tilewright.hwmodel.collectives import exchange_pattern, multicast_pattern
from tilewright.hwmodel.cost import matmul_cost, vector_cycles
from tilewright.hwmodel.dram_cost import (
    dram_ahead_cycles,
    dram_cycles,
    dram_write_cycles,
    padded_bytes,
    relay_cast_cycles,
)
from tilewright.hwmodel.halo import shift_pattern
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.lowering.isa import Opcode, Space
from tilewright.lowering.micro import Buffer, Micro, Operand
from tilewright.lowering.traffic import footprint_bytes, moved_bytes, product_sizes


@dataclass(frozen=True, slots=True)
class MicroTime:
    """Cycles of a micro in its engine, once what it waits for is done."""

    cycles: float
    port_cycles: float = 0.0
    """Those during which all DRAM ports are busy for all tiles, up to the end or the cast."""
    ahead_cycles: float = 0.0
    """Those that may pass while what the engine moves before still comes."""
    cast_cycles: float = 0.0
    """Those at the end in which a tile casts what it has read for others."""


MicroTimes = Callable[[Micro], MicroTime]
"""What each micro takes."""


def micro_times(target: Target, mesh: LogicalMesh, buffers: tuple[Buffer, ...]) -> MicroTimes:
    """Return a function that estimates what a micro takes when all tiles execute it.

    Args:
        target: The machine.
        mesh: The logical mesh over all of it.
        buffers: The table that operands refer to.
    """
    cache: dict[tuple[object, ...], MicroTime] = {}
    clock = _Clock(target, mesh, buffers)

    def time(micro: Micro) -> MicroTime:
        key = _key(micro, buffers)
        if key not in cache:
            cache[key] = clock.time(micro)
        return cache[key]

    return time


def _key(micro: Micro, buffers: tuple[Buffer, ...]) -> tuple[object, ...]:
    """Return what the time depends on."""
    operands = () if micro.dst is None else (micro.dst, *micro.sources)
    layouts: tuple[object, ...]
    match micro.opcode:
        case Opcode.LD | Opcode.ST | Opcode.GTH:
            layouts = tuple((buffers[o.buffer].space, o.dtype, o.strides) for o in operands)
        case Opcode.HOST:
            layouts = tuple(o.buffer for o in operands)
        case _:
            layouts = tuple((o.dtype, tuple(s != 0 for s in o.strides)) for o in operands)
    return (
        *(micro.opcode, micro.domain, micro.fn, micro.axes, micro.shift, micro.role),
        *(micro.accumulate, layouts),
    )


class _Clock:
    """Times micros on one machine."""

    def __init__(self, target: Target, mesh: LogicalMesh, buffers: tuple[Buffer, ...]) -> None:
        self._target, self._mesh, self._buffers = target, mesh, buffers

    def time(self, micro: Micro) -> MicroTime:
        """Return what a micro takes, issue included."""
        issue = self._target.tile.control.issue_cycles
        if micro.opcode in (Opcode.LD, Opcode.ST, Opcode.GTH):
            found = self._access(micro)
            return replace(found, cycles=issue + found.cycles)
        return MicroTime(issue + self._cycles(micro))

    def _cycles(self, micro: Micro) -> float:
        target, elements = self._target, prod(micro.domain)
        match micro.opcode:
            case Opcode.MM:
                return max(self._product_cycles(micro), self._bank_cycles(micro))
            case Opcode.VEC | Opcode.RED:
                operands = _operands(micro)
                widest = max((o.dtype for o in operands), key=_width)
                moved = sum(footprint_bytes(o, micro.domain) for o in operands)
                work = vector_cycles(target.tile, micro.fn, widest, elements)
                port = moved / target.tile.sram.bytes_per_cycle
                return max(work, port, self._bank_cycles(micro))
            case Opcode.SND | Opcode.MCS:
                size_bytes = elements * _item_bytes(micro.dst)
                rate = max(1 / target.tile.dma.out_bytes_per_cycle, self._link_rate(micro))
                return target.tile.dma.startup_cycles + size_bytes * rate
            case Opcode.PS | Opcode.WT if micro.role in ("ready", "arrive"):
                return self._post_cycles(micro)
            case Opcode.HOST:
                named = {o.buffer for o in (*micro.sources, micro.dst) if o is not None}
                moved = sum(self._buffers[number].size_bytes for number in named)
                return target.host.latency_cycles + moved / target.host.bytes_per_cycle
            case _:
                return 0.0

    def _product_cycles(self, micro: Micro) -> float:
        assert micro.dst is not None
        batch, m, k, n = product_sizes(micro)
        return matmul_cost(
            self._target,
            micro.sources[1].dtype,
            batch=batch,
            m=m,
            k=k,
            n=n,
            out_dtype=micro.dst.dtype,
            accumulates=micro.accumulate,
        ).matrix_cycles

    def _bank_cycles(self, micro: Micro) -> float:
        """Return what the largest operand takes where one bank at a time serves it."""
        sram = self._target.tile.sram
        if not sram.has_blocks:
            return 0.0
        return max(moved_bytes(micro, self._target)) / sram.bank_bytes_per_cycle

    def _link_rate(self, micro: Micro) -> float:
        """Return the cycles of the busiest link for a byte that every tile sends along one axis."""
        axis = self._axis(micro)
        if axis is None:
            return 0.0
        machine = (self._target, self._mesh, axis)
        if micro.opcode is Opcode.MCS:
            return multicast_pattern(*machine).cycles_per_byte
        if abs(micro.shift) == 1:
            return shift_pattern(*machine, micro.shift).cycles_per_byte
        # sends to all peers follow each other; the mean of them spares a look at each
        return exchange_pattern(*machine).cycles_per_byte / (self._mesh.sizes[axis] - 1)

    def _post_cycles(self, micro: Micro) -> float:
        """Return the cycles of a post from the farthest peer along one axis."""
        axis = self._axis(micro)
        if axis is None:
            return 0.0
        return multicast_pattern(self._target, self._mesh, axis).latency_cycles

    def _axis(self, micro: Micro) -> int | None:
        """Return the one axis along which a micro speaks to other tiles; None if there is none."""
        axis = micro.axes.bit_length() - 1
        is_one = axis >= 0 and micro.axes == 1 << axis and self._mesh.sizes[axis] > 1
        return axis if is_one else None

    def _access(self, micro: Micro) -> MicroTime:
        """Return what an access to memory takes; gathers may be from the scratchpad."""
        target, dma = self._target, self._target.tile.dma
        assert micro.dst is not None
        is_store = micro.opcode is Opcode.ST
        far, arriving = micro.dst if is_store else micro.sources[0], prod(micro.domain)
        size_bytes = arriving * micro.dst.dtype.itemsize_bytes
        if self._buffers[far.buffer].space is Space.L1:
            return MicroTime(dma.startup_cycles + size_bytes / dma.in_bytes_per_cycle)
        groups = self._mesh.tiles
        if micro.opcode is Opcode.GTH:
            run_bytes = _run_bytes(far, micro.domain, micro.sources[1])
            total_bytes = groups * size_bytes
        else:
            groups //= prod(n for a, n in enumerate(self._mesh.sizes) if micro.axes >> a & 1)
            run_bytes = _run_bytes(far, micro.domain)
            total_bytes = groups * footprint_bytes(far, micro.domain)
        ports = padded_bytes(target, total_bytes, run_bytes) / target.dram_bytes_per_cycle
        if not is_store:
            cycles = dram_cycles(target, total_bytes, size_bytes, run_bytes)
            if micro.opcode is not Opcode.LD:
                return MicroTime(cycles, min(ports, cycles))
            return MicroTime(
                cycles,
                min(ports, cycles),
                ahead_cycles=dram_ahead_cycles(target, total_bytes, size_bytes),
                cast_cycles=relay_cast_cycles(target, total_bytes, size_bytes),
            )
        own = dma.startup_cycles + target.dram.latency_cycles + size_bytes / dma.out_bytes_per_cycle
        shared = dram_write_cycles(target, ceil(total_bytes / target.tiles), run_bytes)
        return MicroTime(max(own, shared), min(ports, max(own, shared)))


def _operands(micro: Micro) -> tuple[Operand, ...]:
    assert micro.dst is not None, "the engine writes something"
    return (micro.dst, *micro.sources)


def _run_bytes(operand: Operand, domain: tuple[int, ...], index: Operand | None = None) -> int:
    """Return the length of the contiguous runs of an access; dimensions of an index jump."""
    run = operand.dtype.itemsize_bytes
    jumps = index.strides if index is not None else (0,) * len(domain)
    dims = zip(operand.strides, domain, jumps, strict=True)
    for stride, size in sorted((abs(s), n) for s, n, jump in dims if s and n > 1 and not jump):
        if stride != run:
            break
        run *= size
    return run


def _width(dtype: DType) -> int:
    return dtype.itemsize_bytes


def _item_bytes(operand: Operand | None) -> int:
    assert operand is not None, "transfers have a destination"
    return operand.dtype.itemsize_bytes
