"""The functional simulator: executes a program's instructions on all tiles and returns its outputs.

Every instruction is one numpy operation over all tiles of the group. Numerics are those of the
target's engines; time is not modelled (see the timing simulator for that).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from tilewright.errors import ProgramError
from tilewright.graph import Array, TensorType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Space
from tilewright.lowering.program import DramTensor, HostRegion, Program
from tilewright.lowering.structure import check_structure
from tilewright.reference import evaluate_host
from tilewright.simulator.hazards import HazardReport, check_hazards
from tilewright.simulator.memory import AnyArray, Dram, TileMemory
from tilewright.simulator.scheduling import (
    Phase,
    Scheduler,
    external_semaphores,
    program_phases,
)
from tilewright.simulator.semantics import elementwise, matrix_product, reduce
from tilewright.simulator.together import Together

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionalReport:
    """What was executed."""

    instructions: int
    """Instructions of all engines, with loops unrolled; each ran on all tiles of its group."""
    by_opcode: Mapping[str, int]
    hazards: HazardReport | None
    """What the checks covered; None if they were not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionalResult:
    """Outputs by name, and a report."""

    outputs: Mapping[str, Array]
    report: FunctionalReport


@dataclass(slots=True)
class LoadCache:
    """Keeps what the load phase of one program leaves in memory, for further inferences.

    Fresh ones are empty; `run_program` fills and uses them.
    """

    program: Program | None = None
    dram: Dram | None = None
    tiles: tuple[TileMemory, ...] = ()
    checked: HazardReport | None = field(default=None)


