"""A naive machine that executes micros one by one, for tests of the generators of micros.

Tests may import the modules of this folder that hold cases, which the importlib mode would not find.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilewright.hwmodel.mesh import Sharding, local_shape
from tilewright.lowering.emit import Builder
from tilewright.lowering.isa import Opcode, Space
from tilewright.lowering.micro import Micro, Operand
from tilewright.reference import map_function

sys.path.insert(0, str(Path(__file__).parent))

AnyArray = np.ndarray[Any, np.dtype[Any]]
Coords = tuple[int, ...]
_PARAMETERS = {"hard_sigmoid": 2} | dict.fromkeys(
    "leaky_relu elu clip_min clip_max pow_const add_const mul_const".split(), 1
)


class MicroMachine:
    """Tiles with one byte array per scratchpad buffer, and one DRAM array per DRAM buffer.

    Memory starts as bytes of 255, so that floats read before they are written are NaN.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.mesh = builder.mesh
        self.coords: tuple[Coords, ...] = tuple(product(*(range(n) for n in self.mesh.sizes)))
        self.memory: dict[tuple[int, Coords], AnyArray] = {}
        for buffer in builder.buffers:
            for coords in self.coords if buffer.space is Space.L1 else ((),):
                self.memory[buffer.number, coords] = np.full(buffer.size_bytes, 255, np.uint8)

    # ------------------------------------------------------------------ whole tensors

    def pieces(
        self, sharding: Sharding, shape: tuple[int, ...]
    ) -> Iterator[tuple[Coords, tuple[slice, ...]]]:
        """Yield each tile's part of a tensor, from the definition of shardings."""
        local = local_shape(self.mesh, sharding, shape)
        for coords in self.coords:
            index = []
            for dim, size in enumerate(local):
                piece = 0
                for axis, state in enumerate(sharding):
                    if state == dim:
                        piece = piece * self.mesh.sizes[axis] + coords[axis]
                index.append(slice(piece * size, (piece + 1) * size))
            yield coords, tuple(index)

    def write(self, buffer: int, array: AnyArray, sharding: Sharding) -> None:
        """Write a tensor: shards to tiles, or all of it to DRAM."""
        if self.builder.buffers[buffer].space is Space.DRAM:
            self._bytes(buffer, ())[:] = np.ascontiguousarray(array).view(np.uint8).ravel()
            return
        for coords, index in self.pieces(sharding, array.shape):
            part = np.ascontiguousarray(array[index])
            self.memory[buffer, coords][:] = part.reshape(-1).view(np.uint8)

    def read_tile(
        self, buffer: int, coords: Coords, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> AnyArray:
        """Return what a buffer holds on one tile (or in DRAM, with no coordinates)."""
        return self._bytes(buffer, coords).view(dtype).reshape(shape)

    def _bytes(self, buffer: int, coords: Coords) -> AnyArray:
        return self.memory[buffer, coords if self.builder.buffers[buffer].space is Space.L1 else ()]

    # ------------------------------------------------------------------ execution

    def run(self, micros: Sequence[Micro]) -> None:
        """Execute micros in order, each on all tiles."""
        for micro in micros:
            if micro.opcode in (Opcode.PS, Opcode.WT):
                continue
            if micro.opcode is Opcode.SND:
                self._send(micro)
            elif micro.opcode is Opcode.MCS:
                self._multicast(micro)
            else:
                for coords in self.coords:
                    self._compute(micro, coords)

    def _offsets(self, micro: Micro, operand: Operand, coords: Coords) -> AnyArray:
        strides = operand.strides or (0,) * len(micro.domain)
        assert len(strides) == len(micro.domain) <= 8
        assert all(n >= 2 for n in micro.domain)
        base = operand.offset_bytes
        base += sum(c * x for c, x in zip(operand.coefficients, coords, strict=True))
        offsets = np.full((), base, np.int64)
        for size, stride in zip(micro.domain, strides, strict=True):
            offsets = offsets[..., None] + np.arange(size) * stride
        return offsets[..., None] + np.arange(operand.dtype.itemsize_bytes)

    def _check(self, operand: Operand, offsets: AnyArray) -> None:
        limit = self.builder.buffers[operand.buffer].size_bytes
        assert offsets.min() >= 0, "access before the buffer"
        assert offsets.max() < limit, "access behind the buffer"

    def _get(self, micro: Micro, operand: Operand, address: Coords, tile: Coords) -> AnyArray:
        offsets = self._offsets(micro, operand, address)
        self._check(operand, offsets)
        found = self._bytes(operand.buffer, tile)[offsets]
        return np.ascontiguousarray(found).view(operand.dtype.numpy)[..., 0]

    def _put(
        self, micro: Micro, operand: Operand, address: Coords, tile: Coords, value: AnyArray
    ) -> None:
        offsets = self._offsets(micro, operand, address)
        self._check(operand, offsets)
        dtype = operand.dtype.numpy
        full = np.ascontiguousarray(np.broadcast_to(value.astype(dtype), micro.domain))
        self._bytes(operand.buffer, tile)[offsets] = full[..., None].view(np.uint8)

    def _compute(self, micro: Micro, coords: Coords) -> None:
        dst = micro.dst
        assert dst is not None
        if micro.opcode is Opcode.GTH:
            self._gather(micro, coords)
            return
        values = [self._get(micro, source, coords, coords) for source in micro.sources]
        match micro.opcode:
            case Opcode.LD:
                shared = [a for a in range(self.mesh.rank) if micro.axes >> a & 1]
                assert all(micro.sources[0].coefficients[a] == 0 for a in shared)
                self._put(micro, dst, coords, coords, values[0])
            case Opcode.ST:
                if all(c == 0 for a, c in enumerate(coords) if micro.axes >> a & 1):
                    self._put(micro, dst, coords, coords, values[0])
            case Opcode.VEC:
                assert 0 not in dst.strides
                self._put(micro, dst, coords, coords, self._vector(micro, values))
            case Opcode.RED:
                self._reduce(micro, dst, coords, values[0])
            case Opcode.MM:
                self._matrix(micro, dst, coords, values[0], values[1])
            case _:
                raise AssertionError(micro.opcode)

    def _vector(self, micro: Micro, values: list[AnyArray]) -> AnyArray:
        assert micro.dst is not None
        dtype = micro.dst.dtype.numpy
        if micro.fn == "fill":
            return np.full(micro.domain, micro.immediates[0]).astype(dtype)
        if micro.fn == "cast":
            return values[0].astype(dtype)
        arguments = [repr(x) for x in micro.immediates[: _PARAMETERS.get(micro.fn, 0)]]
        found = map_function(micro.fn, arguments)(*values)
        assert found.dtype == dtype, f"{micro.fn} gives {found.dtype}, dst is {dtype}"
        return found

    def _kept(self, micro: Micro, dst: Operand) -> tuple[list[int], list[int]]:
        dims = range(len(micro.domain))
        return [d for d in dims if dst.strides[d]], [d for d in dims if not dst.strides[d]]

    def _accumulate(
        self, micro: Micro, dst: Operand, coords: Coords, found: AnyArray, fn: str
    ) -> None:
        functions = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
        if micro.accumulate:
            found = functions[fn](found, self._get(micro, dst, coords, coords))
        self._put(micro, dst, coords, coords, found)

    def _reduce(self, micro: Micro, dst: Operand, coords: Coords, value: AnyArray) -> None:
        assert value.dtype == dst.dtype.numpy, "a reduction keeps its element type"
        _, gone = self._kept(micro, dst)
        functions = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
        if gone:
            half = value.dtype.kind in "fV" and value.dtype.itemsize == 2
            wide = value.astype(np.float32) if half else value
            kwargs = {} if micro.fn in ("max", "min") else {"dtype": wide.dtype}
            found = functions[micro.fn].reduce(wide, axis=tuple(gone), keepdims=True, **kwargs)
        else:
            found = value
        self._accumulate(micro, dst, coords, found, micro.fn)

    def _matrix(
        self, micro: Micro, dst: Operand, coords: Coords, left: AnyArray, right: AnyArray
    ) -> None:
        for rows in zip(dst.strides, *(s.strides for s in micro.sources), strict=True):
            assert sum(s != 0 for s in rows) >= 2
        assert dst.dtype.value in ("f32", "i32")
        wide = dst.dtype.numpy
        _, gone = self._kept(micro, dst)
        products = left.astype(wide) * right.astype(wide)
        found = products.sum(axis=tuple(gone), keepdims=True, dtype=wide) if gone else products
        self._accumulate(micro, dst, coords, found, "sum")

    def _gather(self, micro: Micro, coords: Coords) -> None:
        assert micro.dst is not None
        table, indices = micro.sources
        rows = self._get(micro, indices, coords, coords).astype(np.int64)
        assert 0 <= rows.min()
        assert rows.max() < micro.count
        steps = np.arange(micro.domain[0]).reshape(-1, *(1,) * (len(micro.domain) - 1))
        offsets = (
            self._offsets(micro, table, coords) + ((rows - steps) * table.strides[0])[..., None]
        )
        self._check(table, offsets)
        found = self._bytes(table.buffer, coords)[offsets]
        value = np.ascontiguousarray(found).view(table.dtype.numpy)[..., 0]
        self._put(micro, micro.dst, coords, coords, value)

    # ------------------------------------------------------------------ transfers between tiles

    def _send(self, micro: Micro) -> None:
        assert micro.dst is not None
        (axis,) = (a for a in range(self.mesh.rank) if micro.axes >> a & 1)
        payloads = []
        for sender in self.coords:
            place = (sender[axis] + micro.shift) % self.mesh.sizes[axis]
            receiver = (*sender[:axis], place, *sender[axis + 1 :])
            value = self._get(micro, micro.sources[0], receiver, sender)
            payloads.append((sender, receiver, value))
        for sender, receiver, value in payloads:
            self._put(micro, micro.dst, sender, receiver, value)

    def _multicast(self, micro: Micro) -> None:
        assert micro.dst is not None
        payloads = [(c, self._get(micro, micro.sources[0], c, c)) for c in self.coords]
        for sender, value in payloads:
            for receiver in self.coords:
                differs = [a for a in range(self.mesh.rank) if sender[a] != receiver[a]]
                if all(micro.axes >> a & 1 for a in differs):
                    self._put(micro, micro.dst, sender, receiver, value)


@pytest.fixture
def micro_machine() -> type[MicroMachine]:
    """Return the class of naive machines."""
    return MicroMachine
