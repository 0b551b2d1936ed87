"""Extraction: from saturated blocks to a plan with a proven bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from types import MappingProxyType

import networkx as nx
import numpy as np

from tilewright.errors import InfeasibleError
from tilewright.extract.choice import ChoiceProblem, Solution, Usage
from tilewright.extract.closing import Scales, Within, closed
from tilewright.extract.footprint import spare_scratchpad
from tilewright.extract.model_tables import ModelTables, build_tables
from tilewright.extract.objective import Metric, Objective
from tilewright.extract.options import Option, Pricing
from tilewright.extract.origins import Variable, find_origins, leaf_name
from tilewright.extract.plan import Delivery, Memory, Move, Placement, Plan, PlannedOp, Proof
from tilewright.extract.profile import SramProfile, sram_profile
from tilewright.extract.pruning import prune
from tilewright.extract.reshard import delivery_units, dram_placement
from tilewright.extract.solve import SolveOptions, lower_bound, solve
from tilewright.extract.tiling_candidates import tiling_candidates
from tilewright.graph import Graph, Op, TensorType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.collectives.family import collective_rules
from tilewright.rules.collectives.ruleset import CollectiveRule
from tilewright.rules.memory.family import memory_rules
from tilewright.rules.memory.ruleset import MemoryRule
from tilewright.rules.roll import Instance, Rolled
from tilewright.rules.tiling.family import tiling_rules
from tilewright.rules.tiling.ruleset import TilingRule

_ATTEMPTS = 12


_WIDE_GAP = 0.15
"""Of a whole model, above which branch and bound is worth seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractOptions:
    """What to minimise, how hard to try, and which of their rules run.

    `sram_limit_bytes` overrides the scratchpad of the target (for what lowering found to be too tight).
    """

    objective: Objective = Objective.LATENCY
    beside: tuple[Objective, ...] = ()
    """Objectives whose best options stay, too, for plans that weigh the same options anew."""
    spares_scratchpad: bool = False
    """Whether tilings of little scratchpad stay, too; they do where the objective weighs it."""
    solve: SolveOptions = field(default_factory=lambda: SolveOptions(branching_gap=_WIDE_GAP))
    sram_limit_bytes: int | None = None
    tiling: tuple[TilingRule, ...] = field(default_factory=tiling_rules)
    memory: tuple[MemoryRule, ...] = field(default_factory=memory_rules)
    collective: tuple[CollectiveRule, ...] = field(default_factory=collective_rules)


def extract(
    graph: Graph,
    rolled: Rolled,
    alternatives: tuple[Alternatives, ...],
    target: Target,
    mesh: LogicalMesh,
    options: ExtractOptions | None = None,
) -> Plan:
    """Choose one way to compute everything: least predicted cost within every tile's scratchpad.

    Args:
        graph: The whole model.
        rolled: Its unique blocks and their instances.
        alternatives: What saturation found for each unique block.
        target: The machine.
        mesh: The logical mesh that the alternatives were made for.
        options: Objective and limits.

    Returns:
        The plan with cost, bound and proof. The bound holds for the options considered (the
        alternatives in the e-graph, their implementations, memory levels and tiling candidates),
        also for plans in
        which instances of a repeated block differ.

    Raises:
        InfeasibleError: Nothing fits the scratchpad.
    """
    options = options or ExtractOptions()
    setting = prepare(graph, rolled, alternatives, target, mesh, options)
    return plan_setting(setting, options)


def plan_setting(setting: Setting, options: ExtractOptions) -> Plan:
    """Return the best plan of a setting found.

    Raises:
        InfeasibleError: Nothing fits the scratchpad.
    """
    objective = options.objective.on(setting.graph, setting.pricing.target)
    limit_bytes = options.sram_limit_bytes or setting.pricing.limit_bytes
    if Metric.SRAM in objective.metrics:
        return spare_scratchpad(_Planner(setting, options), objective, limit_bytes)
    found = _Planner(setting, options).within(limit_bytes)
    if found.plan is None:
        assert found.failed is not None, "nothing is found for a reason"
        raise found.failed
    return replace(found.plan, bound=found.bound)


