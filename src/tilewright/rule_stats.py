"""What each rule did in a compilation, and what the plan would lose without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tilewright.compiler import Compilation, Stage, compile_graph, saturation_options
from tilewright.errors import InfeasibleError
from tilewright.extract.plan import Plan

Tell = Callable[[str], None]

HALF = 0.5
"""A rule that takes a larger share of the saturation time is named in the report."""
NOTICEABLE_SECONDS = 0.5
"""Saturations that take less have no slow rules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleRow:
    """What one rule did, all blocks together; `uses` counts the plan's operators that rest on it."""

    rule: str
    matches: int
    e_nodes: int
    seconds: float
    uses: int


def rule_rows(done: Compilation) -> tuple[RuleRow, ...]:
    """Return a row for every rule that matched, those of the plan first, then by e-nodes and name."""
    totals: dict[str, list[float]] = {}
    for found in done.alternatives:
        for stats in found.rule_stats:
            row = totals.setdefault(stats.rule, [0, 0, 0.0])
            for column, value in enumerate((stats.matches, stats.e_nodes, stats.seconds)):
                row[column] += value
    options = saturation_options(done.graph, done.options)
    known = {rule.name for rule in options.everything}
    uses = rule_uses(done.plan) if done.plan else Counter()
    rows = [
        RuleRow(
            rule=rule,
            matches=int(matches),
            e_nodes=int(e_nodes),
            seconds=seconds,
            uses=uses[rule],
        )
        for rule, (matches, e_nodes, seconds) in totals.items()
        if rule in known  # not what loads terms and derives types
    ]
    return tuple(sorted(rows, key=lambda row: (-row.uses, -row.e_nodes, row.rule)))


def rule_uses(plan: Plan) -> Counter[str]:
    """Count the operators of a plan whose e-node or whose split follows each rule."""
    uses: Counter[str] = Counter()
    for planned in plan.ops:
        uses.update({planned.rule, *planned.split_rules} - {""})
    return uses


def losses(done: Compilation, rules: tuple[str, ...], tell: Tell) -> Mapping[str, float]:
    """Return by how much the plan's cost grows without each rule, relative to it; inf: no plan fits.

    Each is a saturation and extraction of the whole model; lowering is not repeated.

    Args:
        done: A compilation with a plan.
        rules: Names of the rules to leave out, one at a time.
        tell: Called with a line before each.
    """
    assert done.plan is not None
    found = {}
    for rule in rules:
        tell(f"planning without {rule}")
        options = replace(
            done.options,
            without_rules=(*done.options.without_rules, rule),
            stop_after=Stage.EXTRACT,
        )
        try:
            without = compile_graph(done.graph, done.target, options)
        except InfeasibleError:
            found[rule] = float("inf")
            continue
        assert without.plan is not None
        found[rule] = without.plan.cost / done.plan.cost - 1 if done.plan.cost else 0.0
    return found


def slow_rules(done: Compilation) -> tuple[str, ...]:
    """Return a sentence for each rule that took over half of a noticeable saturation time."""
    rows = rule_rows(done)
    total = sum(stats.seconds for found in done.alternatives for stats in found.ruleset_stats)
    if total < NOTICEABLE_SECONDS:
        return ()
    return tuple(
        f"rule {row.rule} took {row.seconds:.1f} of {total:.1f} s of saturation"
        for row in rows
        if row.seconds > HALF * total
    )
