"""How much work a program may ask of the functional simulator before it is refused."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.errors import ProgramError

MAX_INSTRUCTIONS = 2_000_000
"""Instructions, loops unrolled, that are executed or compared with each other unless asked otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one execution.

    Attributes:
        instructions: With loops unrolled, of all streams of both phases.
        operations: Multiply-adds, and elements of other instructions, on all tiles that differ.
        instruction_bytes: Of the operands and the result of one instruction on all tiles that differ.
        comparisons: Records scanned and bytes compared in the search for races.
        host_seconds: Of one host region.
    """

    instructions: int = MAX_INSTRUCTIONS
    operations: int = 2**43
    instruction_bytes: int = 2**33
    comparisons: int = 2**38
    host_seconds: float = 600.0


DEFAULT_LIMITS = Limits()


class Meter:
    """Counts what an execution does and stops it in front of an instruction that goes too far."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.operations = 0

    def spend(self, operations: int, elements: int) -> None:
        """Account for an instruction.

        Args:
            operations: What it computes or moves.
            elements: Of its operands and result, held in up to 8 bytes each.

        Raises:
            ProgramError: A limit is exceeded.
        """
        self.operations += operations
        if self.operations > self.limits.operations:
            raise ProgramError(
                f"the program has asked for {self.operations} operations, expected at most "
                f"{self.limits.operations}; raise the limit if the work is meant"
            )
        if 8 * elements > self.limits.instruction_bytes:
            raise ProgramError(
                f"its operands take {8 * elements} bytes on all tiles, expected at most "
                f"{self.limits.instruction_bytes}; raise the limit, or use smaller tiles"
            )
