"""Bounds of every access: addresses are affine in coordinates, indices and loop counters.

The smallest and largest address of an affine form over a box are at its corners, so one look at each
instruction decides for all tiles and iterations.
"""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.lowering.isa import Access, Opcode, Space
from tilewright.lowering.program import Program
from tilewright.simulator.footprint import Dims, reach
from tilewright.simulator.verifier.nest import Placed, placed
from tilewright.simulator.verifier.verdict import Finding, Property, proven, refuted


def operands(item: Placed, sizes: tuple[int, ...]) -> Iterator[tuple[str, Access, Dims]]:
    """Yield name, access, and (bytes, count) of every dimension: tiles, domain and loops.

    Args:
        item: The instruction.
        sizes: Mesh sizes of its group.
    """
    i = item.instruction
    named = [(f"src{n}", source) for n, source in enumerate(i.sources)]
    if i.dst is not None:
        named.insert(0, ("dst", i.dst))
    for name, access in named:
        domain, tiles = i.domain, sizes
        if i.opcode is Opcode.GTH and name == "src0":
            domain = (i.count, *domain[1:])
        if i.opcode is Opcode.ST and name == "dst":
            tiles = tuple(1 if i.axes >> a & 1 else n for a, n in enumerate(sizes))
        yield (
            name,
            access,
            (
                *zip(access.coefficients, tiles, strict=True),
                *zip(access.strides, domain, strict=True),
                *item.steps(access),
            ),
        )


def check_bounds(program: Program) -> Finding:
    """Decide whether every access of every tile and iteration is inside its memory."""
    accesses = executed = 0
    for item in placed(program):
        sizes = program.groups[item.group].mesh.sizes
        for name, access, dims in operands(item, sizes):
            low, high = reach(dims)
            first = access.base + low
            last = access.base + high + access.dtype.itemsize_bytes
            limit = program.sram_bytes if access.space is Space.L1 else program.dram_bytes
            if first < 0 or last > limit:
                return refuted(
                    Property.BOUNDS,
                    f"{item.describe(program.tags)}: {name} reaches {access.space.name} bytes "
                    f"[{first:#x}, {last:#x}), the limit is {limit:#x}",
                )
            accesses, executed = accesses + 1, executed + item.times
    return proven(
        Property.BOUNDS,
        f"{accesses:,} accesses, executed {executed:,} times on each tile; indices of gathers are "
        "checked when they are known",
    )