class _Planner:
    """Plans of one setting with any limit of scratchpad."""

    def __init__(self, setting: Setting, options: ExtractOptions) -> None:
        self.setting, self._options = setting, options

    def within(self, limit_bytes: int) -> Within:
        """Return the best plan of least additive cost with a limit of scratchpad."""
        setting = _narrowed(self.setting, limit_bytes)
        tables, options = setting.tables, self._options.solve
        failed: InfeasibleError | None = None
        plan: Plan | None = None
        try:
            plan, _ = choose(
                setting,
                lambda problem, last: solve(problem, options, last=last),
                lambda solution: _bound(tables, solution, options),
            )
        except InfeasibleError as error:
            failed = error
        known = Within(plan=plan, bound=0.0 if plan is None else plan.bound, failed=failed)
        return self.search(known, Scales(), limit_bytes)

    def search(self, known: Within, scales: Scales, limit_bytes: int) -> Within:
        """Look exactly for what is better than a known plan, if the problem is small."""
        setting = _narrowed(self.setting, limit_bytes)

        def write(choice: tuple[int, ...]) -> Plan:
            solution = Solution(choice, 0.0, 0.0, "", np.zeros(0), True)
            s = setting
            writer = _PlanWriter(s.graph, s.rolled, s.alternatives, s.tables, solution, s.pricing)
            return writer.write((0.0, Proof(method="choice")))

        own = setting.pricing
        return closed(
            setting.tables, own.target, setting.alternatives, own.mesh, known, write, scales
        )


