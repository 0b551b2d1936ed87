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


class RuleError(CompileError):
    """A rewrite rule is wrong."""


class InfeasibleError(CompileError):
    """No plan fits the resources; says demand, limit, gap and unit."""


class ProgramError(CompileError):
    """A program file is broken, or its execution broke a rule of the machine."""
