"""Registration check of rewrite rules: a rule's left side is its own test case.

In this order: the rule is written as one; on random instances of its left side, biased towards the
borders, both sides have equal types and values wherever the conditions hold, whole numbers first; each
condition is needed; the rule fires, in the engine too, and comes to an end; its growth on the model zoo.
The parts are in `tilewright.rules.checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import process_time

import numpy as np

from tilewright.errors import RuleError
from tilewright.rules.checks.cache import cached, remember
from tilewright.rules.checks.conditions import (
    ConditionReport,
    Necessity,
    Purpose,
    required,
)
from tilewright.rules.checks.counterexample import counterexample
from tilewright.rules.checks.errors import (
    IllTypedRuleError,
    LoopingRuleError,
    NeedlessConditionError,
    UnsoundRuleError,
    VacuousRuleError,
)
from tilewright.rules.checks.growth import Growth, fire, measure_growth
from tilewright.rules.checks.instance import Instance
from tilewright.rules.checks.judging import Class, Failure, Kind, Tally, failures
from tilewright.rules.checks.matching import facts_of
from tilewright.rules.checks.patterns import Pattern
from tilewright.rules.checks.reading import pattern
from tilewright.rules.checks.sampling import Choices, Sampler
from tilewright.rules.checks.shrinking import shrink
from tilewright.rules.checks.writing import check_writing
from tilewright.rules.registry import Rule, RuleWritingError

LEAST_MATCHES = 10
_INSTANCES = 240
_MATCHES = 100
"""Instances are drawn until both numbers are reached ..."""
_MOST_DRAWS = 2000
"""... or so many were tried."""
_TYPES_FIRST = 60
"""So many draws are looked through for wrong types before wrong values are reported."""
_FIRED = 8
"""Matching instances that also run in the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a check saw; a rule that is wrong raises instead."""

    rule: str
    instances: int
    """Random instances of the left side."""
    matches: int
    """Those on which the conditions that equality needs hold."""
    conditions: tuple[ConditionReport, ...]
    growth: Growth
    seconds: float = field(compare=False)
    """CPU time of the check."""


@dataclass(frozen=True, slots=True)
class _Samples:
    """What the instances showed."""

    tally: Tally
    necessity: Necessity
    fitting: tuple[Instance, ...]
    """Some instances on which the conditions hold."""


def check_rule(made: Rule, *, seed: int = 0, count: int = _INSTANCES) -> CheckReport:
    """Check a rewrite rule; the same seed gives the same report.

    Args:
        made: The rule.
        seed: Seed of the random choices.
        count: Number of instances; more are drawn when the rule hardly matches.

    Raises:
        RuleWritingError: It is not written as a rule; says the line.
        IllTypedRuleError: Both sides have different types; shows the smallest counterexample.
        UnsoundRuleError: Both sides have different values; shows the smallest counterexample.
        NeedlessConditionError: A condition of `when` is needed for nothing.
        VacuousRuleError: It hardly ever fires, so that the check would say nothing.
        LoopingRuleError: Alone, it does not come to an end within the limits of saturation.
    """
    start = process_time()
    data = pattern(made)
    check_writing(made)
    samples = _sample(made, data, seed, count)
    _check_conditions(made, samples)
    if not fire(made, data, samples.fitting):
        raise VacuousRuleError(
            f"{made.where} never fires in the engine on instances that its conditions "
            "allow; a fact table lists other rows for a whole graph than for one operator"
        )
    return CheckReport(
        rule=made.name,
        instances=samples.tally.instances,
        matches=samples.tally.matches,
        conditions=samples.necessity.report(),
        growth=measure_growth(made),
        seconds=process_time() - start,
    )


def check_rules(
    rules: Iterable[Rule],
    *,
    cache: bool = True,
    progress: Callable[[str], None] | None = None,
) -> tuple[CheckReport, ...]:
    """Check rules, or recall reports of equal rules that were checked before.

    Args:
        rules: The rules.
        cache: Look reports up in, and add them to, the user's cache.
        progress: Called with each rule's name before its check.

    Raises:
        RuleError: The first rule that fails; see `check_rule`.
    """
    reports = []
    for made in rules:
        if progress is not None:
            progress(made.name)
        report = cached(made, CheckReport) if cache else None
        if report is None:
            report = check_rule(made)
            if cache:
                remember(made, report)
        reports.append(report)
    return tuple(reports)


def condition_purposes(made: Rule, *, seed: int = 0) -> tuple[ConditionReport, ...]:
    """Return what each condition of a rule is needed for.

    Raises:
        RuleError: The rule fails its check on instances.
    """
    return _sample(made, pattern(made), seed, _INSTANCES).necessity.report()


def _sample(made: Rule, data: Pattern, seed: int, count: int) -> _Samples:
    """Judge random instances; whole numbers come first."""
    precision = Class(made.numerics, made.tolerance)
    sampler = Sampler(data, Choices(precision.dtypes), np.random.default_rng(seed))
    conditions = required(data)
    tally, necessity = Tally(), Necessity(data, precision)
    fitting: list[Instance] = []
    enough = max(min(_MATCHES, count), LEAST_MATCHES)
    wrong: Failure | None = None
    for draw in range(_MOST_DRAWS):
        instance = sampler.draw(precision.values_of(draw, count))
        if instance is None:
            continue
        before, facts = tally.matches, facts_of(data, instance)
        wrong = _worse(wrong, failures(data, precision, instance, facts, conditions, tally))
        if wrong is not None and (wrong.kind is Kind.TYPES or draw >= _TYPES_FIRST):
            break
        if tally.matches > before and len(fitting) < _FIRED:
            fitting.append(instance)
        necessity.try_without(instance, facts)
        if tally.instances >= count and tally.matches >= enough:
            break
    if wrong is not None:
        raise _refusal(made, data, wrong, seed)
    if tally.matches < LEAST_MATCHES:
        raise VacuousRuleError(
            f"{made.where} fires on {tally.matches} of {tally.instances} random "
            f"instances of its left side ({_MOST_DRAWS} draws), expected at least {LEAST_MATCHES}; "
            f"{_rarest(necessity)}"
        )
    return _Samples(tally, necessity, tuple(fitting))


def _worse(one: Failure | None, other: Failure | None) -> Failure | None:
    """Return the failure to show: wrong types say more than wrong values."""
    if one is None or (other is not None and other.kind is Kind.TYPES):
        return other
    return one


def _rarest(necessity: Necessity) -> str:
    """Say what keeps a rule from firing."""
    conditions = [*map(str, required(necessity.pattern))]
    if not conditions:
        return f"no operators were found that fit {necessity.pattern.left}"
    return f"{' and '.join(conditions)} can hardly be met together"


def _refusal(made: Rule, data: Pattern, failure: Failure, seed: int) -> RuleError:
    """Return the error that shows the smallest counterexample."""
    precision = Class(made.numerics, made.tolerance)
    conditions = required(data)

    def retry(instance: Instance) -> Failure | None:
        facts = facts_of(data, instance)
        found = failures(data, precision, instance, facts, conditions)
        return found if found is not None and found.kind is failure.kind else None

    smallest = shrink(data, failure, retry, seed)
    text = counterexample(made, data, smallest, conditions)
    return (IllTypedRuleError if failure.kind is Kind.TYPES else UnsoundRuleError)(text)


def _check_conditions(made: Rule, samples: _Samples) -> None:
    """Refuse conditions that were needed for nothing."""
    for condition in samples.necessity.needless():
        raise NeedlessConditionError(
            f"{made.where}: condition {condition} is needed for nothing: where only "
            f"it failed, {samples.necessity.tried(condition)} times, both sides had equal types and "
            "values; delete it, or move it to `bounds` if it keeps the e-graph small"
        )


__all__ = [
    "CheckReport",
    "ConditionReport",
    "Growth",
    "IllTypedRuleError",
    "LoopingRuleError",
    "NeedlessConditionError",
    "Purpose",
    "RuleWritingError",
    "UnsoundRuleError",
    "VacuousRuleError",
    "check_rule",
    "check_rules",
    "condition_purposes",
]
