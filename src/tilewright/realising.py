"""Programs of plans: a plan that cannot be lowered is made again without what stood in the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tilewright.errors import InfeasibleError
from tilewright.extract.avoid import NOTHING, Avoid
from tilewright.hwmodel.target import Target
from tilewright.lowering.allocation import DRAM, AllocationError
from tilewright.lowering.program import Program
from tilewright.lowering.synchronise import SemaphoreError

ATTEMPTS = 6
"""Plans that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Realised[T]:
    """What was planned in the end, its program, and why those before it were sent back."""

    planned: T
    program: Program
    rejected: tuple[str, ...]
    avoid: Avoid = NOTHING
    """What the plan had to avoid."""


def realised[T](
    first: T,
    lower: Callable[[T], Program],
    again: Callable[[T, int, Avoid], T],
    *,
    what: str,
    target: Target,
    limit_bytes: int,
    can_avoid: bool = True,
) -> Realised[T]:
    """Return the program of the first plan that can be lowered.

    What does not fit the scratchpad is planned with less of it. What needs more semaphores than there are is
    planned without exchanges along the axis with the fewest, then without values in DRAM; what does not fit
    DRAM, without values there that are just large enough.

    Args:
        first: The first plan, or whatever holds it.
        lower: Makes the program of one.
        again: Plans once more, within a limit of scratchpad, [bytes], and without what is to be avoided.
        what: What is planned, for the error.
        target: The machine.
        limit_bytes: Within which `first` was planned.
        can_avoid: Whether `again` heeds more than the limit.

    Raises:
        InfeasibleError: None of the plans can be lowered, none is found without what stands in the way, or
            nothing that could be avoided does.
    """
    sram, planned, avoid = target.tile.sram, first, NOTHING
    step_bytes = max(min(limit_bytes, sram.size_bytes) // 16, sram.alignment_bytes)
    rejected: list[str] = []
    while True:
        try:
            program = lower(planned)
        except (SemaphoreError, AllocationError) as error:
            reason: InfeasibleError = error
            more = _learnt(error, avoid) if can_avoid else None
        except InfeasibleError as error:
            reason, more = error, avoid
        else:
            return Realised(planned=planned, program=program, rejected=tuple(rejected), avoid=avoid)
        if more is None:
            tried = f" planned {avoid}" if avoid != NOTHING else ""
            raise InfeasibleError(f"{what} on '{target.name}'{tried}: {reason}") from reason
        rejected.append(str(reason) if more == avoid else f"{reason}; planned again {more}")
        if len(rejected) == ATTEMPTS:
            break
        if more == avoid:
            limit_bytes -= step_bytes
        avoid = more
        try:
            planned = again(planned, limit_bytes, avoid)
        except InfeasibleError as error:
            if avoid == NOTHING:
                raise
            raise InfeasibleError(
                f"{what} on '{target.name}': {rejected[-1]}, but {error}"
            ) from error
    raise InfeasibleError(
        f"{what} on '{target.name}': {ATTEMPTS} plans could not be lowered, the last one because "
        f"{rejected[-1]}"
    )


def _learnt(error: SemaphoreError | AllocationError, avoid: Avoid) -> Avoid | None:
    """Return what to avoid from now on, or None if nothing helps.

    It stays the same where the scratchpad is short. Values in DRAM take semaphores, too: their writers and
    readers wait for each other, and all tiles for each other in between.
    """
    if isinstance(error, SemaphoreError):
        axes = [axis for axis in error.axes if axis not in avoid.axes]
        if axes:
            return replace(avoid, axes=avoid.axes | {axes[0]})
        return None if avoid.dram_values else replace(avoid, dram_values=True)
    if error.memory != DRAM:
        return avoid
    # what is sent back should be as little as is enough; outputs pass, too, and stay
    sizes = sorted(size for size in set(error.passing_bytes) if not avoid.keeps_out(size))
    enough = [size for size in sizes if size >= error.conflict.shortfall_bytes] or sizes[-1:]
    if not enough:
        return None
    return replace(avoid, dram_values_bytes=avoid.dram_values_bytes | {enough[0]})
