"""The functional simulator: executes a program's instructions on all tiles and returns its outputs.

Every instruction is one numpy operation over all tiles of the group. Numerics are those of the
target's engines; time is not modelled (see the timing simulator for that).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tilewright.errors import ProgramError
from tilewright.graph import Array
from tilewright.lowering.isa import Engine, Space
from tilewright.lowering.program import DramTensor, Program
from tilewright.lowering.structure import check_structure, check_values
from tilewright.simulator.hazards import HazardReport, check_hazards
from tilewright.simulator.limits import DEFAULT_LIMITS, Limits
from tilewright.simulator.machine import Machine
from tilewright.simulator.memory import Dram, TileMemory
from tilewright.simulator.scheduling import (
    Phase,
    Scheduler,
    external_semaphores,
    program_phases,
)
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


def _initial_dram(program: Program) -> Dram:
    try:
        dram = Dram(program.dram_bytes)
    except MemoryError as error:
        raise ProgramError(f"{program.dram_bytes} bytes of DRAM do not fit into memory") from error
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
    limits: Limits = DEFAULT_LIMITS,
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
        limits: How much work the program may ask for; more raises.

    Returns:
        Outputs by name.

    Raises:
        ProgramError: The program is malformed or breaks a rule of the machine, or an input does not fit.
    """
    cache = load_cache if load_cache is not None else LoadCache()
    warm = cache.program is program
    if not warm:
        check_structure(program)
        check_values(program)
    hazards = cache.checked if warm else None
    if check and hazards is None:
        hazards = check_hazards(program, structure_checked=True, limits=limits)
    phases = list(program_phases(program, limits.instructions))
    if warm and cache.dram is not None:
        phases = [p for p in phases if p[1] == "run"]
        dram, tiles = cache.dram.copy(), tuple(t.copy() for t in cache.tiles)
    else:
        dram = _initial_dram(program)
        tiles = tuple(
            TileMemory(g.mesh.sizes, program.sram_bytes, track=track) for g in program.groups
        )
    runner = _Runner(program, dram, tiles, [phase for _, _, phase in phases], progress, limits)
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
    runner = _Runner(program, _initial_dram(program), tiles, [p for _, _, p in phases])
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
        progress: Progress | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._program, self._dram = program, dram
        self._machine = Machine(program, dram, tiles, limits)
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
        end = tensor.address + tensor.size_bytes
        users = [n for n, b in enumerate(bases) if np.any((b >= tensor.address) & (b < end))]
        for group in users or [len(phases) - 1]:
            found[group].append(tensor)
    return tuple(map(tuple, found))
