"""A compiled program: everything that the simulators need besides the model's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType

from tilewright.dtypes import DType
from tilewright.graph import Array, HostModel
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.lowering.isa import Engine, Instruction

VALUES_ABSENT: Mapping[str, str] = MappingProxyType({"values": "absent"})
"""Fact of a program whose constants are zeros in place of values that were not loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DramTensor:
    """A dense row-major tensor at an address of DRAM."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    address: int

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes, from its address on."""
        return prod(self.shape) * self.dtype.itemsize_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRegion:
    """Work for the host: reads `inputs` from DRAM, writes `outputs` to DRAM."""

    model: HostModel
    inputs: tuple[DramTensor, ...]
    outputs: tuple[DramTensor, ...]


Streams = Mapping[Engine, tuple[Instruction, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Tiles that execute the same streams.

    `tiles[i]` is the physical tile id of logical linear coordinate i (row-major over the mesh axes).
    The load phase runs once (it fills resident weights), the run phase once for each inference.
    """

    mesh: LogicalMesh
    tiles: tuple[int, ...]
    load: Streams
    run: Streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Instructions, memory image and interface of one compiled model."""

    name: str
    target: Target
    groups: tuple[Group, ...]
    inputs: tuple[DramTensor, ...]
    outputs: tuple[DramTensor, ...]
    constants: tuple[tuple[DramTensor, Array], ...]
    host_regions: tuple[HostRegion, ...]
    dram_bytes: int
    """DRAM bytes in use; addresses are below it."""
    sram_bytes: int
    """Scratchpad bytes in use on every tile; addresses are below it."""
    tags: tuple[str, ...] = ()
    """Name of plan step i + 1."""
    facts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What the compiler claims of this program (predicted cycles, bound, gap…), for reports."""

    @property
    def streams(self) -> tuple[tuple[Instruction, ...], ...]:
        """All streams: of each group those of the load phase, then of the run phase, by engine."""
        phases = [phase for group in self.groups for phase in (group.load, group.run)]
        return tuple(phase[engine] for phase in phases for engine in Engine if engine in phase)

    @property
    def scheduled_cycles(self) -> float | None:
        """What the static schedule, or those of the stages, predict of an inference."""
        try:
            return float(self.facts["schedule_cycles"])
        except (KeyError, ValueError):  # facts are free text
            return None
