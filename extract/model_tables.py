"""From saturated blocks to one choice problem for the whole rolled model.

Every computed tensor class of every unique block is a variable; its options are the ways to compute it. All
instances of a block take the same choice, so a block that occurs n times counts n times. An edge joins the
variable of a producer with that of each consumer and charges the cheapest chain of moves between the
placement made and the placement wanted. Rows of the capacity constraint are those of `row_usages.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tilewright.errors import InfeasibleError
from tilewright.extract.avoid import is_in_dram
from tilewright.extract.between import Between
from tilewright.extract.choice import (
    FORBIDDEN,
    ChoiceProblem,
    Costs,
    Edge,
    Indices,
    Mask,
)
from tilewright.extract.links import Link, find_links, output_uses
from tilewright.extract.needed import needed_classes
from tilewright.extract.option import ABSENT, Option
from tilewright.extract.options import LARGEST_SHARD, class_options, kept_options
from tilewright.extract.origins import Origin, Variable, find_origins
from tilewright.extract.overlap import LateOperand, late_operands
from tilewright.extract.plan import Placement
from tilewright.extract.priced_model import PricedModel
from tilewright.extract.pricing import Pricing
from tilewright.extract.remembered import Remembered
from tilewright.extract.reshard import (
    Crossing,
    ReshardTable,
    build_table,
    crosses,
    dram_placement,
)
from tilewright.extract.row_usages import RowUsages
from tilewright.graph import Graph, TensorType
from tilewright.hwmodel.mesh import Sharding, is_partial
from tilewright.rules.alternatives import KEEP, Alternatives, LogicalNode
from tilewright.rules.roll import Rolled
from tilewright.rules.running_order import computed_classes

Demand = tuple[tuple[Placement, float, bool], ...]
"""Where a consumer wants a value, with the cycles of the delivery that a product covers."""

OptionSource = Callable[[Variable, bool, Mapping[int, LateOperand]], tuple[Option, ...]]
"""Returns a variable's options; whether it must be computed, and the late operands of its block by node."""

