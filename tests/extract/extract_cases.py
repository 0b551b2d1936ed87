"""Small models, machines, and oracles that share no derivation with extraction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.dtypes import DType
from tilewright.extract.extraction import ExtractOptions, extract
from tilewright.extract.model_tables import ModelTables, build_tables
from tilewright.extract.objective import Metric, Objective, parse_objective
from tilewright.extract.option import Option
from tilewright.extract.plan import Memory, Placement, Plan
from tilewright.extract.pricing import Pricing
from tilewright.extract.pruning import prune
from tilewright.extract.reshard import dram_placement, move_units, single_moves
from tilewright.extract.tiling_candidates import tiling_candidates
from tilewright.graph import Graph, Op, Port, TensorType
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.target import Target, interned
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.engine import saturate
from tilewright.rules.options import SaturationOptions
from tilewright.rules.roll import Block, Instance, Rolled, roll

F32 = DType.F32

MIX = parse_objective("latency:0.7,energy:0.3").relative_to(
    {Metric.LATENCY: 1000.0, Metric.ENERGY: 200_000.0}
)
OBJECTIVES = (Objective.LATENCY, Objective.THROUGHPUT, Objective.ENERGY, MIX)
"""Those that add up over kernels and moves."""


class Builder:
    """Writes graphs op by op; every method returns the name of the result."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, NDArray[np.float32]] = {}
        self.inputs: list[str] = []
        self.ops: list[Op] = []

    def input(self, *shape: int) -> str:
        name = f"x{len(self.inputs)}"
        self.types[name] = TensorType(shape, F32)
        self.inputs.append(name)
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.constants)}"
        self.types[name] = TensorType(shape, F32)
        self.constants[name] = np.full(shape, 0.5, np.float32)
        return name

    def op(self, kind: str, inputs: Sequence[str], size: Sequence[int], **attrs: Any) -> str:
        name = f"{kind}{len(self.ops)}"
        self.types[name] = TensorType(tuple(size), F32)
        self.ops.append(
            Op(name=name, kind=kind, inputs=tuple(inputs), outputs=(name,), attrs=attrs)
        )
        return name

    def matmul(self, a: str, b: str) -> str:
        return self.op("matmul", (a, b), (*self.types[a].shape[:-1], self.types[b].shape[-1]))

    def map(self, fn: str, *inputs: str) -> str:
        return self.op("map", inputs, self.types[inputs[0]].shape, fn=fn)

    def graph(self, *outputs: str) -> Graph:
        def port(name: str) -> Port:
            return Port(name=name, tensor=name, shape=self.types[name].shape, dtype=F32)

        graph = Graph(
            name=self.name,
            inputs=tuple(port(n) for n in self.inputs),
            outputs=tuple(port(n) for n in outputs),
            types=self.types,
            constants=self.constants,
            ops=tuple(self.ops),
        )
        graph.validate()
        return graph


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A saturated model on a machine; its plans and tables are made once."""

    graph: Graph
    rolled: Rolled
    alternatives: tuple[Alternatives, ...]
    target: Target
    mesh: LogicalMesh

    @cache  # noqa: B019  # cases live as long as the tests
    def extract(self, objective: Objective = Objective.LATENCY, limit: int | None = None) -> Plan:
        options = ExtractOptions(objective=objective, sram_limit_bytes=limit)
        return extract(self.graph, self.rolled, self.alternatives, self.target, self.mesh, options)

    @cache  # noqa: B019  # cases live as long as the tests
    def tables(
        self, objective: Objective = Objective.LATENCY, limit: int | None = None
    ) -> tuple[tuple[Alternatives, ...], Pricing, ModelTables]:
        """Return what `extract` prices, in the same way."""
        alternatives = tuple(prune(found) for found in self.alternatives)
        pricing = Pricing(
            target=self.target,
            mesh=self.mesh,
            objective=objective,
            limit_bytes=limit or self.target.tile.sram.size_bytes,
            tilings=tiling_candidates(alternatives, self.mesh, self.target),
        )
        return alternatives, pricing, build_tables(self.graph, self.rolled, alternatives, pricing)


def one_block(graph: Graph) -> Rolled:
    """Return the graph as a single block with a single instance."""
    names = dict.fromkeys([*graph.types])
    instance = Instance(
        block=0, start=0, stop=len(graph.ops), tensors={name: name for name in names}
    )
    return Rolled(blocks=(Block(name="all", graph=graph),), instances=(instance,))


GATHERED_RULES = tuple(
    f"partition.gathered_matmul_{part}" for part in ("rows", "terms", "columns", "values")
)
"""Products that begin before an operand is gathered."""


def saturated(
    graph: Graph,
    target: Target,
    *,
    rolled: Rolled | None = None,
    without_rules: tuple[str, ...] = (),
    options: SaturationOptions | None = None,
) -> Case:
    """Roll and saturate."""
    mesh = logical_mesh(target)
    rolled = rolled or roll(graph)
    found = tuple(
        saturate(block.graph, mesh, options=options, without_rules=without_rules)
        for block in rolled.blocks
    )
    return Case(graph=graph, rolled=rolled, alternatives=found, target=target, mesh=mesh)


def with_sram(target: Target, size_bytes: int) -> Target:
    """Return the target with another scratchpad."""
    sram = target.tile.sram.model_copy(update={"size_bytes": size_bytes})
    return interned(
        target.model_copy(update={"tile": target.tile.model_copy(update={"sram": sram})})
    )


# ---------------------------------------------------------------- small models


def matmul_chain(m: int = 16, k: int = 32, h: int = 64, n: int = 32) -> Graph:
    b = Builder("matmul_chain")
    return b.graph(b.matmul(b.matmul(b.input(m, k), b.weight(k, h)), b.weight(h, n)))


def linear_relu() -> Graph:
    b = Builder("linear_relu")
    product_ = b.matmul(b.input(16, 32), b.weight(32, 32))
    return b.graph(b.map("relu", b.map("add", product_, b.weight(1, 32))))


def residual() -> Graph:
    b = Builder("residual")
    x = b.input(16, 32)
    return b.graph(b.map("add", b.matmul(x, b.weight(32, 32)), x))


def attention_scores() -> Graph:
    b = Builder("attention_scores")
    scores = b.matmul(b.input(16, 8), b.input(8, 32))
    return b.graph(b.matmul(b.op("softmax", (scores,), (16, 32)), b.weight(32, 8)))


def conv_relu() -> Graph:
    b = Builder("conv_relu")
    attrs = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1}
    x, w = b.input(2, 4, 8, 8), b.weight(8, 4, 3, 3)
    return b.graph(b.map("relu", b.op("conv", (x, w), (2, 8, 8, 8), **attrs)))


def heads() -> Graph:
    b = Builder("heads")
    product_ = b.matmul(b.input(8, 16), b.weight(16, 32))
    split = b.op("reshape", (product_,), (8, 4, 8), shape=(8, 4, 8))
    return b.graph(b.op("transpose", (split,), (4, 8, 8), perm=(1, 0, 2)))


def two_outputs() -> Graph:
    b = Builder("two_outputs")
    shared = b.matmul(b.input(16, 16), b.weight(16, 32))
    return b.graph(b.map("relu", shared), b.op("reduce", (shared,), (16, 1), fn="sum", axes=(1,)))


MODELS = {
    f().name: f
    for f in (matmul_chain, linear_relu, residual, attention_scores, conv_relu, heads, two_outputs)
}


# ---------------------------------------------------------------- oracles


UNREACHED = (float("inf"), float("inf"))


class Distances:
    """Cheapest chains of moves by relaxing every single move until nothing changes (Bellman-Ford)."""

    def __init__(
        self,
        mesh: LogicalMesh,
        target: Target,
        objective: Objective,
        allowed: Callable[[Placement], bool] = lambda place: True,
    ) -> None:
        self.mesh, self.target, self.objective = mesh, target, objective
        self.allowed = allowed
        self._moves: dict[tuple[TensorType, Placement], list[tuple[Placement, float, float]]] = {}
        self._found: dict[tuple[TensorType, Placement], dict[Placement, tuple[float, float]]] = {}

    def from_placement(self, tensor: TensorType, start: Placement) -> dict[Placement, float]:
        return {place: cost for place, (cost, _) in self.chains(tensor, start).items()}

    def chains(self, tensor: TensorType, start: Placement) -> dict[Placement, tuple[float, float]]:
        """Return cost and cycles of the cheapest chain to each placement."""
        key = (tensor, start)
        if key not in self._found:
            self._found[key] = self._relax(tensor, start)
        return self._found[key]

    def _successors(
        self, tensor: TensorType, place: Placement
    ) -> list[tuple[Placement, float, float]]:
        key = (tensor, place)
        if key not in self._moves:
            self._moves[key] = [
                (m.after, move_units(m, self.objective), m.cycles)
                for m in single_moves(place, tensor, self.mesh, self.target)
                if self.allowed(m.after)
            ]
        return self._moves[key]

    def _relax(self, tensor: TensorType, start: Placement) -> dict[Placement, tuple[float, float]]:
        distance = {start: (0.0, 0.0)}
        changed = True
        while changed:
            changed = False
            for place, (so_far, before) in list(distance.items()):
                for after, own, cycles in self._successors(tensor, place):
                    # the stated least cost of a move, which keeps detours out
                    total = so_far + max(own, 1e-3)
                    if total < distance.get(after, UNREACHED)[0] - 1e-12:
                        distance[after] = (total, before + cycles)
                        changed = True
        return distance


@dataclass(slots=True)
class Enumeration:
    """The cost of every combination of options of a model of one instance, in units of the objective.

    Which placements meet where is read off the nodes and the graph; moves are priced by `Distances`.
    """

    case: Case
    alternatives: tuple[Alternatives, ...]
    pricing: Pricing
    tables: ModelTables
    keep_all: bool = False
    """Also options that another of the same interface beats on cost."""
    numbers: list[NDArray[np.int64]] = field(default_factory=list)
    """Option numbers along each axis of the combinations."""

    def costs(self) -> NDArray[np.float64]:
        """Return an array with an axis for each variable."""
        assert len(self.case.rolled.instances) == 1
        options = self.tables.options
        classes = [c for _, c in self.tables.variables]
        axis = {c: n for n, c in enumerate(classes)}
        found = self.alternatives[0]
        distances = Distances(self.case.mesh, self.case.target, self.pricing.objective)
        dram = dram_placement(self.case.mesh)
        outputs = [found.outputs[n] for n in range(len(found.outputs))]
        self.numbers = [self._kept(n) for n in range(len(classes))]
        count = len(classes)
        total = np.zeros((1,) * count)
        for n, c in enumerate(classes):
            kept = [options[n][i] for i in self.numbers[n]]
            own = np.array([o.units for o in kept])
            for number in outputs:
                if number == c:
                    own += [
                        np.inf
                        if o.result is None
                        else distances.from_placement(found.classes[c].type, o.result)[dram]
                        for o in kept
                    ]
            total = total + _along(own, (n,), count)
            for argument in dict.fromkeys(a for o in kept if o.node for a in o.node.args):
                tensor = found.classes[argument]
                if tensor.is_constant:
                    continue
                wanted = [
                    [
                        (
                            p,
                            o.late.cover_cycles if position == o.late.position else 0.0,
                            o.late.asks_alone and position != o.late.position,
                        )
                        for position, (a, p) in enumerate(zip(o.node.args, o.operands, strict=True))
                        if a == argument and p is not None
                    ]
                    if o.node
                    else []
                    for o in kept
                ]
                if tensor.is_input:
                    start = distances.chains(tensor.type, dram)
                    rate = self.pricing.objective.cycle_rate
                    total = total + _along(
                        np.array([_reached(start, w, rate) for w in wanted]),
                        (n,),
                        count,
                    )
                    continue
                m = axis[argument]
                makers = [options[m][i] for i in self.numbers[m]]
                matrix = np.array(
                    [[_pair(distances, tensor.type, maker, w) for w in wanted] for maker in makers]
                )
                for column, o in enumerate(kept):
                    if o.is_kept:  # where it was made
                        matrix[[maker.result != o.result for maker in makers], column] = np.inf
                total = total + _along(matrix, (m, n), count)
        return np.asarray(total)

    def _kept(self, variable: int) -> NDArray[np.int64]:
        options = self.tables.options[variable]
        if self.keep_all:
            return np.arange(len(options))
        best: dict[object, int] = {}
        for number, o in enumerate(options):
            key = (o.node.args if o.node else (), o.operands, o.result, o.late, o.uses_network)
            if key not in best or o.units < options[best[key]].units:
                best[key] = number
        return np.array(sorted(best.values()))


def _pair(
    distances: Distances,
    tensor: TensorType,
    maker: Option,
    wanted: list[tuple[Placement, float, bool]],
) -> float:
    if maker.result is None:
        return float("inf") if wanted else 0.0
    gathers = maker.implementation is not None and any(maker.implementation.macros)
    if gathers and any(alone for _, _, alone in wanted):
        return float("inf")
    rate = distances.objective.cycle_rate
    return _reached(distances.chains(tensor, maker.result), wanted, rate)


def _reached(
    reach: dict[Placement, tuple[float, float]],
    wanted: list[tuple[Placement, float, bool]],
    cycle_rate: float,
) -> float:
    """Return the cost of reaching all placements, less the cycles that a product covers of each."""
    total = 0.0
    for place, cover, _ in wanted:
        cost, cycles = reach.get(place, UNREACHED)
        total += cost - cycle_rate * min(cycles, cover)
    return total


def _along(values: NDArray[np.float64], axes: tuple[int, ...], count: int) -> NDArray[np.float64]:
    """Return an array [.., values on `axes`, ..] that broadcasts over `count` axes."""
    order = np.argsort(axes)
    shape = [1] * count
    for position in order:
        shape[axes[position]] = values.shape[position]
    return np.transpose(values, order).reshape(shape)


def naive_rows(plan: Plan, target: Target) -> list[int]:
    """Return the bytes alive in a tile while each op runs, by asking at every op what is still needed.

    A tensor in the scratchpad is alive from the op that makes it to the last op that reads it, or
    reads a view of it.
    """
    from tilewright.extract.kernel import buffers
    from tilewright.extract.planned import planned_kernel

    unit = target.tile.sram.alignment_bytes

    def shard(place: Placement, name: str) -> int:
        if place.memory is Memory.DRAM:
            return 0
        shape, elements = plan.types[name].shape, 1
        for dim, size in enumerate(shape):
            pieces = prod(
                n for n, s in zip(plan.mesh.sizes, place.sharding, strict=True) if s == dim
            )
            elements *= size // pieces
        return -(-elements * plan.types[name].dtype.itemsize_bytes // unit) * unit

    def base(name: str) -> str:
        for planned in plan.ops:
            if planned.op.kind == "reshape" and planned.op.output == name:
                source = planned.deliveries[0]
                return name if source.moves or planned.resident[0] else base(source.tensor)
        return name

    readers: dict[str, list[int]] = {}
    for position, planned in enumerate(plan.ops):
        for delivery, kept in zip(planned.deliveries, planned.resident, strict=True):
            if not kept:
                readers.setdefault(base(delivery.tensor), []).append(position)
    for delivery in plan.output_deliveries:
        # an output leaves right after the op that makes it
        maker = next(n for n, other in enumerate(plan.ops) if delivery.tensor in other.op.outputs)
        readers.setdefault(base(delivery.tensor), []).append(maker)
    resident = sum(
        shard(d.after, d.tensor)
        for planned in plan.ops
        for d, kept in zip(planned.deliveries, planned.resident, strict=True)
        if kept
    )
    rows = []
    for position, planned in enumerate(plan.ops):
        total = resident
        for made, other in enumerate(plan.ops):
            name = other.op.outputs[0]
            if base(name) != name:
                continue
            if made <= position <= max([made, *readers.get(name, [])]):
                total += shard(other.result, name)
        is_moved_view = planned.op.kind == "reshape"
        for delivery, kept in zip(planned.deliveries, planned.resident, strict=True):
            if delivery.moves and not kept and not is_moved_view:
                total += shard(delivery.after, delivery.tensor)
        if planned.op.kind != "host":
            assert planned.tiling is not None
            kernel = planned_kernel(planned, plan.types, plan.mesh)
            total += sum(
                b.copies * (-(-b.size_bytes // unit) * unit)
                for b in buffers(kernel, planned.tiling)
            )
        rows.append(total)
    return rows


@cache
def tiny(name: str, rows: int = 2, columns: int = 2) -> Case:
    """Return a small model on a machine, saturated once."""
    return saturated(MODELS[name](), mesh_target(rows, columns))


@cache
def sliced(rows: int, columns: int) -> Case:
    """Return a perceptron on a machine, also as a chain, however small what is between the products is."""
    b = Builder("perceptron")
    hidden = b.map("relu", b.matmul(b.input(64, 8), b.weight(8, 64)))
    graph = b.graph(b.matmul(hidden, b.weight(64, 8)))
    options = SaturationOptions(least_sliced_bytes=0, least_scattered_bytes=0)
    return saturated(graph, mesh_target(rows, columns), options=options)


@cache
def layered(rows: int, columns: int) -> Case:
    """Return four equal layers, which are rolled into one block; they give `map4`, `map9` and so on."""
    b = Builder("layers")
    value = b.input(16, 16)
    for _ in range(4):
        value = b.matmul(value, b.weight(16, 16))
        for fn in ("relu", "tanh", "exp", "neg"):
            value = b.map(fn, value)
    return saturated(b.graph(value), mesh_target(rows, columns))
