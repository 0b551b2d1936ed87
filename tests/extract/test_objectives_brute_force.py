"""Every objective, limits and fronts against the enumeration of all plans of small models.

The enumeration multiplies out the options of all tensors. Sums are those of `extract_cases.Enumeration`; the
fullest moment of the scratchpad is counted here, for all combinations at once. What a plan says of itself is
judged by the validator.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
from _pytest.mark.structures import ParameterSet
from extract_cases import Builder, Case, Enumeration, _along, saturated
from numpy.typing import NDArray

from tilewright.errors import InfeasibleDemandError
from tilewright.extract.amounts import amounts
from tilewright.extract.closing import counted
from tilewright.extract.extraction import ExtractOptions, pricing_of
from tilewright.extract.front import front
from tilewright.extract.front_planner import FrontPlanner
from tilewright.extract.limited import extract_within_latency
from tilewright.extract.model_tables import build_tables
from tilewright.extract.move_buffers import shard_bytes
from tilewright.extract.objective import Metric, Objective, parse_objective, single
from tilewright.extract.option import Option
from tilewright.extract.plan import Delivery, Memory, Placement, Plan, Proof
from tilewright.extract.plan_writer import PlanWriter
from tilewright.extract.profile import delivery_bytes
from tilewright.extract.pruning import prune
from tilewright.extract.reshard import dram_placement
from tilewright.extract.user_metric import UserMetric
from tilewright.extract.validate import validate_plan
from tilewright.graph import Graph
from tilewright.hwmodel.family import mesh_target
from tilewright.rules.roll import roll

_LITTLE = 1e-4

Values = NDArray[np.float64]


def chain() -> Graph:
    b = Builder("chain")
    return b.graph(b.matmul(b.matmul(b.input(8, 16), b.weight(16, 32)), b.weight(32, 16)))


def branch() -> Graph:
    b = Builder("branch")
    x = b.input(16, 32)
    return b.graph(b.map("add", b.matmul(x, b.weight(32, 32)), x))


def reduction() -> Graph:
    b = Builder("reduction")
    shared = b.matmul(b.input(8, 16), b.weight(16, 32))
    return b.graph(shared, b.op("reduce", (shared,), (8, 1), fn="sum", axes=(1,)))


def elementwise() -> Graph:
    b = Builder("elementwise")
    x = b.input(32, 64)
    return b.graph(
        b.op("reduce", (b.map("mul", x, b.input(32, 64)),), (32, 1), fn="max", axes=(1,))
    )


MODELS = (chain, branch, reduction, elementwise)
OBJECTIVES = (
    "latency",
    "throughput",
    "energy",
    "sram",
    "latency:0.7,energy:0.3",
    "latency:1,sram:40",
    "energy:1,throughput:2,sram:60",
)


def _slow(*values: object) -> ParameterSet:
    return pytest.param(*values, marks=pytest.mark.slow)


@cache
def case_of(number: int) -> Case:
    graph = MODELS[number]()
    return saturated(graph, mesh_target(2, 2), rolled=roll(graph))


@cache
def enumerated(number: int, objective: Objective, spares: bool) -> tuple[Enumeration, Values]:
    """Return all combinations of the options that an objective is priced with, and their additive costs."""
    case = case_of(number)
    options = ExtractOptions(
        objective=objective,
        spares_scratchpad=spares,
        beside=(Objective.LATENCY, Objective.ENERGY),
    )
    alternatives = tuple(prune(found) for found in case.alternatives)
    pricing = pricing_of(alternatives, case.target, case.mesh, options)
    tables = build_tables(case.graph, case.rolled, alternatives, pricing)
    found = Enumeration(case, alternatives, pricing, tables, keep_all=True)
    return found, found.costs()


def delivered(found: Enumeration, number: int, start: Placement, end: Placement) -> Delivery | None:
    """Return the delivery of a class between two placements, None if nothing joins them."""
    variable, tensor = (0, number), found.alternatives[0].classes[number].type
    made = variable in found.tables.tables
    table = found.tables.tables[variable] if made else found.tables.input_tables[tensor]
    first, last = table.index[start], table.index.get(end)
    if last is None or not np.isfinite(table.cost[first, last]):
        return None
    return Delivery(tensor="", before=start, moves=table.moves(first, last), after=end)


def peaks(found: Enumeration) -> Values:
    """Return the bytes of the fullest moment of every combination."""
    case, tables = found.case, found.tables
    alignment = case.target.tile.sram.alignment_bytes
    classes = [c for _, c in tables.variables]
    kept = [[own[i] for i in found.numbers[n]] for n, own in enumerate(tables.options)]
    count = len(classes)

    def size(number: int, place: Placement | None) -> float:
        if place is None or place.memory is Memory.DRAM:
            return 0.0
        return shard_bytes(place, found.alternatives[0].classes[number].type, case.mesh, alignment)

    def uses(reader: int, number: int) -> Values:
        own = [o.node is not None and number in o.node.args for o in kept[reader]]
        return _along(np.array(own), (reader,), count)

    resident = sum(
        _along(np.array([float(o.resident_bytes) for o in own]), (n,), count)
        for n, own in enumerate(kept)
    )
    fullest = np.zeros((1,) * count)
    for n in range(count):
        row = resident + own_bytes(found, kept, n, alignment)
        for v in range(n + 1):
            held = _along(np.array([size(classes[v], o.result) for o in kept[v]]), (v,), count)
            is_alive = np.full((1,) * count, v == n)
            for reader in range(max(n, v + 1), count):
                is_alive = is_alive | uses(reader, classes[v])
            row = row + held * is_alive
        fullest = np.maximum(fullest, row)
    return fullest


@cache
def peaks_of(number: int, objective: Objective) -> Values:
    found, costs = enumerated(number, objective, True)
    return np.broadcast_to(peaks(found), costs.shape)


def own_bytes(found: Enumeration, kept: list[list[Option]], n: int, alignment: int) -> Values:
    """Return copies and buffers of a variable's op, by its option and those of what it reads."""
    block, tables, mesh = found.alternatives[0], found.tables, found.case.mesh
    classes = [c for _, c in tables.variables]
    read = {a for o in kept[n] if o.node for a in o.node.args}
    makers = [m for m, c in enumerate(classes) if c in read]
    places = [list(dict.fromkeys(o.result for o in kept[m])) for m in makers]
    dram = dram_placement(mesh)

    @cache
    def way(argument: int, start: Placement, end: Placement) -> tuple[int, int] | None:
        """Return the bytes during a delivery and of the copy that it leaves."""
        delivery = delivered(found, argument, start, end)
        if delivery is None:
            return None
        tensor = block.classes[argument].type
        copied = shard_bytes(end, tensor, mesh, alignment) if delivery.moves else 0
        return delivery_bytes(delivery, tensor, mesh, alignment), copied

    def needed(option: Option, at: dict[int, Placement | None]) -> float:
        if option.node is None:
            return 0.0
        most = held = 0
        for argument, wanted in zip(option.node.args, option.operands, strict=True):
            if wanted is None:
                continue
            start = at.get(argument, dram)
            steps = way(argument, start, wanted) if start is not None else None
            if steps is None:
                return np.inf
            most = max(most, held + steps[0])
            held += steps[1]
        own = max(most, held + option.working_bytes)
        if classes[n] in block.outputs:
            assert option.result is not None
            leaving = way(classes[n], option.result, dram)
            if leaving is None:
                return np.inf
            own = max(own, leaving[0])
        return float(own)

    table = np.empty([*map(len, places), len(kept[n])])
    for index in product(*map(range, map(len, places))):
        at = {classes[m]: own[i] for m, own, i in zip(makers, places, index, strict=True)}
        table[index] = [needed(option, at) for option in kept[n]]
    for axis, (m, own) in enumerate(zip(makers, places, strict=True)):
        table = np.take(table, [own.index(o.result) for o in kept[m]], axis=axis)
    return _along(table, (*makers, n), len(classes))


