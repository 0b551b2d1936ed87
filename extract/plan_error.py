"""What the checks of plans raise."""

from __future__ import annotations

from tilewright.errors import CompileError


class PlanError(CompileError):
    """A plan is wrong: a bug of the compiler, not of its user."""
