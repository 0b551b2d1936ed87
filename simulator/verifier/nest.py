"""Streams with their loops: each instruction with the counts of the loops around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from tilewright.lowering.isa import Access, Engine, Instruction, Opcode
from tilewright.lowering.program import Group, Program, Streams
from tilewright.simulator.scheduling import describe

_CONTROL = (Opcode.LOOP, Opcode.END, Opcode.HALT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An instruction at its place in a rolled stream.

    Attributes:
        group: Number of its group.
        phase: "load" or "run".
        engine: Its queue.
        position: In the rolled stream.
        instruction: Itself.
        counts: Iterations of the loops around it, outermost first; none is 0.
    """

    group: int
    phase: str
    engine: Engine
    position: int
    instruction: Instruction
    counts: tuple[int, ...]

    @property
    def times(self) -> int:
        """How often it is executed in its phase."""
        return prod(self.counts)

    def describe(self, tags: Sequence[str]) -> str:
        """Name it for a message."""
        place = f"group {self.group} {self.phase} {self.engine.name}, instruction {self.position}"
        return f"{place} {describe(self.instruction, tags)}"

    def steps(self, access: Access) -> tuple[tuple[int, int], ...]:
        """Return (bytes for each iteration, iterations) of the loops that move an access."""
        return tuple(zip(access.steps, self.counts, strict=False))


def phases(program: Program) -> Iterator[tuple[str, int, Group, Streams]]:
    """Yield phase, group number, group and streams in the order of execution."""
    for kind in ("load", "run"):
        for number, group in enumerate(program.groups):
            yield kind, number, group, group.load if kind == "load" else group.run


def placed(program: Program) -> Iterator[Placed]:
    """Yield the instructions that are executed at least once, those of loops once."""
    for kind, number, _, streams in phases(program):
        for engine, stream in streams.items():
            counts: list[int] = []
            for position, instruction in enumerate(stream):
                if instruction.opcode is Opcode.LOOP:
                    counts.append(instruction.count)
                elif instruction.opcode is Opcode.END:
                    counts.pop()
                if instruction.opcode in _CONTROL or 0 in counts:
                    continue
                yield Placed(
                    group=number,
                    phase=kind,
                    engine=engine,
                    position=position,
                    instruction=instruction,
                    counts=tuple(counts),
                )
