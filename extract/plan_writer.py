"""Writes a choice among the options of unique blocks out as a plan of the whole model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import networkx as nx

from tilewright.extract.filling import Replaced
from tilewright.extract.model_tables import ModelTables
from tilewright.extract.option import Option
from tilewright.extract.origins import Variable, leaf_names
from tilewright.extract.plan import Again, Delivery, Memory, Move, Placement, Plan, PlannedOp, Proof
from tilewright.extract.pricing import Pricing
from tilewright.extract.reshard import ReshardTable, delivery_units, dram_placement, move_units
from tilewright.graph import Graph, Op, TensorType
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.roll import Instance, Rolled

Use = tuple[int, Variable, int] | str
"""An operand of a plan: instance, variable and position; or the name of a tensor that is an output."""


@dataclass(frozen=True, slots=True)
class Route:
    """The ends of a delivery, numbers in a table of placements."""

    table: ReshardTable
    start: int
    end: int

    def moves(self) -> tuple[Move, ...]:
        """Return the cheapest chain."""
        return self.table.moves(self.start, self.end)


@dataclass(frozen=True, slots=True)
class _Chain:
    """Moves one after the other, with what they cost and the cycles that they take."""

    moves: tuple[Move, ...]
    units: float
    cycles: float


class PlanWriter:
    """Expands a choice over unique blocks, the number of an option for each variable, to a plan."""

    def __init__(
        self,
        graph: Graph,
        rolled: Rolled,
        alternatives: tuple[Alternatives, ...],
        tables: ModelTables,
        choice: tuple[int, ...],
        pricing: Pricing,
        replaced: Replaced = MappingProxyType({}),
        others: Mapping[int, tuple[int, ...]] = MappingProxyType({}),
        ways: Mapping[Use, tuple[Move, ...]] = MappingProxyType({}),
    ) -> None:
        """Take options of single instances from `replaced`, whole choices of some from `others`.

        `ways` has the chains of moves of some deliveries; others take the cheapest.
        """
        self.graph = graph
        self.rolled = rolled
        self.alternatives = alternatives
        self.tables = tables
        self.pricing = pricing
        options = {one: self._options(one) for one in {choice, *others.values()}}
        self.chosen = [
            options[others.get(number, choice)] for number in range(len(rolled.instances))
        ]
        """Of each instance, the option of each variable."""
        self.replaced = {
            place: tables.options[tables.number[place[1]]][number]
            for place, number in replaced.items()
        }
        """Options of single instances that differ from the choice in what they keep and how they tile."""
        self.ways = ways
        self.routes: dict[Use, Route] = {}
        """Of each delivery that was written."""
        self.origins = tables.origins
        self._leaves = [leaf_names(*pair) for pair in zip(rolled.blocks, alternatives, strict=True)]
        self._chains: dict[tuple[int, int, int], _Chain] = {}
        """The cheapest moves by table, start and end."""
        self._cycle_rate = pricing.objective.cycle_rate
        self.types: dict[str, TensorType] = dict(graph.types)
        self.ops: list[PlannedOp] = []
        self.folded: list[Op] = []
        self.folded_names: set[str] = set()
        self.op_variables: list[Variable] = []
        """The variable of each op."""
        self.cover_cycles: dict[tuple[int, int], float] = {}
        """Cycles left to cover deliveries, of the product that makes a class in an instance."""

    def write(self, bound: tuple[float, Proof]) -> Plan:
        """Return the plan with a bound, in units of the objective, and its proof; memory is not counted."""
        orders: dict[tuple[int, int], list[int]] = {}
        for number, (instance, chosen) in enumerate(
            zip(self.rolled.instances, self.chosen, strict=True)
        ):
            key = instance.block, id(chosen)
            if key not in orders:
                orders[key] = self._order(instance.block, chosen)
            for class_number in orders[key]:
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

    def _options(self, choice: tuple[int, ...]) -> Mapping[Variable, Option]:
        tables = self.tables
        return {
            variable: options[number]
            for variable, options, number in zip(
                tables.variables, tables.options, choice, strict=True
            )
        }

    def _order(self, block: int, chosen: Mapping[Variable, Option]) -> list[int]:
        """Return the computed classes of a block in execution order."""
        order: nx.DiGraph[int] = nx.DiGraph()
        classes = [c for b, c in self.tables.variables if b == block]
        for number in classes:
            option = chosen[block, number]
            if option.node is None:
                continue
            order.add_node(number)
            for argument in option.node.args:
                if (block, argument) in chosen:
                    order.add_edge(argument, number)
        for number in reversed([*nx.topological_sort(order)]):
            # a view made again for nobody costs nothing, so that a choice may have it
            option = chosen[block, number]
            is_again = option.node is not None and bool(option.node.again)
            if is_again and option.is_view and not order.out_degree(number):
                order.remove_node(number)
        rank = {number: position for position, number in enumerate(classes)}
        return list(nx.lexicographical_topological_sort(order, key=lambda number: rank[number]))

    def _emit(self, number: int, instance: Instance, class_number: int) -> None:
        variable = (instance.block, class_number)
        option = self.replaced.get((number, variable), self.chosen[number][variable])
        node = option.node
        assert node is not None
        assert option.result is not None
        if option.is_kept or (node.kind == "host" and class_number != node.result):
            return
        found = self.alternatives[instance.block]
        results = tuple(self._name(number, instance, c) for c in (node.results or (node.result,)))
        inputs = tuple(self._argument(number, instance, a) for a in node.args)
        op = Op(name=results[0], kind=node.kind, inputs=inputs, outputs=results, attrs=node.attrs)
        for result, c in zip(results, node.results or (node.result,), strict=True):
            self.types[result] = found.classes[c].type
        delivered = [
            self._delivery(number, variable, option, position, name)
            for position, name in enumerate(inputs)
        ]
        moved = sum(units for _, units in delivered)
        self.op_variables.append(variable)
        implementation = option.implementation
        is_alone = implementation is not None and not any(implementation.macros)
        self.cover_cycles[number, class_number] = option.cost.matrix_cycles if is_alone else 0.0
        split = implementation.split_dims if implementation else (-1,) * self.pricing.mesh.rank
        self.ops.append(
            PlannedOp(
                op=op,
                split_dims=split,
                deliveries=tuple(delivery for delivery, _ in delivered),
                resident=option.resident,
                result=option.result,
                tiling=option.tiling,
                buffer_bytes=option.working_bytes,
                cost=option.cost,
                cost_units=option.units + moved,
                block=self.rolled.blocks[instance.block].name,
                instance=number,
                rule=node.origin,
                split_rules=implementation.rules if implementation else (),
                macros=implementation.macros if implementation else (),
                again=self._again(number, instance, class_number, node.again),
            )
        )

    def _again(self, number: int, instance: Instance, class_number: int, rule: str) -> Again | None:
        """Return what a value is again, None if it is made for the first time."""
        value = self.alternatives[instance.block].classes[class_number].again_of
        return (
            Again(rule=rule, tensor=self._name(number, instance, value))
            if value is not None
            else None
        )

    def _name(self, number: int, instance: Instance, class_number: int) -> str:
        """Return the name by which the plan calls a class of an instance."""
        class_number = self._source(number, instance.block, class_number)
        tensor = self.alternatives[instance.block].classes[class_number]
        if tensor.names:
            leaf = self._leaves[instance.block][class_number]
            return self.origins[instance.tensors[leaf]].tensor
        return f"{self.rolled.blocks[instance.block].name}.{number}.{class_number}"

    def _source(self, number: int, block: int, class_number: int) -> int:
        """Return the class whose bytes a kept value is, else the class itself."""
        option = self.chosen[number].get((block, class_number))
        if option is None or option.node is None or not option.is_kept:
            return class_number
        return option.node.args[0]

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
        self, number: int, variable: Variable, option: Option, position: int, name: str
    ) -> tuple[Delivery, float]:
        """Return how an operand of this name reaches an op, and what that costs."""
        node = option.node
        assert node is not None
        block, argument = variable[0], self._source(number, variable[0], node.args[position])
        tensor = self.alternatives[block].classes[argument]
        wanted = option.operands[position]
        mesh = self.pricing.mesh
        if tensor.is_constant:
            placement = dram_placement(mesh)
            if option.resident[position]:
                assert option.implementation is not None
                placement = Placement(Memory.SRAM, option.implementation.operands[position])
            return Delivery(tensor=name, before=placement, moves=(), after=placement), 0.0
        assert wanted is not None
        if tensor.is_input:
            made = self.origins[name].made
        else:
            made = number, (block, argument)
        if made is None:
            before, table = dram_placement(mesh), self.tables.input_tables[tensor.type]
        else:
            before, table = self._result(*made), self.tables.tables[made[1]]
        route = Route(table, table.index[before], table.index[wanted])
        chain = self._chain((number, variable, position), route)
        hidden = (
            self._hidden_cycles(number, option, chain) if position == option.late.position else 0
        )
        delivery = Delivery(
            tensor=name, before=before, moves=chain.moves, after=wanted, hidden_cycles=hidden
        )
        return delivery, chain.units - self._cycle_rate * hidden

    def _chain(self, use: Use, route: Route) -> _Chain:
        """Return the moves of a delivery; repeats of a block have the same cheapest ones."""
        self.routes[use] = route
        known = self.ways.get(use)
        if known is not None:
            return self._priced(known)
        key = id(route.table), route.start, route.end
        if key not in self._chains:
            self._chains[key] = self._priced(route.moves())
        return self._chains[key]

    def _priced(self, moves: tuple[Move, ...]) -> _Chain:
        units = sum(move_units(move, self.pricing.objective) for move in moves)
        return _Chain(moves, units, sum(move.cycles for move in moves))

    def _result(self, number: int, variable: Variable) -> Placement:
        """Return where an instance leaves a value."""
        result = self.chosen[number][variable].result
        assert result is not None
        return result

    def _hidden_cycles(self, number: int, option: Option, chain: _Chain) -> float:
        """Return the cycles of a late operand's moves that a product covers, which covers no others then."""
        hidden = min(chain.cycles, option.late.cover_cycles)
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
        result, table = self._result(*origin.made), self.tables.output_tables[origin.made[1]]
        route = Route(table, table.index[result], table.index[wanted])
        chain = self._chain(origin.tensor, route)
        return Delivery(tensor=origin.tensor, before=result, moves=chain.moves, after=wanted)

    def _fold_by_name(self, name: str) -> None:
        """Fold a constant that no op reads but that is a model output."""
        for number, instance in enumerate(self.rolled.instances):
            for tensor in self.alternatives[instance.block].classes:
                if tensor.is_constant and self._name(number, instance, tensor.number) == name:
                    self._fold(number, instance, tensor.number, name)
                    return