class _Machine:
    """The state of all memories, and the execution of single instructions."""

    def __init__(self, program: Program, dram: Dram, tiles: tuple[TileMemory, ...]) -> None:
        self._regions = program.host_regions
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
                self._store(
                    memory,
                    instruction,
                    self._load(memory, mesh, instruction.sources[0], instruction.domain),
                )
            case Opcode.GTH:
                self._store(memory, instruction, self._gather(memory, mesh, instruction))
            case Opcode.ST:
                self._store_dram(memory, mesh, instruction)
            case Opcode.SND:
                _send(memory, mesh, instruction)
            case Opcode.MCS:
                _multicast(memory, mesh, instruction)
            case _:
                self._store(memory, instruction, _compute(memory, mesh.rank, instruction))

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
        places = []
        for axis in range(mesh.rank):
            n = max(table.shape[axis], indices.shape[axis])
            here = np.arange(n) if table.shape[axis] > 1 else np.zeros(n, np.int64)
            places.append(here.reshape([n if a == axis else 1 for a in range(mesh.rank + 1)]))
        return np.asarray(table[(*places, indices)])

    def _store_dram(self, memory: TileMemory, mesh: LogicalMesh, instruction: Instruction) -> None:
        assert instruction.dst is not None
        value = memory.read(instruction.sources[0], instruction.domain)
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
        inputs = [self._dram.tensor(t.address, t.shape, t.dtype.numpy) for t in region.inputs]
        types = tuple(TensorType(t.shape, t.dtype) for t in region.outputs)
        for tensor, result in zip(
            region.outputs, evaluate_host(region.model, inputs, types), strict=True
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


def _initial_dram(program: Program) -> Dram:
    dram = Dram(program.dram_bytes)
    for tensor, array in program.constants:
        dram.tensor(tensor.address, tensor.shape, tensor.dtype.numpy)[...] = array
    return dram


def _write_inputs(dram: Dram, tensors: tuple[DramTensor, ...], inputs: Mapping[str, Array]) -> None:
    for tensor in tensors:
        if tensor.name not in inputs:
            raise ProgramError(
                f"input '{tensor.name}' is missing; the program needs {[t.name for t in tensors]}"
            )
        array = np.asarray(inputs[tensor.name])
        if array.dtype != tensor.dtype.numpy or array.size != np.prod(tensor.shape, dtype=np.int64):
            found = f"{array.dtype}{list(array.shape)}"
            raise ProgramError(
                f"input '{tensor.name}' is {found}, expected {tensor.dtype}{list(tensor.shape)}"
            )
        dram.tensor(tensor.address, tensor.shape, tensor.dtype.numpy)[...] = array.reshape(
            tensor.shape
        )


def run_program(
    program: Program,
    inputs: Mapping[str, Array],
    *,
    check: bool = True,
    load_cache: LoadCache | None = None,
    progress: Progress | None = None,
    track: bool = True,
) -> FunctionalResult:
    """Execute a program.

    Args:
        program: The program.
        inputs: An array for each input, by name.
        check: Also look for races, reads of uninitialised memory and unbalanced semaphores.
        load_cache: Where to keep the result of the load phase for the next call.
        progress: Called with (instructions done, instructions in all) now and then.
        track: Store and compute once what is equal on all tiles along an axis. Values are the
            same without; it exists for tests.

    Returns:
        Outputs by name.

    Raises:
        ProgramError: The program is malformed or breaks a rule of the machine, or an input does not fit.
    """
    cache = load_cache if load_cache is not None else LoadCache()
    warm = cache.program is program
    if not warm:
        check_structure(program)
    hazards = cache.checked if warm else None
    if check and hazards is None:
        hazards = check_hazards(program, structure_checked=True)
    phases = list(program_phases(program))
    if warm and cache.dram is not None:
        phases = [p for p in phases if p[1] == "run"]
        dram, tiles = cache.dram.copy(), tuple(t.copy() for t in cache.tiles)
    else:
        dram = _initial_dram(program)
        tiles = tuple(
            TileMemory(g.mesh.sizes, program.sram_bytes, track=track) for g in program.groups
        )
    runner = _Runner(program, dram, tiles, [phase for _, _, phase in phases], progress)
    for group, kind, phase in phases:
        if kind == "load":
            runner.load(group, phase)
    if load_cache is not None and not warm:
        cache.program, cache.dram, cache.tiles = (
            program,
            dram.copy(),
            tuple(t.copy() for t in tiles),
        )
    (outputs,) = runner.run([phase for _, kind, phase in phases if kind == "run"], (inputs,))
    if load_cache is not None and check:
        cache.checked = hazards
    report = FunctionalReport(
        instructions=runner.total,
        by_opcode=dict(sorted(runner.counts.items())),
        hazards=hazards if check else None,
    )
    return FunctionalResult(outputs=outputs, report=report)


def run_stream(
    program: Program, inputs: Sequence[Mapping[str, Array]], *, check: bool = True
) -> tuple[Mapping[str, Array], ...]:
    """Execute a program for several inferences, which follow each other through its groups.

    A group begins an inference when it has completed the one before it; the host then writes the inputs that
    the group reads, and takes the outputs that it has written.

    Args:
        program: The program.
        inputs: The inputs of each inference, by name.
        check: Also look for races, reads of uninitialised memory and unbalanced semaphores.

    Returns:
        The outputs of each inference, by name.

    Raises:
        ProgramError: The program is malformed or breaks a rule of the machine, or an input does not fit.
    """
    check_structure(program)
    if check:
        check_hazards(program, structure_checked=True)
    phases = list(program_phases(program))
    tiles = tuple(TileMemory(g.mesh.sizes, program.sram_bytes) for g in program.groups)
    runner = _Runner(program, _initial_dram(program), tiles, [p for _, _, p in phases], None)
    for group, kind, phase in phases:
        if kind == "load":
            runner.load(group, phase)
    return runner.run([phase for _, kind, phase in phases if kind == "run"], inputs)


class _Runner:
    """Executes phases on one machine and counts what it did."""

    def __init__(
        self,
        program: Program,
        dram: Dram,
        tiles: tuple[TileMemory, ...],
        phases: Sequence[Phase],
        progress: Progress | None,
    ) -> None:
        self._program, self._dram = program, dram
        self._machine = _Machine(program, dram, tiles)
        self._progress = progress
        self.total = sum(phase.instructions for phase in phases)
        self.counts: Counter[str] = Counter()
        self._done = 0

    def load(self, group: int, phase: Phase) -> None:
        """Execute the load phase of a group."""
        for engine, index in Scheduler(phase).steps():
            self._execute(group, phase, engine, index)

    def run(
        self, phases: Sequence[Phase], inputs: Sequence[Mapping[str, Array]]
    ) -> tuple[Mapping[str, Array], ...]:
        """Execute the run phases of all groups for each inference; return the outputs."""
        program, dram = self._program, self._dram
        read = _tensors_of_groups(program.inputs, phases)
        written = _tensors_of_groups(program.outputs, phases)
        results: list[dict[str, Array]] = [{} for _ in inputs]

        def before(group: int, inference: int) -> None:
            _write_inputs(dram, read[group], inputs[inference])

        def after(group: int, inference: int) -> None:
            results[inference] |= {
                t.name: dram.tensor(t.address, t.shape, t.dtype.numpy).copy()
                for t in written[group]
            }

        together = Together(phases, external_semaphores(program), len(inputs), before, after)
        for group, engine, index in together.steps():
            self._execute(group, phases[group], engine, index)
        return tuple({t.name: found[t.name] for t in program.outputs} for found in results)

    def _execute(self, group: int, phase: Phase, engine: Engine, index: int) -> None:
        instruction = phase.streams[engine][index]
        try:
            self._machine.execute(group, phase.mesh, instruction)
        except ProgramError as error:
            raise ProgramError(f"{phase.describe(engine, index)}: {error}") from error
        except MemoryError as error:
            raise ProgramError(
                f"{phase.describe(engine, index)}: its operands do not fit into memory"
            ) from error
        self.counts[instruction.opcode.name] += 1
        self._done += 1
        if self._progress is not None and (self._done % 256 == 0 or self._done == self.total):
            self._progress(self._done, self.total)


def _tensors_of_groups(
    tensors: tuple[DramTensor, ...], phases: Sequence[Phase]
) -> tuple[tuple[DramTensor, ...], ...]:
    """Return which tensors each group touches; those that none does belong to the last."""
    found: list[list[DramTensor]] = [[] for _ in phases]
    bases = [
        np.array(
            [
                access.base
                for stream in phase.streams.values()
                for i in stream
                for access in (*i.sources, *(() if i.dst is None else (i.dst,)))
                if access.space is Space.DRAM
            ],
            dtype=np.int64,
        )
        for phase in phases
    ]
    for tensor in tensors:
        end = tensor.address + prod(tensor.shape) * tensor.dtype.itemsize_bytes
        users = [n for n, b in enumerate(bases) if np.any((b >= tensor.address) & (b < end))]
        for group in users or [len(phases) - 1]:
            found[group].append(tensor)
    return tuple(map(tuple, found))
