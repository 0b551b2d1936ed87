"""What each rule did in a compilation, and what the plan would lose without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType

from tilewright.compiler import (
    Compilation,
    Stage,
    available_rules,
    compile_graph,
    saturation_options,
)
from tilewright.errors import InfeasibleError
from tilewright.extract.kernel import Kernel, loop_order
from tilewright.extract.plan import MoveKind, PlannedOp, Tiling
from tilewright.extract.planned import planned_kernel
from tilewright.hwmodel.mesh import is_partial
from tilewright.rules.loopnest import Role
from tilewright.rules.memory.ruleset import Holding

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleRow:
    """What one rule did, all blocks together; `uses` counts the plan's operators that rest on it."""

    rule: str
    matches: int
    e_nodes: int
    seconds: float
    uses: int


def rule_rows(done: Compilation) -> tuple[RuleRow, ...]:
    """Return a row for every rule that matched, those of the plan first, then by e-nodes and name.

    Tiling and memory rules run inside extraction: their matches and seconds are not counted, and they
    have a row when the plan follows them.
    """
    totals: dict[str, list[float]] = {}
    for found in done.alternatives:
        for stats in found.rule_stats:
            row = totals.setdefault(stats.rule, [0, 0, 0.0])
            for column, value in enumerate((stats.matches, stats.e_nodes, stats.seconds)):
                row[column] += value
    options = saturation_options(done.graph, done.target, done.options)
    known = {rule.name for rule in options.everything}
    uses = rule_uses(done) if done.plan else Counter()
    for rule in uses:
        totals.setdefault(rule, [0, 0, 0.0])
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


_COLLECTIVE: Mapping[MoveKind, str] = MappingProxyType(
    {
        MoveKind.REDUCE_SCATTER: "collective.slice_of_all_reduce",
        MoveKind.ALL_TO_ALL: "collective.slice_of_all_gather",
    }
)
"""The rule behind each move that no chain is made of otherwise."""


def rule_uses(done: Compilation) -> Counter[str]:
    """Count the operators of a plan whose e-node, split, tiling or memory levels follow each rule."""
    assert done.plan is not None
    uses: Counter[str] = Counter()
    for planned in done.plan.ops:
        again = planned.again.rule if planned.again is not None else ""
        found = {planned.rule, again, *planned.split_rules} - {""}
        if planned.op.kind != "host":
            kernel = planned_kernel(planned, done.plan.types, done.plan.mesh)
            found |= _tiling_uses(kernel, planned.tiling)
            found |= _memory_uses(done, planned, kernel)
        found |= {
            _COLLECTIVE[move.kind]
            for delivery in planned.deliveries
            for move in delivery.moves
            if move.kind in _COLLECTIVE
        }
        uses.update(sorted(found))
    return uses


def _tiling_uses(kernel: Kernel, tiling: Tiling | None) -> set[str]:
    """Name the rules of this package that a tiling follows."""
    if tiling is None:
        return set()
    found = set()
    for loop, size in zip(kernel.nest.dims, tiling.sizes, strict=True):
        if size >= loop.extent:
            found.add("tiling.whole_loop")
        elif loop.role is Role.REDUCTION:
            found.add("tiling.accumulate_over_parts")
        else:
            found.add("tiling.smaller_tiles")
    if tiling.order != tuple(loop_order(kernel)):
        found.add("tiling.choose_outermost")
    return found


def _memory_uses(done: Compilation, planned: PlannedOp, kernel: Kernel) -> set[str]:
    """Name the first rule that allows the level of each operand and of the result."""
    plan = done.plan
    assert plan is not None
    rules = available_rules(done.options.user_rules).chosen(done.options.without_rules).memory
    constants = {*plan.graph.constants, *(op.output for op in plan.folded)}
    tensors = [
        (delivery.tensor in constants, kind, sharding, delivery.after.memory)
        for delivery, kind, sharding in zip(
            planned.deliveries, kernel.operand_types, kernel.operand_shardings, strict=True
        )
    ]
    tensors.append((False, kernel.result_type, kernel.result_sharding, planned.result.memory))
    found = set()
    for is_constant, kind, sharding, level in tensors:
        held = Holding(
            is_constant=is_constant,
            is_partial=is_partial(sharding),
            is_movable=True,
            shard_bytes=kind.size_bytes,
            scratchpad_bytes=done.target.tile.sram.size_bytes,
        )
        allowing = (r.name for r in rules if r.level.value == level.value and r.function(held))
        found |= {*islice(allowing, 1)}
    return found


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
    for number, rule in enumerate(rules, start=1):
        tell(f"planning without {rule} ({number} of {len(rules)})")
        options = replace(
            done.options,
            without_rules=(*done.options.without_rules, rule),
            stop_after=Stage.EXTRACT,
            pads=False,  # the graph has its added rows
        )
        try:
            without = compile_graph(done.graph, done.target, options)
        except InfeasibleError:
            found[rule] = float("inf")
            continue
        assert without.plan is not None
        found[rule] = without.plan.cost / done.plan.cost - 1 if done.plan.cost else 0.0
    return found