_TARGET_SCALE = 1e6
"""Costs are scaled so that the sum of cheapest options is about this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTables:
    """The priced options of every variable and the choice problem over them.

    `scale` turns units of the objective into the problem's costs.
    """

    variables: tuple[Variable, ...]
    options: tuple[tuple[Option, ...], ...]
    links: tuple[Link, ...]
    tables: Mapping[Variable, ReshardTable]
    input_tables: Mapping[TensorType, ReshardTable]
    output_tables: Mapping[Variable, ReshardTable]
    problem: ChoiceProblem
    relaxed: ChoiceProblem
    """The problem that bounds: without the links between instances of repeated blocks and the model's inputs
    and outputs at only some instances (so that it also bounds plans in which instances differ), and with
    no more scratchpad than every plan needs: no copies, no views, values alive only until a use
    that is sure."""
    between: tuple[Between, ...]
    """The links between instances of repeated blocks, which the problem that bounds leaves out."""
    scale: float
    multiplicity: tuple[int, ...]
    number: Mapping[Variable, int]
    origins: Mapping[str, Origin]
    """Where each tensor of the model comes from."""

    @property
    def instances(self) -> tuple[int, ...]:
        """Return how many instances each variable has."""
        return tuple(self.multiplicity[block] for block, _ in self.variables)

    @property
    def has_repeats(self) -> bool:
        """Whether some block occurs more than once, so that a variable stands for several values."""
        return any(count != 1 for count in self.multiplicity)


def build_tables(
    graph: Graph,
    rolled: Rolled,
    alternatives: tuple[Alternatives, ...],
    pricing: Pricing,
    options_of: OptionSource | None = None,
    *,
    are_ports_free: bool = False,
    origins: Mapping[str, Origin] | None = None,
    scale: float | None = None,
    remembered: Remembered | None = None,
) -> ModelTables:
    """Price all options and set up the choice problem.

    Args:
        graph: The whole model.
        rolled: Its unique blocks and their instances.
        alternatives: The pruned alternatives of each block.
        pricing: What options are priced with.
        options_of: Returns the options of a variable; those of `variable_options` by default.
        are_ports_free: Whether the problem that bounds leaves out what bringing the model's inputs and
            outputs from and to DRAM costs, so that it bounds the model's share of any larger one.
        origins: Where each tensor of the model comes from, if that is known.
        scale: That of the tables; one that fits the costs by default.
        remembered: Parts of tables with this pricing that were made before.
    """
    remembered = remembered or Remembered()
    source = options_of or (
        lambda variable, needed, late: variable_options(
            alternatives[variable[0]], variable[1], needed, pricing, late
        )
    )
    multiplicity = [0] * len(rolled.blocks)
    for instance in rolled.instances:
        multiplicity[instance.block] += 1
    order = [computed_classes(found) for found in alternatives]
    variables = tuple((b, c) for b, classes in enumerate(order) for c in classes)
    needed = [needed_classes(found) for found in alternatives]
    late = [
        late_operands(found, pricing.target) if pricing.counts_late else {}
        for found in alternatives
    ]
    origins = origins or find_origins(graph, rolled, alternatives)
    outputs = output_uses(graph, origins)
    options: list[tuple[Option, ...]] = []
    for b, c in variables:
        pricing.deadline.check(
            f"ways to compute {len(options)} of {len(variables)} tensors of '{graph.name}' are priced"
        )
        found = source((b, c), c in needed[b], late[b])
        size_bytes = alternatives[b].classes[c].type.size_bytes
        if (b, c) not in outputs and pricing.avoid.keeps_out(size_bytes):
            staying = tuple(o for o in found if not is_in_dram(o.result))
            # what can be computed into DRAM alone still is, and the problem is infeasible if that has a use
            found = staying if any(o.node is not None for o in staying) else found
        options.append(found)
    links = tuple(find_links(rolled, alternatives, origins))
    number = {variable: n for n, variable in enumerate(variables)}
    for variable, node in keeping_nodes(alternatives).items():
        value = (variable[0], node.args[0])
        own = options[number[variable]]
        if not any(option.is_kept for option in own):
            options[number[variable]] = (*kept_options(node, options[number[value]], pricing), *own)
    model = PricedModel(
        alternatives=alternatives,
        pricing=pricing,
        multiplicity=tuple(multiplicity),
        variables=variables,
        options=tuple(options),
        links=links,
        number=number,
        remembered=remembered,
    )
    builder = _ProblemBuilder(model, outputs, origins, are_ports_free=are_ports_free)
    return builder.build(scale)


def keeping_nodes(alternatives: tuple[Alternatives, ...]) -> Mapping[Variable, LogicalNode]:
    """Return the nodes that keep values for readers far behind, by what they make."""
    return {
        (block, node.result): node
        for block, found in enumerate(alternatives)
        for node in found.nodes
        if node.kind == KEEP
    }


def variable_options(
    alternatives: Alternatives,
    number: int,
    needed: bool,
    pricing: Pricing,
    late: Mapping[int, LateOperand],
) -> tuple[Option, ...]:
    """Return the options of a class, not to compute it among them unless it is `needed`.

    A value that is there may also be kept; what places there are for that depends on how it is made.

    Raises:
        InfeasibleError: There are none.
    """
    options = class_options(alternatives, number, pricing, late)
    if not options and alternatives.classes[number].again_of is None:
        tensor = alternatives.classes[number]
        name = tensor.names[0] if tensor.names else f"class {number}"
        raise InfeasibleError(
            f"tensor '{name}' {tensor.type}: with the smallest tiles of every way to compute it, it "
            f"needs more than the {pricing.limit_bytes} bytes of scratchpad that a tile of "
            f"'{pricing.target.name}' has; "
            "choose a target with more SRAM or make the tensor's rows shorter"
        )
    return options if needed else (*options, ABSENT)


@dataclass(slots=True)
class _Ports:
    """Numbers the distinct ports of one end of an edge."""

    numbers: dict[Demand | None, int] = field(default_factory=dict)

    def number(self, port: Demand | None) -> int:
        return self.numbers.setdefault(port, len(self.numbers))


@dataclass(frozen=True, slots=True)
class _LinkEdges:
    """The edge of a link in the problem, and in the one that bounds."""

    strict: Edge
    lenient: Edge
    between: Between | None
    """What the link costs between instances, if it joins two."""


def _edge(
    producer: int, consumer: int, made_ports: Indices, wanted_ports: Indices, matrix: Costs
) -> Edge:
    """Return the edge between two variables, the one that comes first on the left."""
    if producer <= consumer:
        return Edge(producer, consumer, made_ports, wanted_ports, matrix)
    return Edge(consumer, producer, wanted_ports, made_ports, matrix.T)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Delivered:
    """What bringing a value from its maker to a reader costs once, in units: [ports made, ports wanted]."""

    made_ports: Indices
    is_busy: Mask
    """Of a port made: whether tiles exchange data while the value is made."""
    wanted_ports: Indices
    asks_alone: Mask
    """Of a port wanted: whether nothing else may use the network while the value is made."""
    matrix: Costs


class _ProblemBuilder:
    """Collects costs, edges and usages of the choice problem."""

    def __init__(
        self,
        model: PricedModel,
        output_uses: dict[Variable, int],
        origins: Mapping[str, Origin],
        *,
        are_ports_free: bool,
    ) -> None:
        self.model = model
        self.output_uses = output_uses
        self.origins = origins
        self.are_ports_free = are_ports_free
        self.between: list[Between] = []
        self.input_tables: dict[TensorType, ReshardTable] = {}
        self.output_tables: dict[Variable, ReshardTable] = {}
        self.tables: dict[Variable, ReshardTable] = {}

    def build(self, scale: float | None) -> ModelTables:
        """Return the tables, with this scale if it is given."""
        for variable, options in zip(self.model.variables, self.model.options, strict=True):
            type_ = self.model.type_of(variable)
            is_kept_out = self.model.pricing.avoid.keeps_out(type_.size_bytes)
            may_store = variable in self.output_uses or not is_kept_out
            self.tables[variable] = self._table(type_, options, may_store=may_store)
            if self.output_uses.get(variable, 0):
                out = self._table(self.model.type_of(variable), options, Crossing.OUTPUT)
                self.output_tables[variable] = out
        costs = [
            self.model.of_options(variable, ("units",), _units)
            * self.model.multiplicity[variable[0]]
            for variable in self.model.variables
        ]
        if scale is None:
            cheapest = (
                min(o.units for o in options if o.node is not None)
                * self.model.multiplicity[variable[0]]
                for variable, options in zip(self.model.variables, self.model.options, strict=True)
            )
            scale = _TARGET_SCALE / max(1.0, sum(cheapest))
        least: list[Costs] = []
        for own, variable, options in zip(
            costs, self.model.variables, self.model.options, strict=True
        ):
            np.multiply(own, scale, out=own)
            boundary = self._boundary_costs(variable, options, scale)
            is_everywhere = (
                self.output_uses.get(variable, 0) == self.model.multiplicity[variable[0]]
            )
            counts = is_everywhere and not self.are_ports_free
            least.append(np.minimum(own + boundary if counts else own, FORBIDDEN))
            own += boundary
            np.minimum(own, FORBIDDEN, out=own)
        edges: list[_LinkEdges] = []
        for link in self.model.links:
            self._add_link(link, scale, costs, least, edges)
        rows = len(self.model.variables)
        needs = RowUsages(self.model)
        usages = tuple(needs.usages(cautious=True))
        limit = float(self.model.pricing.limit_bytes)
        problem = ChoiceProblem(
            tuple(costs), tuple(edge.strict for edge in edges), usages, rows, limit
        )
        kept = tuple(edge.lenient for edge in edges if edge.between is None)
        relaxed = ChoiceProblem(
            tuple(least), kept, tuple(needs.usages(cautious=False)), rows, limit
        )
        return ModelTables(
            variables=self.model.variables,
            options=self.model.options,
            links=self.model.links,
            tables=self.tables,
            input_tables=self.input_tables,
            output_tables=self.output_tables,
            problem=problem,
            relaxed=relaxed,
            between=tuple(self.between),
            scale=scale,
            multiplicity=self.model.multiplicity,
            number=self.model.number,
            origins=self.origins,
        )

    def _table(
        self,
        tensor: TensorType,
        options: tuple[Option, ...],
        crossing: Crossing = Crossing.NONE,
        *,
        may_store: bool = True,
    ) -> ReshardTable:
        partials = self.model.remembered.part((options,), ("partials",), lambda: _partials(options))
        memo, pricing = self.model.pricing.reshards, self.model.pricing
        key = (tensor, partials, crosses(pricing.target, crossing), may_store)
        if key not in memo:
            largest = pricing.limit_bytes * LARGEST_SHARD
            memo[key] = build_table(
                tensor,
                partials,
                pricing.mesh,
                pricing.target,
                pricing.objective,
                largest,
                pricing.limit_bytes,
                pricing.collective,
                crossing,
                pricing.avoid,
                may_store=may_store,
            )
        return memo[key]

    def _boundary_costs(
        self, variable: Variable, options: tuple[Option, ...], scale: float
    ) -> Costs:
        """Return what it costs to bring model outputs to DRAM."""
        count = self.output_uses.get(variable, 0)
        if not count:
            return np.zeros(len(options))
        table = self.output_tables[variable]
        dram = table.index[dram_placement(self.model.pricing.mesh)]
        return np.array(
            [
                FORBIDDEN
                if o.result is None
                else scale * count * table.cost[table.index[o.result], dram]
                for o in options
            ]
        )

    def _add_link(
        self,
        link: Link,
        scale: float,
        costs: list[Costs],
        least: list[Costs],
        edges: list[_LinkEdges],
    ) -> None:
        consumer = self.model.number[link.consumer]
        if link.producer is None:
            self._add_input(link, scale, costs, least)
            return
        producer = self.model.number[link.producer]
        joined = self.model.remembered.part(
            (self.model.options[producer], self.model.options[consumer]),
            ("joined", producer, consumer, link, scale),
            lambda: self._joined(link, producer, consumer, scale),
        )
        if joined.between is not None:
            self.between.append(joined.between)
        if producer == consumer:
            loop = joined.strict
            costs[consumer] += loop.matrix[loop.left_ports, loop.right_ports]
            return
        edges.append(joined)

    def _add_input(self, link: Link, scale: float, costs: list[Costs], least: list[Costs]) -> None:
        """Add what bringing one of the model's inputs to its readers costs."""
        consumer = self.model.number[link.consumer]
        tensor = self.model.alternatives[link.consumer[0]].classes[link.argument].type
        table = self._table(tensor, (), Crossing.INPUT)
        self.input_tables[tensor] = table

        def arriving(_: tuple[Option, ...]) -> Costs:
            wanted, wanted_ports = self._wanted(link)
            source: tuple[Placement | None, ...] = (dram_placement(self.model.pricing.mesh),)
            matrix = _scaled(self._matrix(table, source, wanted), scale * link.count)
            return np.asarray(matrix[0, wanted_ports])

        arrives = self.model.of_options(link.consumer, ("arriving", link, scale), arriving)
        costs[consumer] += arrives
        is_everywhere = link.count == self.model.multiplicity[link.consumer[0]]
        if is_everywhere and not self.are_ports_free:
            least[consumer] += arrives

    def _joined(self, link: Link, producer: int, consumer: int, scale: float) -> _LinkEdges:
        """Return the edges between the variables at the ends of a link."""
        found = self.model.remembered.part(
            (self.model.options[producer], self.model.options[consumer]),
            ("delivered", link.argument),
            lambda: self._delivered(link, producer),
        )
        # A kept value stays where it is. Elsewhere it costs what moves to all readers cost, never less than
        # moves from where it is, so that searches may go by way of it.
        times = link.count * (self._reader_count(link.consumer) if self._keeps(link) else 1)
        matrix = _scaled(found.matrix, scale * times)
        strict = matrix.copy()
        strict[np.ix_(found.is_busy, found.asks_alone)] = FORBIDDEN
        strict, strict_ports = _merged_columns(strict, found.wanted_ports)
        # what bounds may be more lenient: a cover costs it no way to compute the product
        lenient, lenient_ports = _merged_columns(matrix, found.wanted_ports)
        between = Between(
            producer=producer,
            consumer=consumer,
            argument=link.argument,
            producer_ports=found.made_ports,
            consumer_ports=lenient_ports,
            matrix=lenient,
            producers=tuple(maker for maker, _ in link.ends),
            consumers=tuple(reader for _, reader in link.ends),
        )
        return _LinkEdges(
            _edge(producer, consumer, found.made_ports, strict_ports, strict),
            _edge(producer, consumer, found.made_ports, lenient_ports, lenient),
            between if link.repeated else None,
        )

    def _delivered(self, link: Link, producer: int) -> _Delivered:
        """Return what bringing a value from its maker to a reader costs."""
        assert link.producer is not None, "inputs have no edges"
        wanted, wanted_ports = self._wanted(link)
        made = _Ports()
        made_ports = np.array(
            [
                made.number(None if o.result is None else ((o.result, 0.0, o.uses_network),))
                for o in self.model.options[producer]
            ]
        )
        placements = tuple(None if port is None else port[0][0] for port in made.numbers)
        return _Delivered(
            made_ports=made_ports,
            is_busy=np.array([port is not None and port[0][2] for port in made.numbers]),
            wanted_ports=wanted_ports,
            asks_alone=np.array([any(alone for _, _, alone in demand) for demand in wanted]),
            matrix=self._matrix(self.tables[link.producer], placements, wanted),
        )

    def _keeps(self, link: Link) -> bool:
        """Whether a use keeps a value for readers far behind."""
        return self.model.again_of(link.consumer) == link.argument

    def _reader_count(self, variable: Variable) -> int:
        return sum(link.producer == variable for link in self.model.links)

    def _wanted(self, link: Link) -> tuple[tuple[Demand, ...], Indices]:
        """Return the distinct demands on the argument and which one each option makes."""
        wanted = _Ports()
        ports = []
        for option in self.model.options[self.model.number[link.consumer]]:
            args = option.node.args if option.node is not None else ()
            demand = tuple(
                (
                    placement,
                    option.late.cover_cycles if position == option.late.position else 0.0,
                    option.late.asks_alone and position != option.late.position,
                )
                for position, (argument, placement) in enumerate(
                    zip(args, option.operands, strict=True)
                )
                if argument == link.argument and placement is not None
            )
            ports.append(wanted.number(demand))
        demands = tuple(port for port in wanted.numbers if port is not None)
        return demands, np.array(ports)

    def _matrix(
        self,
        table: ReshardTable,
        sources: tuple[Placement | None, ...],
        demands: tuple[Demand, ...],
    ) -> Costs:
        """Return what meeting demands from where a value may be costs, in units; inf if nothing is there."""
        matrix = np.zeros((len(sources), len(demands)))
        rate = self.model.pricing.objective.cycle_rate
        made = [row for row, source in enumerate(sources) if source is not None]
        absent = [row for row, source in enumerate(sources) if source is None]
        starts = [table.index[source] for source in sources if source is not None]
        for column, demand in enumerate(demands):
            for wanted, cover, _ in demand:
                if wanted in table.index:
                    ends = table.index[wanted]
                    hidden = np.minimum(table.cycles[starts, ends], cover)
                    matrix[made, column] += table.cost[starts, ends] - rate * hidden
                else:
                    matrix[made, column] = np.inf
            matrix[absent, column] = np.inf if demand else 0.0
        return matrix


def _partials(options: tuple[Option, ...]) -> frozenset[Sharding]:
    """Return the shardings of results that are still to be reduced."""
    return frozenset(
        option.result.sharding
        for option in options
        if option.result is not None and is_partial(option.result.sharding)
    )


def _units(options: tuple[Option, ...]) -> Costs:
    return np.array([option.units for option in options])


def _scaled(matrix: Costs, factor: float) -> Costs:
    return np.minimum(matrix * factor, FORBIDDEN)


def _merged_columns(matrix: Costs, ports: Indices) -> tuple[Costs, Indices]:
    """Unite ports with equal costs, such as those that products cover altogether."""
    _, first, inverse = np.unique(matrix, axis=1, return_index=True, return_inverse=True)
    order = np.argsort(first)  # columns stay in the order of their first appearance
    number = np.argsort(order)
    return matrix[:, first[order]], number[inverse.reshape(-1)][ports]
