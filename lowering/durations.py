"""How long a micro occupies its engine: the estimate behind the static schedule."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from tilewright.dtypes import DType
from tilewright.hwmodel.cost import matrix_cycles, vector_cycles
from tilewright.hwmodel.target import Target
from tilewright.lowering.isa import Opcode
from tilewright.lowering.micro import Buffer, Micro, Operand


def micro_durations(target: Target, buffers: tuple[Buffer, ...]) -> Callable[[Micro], float]:
    """Return a function that estimates the cycles of a micro on a tile.

    Transfers get their engine's rate and, from or to DRAM, an equal share of the memory's.
    """
    cache: dict[tuple[object, ...], float] = {}

    def duration(micro: Micro) -> float:
        key = _key(micro)
        if key not in cache:
            cache[key] = target.tile.control.issue_cycles + _cycles(micro, target, buffers)
        return cache[key]

    return duration


def _key(micro: Micro) -> tuple[object, ...]:
    """Return what the duration depends on."""
    operands = () if micro.dst is None else (micro.dst, *micro.sources)
    layouts = tuple((o.dtype, tuple(s != 0 for s in o.strides)) for o in operands)
    host = tuple(o.buffer for o in micro.sources) if micro.opcode is Opcode.HOST else ()
    return (micro.opcode, micro.domain, micro.fn, micro.axes, layouts, host)


def _cycles(micro: Micro, target: Target, buffers: tuple[Buffer, ...]) -> float:
    tile, elements = target.tile, prod(micro.domain)
    match micro.opcode:
        case Opcode.MM:
            assert micro.dst is not None
            sizes = dict.fromkeys("bmnk", 1)
            for role, size in zip(_roles(micro), micro.domain, strict=True):
                sizes[role] *= size
            dtype = micro.sources[1].dtype
            return matrix_cycles(tile, dtype, sizes["b"], sizes["m"], sizes["k"], sizes["n"])
        case Opcode.VEC | Opcode.RED:
            assert micro.dst is not None
            widest = max((o.dtype for o in (micro.dst, *micro.sources)), key=_width)
            return vector_cycles(tile, micro.fn, widest, elements)
        case Opcode.LD | Opcode.GTH:
            size = elements * _item_bytes(micro.dst)
            rate = min(tile.dma.in_bytes_per_cycle, _dram_share(target, micro.axes))
            return tile.dma.startup_cycles + target.dram.latency_cycles + size / rate
        case Opcode.ST:
            size = elements * _item_bytes(micro.dst)
            rate = min(tile.dma.out_bytes_per_cycle, _dram_share(target, micro.axes))
            return tile.dma.startup_cycles + target.dram.latency_cycles + size / rate
        case Opcode.SND | Opcode.MCS:
            return (
                tile.dma.startup_cycles
                + elements * _item_bytes(micro.dst) / tile.dma.out_bytes_per_cycle
            )
        case Opcode.HOST:
            named = {o.buffer for o in (*micro.sources, micro.dst) if o is not None}
            moved = sum(buffers[number].size_bytes for number in named)
            return target.host.latency_cycles + moved / target.host.bytes_per_cycle
        case _:
            return 0.0


def _width(dtype: DType) -> int:
    return dtype.itemsize_bytes


def _item_bytes(operand: Operand | None) -> int:
    assert operand is not None, "transfers have a destination"
    return operand.dtype.itemsize_bytes


def _dram_share(target: Target, axes: int) -> float:
    """Return the memory's bytes per cycle for one tile when all transfer together."""
    total = target.dram.ports * target.dram.port_bytes_per_cycle * target.dram.efficiency
    return total / target.tiles if axes == 0 else total


def _roles(micro: Micro) -> tuple[str, ...]:
    """Return the role of each dimension of an MM, see `isa.dimension_roles`."""
    assert micro.dst is not None
    left, right = micro.sources
    found = []
    for in_dst, in_left, in_right in zip(
        micro.dst.strides, left.strides, right.strides, strict=True
    ):
        if not in_dst:
            found.append("k")
        elif not in_left:
            found.append("n")
        else:
            found.append("b" if in_right else "m")
    return tuple(found)
