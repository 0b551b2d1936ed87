"""Programs of one plan whose kernels do more or less beyond it (`eager.py`), compared.

Each goes through the back end in the plan's order. What is beyond the plan takes room in which loads could
stand further ahead, and instructions; whether it is worth that, the static schedule says.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from tilewright.errors import InfeasibleError, ProgramError
from tilewright.extract.plan import Plan
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.lowering.backend import BackEnd, assemble_backend
from tilewright.lowering.durations import MicroTimes, micro_times
from tilewright.lowering.eager import Eager, eager_kernels
from tilewright.lowering.lowered import Lowered
from tilewright.lowering.scheduled import LEAST_GAIN, MOST_ORDERED


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A lowered plan as the back end takes it in the plan's order."""

    lowered: Lowered
    durations: MicroTimes
    back: BackEnd
    others: int = 0
    """How many drafts it was compared with."""

    @property
    def cycles(self) -> float:
        """Those of the static schedule."""
        return self.back.schedule.makespan_cycles


def draft_of(
    lowered: Lowered, target: Target, mesh: LogicalMesh, limit_bytes: int | None = None
) -> Draft:
    """Take a lowered plan through the back end; limit and errors are those of `assemble_backend`."""
    durations = micro_times(target, mesh, lowered.linear.buffers)
    back = assemble_backend(
        lowered.linear, target=target, mesh=mesh, durations=durations, limit_bytes=limit_bytes
    )
    return Draft(lowered=lowered, durations=durations, back=back)


def best_draft(
    planned: Draft, plan: Plan, target: Target, lower: Callable[[Eager], Lowered]
) -> Draft:
    """Return the draft whose static schedule is shortest; long programs stay as they are.

    Third buffers are also taken if it is as long: the static schedule does not know the scratchpad's port
    nor links that different transfers share, which is what they make up for. Parts make more instructions,
    so they have to be clearly shorter.

    Args:
        planned: The draft of what is planned.
        plan: The plan.
        target: The machine.
        lower: Lowers the plan with what its kernels do beyond it.
    """
    best, others = planned, 0
    if len(planned.lowered.linear.run) > MOST_ORDERED:
        return planned
    for eager in eager_kernels(plan, target):
        with suppress(InfeasibleError, ProgramError):  # too large, or semaphores run out
            others += 1
            draft = draft_of(lower(eager), target, plan.mesh, target.tile.sram.size_bytes)
            is_cut = any(eagerness.parts > 1 for eagerness in eager)
            if draft.cycles <= best.cycles * (1.0 - LEAST_GAIN * is_cut):
                best = draft
    return replace(best, others=others)