def written(found: Enumeration, position: tuple[int, ...]) -> Plan:
    """Return the plan of one combination."""
    choice = tuple(int(found.numbers[n][i]) for n, i in enumerate(position))
    case = found.case
    writer = PlanWriter(
        case.graph, case.rolled, found.alternatives, found.tables, choice, found.pricing
    )
    return counted(writer.write((0.0, Proof(method="none"))), case.target)


@pytest.mark.parametrize("number", [_slow(0), _slow(1), 2, 3])
def test_the_enumeration_agrees_with_the_validator(number: int) -> None:
    found, costs = enumerated(number, Objective.LATENCY, True)
    fullest = peaks_of(number, Objective.LATENCY)
    finite = np.argwhere(np.isfinite(costs))
    rng = np.random.default_rng(number)
    for position in finite[rng.choice(len(finite), 12, replace=False)]:
        place = tuple(int(i) for i in position)
        plan = written(found, place)
        validate_plan(plan, found.case.target)
        assert plan.cost == pytest.approx(costs[place], rel=1e-9)
        assert plan.peak_sram_bytes == fullest[place]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        _slow(number, text) if number < 2 and "sram" in text else (number, text)
        for number in range(len(MODELS))
        for text in OBJECTIVES
    ],
)
def test_no_plan_is_better(number: int, text: str) -> None:
    case = case_of(number)
    objective = parse_objective(text).on(case.graph, case.target)
    plan = case.extract(objective)
    validate_plan(plan, case.target)
    is_sparing = Metric.SRAM in objective.metrics
    _, costs = enumerated(number, objective.additive, is_sparing)
    total = costs if objective != Objective.SRAM else np.where(np.isfinite(costs), 0.0, np.inf)
    if is_sparing:
        total = total + objective.rate(Metric.SRAM) * peaks_of(number, objective.additive)
    assert plan.cost == pytest.approx(total.min(), rel=1e-9)
    assert plan.bound == pytest.approx(plan.cost, rel=1e-6)


