"""Programs of plans: a plan that cannot be allocated is made again, with less scratchpad to plan with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tilewright.errors import InfeasibleError
from tilewright.hwmodel.target import Target
from tilewright.lowering.program import Program

ATTEMPTS = 6
"""Plans that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Realised[T]:
    """What was planned in the end, its program, and why those before it were sent back."""

    planned: T
    program: Program
    rejected: tuple[str, ...]


def realised[T](
    first: T,
    lower: Callable[[T], Program],
    again: Callable[[T, int], T],
    *,
    what: str,
    target: Target,
    limit_bytes: int,
) -> Realised[T]:
    """Return the program of the first plan that can be allocated.

    Args:
        first: The first plan, or whatever holds it.
        lower: Makes the program of one.
        again: Plans once more, within a limit of scratchpad, [bytes].
        what: What is planned, for the error.
        target: The machine.
        limit_bytes: Within which `first` was planned.

    Raises:
        InfeasibleError: None of the plans can be allocated, or none is found within a limit.
    """
    sram, planned = target.tile.sram, first
    step_bytes = max(min(limit_bytes, sram.size_bytes) // 16, sram.alignment_bytes)
    rejected: list[str] = []
    while True:
        try:
            program = lower(planned)
        except InfeasibleError as error:
            rejected.append(str(error))
        else:
            return Realised(planned=planned, program=program, rejected=tuple(rejected))
        if len(rejected) == ATTEMPTS:
            break
        limit_bytes -= step_bytes
        planned = again(planned, limit_bytes)
    raise InfeasibleError(
        f"{what} on '{target.name}': {ATTEMPTS} plans could not be allocated, the last one because "
        f"{rejected[-1]}"
    )
