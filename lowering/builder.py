"""Programs written by hand, for experiments and for tests of the simulators.

`ProgramBuilder` gives out addresses and collects instructions. In `step`s, every instruction
waits for the one before it, through semaphores where the engine changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod

import numpy as np

from tilewright.dtypes import DType
from tilewright.graph import Array
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.lowering.program import DramTensor, Group, HostRegion, Program

_ALIGNMENT_BYTES = 64
_FIRST_FREE_SEMAPHORE = 32


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


class ProgramBuilder:
    """Collects the streams and tensors of a program with one group of tiles.

    Semaphores below 32 are used by `step`; `semaphore` hands out the others.
    """

    def __init__(self, target: Target, mesh: LogicalMesh, name: str = "handwritten") -> None:
        self.target = target
        self.mesh = mesh
        self.name = name
        self._streams: dict[str, dict[Engine, list[Instruction]]] = {
            phase: {engine: [] for engine in Engine} for phase in ("load", "run")
        }
        self._previous: dict[str, Engine | None] = {"load": None, "run": None}
        self._tensors: dict[str, list[DramTensor]] = {"input": [], "output": []}
        self._constants: list[tuple[DramTensor, Array]] = []
        self._regions: list[HostRegion] = []
        self._dram_bytes = 0
        self._sram_bytes = 0
        self._semaphores = _FIRST_FREE_SEMAPHORE

    def tensor(self, name: str, shape: tuple[int, ...], dtype: DType) -> DramTensor:
        """Reserve DRAM for a tensor."""
        found = DramTensor(name=name, dtype=dtype, shape=shape, address=self._dram_bytes)
        self._dram_bytes += _aligned(prod(shape) * dtype.itemsize_bytes)
        return found

    def input(self, name: str, shape: tuple[int, ...], dtype: DType = DType.F32) -> DramTensor:
        """Reserve DRAM for an input of the program."""
        self._tensors["input"].append(self.tensor(name, shape, dtype))
        return self._tensors["input"][-1]

    def output(self, name: str, shape: tuple[int, ...], dtype: DType = DType.F32) -> DramTensor:
        """Reserve DRAM for an output of the program."""
        self._tensors["output"].append(self.tensor(name, shape, dtype))
        return self._tensors["output"][-1]

    def constant(self, name: str, array: Array) -> DramTensor:
        """Reserve DRAM for a constant."""
        tensor = self.tensor(name, array.shape, DType.from_numpy(array.dtype))
        self._constants.append((tensor, array))
        return tensor

    def host_region(self, region: HostRegion) -> int:
        """Add a host region; return its number."""
        self._regions.append(region)
        return len(self._regions) - 1

    def scratch(self, size_bytes: int) -> int:
        """Reserve scratchpad bytes on every tile; return the address."""
        address = self._sram_bytes
        self._sram_bytes += _aligned(size_bytes)
        return address

    def semaphore(self) -> int:
        """Return the number of an unused semaphore."""
        self._semaphores += 1
        return self._semaphores - 1

    def access(
        self,
        space: Space,
        base: int,
        domain: tuple[int, ...],
        dtype: DType = DType.F32,
        *,
        strides: tuple[int, ...] | None = None,
        coefficients: tuple[int, ...] | None = None,
    ) -> Access:
        """Return an access.

        Args:
            space: Address space.
            base: Address [bytes].
            domain: Sizes of the dimensions that dense row-major strides are made for.
            dtype: Element type.
            strides: Strides in elements, if not dense.
            coefficients: Bytes per coordinate of each mesh axis; 0 if not given.
        """
        size = dtype.itemsize_bytes
        if strides is None:
            strides = tuple(prod(domain[d + 1 :]) for d in range(len(domain)))
        if coefficients is None:
            coefficients = (0,) * self.mesh.rank
        return Access(space, dtype, base, coefficients, tuple(s * size for s in strides))

    def emit(self, instruction: Instruction, phase: str = "run") -> None:
        """Append an instruction to its engine's stream, as it is."""
        self._streams[phase][instruction.engine].append(instruction)

    def step(self, instruction: Instruction, phase: str = "run") -> None:
        """Append an instruction that starts when the one of the previous step is complete."""
        previous = self._previous[phase]
        if previous not in (None, instruction.engine):
            assert previous is not None
            semaphore = previous * len(Engine) + instruction.engine
            stream = self._streams[phase][previous]
            stream[-1] = replace(stream[-1], posts=(*stream[-1].posts, Post(semaphore, 1)))
            instruction = replace(instruction, waits=(*instruction.waits, Wait(semaphore, 1)))
        self._previous[phase] = instruction.engine
        self.emit(instruction, phase)

    def barrier(self) -> None:
        """Make the next step start when all tiles have completed the previous one."""
        if self.mesh.tiles == 1:
            return
        axes, semaphore = (1 << self.mesh.rank) - 1, self.semaphore()
        post = (Post(semaphore, 1, remote=True),)
        self.step(Instruction(opcode=Opcode.PS, engine=Engine.CT, axes=axes, posts=post))
        wait = (Wait(semaphore, self.mesh.tiles - 1),)
        self.step(Instruction(opcode=Opcode.WT, engine=Engine.CT, waits=wait))

    def build(self, tags: Iterable[str] = ()) -> Program:
        """Return the program; every stream that is not empty ends with HALT."""

        def streams(phase: str) -> dict[Engine, tuple[Instruction, ...]]:
            found = self._streams[phase].items()
            return {e: (*s, Instruction(opcode=Opcode.HALT, engine=e)) for e, s in found if s}

        group = Group(
            mesh=self.mesh,
            tiles=tuple(range(self.mesh.tiles)),
            load=streams("load"),
            run=streams("run"),
        )
        return Program(
            name=self.name,
            target=self.target,
            groups=(group,),
            inputs=tuple(self._tensors["input"]),
            outputs=tuple(self._tensors["output"]),
            constants=tuple((t, np.asarray(a)) for t, a in self._constants),
            host_regions=tuple(self._regions),
            dram_bytes=self._dram_bytes,
            sram_bytes=self._sram_bytes,
            tags=tuple(tags),
        )
