"""How many bytes each operand of a micro moves through the scratchpad's port."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from tilewright.hwmodel.cost import operand_elements, sums_moved
from tilewright.hwmodel.target import Target
from tilewright.lowering.isa import Opcode
from tilewright.lowering.micro import Micro, Operand

MOVERS = (Opcode.LD, Opcode.GTH, Opcode.ST, Opcode.SND, Opcode.MCS)
"""Opcodes whose payload is what they write."""


def product_sizes(micro: Micro) -> tuple[int, int, int, int]:
    """Return the batch and the sizes m, k and n of the product [m, k] x [k, n] that an MM computes."""
    sizes = dict.fromkeys("bmkn", 1)
    for role, size in zip(_roles(micro), micro.domain, strict=True):
        sizes[role] *= size
    return sizes["b"], sizes["m"], sizes["k"], sizes["n"]


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


def footprint_bytes(operand: Operand, domain: tuple[int, ...]) -> int:
    """Return the bytes over the dimensions that an operand has."""
    strides = operand.strides or (0,) * len(domain)
    sizes = (n for n, stride in zip(domain, strides, strict=True) if stride)
    return prod(sizes) * operand.dtype.itemsize_bytes


def moved_bytes(micro: Micro, target: Target) -> Iterator[int]:
    """Yield the bytes that each operand moves, repeats of a matrix unit included, the destination last."""
    assert micro.dst is not None, "it moves something"
    if micro.opcode is Opcode.MM:
        batch, m, k, n = product_sizes(micro)
        reads = operand_elements(target.tile, micro.sources[1].dtype, m, k, n)
        for elements, source in zip(reads, micro.sources, strict=True):
            yield batch * elements * source.dtype.itemsize_bytes
        times = sums_moved(target.tile.matrix, k) + micro.accumulate
        yield batch * m * n * times * micro.dst.dtype.itemsize_bytes
        return
    for source in micro.sources:
        yield footprint_bytes(source, micro.domain)
    if micro.opcode in MOVERS:
        yield prod(micro.domain) * micro.dst.dtype.itemsize_bytes
    else:
        yield footprint_bytes(micro.dst, micro.domain) * (1 + micro.accumulate)