USER_METRICS = (
    UserMetric("slowest", lambda o: max(o.core_cycles, o.dram_cycles, o.link_cycles)),
    UserMetric("all", lambda o: o.core_cycles + 3 * o.dram_cycles + o.link_cycles),
)


@pytest.mark.parametrize("number", range(len(MODELS)))
@pytest.mark.parametrize("metric", USER_METRICS, ids=str)
def test_no_plan_is_better_by_a_metric_of_a_user(number: int, metric: UserMetric) -> None:
    case = case_of(number)
    plan = case.extract(single(metric))
    validate_plan(plan, case.target)
    _, costs = enumerated(number, single(metric), False)
    assert plan.cost == pytest.approx(costs.min(), rel=1e-9)
    assert plan.bound == pytest.approx(plan.cost, rel=1e-6)


def front_of(number: int, metrics: tuple[Metric, ...]) -> FrontPlanner:
    case = case_of(number)
    return FrontPlanner(
        case.graph,
        case.rolled,
        case.alternatives,
        case.target,
        case.mesh,
        metrics,
        ExtractOptions(),
    )


@pytest.mark.parametrize("number", [_slow(1), 2])
def test_a_front_has_the_best_plan_for_any_weights(number: int) -> None:
    metrics = (Metric.LATENCY, Metric.ENERGY)
    planner = front_of(number, metrics)
    points = front(planner, 50).points
    assert len(points) > 1, "the metrics agree, nothing is tested"
    for point in points:
        validate_plan(point.plan, case_of(number).target)
        assert point.plan.gap <= 1e-9
        assert amounts(point.plan, case_of(number).target) == point.amounts
    for first, second in pairwise(points):
        assert first.amounts[Metric.LATENCY] < second.amounts[Metric.LATENCY]
        assert first.amounts[Metric.ENERGY] > second.amounts[Metric.ENERGY]
    for share in (0.001, 0.05, 0.08, 0.15, 0.3, 0.5, 0.9, 0.999):
        objective = planner.objective((share, 1 - share))
        _, costs = enumerated(number, objective, False)
        values = [sum(objective.rate(m) * p.amounts[m] for m in metrics) for p in points]
        assert min(values) == pytest.approx(costs.min(), rel=1e-9)


