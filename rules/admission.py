"""Which rules from outside may run: each is checked first, and refused with a reason if it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tilewright.errors import RuleError
from tilewright.rules.checking import check_rules
from tilewright.rules.collectives.checking import check_collective_rule
from tilewright.rules.collectives.ruleset import CollectiveRule
from tilewright.rules.memory.checking import check_memory_rule
from tilewright.rules.memory.ruleset import MemoryRule
from tilewright.rules.options import AnyRule
from tilewright.rules.partition.checking import check_partition_rule
from tilewright.rules.partition.ruleset import PartitionRule
from tilewright.rules.pipeline.checking import check_pipeline_rule
from tilewright.rules.pipeline.ruleset import PipelineRule
from tilewright.rules.tiling.checking import check_tiling_rule
from tilewright.rules.tiling.ruleset import TilingRule
from tilewright.rules.user_rules import UserRules

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A rule that may not run, and why: the text of the check's error, with the place in its file."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The rules that passed their checks, and those that did not."""

    rules: UserRules = field(default_factory=UserRules)
    refused: tuple[Refusal, ...] = ()


def check_any(rule: AnyRule, *, cache: bool = False) -> None:
    """Check a rule of any family.

    Args:
        rule: The rule.
        cache: Take the word of an earlier check of a rewrite rule with the same content.

    Raises:
        RuleError: It is wrong, or says nothing.
    """
    match rule:
        case PartitionRule():
            check_partition_rule(rule)
        case TilingRule():
            check_tiling_rule(rule)
        case MemoryRule():
            check_memory_rule(rule)
        case CollectiveRule():
            check_collective_rule(rule)
        case PipelineRule():
            check_pipeline_rule(rule)
        case _:
            check_rules((rule,), cache=cache)


def admit(rules: UserRules, *, skip_refused: bool = False, tell: Tell | None = None) -> Admission:
    """Check rules from outside.

    Args:
        rules: What was loaded.
        skip_refused: Go on without rules that fail; otherwise the first failure is raised.
        tell: Called with a line before each check.

    Raises:
        RuleError: A rule fails its check.
    """
    refused = []
    for rule in rules.rules:
        if tell:
            tell(f"checking rule {rule.name}")
        try:
            check_any(rule, cache=True)
        except RuleError as error:
            if not skip_refused:
                raise
            refused.append(Refusal(rule=rule.name, reason=str(error)))
    return Admission(
        rules=rules.without(frozenset(r.rule for r in refused)), refused=tuple(refused)
    )
