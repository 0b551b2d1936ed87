"""Errors a user can act on; each class names what the user must change.

A message says where (node or file), what was found, what was expected, and one lever.
Lower case, no final period, numbers with units.
"""

from __future__ import annotations


class CompileError(Exception):
    """Root of every error that the compiler raises on purpose."""


class ModelError(CompileError):
    """The model file is broken, unsafe or self-contradictory."""


class ShapeError(ModelError):
    """Shapes in the model do not fit each other, or a dimension is unbound."""


class UnsupportedOpError(CompileError):
    """An operator can run neither on the target nor on the host."""


class TargetError(CompileError):
    """The hardware description is wrong."""


class CalibrationError(CompileError):
    """A calibration file is broken, or for something else, or no calibration would help."""


class RuleError(CompileError):
    """A rewrite rule is wrong."""


class InfeasibleError(CompileError):
    """No plan fits the resources; says demand, limit, gap and unit."""


class TimeLimitError(CompileError):
    """Planning was to end before there was a plan."""


class DemandError(CompileError):
    """A demand on a plan cannot be read, names what is not there, or contradicts another one."""


class InfeasibleDemandError(InfeasibleError):
    """Demands on a plan do not fit a resource.

    Attributes:
        demand: The least amount of the resource, of those tried, with which a plan is found.
        limit: How much there is.
        unit: Of both, e.g. "bytes of scratchpad".
        changes: What would satisfy the demands, each a change that was tried.
    """

    def __init__(
        self,
        what: str,
        *,
        demand: float,
        limit: float,
        unit: str,
        changes: tuple[str, ...],
        levers: str = "",
    ) -> None:
        """Write the message: what, demand, limit, gap, unit, changes, and levers that were not tried."""
        self.demand, self.limit, self.unit, self.changes = demand, limit, unit, changes
        ways = f"; it would fit with: {' | '.join(changes)}" if changes else ""
        super().__init__(
            f"{what}: demand {demand:,.0f}, limit {limit:,.0f}, gap {self.gap:,.0f} {unit}{ways}"
            + (f"; {levers}" if levers else "")
        )

    @property
    def gap(self) -> float:
        """By how much the demand exceeds the limit."""
        return self.demand - self.limit


class ScheduleError(CompileError):
    """A scheduling problem contradicts itself, or its file is broken."""


class ProgramError(CompileError):
    """A program file is broken, or its execution broke a rule of the machine."""


class UninitialisedError(ProgramError):
    """A program reads memory that nothing has written."""


class IntricateError(ProgramError):
    """A program may be right, but following its accesses takes too much work."""