@pytest.mark.parametrize("number", [_slow(0), 3])
def test_a_front_with_the_footprint_has_the_fastest_plan_within_each_limit(number: int) -> None:
    points = front(front_of(number, (Metric.LATENCY, Metric.SRAM)), 6).points
    found, costs = enumerated(number, Objective.LATENCY, True)
    fullest = peaks_of(number, Objective.LATENCY)
    assert points[-1].amounts[Metric.SRAM] == fullest[np.isfinite(costs)].min()
    assert points[0].amounts[Metric.LATENCY] == pytest.approx(costs.min(), rel=1e-9)
    assert len(points) > 2
    for point in points:
        validate_plan(point.plan, found.case.target)
        best = costs[fullest <= point.limit_bytes].min()
        assert point.amounts[Metric.LATENCY] == pytest.approx(best, rel=1e-9)
        # nothing is at least as good in both and better in one
        latency, size = point.amounts[Metric.LATENCY], point.amounts[Metric.SRAM]
        is_better = (costs <= latency * (1 - 1e-9)) & (fullest <= size)
        is_leaner = (costs <= latency * (1 + 1e-9)) & (fullest < size)
        assert not is_better.any()
        assert point.plan.peak_sram_bytes == size
        assert is_leaner.any() == any(
            p.amounts[Metric.LATENCY] <= latency * (1 + 1e-9) and p.amounts[Metric.SRAM] < size
            for p in points
        )


def test_a_front_of_three_metrics_has_no_more_points_than_asked_for() -> None:
    metrics = (Metric.LATENCY, Metric.ENERGY, Metric.SRAM)
    planner = front_of(3, metrics)
    many, few = front(planner, 8).points, front(planner, 2).points
    assert 2 < len(many) <= 8
    assert len(few) == 2
    assert few[0].amounts[Metric.LATENCY] < few[1].amounts[Metric.LATENCY]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_least_energy_within_a_latency_is_bracketed(share: float) -> None:
    number = 2
    case = case_of(number)
    energy = enumerated(number, Objective.ENERGY, False)[1]
    # the latency of these very plans: a little of it beside the energy changes no chain of moves
    both = Objective(((Metric.ENERGY, 1.0), (Metric.LATENCY, _LITTLE)), (1.0, _LITTLE))
    latency = (enumerated(number, both, False)[1] - energy) / _LITTLE
    fastest, slowest = (
        amounts(case.extract(objective), case.target)[Metric.LATENCY]
        for objective in (Objective.LATENCY, Objective.ENERGY)
    )
    limit = fastest + share * (slowest - fastest)
    options = ExtractOptions(objective=Objective.ENERGY)
    plan = extract_within_latency(
        case.graph, case.rolled, case.alternatives, case.target, case.mesh, options, limit
    )
    validate_plan(plan, case.target)
    assert amounts(plan, case.target)[Metric.LATENCY] <= limit
    least = energy[np.nan_to_num(latency, nan=np.inf) <= limit].min()
    assert energy.min() < plan.bound <= least * (1 + 1e-9)
    assert plan.cost <= amounts(case.extract(), case.target)[Metric.ENERGY] * (1 + 1e-9)


def test_no_plan_is_fast_enough() -> None:
    case = case_of(1)
    latency = enumerated(1, Objective.LATENCY, False)[1]
    limit = float(latency.min()) - 10
    options = ExtractOptions(objective=Objective.ENERGY)
    with pytest.raises(InfeasibleDemandError, match="use more tiles") as raised:
        extract_within_latency(
            case.graph, case.rolled, case.alternatives, case.target, case.mesh, options, limit
        )
    assert raised.value.demand == pytest.approx(latency.min())
    assert raised.value.gap == pytest.approx(10)
    assert raised.value.unit == "cycles"
