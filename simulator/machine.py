"""The machine of the functional simulator: all memories, and the execution of single instructions.

Every instruction is one numpy operation over all tiles of its group.
"""

from __future__ import annotations

from math import prod

import numpy as np

from tilewright.errors import ProgramError
from tilewright.graph import TensorType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.isa import Access, Instruction, Opcode, Space
from tilewright.lowering.program import HostRegion, Program
from tilewright.reference import evaluate_host
from tilewright.simulator.host_model import check_host_model
from tilewright.simulator.limits import DEFAULT_LIMITS, Limits, Meter
from tilewright.simulator.memory import AnyArray, Dram, TileMemory
from tilewright.simulator.semantics import elementwise, matrix_product, reduce


class Machine:
    """The state of all memories, and the execution of single instructions."""

    def __init__(
        self,
        program: Program,
        dram: Dram,
        tiles: tuple[TileMemory, ...],
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._regions = program.host_regions
        self._meter = Meter(limits)
        self._dram = dram
        self._tiles = tiles

    def execute(self, group: int, mesh: LogicalMesh, instruction: Instruction) -> None:
        """Execute an instruction on all tiles of a group."""
        memory = self._tiles[group]
        match instruction.opcode:
            case Opcode.WT | Opcode.PS | Opcode.SIG:
                pass
            case Opcode.HOST:
                self._host(self._regions[instruction.count])
            case Opcode.LD:
                value = self._load(memory, mesh, instruction.sources[0], instruction.domain)
                self._account(mesh, instruction, value)
                self._store(memory, instruction, value)
            case Opcode.GTH:
                self._store(memory, instruction, self._gather(memory, mesh, instruction))
            case Opcode.ST:
                self._store_dram(memory, mesh, instruction)
            case Opcode.SND | Opcode.MCS:
                source = memory.read(instruction.sources[0], instruction.domain)
                self._account(mesh, instruction, source)
                copy = _send if instruction.opcode is Opcode.SND else _multicast
                copy(memory, mesh, instruction)
            case _:
                sources = (memory.read(s, instruction.domain) for s in instruction.sources)
                self._account(mesh, instruction, *sources)
                self._store(memory, instruction, _compute(memory, mesh.rank, instruction))

    def _account(self, mesh: LogicalMesh, instruction: Instruction, *operands: AnyArray) -> None:
        """Refuse an instruction that takes too much time or memory, before it executes."""
        dst, domain = instruction.dst, instruction.domain
        assert dst is not None
        lead = [
            max(n if dst.coefficients[a] else 1, *(x.shape[a] for x in operands), 1)
            for a, n in enumerate(mesh.sizes)
        ]
        written = prod(n for n, stride in zip(domain, dst.strides, strict=True) if stride)
        elements = sum(x.size for x in operands) + prod(lead) * written
        self._meter.spend(prod(lead) * prod(domain), elements)

    def _load(
        self, memory: TileMemory, mesh: LogicalMesh, access: Access, domain: tuple[int, ...]
    ) -> AnyArray:
        if access.space == Space.L1:
            return memory.read(access, domain)
        return self._dram.view(access, domain, mesh.sizes)

    def _store(self, memory: TileMemory, instruction: Instruction, value: AnyArray) -> None:
        assert instruction.dst is not None
        memory.write(instruction.dst, instruction.domain, value)

    def _gather(self, memory: TileMemory, mesh: LogicalMesh, instruction: Instruction) -> AnyArray:
        table_access, index_access = instruction.sources
        indices = memory.read(index_access, instruction.domain)
        indices = indices.reshape(indices.shape[: mesh.rank + 1])
        rows = instruction.count
        if indices.size and (indices.min() < 0 or indices.max() >= rows):
            raise ProgramError(
                f"index {int(indices.min())}..{int(indices.max())} is outside 0..{rows - 1}"
            )
        table = self._load(memory, mesh, table_access, (rows, *instruction.domain[1:]))
        # the table's own rows are not copied
        self._account(
            mesh, instruction, indices.reshape(indices.shape + (1,) * (table.ndim - indices.ndim))
        )
        places = []
        for axis in range(mesh.rank):
            n = max(table.shape[axis], indices.shape[axis])
            here = np.arange(n) if table.shape[axis] > 1 else np.zeros(n, np.int64)
            places.append(here.reshape([n if a == axis else 1 for a in range(mesh.rank + 1)]))
        return np.asarray(table[(*places, indices)])

    def _store_dram(self, memory: TileMemory, mesh: LogicalMesh, instruction: Instruction) -> None:
        assert instruction.dst is not None
        value = memory.read(instruction.sources[0], instruction.domain)
        self._account(mesh, instruction, value)
        leading = [bool(instruction.axes >> axis & 1) for axis in range(mesh.rank)]
        sizes = tuple(1 if alone else n for alone, n in zip(leading, mesh.sizes, strict=True))
        for axis, alone in enumerate(leading):
            if alone and value.shape[axis] > 1:
                value = value.take([0], axis=axis)
        target = self._dram.view(instruction.dst, instruction.domain, sizes)
        for axis, name in enumerate(mesh.names):
            if value.shape[axis] > target.shape[axis]:
                raise ProgramError(
                    f"tiles along axis '{name}' store different data to the same bytes"
                )
        target[...] = value

    def _host(self, region: HostRegion) -> None:
        check_host_model(region.model.model_bytes)
        inputs = [self._dram.tensor(t.address, t.shape, t.dtype.numpy) for t in region.inputs]
        types = tuple(TensorType(t.shape, t.dtype) for t in region.outputs)
        for tensor, result in zip(
            region.outputs,
            evaluate_host(region.model, inputs, types, self._meter.limits.host_seconds),
            strict=True,
        ):
            self._dram.tensor(tensor.address, tensor.shape, tensor.dtype.numpy)[...] = result


def _compute(memory: TileMemory, lead: int, instruction: Instruction) -> AnyArray:
    domain = instruction.domain
    assert instruction.dst is not None
    if instruction.opcode == Opcode.VEC:
        return elementwise(instruction, [memory.read(s, domain) for s in instruction.sources], lead)
    # the sources are read last: reading may move data between the stores of the memory
    if instruction.opcode == Opcode.RED:
        old = memory.read(instruction.dst, domain) if instruction.accumulate else None
        return reduce(
            instruction, memory.read(instruction.sources[0], domain, full=True), old, lead
        )
    old = memory.read(instruction.dst, domain) if instruction.accumulate else None
    a, b = (memory.read(s, domain) for s in instruction.sources)
    return matrix_product(instruction, a, b, old, lead)


def _send(memory: TileMemory, mesh: LogicalMesh, instruction: Instruction) -> None:
    """Copy to the tile `shift` further along one axis."""
    source, dst = instruction.sources[0], instruction.dst
    assert dst is not None
    domain = instruction.domain
    axis = instruction.axes.bit_length() - 1
    n = mesh.sizes[axis]
    shift = instruction.shift % n
    step = source.coefficients[axis]
    if step == 0 or shift == 0:
        value = np.array(memory.read(source, domain))
    else:
        # sender c addresses with the receiver's coordinate, c + shift before and c + shift - n after the wrap
        first = memory.read_part(source, domain, axis, (0, n - shift), step * shift)
        second = memory.read_part(source, domain, axis, (n - shift, n), step * (shift - n))
        value = np.concatenate((first, second), axis=axis)
    if value.shape[axis] > 1:
        value = np.roll(value, shift, axis=axis)
    step = dst.coefficients[axis]
    if step == 0 or shift == 0:
        memory.write(dst, domain, value)
        return
    value = np.broadcast_to(value, [*value.shape[:axis], n, *value.shape[axis + 1 :]])
    low, high = np.split(value, [shift], axis=axis)
    memory.write_part(dst, domain, high, axis, shift, -step * shift)
    memory.write_part(dst, domain, low, axis, 0, step * (n - shift))


def _multicast(memory: TileMemory, mesh: LogicalMesh, instruction: Instruction) -> None:
    """Copy to every tile of a sub-mesh; the senders become leading dimensions of the domain."""
    dst = instruction.dst
    assert dst is not None
    value = np.array(memory.read(instruction.sources[0], instruction.domain))
    axes = [axis for axis in range(mesh.rank) if instruction.axes >> axis & 1]
    # [*mesh, *domain] -> [*mesh with 1 for the senders' axes, *senders, *domain]
    expanded = np.expand_dims(value, tuple(range(mesh.rank, mesh.rank + len(axes))))
    for place, axis in enumerate(axes):
        expanded = expanded.swapaxes(axis, mesh.rank + place)
    coefficients = tuple(0 if axis in axes else c for axis, c in enumerate(dst.coefficients))
    strides = (*(dst.coefficients[axis] for axis in axes), *dst.strides)
    everywhere = Access(dst.space, dst.dtype, dst.base, coefficients, strides)
    # senders that write to the same place (a race) leave the last one's data
    for place, axis in enumerate(axes):
        if dst.coefficients[axis] == 0 and expanded.shape[mesh.rank + place] > 1:
            expanded = expanded.take([-1], axis=mesh.rank + place)
    memory.write(everywhere, (*(mesh.sizes[axis] for axis in axes), *instruction.domain), expanded)
