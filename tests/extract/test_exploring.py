"""Demands on plans against the enumeration of all plans that satisfy them, and the errors of demands."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from extract_cases import MODELS, Builder, Case, Enumeration, layered, saturated, tiny, with_sram

from tilewright.errors import DemandError, InfeasibleDemandError, InfeasibleError
from tilewright.extract.choice import ChoiceProblem
from tilewright.extract.exploration.demand import Aspect, Demand, parse_demand
from tilewright.extract.exploration.explain import explain
from tilewright.extract.exploration.explorer import Explorer
from tilewright.extract.exploration.resources import diff, resources
from tilewright.extract.exploration.restrict import Restriction, restrictions
from tilewright.extract.exploration.tables import OptionMemo
from tilewright.extract.exploration.ways import alternatives
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.objective import Objective
from tilewright.extract.plan import Memory
from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.mesh import PARTIAL_SUM, format_sharding
from tilewright.lowering.lower import build_program
from tilewright.simulator.timing import simulate

TENSORS = {
    "matmul_chain": "matmul1",
    "linear_relu": "map2",
    "residual": "map1",
    "heads": "matmul0",
    "two_outputs": "matmul0",
}
"""A tensor that every plan of a model computes."""


@cache
def explorer(
    name: str, objective: Objective = Objective.LATENCY, limit: int | None = None
) -> Explorer:
    case = tiny(name, 1, 2)
    options = ExtractOptions(objective=objective, sram_limit_bytes=limit)
    args = (case.graph, case.rolled, case.alternatives, case.target, case.mesh)
    return Explorer(*args, options)


def class_of(case: Case, tensor: str) -> int:
    (number,) = (c.number for c in case.alternatives[0].classes if tensor in c.names)
    return number


def left_by_hand(case: Case, tensor: str, sharding: str) -> Case | None:
    """Leave out every other sharding of a tensor from what saturation found."""
    (found,) = case.alternatives
    number = class_of(case, tensor)
    makers = {n.number for n in found.nodes if n.result == number}
    kept = tuple(
        i
        for i in found.implementations
        if i.node not in makers or format_sharding(case.mesh, i.result) == sharding
    )
    usable = {i.node for i in kept}
    nodes = tuple(n for n in found.nodes if n.number not in makers or n.number in usable)
    if not any(n.result == number for n in nodes):
        return None
    return replace(case, alternatives=(replace(found, nodes=nodes, implementations=kept),))


@pytest.mark.parametrize("objective", [Objective.LATENCY, Objective.ENERGY])
@pytest.mark.parametrize("name", sorted(TENSORS))
def test_a_forced_sharding_gives_the_optimum_under_it(name: str, objective: Objective) -> None:
    case, tensor = tiny(name, 1, 2), TENSORS[name]
    session = explorer(name, objective)
    tried = 0
    for sharding in ("y:R x:R", "y:R x:S0", "y:R x:S1", "y:R x:P"):
        left = left_by_hand(case, tensor, sharding)
        demand = Demand(aspect=Aspect.SHARDING, value=sharding, tensor=tensor)
        if left is None:
            with pytest.raises(DemandError, match="no way to compute"):
                session.answer(demand)
            continue
        tables = left.tables(objective)
        least = Enumeration(left, *tables).costs().min()
        if not np.isfinite(least):
            with pytest.raises(InfeasibleError):
                session.answer(demand)
            continue
        answer = session.answer(demand)
        validate_plan(answer.plan, case.target)
        assert answer.plan.cost == pytest.approx(least, rel=1e-6)
        assert answer.plan.bound <= least * (1 + 1e-9)
        assert answer.delta == pytest.approx(least - session.base.plan.cost, abs=1e-6 * least)
        # a fresh compilation under the same restriction finds the same
        assert left.extract(objective).cost == pytest.approx(answer.plan.cost, rel=1e-6)
        tried += 1
    assert tried >= 2


@pytest.mark.parametrize("limit", [1536, 2048, 2560, 3072, 3584])
def test_where_scratchpad_is_short_plans_are_those_of_a_compilation(limit: int) -> None:
    case, tensor = tiny("two_outputs", 1, 2), TENSORS["two_outputs"]
    session = explorer("two_outputs", limit=limit)
    assert session.base.plan.cost == pytest.approx(case.extract(limit=limit).cost)
    for sharding in ("y:R x:S0", "y:R x:S1"):
        left = left_by_hand(case, tensor, sharding)
        assert left is not None
        answer = session.answer(Demand(aspect=Aspect.SHARDING, value=sharding, tensor=tensor))
        validate_plan(answer.plan, case.target)
        assert answer.plan.peak_sram_bytes <= limit
        assert answer.plan.cost == pytest.approx(left.extract(limit=limit).cost)
        assert session.base.plan.cost <= answer.plan.cost * (1 + 1e-9)


@pytest.mark.parametrize("name", sorted(TENSORS))
def test_a_forced_memory_gives_the_optimum_under_it(name: str) -> None:
    case, tensor = tiny(name, 1, 2), TENSORS[name]
    found = Enumeration(case, *case.tables())
    costs = found.costs()
    tables = found.tables
    axis = tables.number[0, class_of(case, tensor)]
    options = [tables.options[axis][int(n)] for n in found.numbers[axis]]
    for memory in Memory:
        mask = np.array([o.result is not None and o.result.memory is memory for o in options])
        least = np.compress(mask, costs, axis=axis).min()
        demand = Demand(aspect=Aspect.MEMORY, value=memory, tensor=tensor)
        answer = explorer(name).answer(demand)
        validate_plan(answer.plan, case.target)
        assert answer.plan.cost == pytest.approx(least, rel=1e-6)
        (made,) = (p for p in answer.plan.ops if p.op.output == tensor)
        assert made.result.memory is memory
        other = explorer(name).answer(replace(demand, is_forced=False))
        (made,) = (p for p in other.plan.ops if p.op.output == tensor)
        assert made.result.memory is not memory


def test_rules_are_forced_and_forbidden() -> None:
    session, rule = explorer("matmul_chain"), "algebra.product_of_two_weights"
    target = session.target
    assert {p.rule for p in session.base.plan.ops} == {rule}
    answer = session.answer(parse_demand(f"rule={rule}", is_forced=False))
    validate_plan(answer.plan, target)
    assert [p.op.output for p in answer.plan.ops] == ["matmul0", "matmul1"]
    assert answer.delta > 0
    assert session.answer(parse_demand(f"rule={rule}")).plan == session.base.plan
    fused = explorer("linear_relu")
    assert not any(p.rule for p in fused.base.plan.ops)
    costs = []
    for text in ("rule=fusion", "rule=fusion@map2", "rule=fusion@map1"):
        answer = fused.answer(parse_demand(text))
        validate_plan(answer.plan, target)
        assert any(p.rule.startswith("fusion.") for p in answer.plan.ops)
        costs.append(answer.plan.cost)
    assert costs[0] == pytest.approx(min(costs))


def test_a_value_that_no_op_needs_is_computed_and_read() -> None:
    session = explorer("matmul_chain")
    assert "matmul0" not in {p.op.output for p in session.base.plan.ops}
    answer = session.answer(parse_demand("memory=dram@matmul0"))
    validate_plan(answer.plan, session.target)
    assert any("matmul0" in p.op.inputs for p in answer.plan.ops)
    assert answer.delta > 0


def test_tiles_are_forced_and_forbidden() -> None:
    target = mesh_target(1, 2, sram_kib=16)
    case = saturated(MODELS["matmul_chain"](m=64, h=128), target)
    session = Explorer(case.graph, case.rolled, case.alternatives, case.target, case.mesh)
    ways = alternatives(session, "matmul1", 0)
    tiles = sorted({way.tile for way in ways if way.tile not in ("-", "1")})
    assert len(tiles) > 1
    fitting, short = 0, []
    for tile in tiles:
        try:
            answer = session.answer(parse_demand(f"tile={tile.replace(' ', ',')}@matmul1"))
        except InfeasibleDemandError as error:
            short.append(error)
            continue
        fitting += 1
        validate_plan(answer.plan, case.target)
        sizes = dict(word.split("=") for word in tile.split())
        (made,) = (p for p in answer.plan.ops if p.op.output == "matmul1")
        assert made.tiling is not None
        assert {int(size) for size in sizes.values()} <= set(made.tiling.sizes)
        without = session.answer(
            parse_demand(f"tile={tile.replace(' ', ',')}@matmul1", is_forced=False)
        )
        (other,) = (p for p in without.plan.ops if p.op.output == "matmul1")
        assert other.tiling is not None
        assert sorted(other.tiling.sizes) != sorted(made.tiling.sizes)
    assert fitting > 1
    assert all(error.gap > 0 for error in short)
    assert {error.limit for error in short} <= {target.tile.sram.size_bytes}


def exploring(build: Builder, *outputs: str) -> Explorer:
    case = saturated(build.graph(*outputs), mesh_target(2, 2))
    return Explorer(case.graph, case.rolled, case.alternatives, case.target, case.mesh)


def test_ways_that_no_plan_can_take_are_not_listed() -> None:
    build = Builder("sliced")
    # nobody brings the model's input as partial sums
    first = build.op(
        "slice", [build.input(3, 6)], (1, 6), starts=(0, 0), sizes=(1, 6), steps=(1, 1)
    )
    session = exploring(build, build.op("expand", [first], (3, 6), shape=(3, 6)))
    block, _ = session.variable(first)
    assert any(PARTIAL_SUM in way.result for way in session.alternatives[block].implementations)
    ways = alternatives(session, first, 100)
    assert ways
    assert all(way.answer is not None for way in ways)
    with pytest.raises(InfeasibleError, match="some operand cannot come to it"):
        session.answer(parse_demand(f"sharding=y:P,x:R@{first}"))


def test_a_tile_of_one_element_is_demanded_as_it_is_shown() -> None:
    build = Builder("one")
    made = build.map("exp", build.input(1, 1))
    session = exploring(build, made)
    (tile,) = {way.tile for way in alternatives(session, made, 1)}
    assert tile == "1"
    assert session.answer(parse_demand(f"tile={tile}@{made}")).plan.cost == session.base.plan.cost
    with pytest.raises(DemandError):
        session.answer(parse_demand(f"tile={tile}@{made}", is_forced=False))


def test_answers_do_not_depend_on_what_was_asked_before() -> None:
    demands = [
        parse_demand("sharding=y:R,x:S1@matmul0"),
        parse_demand("memory=dram@matmul0"),
        parse_demand("rule=partition", is_forced=False),
    ]

    def costs(order: list[int]) -> dict[int, object]:
        case = tiny("matmul_chain", 1, 2)
        session = Explorer(case.graph, case.rolled, case.alternatives, case.target, case.mesh)
        return {n: session.answer(demands[n]).plan.ops for n in order}

    assert costs([0, 1, 2]) == costs([2, 1, 0])


@pytest.mark.parametrize("name", ["linear_relu", "residual"])
def test_tables_that_share_parts_are_those_made_anew(name: str) -> None:
    case, session = tiny(name, 1, 2), explorer(name)
    demand = parse_demand(f"memory=dram@{TENSORS[name]}")
    placed = session.placed([demand])
    session.memo.setting(Restriction(alternatives=case.alternatives, demands={}))
    for restriction in restrictions(case.alternatives, placed):
        shared = session.memo.setting(restriction)
        alone = OptionMemo(case.graph, case.rolled, shared.pricing, shared.tables.scale)
        anew = alone.setting(restriction).tables
        assert shared.tables.variables == anew.variables
        assert shared.tables.options == anew.options
        for one, other in (
            (shared.tables.problem, anew.problem),
            (shared.tables.relaxed, anew.relaxed),
        ):
            assert arrays_of(one) == arrays_of(other)


def arrays_of(problem: ChoiceProblem) -> list[object]:
    edges = [
        (e.left, e.right, *(a.tolist() for a in (e.left_ports, e.right_ports, e.matrix)))
        for e in problem.edges
    ]
    usages = [(u.variable, u.low, u.high, u.amounts.tolist()) for u in problem.usages]
    return [[own.tolist() for own in problem.costs], edges, usages]


@pytest.mark.parametrize("name", sorted(TENSORS))
def test_no_answer_has_a_lower_bound_than_the_plan_without_demands(name: str) -> None:
    session = explorer(name)
    for text in ("memory=dram", "memory=sram", "weights=streamed"):
        demand = parse_demand(f"{text}@{TENSORS[name]}")
        with suppress(DemandError):
            plan = session.answer(demand).plan
            assert session.base.plan.bound <= plan.bound + 1e-6 <= plan.cost + 2e-6


def test_contradictions_name_both_demands() -> None:
    session = explorer("matmul_chain")
    for first, second in (
        ("sharding=y:R,x:S0@matmul0", "sharding=y:R,x:S1@matmul0"),
        ("memory=sram@matmul0", "memory=dram@matmul0"),
    ):
        one, other = parse_demand(first), parse_demand(second)
        bystander = parse_demand("memory=dram@matmul1")
        with pytest.raises(DemandError, match="contradict each other") as raised:
            session.answer(bystander, one, other)
        assert str(one) in str(raised.value)
        assert str(other) in str(raised.value)
        assert str(bystander) not in str(raised.value)
        assert "no plan satisfies both" in str(raised.value)
        with pytest.raises(DemandError, match="contradict"):
            session.answer(one, replace(one, is_forced=False))


def test_a_contradiction_in_repeats_says_that_they_are_alike() -> None:
    case = layered(2, 2)
    session = Explorer(case.graph, case.rolled, case.alternatives, case.target, case.mesh)
    assert session.setting.tables.has_repeats
    demands = [parse_demand("memory=dram@map9"), parse_demand("memory=sram@map14")]
    with pytest.raises(DemandError, match="repeats of one, which are all computed alike"):
        session.answer(*demands)


def test_what_a_demand_asks_in_vain_is_said_with_what_there_is() -> None:
    session = explorer("matmul_chain")
    with pytest.raises(DemandError, match=r"expected one of: .*y:R,x:S0"):
        session.answer(parse_demand("sharding=y:R,x:S7@matmul0"))
    with pytest.raises(DemandError, match="did you mean matmul"):
        session.answer(parse_demand("memory=dram@matmul"))
    with pytest.raises(DemandError, match="is an input or a constant"):
        session.answer(parse_demand("memory=dram@w0"))
    with pytest.raises(DemandError, match="found 'flash', expected sram or dram"):
        session.answer(parse_demand("memory=flash@matmul0"))
    with pytest.raises(DemandError, match="expected states of the mesh axes y, x"):
        session.answer(parse_demand("split=z:m@matmul0"))
    with pytest.raises(DemandError, match=r"expected loops with their sizes as m=16,n=64"):
        session.answer(parse_demand("tile=big@matmul0"))
    with pytest.raises(DemandError, match="makes no way of this model"):
        session.answer(parse_demand("rule=absent"))
    for text in ("colour=red@matmul0", "memory", "memory=dram", "memory=@matmul0"):
        with pytest.raises(DemandError, match="write ASPECT=VALUE@TENSOR"):
            parse_demand(text)


def test_an_infeasible_demand_says_what_would_satisfy_it() -> None:
    name, limit = "matmul_chain", 3072
    session = explorer(name, limit=limit)
    demand = parse_demand("weights=resident@matmul1")
    other = parse_demand("memory=dram@matmul0")
    with pytest.raises(InfeasibleDemandError) as raised:
        session.answer(demand, other)
    error = raised.value
    assert error.limit == limit
    assert error.gap == error.demand - limit > 0
    assert f"gap {error.gap:,.0f} bytes" in str(error)
    assert any(str(demand) in change for change in error.changes)
    validate_plan(session.answer(other).plan, with_sram(session.target, limit))
    roomier = explorer(name, limit=int(error.demand)).answer(demand, other)
    validate_plan(roomier.plan, with_sram(session.target, int(error.demand)))
    assert roomier.plan.peak_sram_bytes <= error.demand


@pytest.mark.parametrize("name", ["matmul_chain", "residual", "two_outputs"])
def test_ways_and_reasons_add_up(name: str) -> None:
    session, tensor = explorer(name), TENSORS[name]
    ways = alternatives(session, tensor, 6)
    (chosen,) = (way for way in ways if way.is_chosen)
    assert chosen.answer is session.base
    for way in ways:
        if way.answer is not None:
            validate_plan(way.answer.plan, session.target)
            assert way.answer.plan.cost >= way.least * (1 - 1e-9)
            assert way.answer.plan.cost >= session.base.plan.cost * (1 - 1e-6)
    found = explain(session, tensor)
    assert found.other is not None
    assert found.other.answer is not None
    plans = session.base.plan, found.other.answer.plan
    assert sum(t.chosen for t in found.terms) == pytest.approx(plans[0].cost)
    assert sum(t.other for t in found.terms) == pytest.approx(plans[1].cost)
    changes = diff(*plans)
    assert sum(c.delta for c in changes) == pytest.approx(plans[1].cost - plans[0].cost, abs=1e-6)
    assert diff(plans[0], plans[0]) == ()
    assert resources(plans[0], session.target)[0].amount == pytest.approx(plans[0].cost)


def test_explain_names_the_scratchpad_where_it_binds() -> None:
    binding = explain(explorer("two_outputs", limit=2560), "matmul0").binding
    (text,) = (text for text in binding if text.startswith("scratchpad binds"))
    assert "demand 4,096, limit 2,560, gap 1,536 bytes" in text
    ample = explain(explorer("two_outputs"), "matmul0").binding
    assert not any(text.startswith("scratchpad binds") for text in ample)
    with pytest.raises(DemandError, match="it is part of 'matmul1'"):
        explain(explorer("matmul_chain"), "matmul0")


def test_forced_plans_lower_and_simulate() -> None:
    session = explorer("residual")
    for text in ("sharding=y:R,x:S1@map1", "memory=dram@matmul0"):
        answer = session.answer(parse_demand(text))
        timing = simulate(build_program(answer.plan, session.target))
        assert timing.run.cycles > 0
