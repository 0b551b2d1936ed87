"""Which rules from outside may run: each is checked first, and refused with a reason if it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tilewright.errors import RuleError
from tilewright.rules.checking import check_rules
from tilewright.rules.checks.cache import Passed, cached, remember
from tilewright.rules.collectives.checking import check_collective_rule
from tilewright.rules.collectives.ruleset import CollectiveRule
from tilewright.rules.memory.checking import check_memory_rule
from tilewright.rules.memory.ruleset import MemoryRule
from tilewright.rules.options import AnyRule
from tilewright.rules.partition.checking import check_partition_rule
from tilewright.rules.partition.ruleset import PartitionRule
from tilewright.rules.pipeline.checking import check_pipeline_rule
from tilewright.rules.pipeline.ruleset import PipelineRule
from tilewright.rules.registry import Rule
from tilewright.rules.tiling.checking import check_tiling_rule
from tilewright.rules.tiling.ruleset import TilingRule
from tilewright.rules.user_rules import (
    UserRules,
    described,
    installed_sources,
    load_entry_point,
    load_rule_files,
    united,
)

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What may not run, and why: the text of the error, with the place in the file."""

    rule: str
    """A rule; or a file or entry point that could not be loaded, and all that is in it."""
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
        cache: Take the word of an earlier check of a rule with the same content.

    Raises:
        RuleError: It is wrong, or says nothing.
    """
    if isinstance(rule, Rule):
        check_rules((rule,), cache=cache)
        return
    if cache and cached(rule, Passed) is not None:
        return
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
    if cache:
        remember(rule, Passed(rule=rule.name))


def load(
    paths: Iterable[Path], *, installed: bool = False, skip_refused: bool = False
) -> Admission:
    """Load rules from outside, unchecked.

    Args:
        paths: Files of rules.
        installed: Also load those of installed packages.
        skip_refused: Go on without a file or package that cannot be loaded, or whose rules have the
            names of others; otherwise the first is raised.

    Raises:
        RuleError: With the place and what to change.
    """
    loads = [(str(path), partial(load_rule_files, (path,))) for path in dict.fromkeys(paths)]
    if installed:
        loads += [(described(p), partial(load_entry_point, p)) for p in installed_sources()]
    rules, refused = UserRules(), []
    for source, loaded in loads:
        try:
            rules = united(rules, loaded())
        except RuleError as error:
            if not skip_refused:
                raise
            refused.append(Refusal(rule=source, reason=str(error)))
    return Admission(rules=rules, refused=tuple(refused))


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
