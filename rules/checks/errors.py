"""What a rewrite rule is refused for; badly written ones raise `registry.RuleWritingError`."""

from __future__ import annotations

from tilewright.errors import RuleError


class UnsoundRuleError(RuleError):
    """Both sides have different values although the conditions hold."""


class IllTypedRuleError(RuleError):
    """The right side has another shape or element type, or none, although the conditions hold."""


class VacuousRuleError(RuleError):
    """The rule hardly ever fires on the samples, so that a check would say nothing."""


class NeedlessConditionError(RuleError):
    """A condition of `when` is needed for nothing; it belongs into `bounds`, or away."""


class LoopingRuleError(RuleError):
    """The rule alone does not come to an end within the limits of saturation."""