def _narrowed(setting: Setting, limit_bytes: int) -> Setting:
    """Return the setting with less scratchpad; options keep their prices."""
    tables, limit = setting.tables, float(limit_bytes)
    return replace(
        setting,
        pricing=replace(setting.pricing, limit_bytes=limit_bytes),
        tables=replace(
            tables,
            problem=replace(tables.problem, limit=limit),
            relaxed=replace(tables.relaxed, limit=limit),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a plan is chosen from: the model, its alternatives without beaten ones, and the priced tables."""

    graph: Graph
    rolled: Rolled
    alternatives: tuple[Alternatives, ...]
    pricing: Pricing
    tables: ModelTables


def prepare(
    graph: Graph,
    rolled: Rolled,
    alternatives: tuple[Alternatives, ...],
    target: Target,
    mesh: LogicalMesh,
    options: ExtractOptions,
) -> Setting:
    """Price all options; the arguments are those of `extract`.

    Raises:
        InfeasibleError: Some tensor cannot be computed within the scratchpad.
    """
    alternatives = tuple(prune(found) for found in alternatives)
    options = replace(options, objective=options.objective.on(graph, target))
    pricing = pricing_of(alternatives, target, mesh, options)
    tables = build_tables(graph, rolled, alternatives, pricing)
    return Setting(
        graph=graph, rolled=rolled, alternatives=alternatives, pricing=pricing, tables=tables
    )


def choose(
    setting: Setting,
    solver: Callable[[ChoiceProblem, Solution | None], Solution],
    bounder: Callable[[Solution], tuple[float, Proof]],
) -> tuple[Plan, Solution]:
    """Solve, write the plan out, and charge what its exact account of scratchpad shows to be too much.

    Args:
        setting: What to choose from.
        solver: Solves a choice problem; given a solution, one in which options use more than there.
        bounder: Returns the lower bound with its proof; called once, with the first solution.

    Returns:
        The plan that fits, and the solution that it writes out.

    Raises:
        InfeasibleError: Nothing fits the scratchpad.
    """
    graph, target, tables = setting.graph, setting.pricing.target, setting.tables
    capacity = setting.pricing.limit_bytes
    bound: tuple[float, Proof] | None = None
    solution: Solution | None = None
    problem, shortage, where = tables.problem, 0, ""
    for attempt in range(_ATTEMPTS):
        solution = solver(problem, solution)
        if bound is None:
            bound = bounder(solution)
        if not solution.feasible:
            break
        writer = _PlanWriter(
            graph, setting.rolled, setting.alternatives, tables, solution, setting.pricing
        )
        plan = writer.write(bound)
        profile = sram_profile(plan, target)
        peak = max(profile.rows, default=0)
        shortage = peak - capacity
        if shortage <= 0:
            fitting = replace(
                plan, peak_sram_bytes=peak, resident_sram_bytes=profile.resident_bytes
            )
            return fitting, solution
        where = _name_of_fullest(plan, profile)
        problem = _surcharged(
            problem,
            tables,
            solution,
            writer.op_variables,
            profile,
            capacity,
            is_final=attempt >= _ATTEMPTS // 3,
        )
    else:
        raise InfeasibleError(
            f"model '{graph.name}' on '{target.name}': the last of {_ATTEMPTS} plans needs "
            f"{shortage + capacity} bytes "
            f"of scratchpad in a tile at '{where}', {capacity} are there ({shortage} short); "
            "use more tiles, a target with more SRAM or a smaller batch"
        )
    raise InfeasibleError(
        f"model '{graph.name}' on '{target.name}': no plan found fits the {capacity} bytes of "
        f"scratchpad of a tile; "
        "use more tiles, a target with more SRAM or a smaller batch"
    )


def pricing_of(
    alternatives: tuple[Alternatives, ...],
    target: Target,
    mesh: LogicalMesh,
    options: ExtractOptions,
) -> Pricing:
    """Return what the options of pruned alternatives are priced with."""
    return Pricing(
        target=target,
        mesh=mesh,
        objective=options.objective.additive,
        beside=options.beside,
        spares_scratchpad=options.spares_scratchpad or Metric.SRAM in options.objective.metrics,
        limit_bytes=options.sram_limit_bytes or target.tile.sram.size_bytes,
        tilings=tiling_candidates(alternatives, mesh, target, options.tiling),
        memory=options.memory,
        collective=options.collective,
    )


def _name_of_fullest(plan: Plan, profile: SramProfile) -> str:
    return plan.ops[profile.rows.index(max(profile.rows))].op.name


def _surcharged(
    problem: ChoiceProblem,
    tables: ModelTables,
    solution: Solution,
    op_variables: list[Variable],
    profile: SramProfile,
    capacity: int,
    *,
    is_final: bool,
) -> ChoiceProblem:
    """Make the choices behind rows that turned out too full use what they were short of.

    The rows of the problem do not see what a chain of moves needs on its way; the exact profile does.
    With `is_final` they use all that the profile has and the rows do not, so that the same choice does
    not come back however much room the rows see.
    """
    used = problem.use(solution.choice)
    short: dict[int, int] = {}
    for variable, row in zip(op_variables, profile.rows, strict=True):
        if row > capacity:
            number = tables.number[variable]
            unseen = max(0, capacity - int(used[number])) if is_final else 0
            short[number] = max(short.get(number, 0), row - capacity + unseen)
    extra = []
    for number, amount in sorted(short.items()):
        chosen = tables.options[number][solution.choice[number]]
        amounts = np.array(
            [
                float(amount) if option.operands == chosen.operands else 0.0
                for option in tables.options[number]
            ]
        )
        extra.append(Usage(number, number, number + 1, amounts))
    return replace(problem, usages=(*problem.usages, *extra))


def _bound(tables: ModelTables, solution: Solution, options: SolveOptions) -> tuple[float, Proof]:
    """Return the lower bound in units of the objective, with its proof."""
    cutoff = tables.relaxed.cost(solution.choice) if solution.feasible else inf
    relaxed = lower_bound(tables.relaxed, cutoff, solution.multipliers, options)
    details = {
        "capacity_price": float(relaxed.multipliers.sum()) / tables.scale,
        "scaled_bound": relaxed.bound,
        "scale": tables.scale,
    }
    return relaxed.bound / tables.scale, Proof(
        method=relaxed.method, details=MappingProxyType(details)
    )


class _PlanWriter:
    """Expands a choice over unique blocks to the ops of the whole model."""

    def __init__(
        self,
        graph: Graph,
        rolled: Rolled,
        alternatives: tuple[Alternatives, ...],
        tables: ModelTables,
        solution: Solution,
        pricing: Pricing,
    ) -> None:
        self.graph = graph
        self.rolled = rolled
        self.alternatives = alternatives
        self.tables = tables
        self.pricing = pricing
        self.chosen = {
            variable: options[choice]
            for variable, options, choice in zip(
                tables.variables, tables.options, solution.choice, strict=True
            )
        }
        self.origins = find_origins(graph, rolled, alternatives)
        self.types: dict[str, TensorType] = dict(graph.types)
        self.ops: list[PlannedOp] = []
        self.folded: list[Op] = []
        self.folded_names: set[str] = set()
        self.op_variables: list[Variable] = []
        """The variable of each op."""
        self.cover_cycles: dict[tuple[int, int], float] = {}
        """Cycles left to cover deliveries, of the product that makes a class in an instance."""

    def write(self, bound: tuple[float, Proof]) -> Plan:
        orders = [self._order(block) for block in range(len(self.rolled.blocks))]
        for number, instance in enumerate(self.rolled.instances):
            for class_number in orders[instance.block]:
                self._emit(number, instance, class_number)
        outputs = tuple(self._output_delivery(port.tensor) for port in self.graph.outputs)
        objective = self.pricing.objective
        # Equal outputs are one tensor, brought to DRAM once.
        brought = {delivery.tensor: delivery for delivery in outputs}.values()
        cost = sum(op.cost_units for op in self.ops) + sum(
            delivery_units(delivery, objective) for delivery in brought
        )
        return Plan(
            graph=self.graph,
            target_name=self.pricing.target.name,
            mesh=self.pricing.mesh,
            objective=objective,
            types=MappingProxyType(self.types),
            ops=tuple(self.ops),
            folded=tuple(self.folded),
            output_deliveries=outputs,
            cost=cost,
            bound=min(bound[0], cost),
            proof=bound[1],
            peak_sram_bytes=0,
            resident_sram_bytes=0,
        )

    def _order(self, block: int) -> list[int]:
        """Return the computed classes of a block in execution order."""
        order: nx.DiGraph[int] = nx.DiGraph()
        classes = [c for b, c in self.tables.variables if b == block]
        for number in classes:
            option = self.chosen[block, number]
            if option.node is None:
                continue
            order.add_node(number)
            for argument in option.node.args:
                if (block, argument) in self.chosen:
                    order.add_edge(argument, number)
        rank = {number: position for position, number in enumerate(classes)}
        return list(nx.lexicographical_topological_sort(order, key=lambda number: rank[number]))

    def _emit(self, number: int, instance: Instance, class_number: int) -> None:
        variable = (instance.block, class_number)
        option = self.chosen[variable]
        node = option.node
        assert node is not None
        assert option.result is not None
        if node.kind == "host" and class_number != node.result:
            return
        found = self.alternatives[instance.block]
        results = tuple(self._name(number, instance, c) for c in (node.results or (node.result,)))
        inputs = tuple(self._argument(number, instance, a) for a in node.args)
        op = Op(name=results[0], kind=node.kind, inputs=inputs, outputs=results, attrs=node.attrs)
        for result, c in zip(results, node.results or (node.result,), strict=True):
            self.types[result] = found.classes[c].type
        deliveries = tuple(
            self._delivery(number, instance, variable, option, position)
            for position in range(len(node.args))
        )
        objective = self.pricing.objective
        moved = sum(delivery_units(delivery, objective) for delivery in deliveries)
        self.op_variables.append(variable)
        implementation = option.implementation
        is_alone = implementation is not None and not any(implementation.macros)
        self.cover_cycles[number, class_number] = option.cost.matrix_cycles if is_alone else 0.0
        split = implementation.split_dims if implementation else (-1,) * self.pricing.mesh.rank
        self.ops.append(
            PlannedOp(
                op=op,
                split_dims=split,
                deliveries=deliveries,
                resident=option.resident,
                result=option.result,
                tiling=option.tiling,
                buffer_bytes=option.working_bytes,
                cost=option.cost,
                cost_units=option.units + moved,
                block=self.rolled.blocks[instance.block].name,
                rule=node.origin,
                split_rules=implementation.rules if implementation else (),
                macros=implementation.macros if implementation else (),
            )
        )

    def _name(self, number: int, instance: Instance, class_number: int) -> str:
        """Return the name by which the plan calls a class of an instance."""
        block = self.rolled.blocks[instance.block]
        tensor = self.alternatives[instance.block].classes[class_number]
        if tensor.names:
            return self.origins[instance.tensors[leaf_name(block, tensor)]].tensor
        return f"{block.name}.{number}.{class_number}"

    def _argument(self, number: int, instance: Instance, class_number: int) -> str:
        name = self._name(number, instance, class_number)
        if self.alternatives[instance.block].classes[class_number].is_constant:
            self._fold(number, instance, class_number, name)
        return name

    def _fold(self, number: int, instance: Instance, class_number: int, name: str) -> None:
        """Make sure that a constant is available: a weight, or computed from weights."""
        if name in self.graph.constants or name in self.folded_names:
            return
        found = self.alternatives[instance.block]
        node = next(n for n in found.nodes if n.result == class_number and n.args)
        self.folded_names.add(name)
        self.types[name] = found.classes[class_number].type
        inputs = tuple(self._argument(number, instance, a) for a in node.args)
        self.folded.append(
            Op(name=name, kind=node.kind, inputs=inputs, outputs=(name,), attrs=node.attrs)
        )

    def _delivery(
        self, number: int, instance: Instance, variable: Variable, option: Option, position: int
    ) -> Delivery:
        node = option.node
        assert node is not None
        argument = node.args[position]
        tensor = self.alternatives[instance.block].classes[argument]
        name = self._argument(number, instance, argument)
        wanted = option.operands[position]
        mesh = self.pricing.mesh
        if tensor.is_constant:
            placement = dram_placement(mesh)
            if option.resident[position]:
                assert option.implementation is not None
                placement = Placement(Memory.SRAM, option.implementation.operands[position])
            return Delivery(tensor=name, before=placement, moves=(), after=placement)
        assert wanted is not None
        if tensor.is_input:
            made = self.origins[name].made
            producer = made[1] if made else None
        else:
            producer = (instance.block, argument)
        if producer is None:
            before, table = dram_placement(mesh), self.tables.input_tables[tensor.type]
        else:
            result = self.chosen[producer].result
            assert result is not None
            before, table = result, self.tables.tables[producer]
        moves = table.moves(table.index[before], table.index[wanted])
        hidden = (
            self._hidden_cycles(number, option, moves) if position == option.late.position else 0
        )
        return Delivery(tensor=name, before=before, moves=moves, after=wanted, hidden_cycles=hidden)

    def _hidden_cycles(self, number: int, option: Option, moves: tuple[Move, ...]) -> float:
        """Return the cycles of a late operand's moves that a product covers, which covers no others then."""
        hidden = min(sum(move.cycles for move in moves), option.late.cover_cycles)
        assert option.node is not None
        if option.node.kind == "map":
            late = option.node.args[option.late.position]
            (product,) = (
                argument
                for argument, placement in zip(option.node.args, option.operands, strict=True)
                if argument != late and placement is not None
            )
            hidden = min(hidden, self.cover_cycles[number, product])
            self.cover_cycles[number, product] -= hidden
        return hidden

    def _output_delivery(self, tensor: str) -> Delivery:
        origin = self.origins[tensor]
        wanted = dram_placement(self.pricing.mesh)
        if origin.made is None:  # an input or a constant, which are in DRAM anyway
            self._fold_by_name(origin.tensor)
            return Delivery(tensor=origin.tensor, before=wanted, moves=(), after=wanted)
        _, producer = origin.made
        result = self.chosen[producer].result
        assert result is not None
        table = self.tables.tables[producer]
        moves = table.moves(table.index[result], table.index[wanted])
        return Delivery(tensor=origin.tensor, before=result, moves=moves, after=wanted)

    def _fold_by_name(self, name: str) -> None:
        """Fold a constant that no op reads but that is a model output."""
        for number, instance in enumerate(self.rolled.instances):
            for tensor in self.alternatives[instance.block].classes:
                if tensor.is_constant and self._name(number, instance, tensor.number) == name:
                    self._fold(number, instance, tensor.number, name)
                    return
