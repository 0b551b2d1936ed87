"""Why an op runs as it does: the plan against the best one that does it another way, term by term."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.errors import DemandError
from tilewright.extract.choice import FORBIDDEN
from tilewright.extract.exploration.explorer import Answer, Explorer
from tilewright.extract.exploration.ways import Way, alternatives, node_text
from tilewright.extract.objective import Objective
from tilewright.extract.origins import Variable
from tilewright.extract.plan import Plan, PlannedOp
from tilewright.extract.profile import sram_profile
from tilewright.extract.reshard import move_units

REST = "all other ops"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A part of two plans' costs, in units of the objective."""

    name: str
    chosen: float
    other: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The chosen way to compute a tensor against the next best one.

    `terms` add up to the costs of the two plans; `binding` says in sentences what limits the op.
    `other` is None if there is no other way that fits.
    """

    tensor: str
    repeats: int
    chosen: Way
    other: Way | None
    terms: tuple[Term, ...]
    binding: tuple[str, ...]


def explain(explorer: Explorer, tensor: str, top: int = 4) -> Explanation:
    """Explain how the plan computes a tensor.

    Args:
        explorer: The planned model.
        tensor: A tensor that the plan computes on its own.
        top: Among so many likely alternatives the next best is looked for.

    Raises:
        DemandError: The plan does not compute the tensor on its own, or it is unknown.
    """
    variable = explorer.variable(tensor)
    option = explorer.known.chosen.get(variable)
    if option is None or option.node is None:
        raise DemandError(
            f"tensor '{tensor}': the plan does not compute it on its own, it is part of "
            f"{_readers(explorer, variable)}; explain that, or force a way to compute '{tensor}'"
        )
    if option.is_kept:
        kept = min(explorer.names((variable[0], option.node.args[0])))
        raise DemandError(
            f"tensor '{tensor}': the plan keeps '{kept}' for its readers; explain that"
        )
    ways = alternatives(explorer, tensor, top)
    chosen = next(way for way in ways if way.is_chosen)
    other = next((w for w in ways if w.answer is not None and not w.is_chosen), None)
    names = explorer.names(variable)
    terms = _terms(explorer.base.plan, other.answer.plan, names) if other and other.answer else ()
    return Explanation(
        tensor=tensor,
        repeats=len(_own_ops(explorer.base.plan, names)),
        chosen=chosen,
        other=other,
        terms=terms,
        binding=(
            *_engines(explorer, names),
            *_scratchpad(explorer, variable, names),
            *computed_again(explorer, variable),
        ),
    )


def computed_again(explorer: Explorer, variable: Variable) -> Iterator[str]:
    """Yield why readers far behind get a value made again; it may be the one that they get."""
    block, number = variable
    value = explorer.alternatives[block].classes[number].again_of
    groups = [
        tensor.number
        for tensor in explorer.alternatives[block].classes
        if number in (tensor.number, tensor.again_of) and tensor.again_of is not None
    ]
    for group in groups:
        option = explorer.known.chosen.get((block, group))
        if option is not None and option.node is not None and option.node.again:
            of = (block, number if value is None else value)
            yield (
                f"'{min(explorer.names(of))}' is computed again for {_readers(explorer, (block, group))} by "
                f"{option.node.again}: {_price_of_keeping(explorer.base, (block, group))}"
            )


def _price_of_keeping(base: Answer, variable: Variable) -> str:
    """Say what it would take, all else as it is, to keep a value in place of computing it again."""
    tables, choice = base.setting.tables, list(base.solution.choice)
    number, problem = tables.number[variable], tables.problem
    before = problem.cost(choice)
    kept = []
    for candidate, option in enumerate(tables.options[number]):
        if option.is_kept:
            choice[number] = candidate
            more = (problem.cost(choice) - before) / tables.scale
            if more < FORBIDDEN / (2 * tables.scale):
                kept.append((more, float(problem.use(choice).max())))
    if not kept:
        return "nothing else makes it"
    more, need = min(kept)
    if need > problem.limit:
        return f"kept, it would take {need:,.0f} bytes of a tile's scratchpad, {problem.limit:,.0f} are there"
    return f"kept, it would cost {more:+,.0f} {base.plan.objective.unit}"


def _readers(explorer: Explorer, variable: Variable) -> str:
    """Return what the ops are called that read what the plan leaves out."""
    block, number = variable
    found = explorer.alternatives[block]
    reach = {number}
    names: list[str] = []
    for node in found.nodes:
        if node.result not in reach and not reach.isdisjoint(node.args):
            chosen = explorer.known.chosen.get((block, node.result))
            if chosen is not None and chosen.node is not None:
                names += found.classes[node.result].names[:1]
            else:
                reach.add(node.result)
    return " or ".join(f"'{name}'" for name in dict.fromkeys(names)) or "nothing that is computed"


def _own_ops(plan: Plan, names: frozenset[str]) -> list[PlannedOp]:
    return [planned for planned in plan.ops if planned.op.outputs[0] in names]


def _terms(chosen: Plan, other: Plan, names: frozenset[str]) -> tuple[Term, ...]:
    """Return the costs of two plans in parts that add up."""
    ours, theirs = _parts(chosen, names), _parts(other, names)
    return tuple(
        Term(name=name, chosen=ours.get(name, 0.0), other=theirs.get(name, 0.0))
        for name in (*(n for n in dict.fromkeys((*ours, *theirs)) if n != REST), REST)
    )


def _parts(plan: Plan, names: frozenset[str]) -> dict[str, float]:
    """Return the cost of the ops that make tensors, of moving their operands and results, and the rest."""
    parts: defaultdict[str, float] = defaultdict(float)
    for planned in plan.ops:
        is_own = planned.op.outputs[0] in names
        moved = 0.0
        for delivery in planned.deliveries:
            if not is_own and delivery.tensor not in names:
                continue
            where = "operands" if is_own else "to readers"
            for move in delivery.moves:
                parts[f"{where}: {move.kind.value}"] += move_units(move, plan.objective)
                moved += move_units(move, plan.objective)
            covered = plan.objective.cycle_rate * delivery.hidden_cycles
            if covered:
                parts[f"{where}: hidden behind a product"] -= covered
                moved -= covered
        rest = planned.cost_units - moved
        if is_own and plan.objective == Objective.LATENCY:
            parts["kernel: start-up"] += planned.cost.startup_cycles
            parts[f"kernel: {busiest(planned)[0]}"] += rest - planned.cost.startup_cycles
        else:
            parts["kernel" if is_own else REST] += rest
    for delivery in {d.tensor: d for d in plan.output_deliveries}.values():
        where = "to DRAM: " if delivery.tensor in names else ""
        for move in delivery.moves:
            name = f"{where}{move.kind.value}" if where else REST
            parts[name] += move_units(move, plan.objective)
    return dict(parts)


def busiest(planned: PlannedOp) -> tuple[str, float]:
    """Return the engine that a kernel waits for, and its cycles."""
    cost = planned.cost
    engines = {
        "matrix unit": cost.matrix_cycles,
        "vector unit": cost.vector_cycles,
        "DMA in": cost.dma_in_cycles,
        "DMA out": cost.dma_out_cycles,
        "scratchpad port": cost.sram_cycles,
    }
    name = max(engines, key=lambda engine: engines[engine])
    return name, engines[name]


def _engines(explorer: Explorer, names: frozenset[str]) -> list[str]:
    (first, *_) = _own_ops(explorer.base.plan, names)
    name, cycles = busiest(first)
    if not cycles:
        return []
    return [
        f"{name}: busy for {cycles:,.0f} of the kernel's {first.cost.latency_cycles:,.0f} cycles"
    ]


def _scratchpad(explorer: Explorer, variable: Variable, names: frozenset[str]) -> list[str]:
    """Return what the scratchpad forbids: options that would be cheaper and do not fit."""
    plan, limit = explorer.base.plan, explorer.setting.pricing.limit_bytes
    profile = sram_profile(plan, explorer.target)
    rows = [r for p, r in zip(plan.ops, profile.rows, strict=True) if p.op.outputs[0] in names]
    found = [f"scratchpad: {max(rows):,} of {limit:,} bytes in use while it runs"]
    dearer = _cheaper_without_room(explorer.base, variable)
    if dearer is None:
        return [*found, "scratchpad: does not bind, nothing cheaper is kept out by it alone"]
    text, saved, need = dearer
    found.append(
        f"scratchpad binds: {text} would save {saved:,.0f} {plan.objective.unit}, demand {need:,.0f}, "
        f"limit {limit:,.0f}, gap {need - limit:,.0f} bytes a tile"
    )
    return found


def _cheaper_without_room(base: Answer, variable: Variable) -> tuple[str, float, float] | None:
    """Return the option that saves most with all else as it is, and does not fit: name, gain, need."""
    tables, choice = base.setting.tables, list(base.solution.choice)
    number = tables.number[variable]
    problem, current = tables.problem, base.solution.choice[number]
    before = problem.cost(choice)
    best: tuple[str, float, float] | None = None
    for candidate, option in enumerate(tables.options[number]):
        choice[number] = candidate
        saved = (before - problem.cost(choice)) / tables.scale
        if candidate == current or option.node is None or saved <= 1e-6:
            continue
        need = float(problem.use(choice).max())
        if need > problem.limit and (best is None or saved > best[1]):
            place = option.result.memory.value if option.result else "-"
            tile = "x".join(map(str, option.tiling.sizes)) if option.tiling else "-"
            best = f"{node_text(option.node)} in {place}, tile {tile}", saved, need
    return best
