"""Tiles that demands name, whatever planning left out: prices against enumeration, and limits they break."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import permutations, product

import numpy as np
import pytest
from extract_cases import GATHERED_RULES, Builder, Case, Enumeration, saturated, with_sram
from test_rolled import layers

from tilewright.errors import DemandError, InfeasibleDemandError
from tilewright.extract.exploration.demand import parse_demand
from tilewright.extract.exploration.explorer import Answer, Explorer
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.kernel import footprint_bytes
from tilewright.extract.kernel_price import price
from tilewright.extract.model_tables import build_tables
from tilewright.extract.objective import Objective
from tilewright.extract.option import Option
from tilewright.extract.options import implementations_by_node, kernel_of
from tilewright.extract.plan import Memory, Placement, PlannedOp, Tiling
from tilewright.extract.planned import planned_nest
from tilewright.extract.pricing import Pricing
from tilewright.extract.tiling_candidates import MOST_BOXES, tiling_candidates
from tilewright.extract.validate import validate_plan
from tilewright.graph import Graph
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.mesh import is_partial, replicated
from tilewright.hwmodel.target import Target
from tilewright.rules.alternatives import Implementation, LogicalNode
from tilewright.rules.loopnest import Role
from tilewright.rules.tiling.family import tiling_rules

M, K, N = 48, 40, 36


def one_product() -> Graph:
    b = Builder("one_product")
    return b.graph(b.matmul(b.input(M, K), b.input(K, N)))


def exploring(
    graph: Graph, target: Target, options: ExtractOptions | None = None, **saturating: object
) -> Explorer:
    case = saturated(graph, target, **saturating)  # type: ignore[arg-type]
    args = (case.graph, case.rolled, case.alternatives, case.target, case.mesh)
    return Explorer(*args, options)


@cache
def product_case() -> Case:
    return saturated(one_product(), mesh_target(1, 2, sram_kib=64), without_rules=GATHERED_RULES)


@cache
def product_explorer(objective: Objective = Objective.LATENCY) -> Explorer:
    case = product_case()
    args = (case.graph, case.rolled, case.alternatives, case.target, case.mesh)
    return Explorer(*args, ExtractOptions(objective=objective))


def op_of(answer: Answer, tensor: str) -> PlannedOp:
    (found,) = (p for p in answer.plan.ops if p.op.output == tensor)
    return found


def sizes_of(answer: Answer, tensor: str) -> dict[str, int]:
    """Return the tile sizes of the op that makes a tensor, by loop."""
    planned = op_of(answer, tensor)
    assert planned.tiling is not None
    names = [dim.name for dim in planned_nest(planned, answer.plan.types).dims]
    return dict(zip(names, planned.tiling.sizes, strict=False))


def by_hand(
    case: Case, pricing: Pricing, node: LogicalNode, way: Implementation, sizes: tuple[int, ...]
) -> Iterator[Option]:
    """Yield every option of a product that has these tile sizes: all memories, all orders of loops."""
    (found,) = case.alternatives
    alignment = case.target.tile.sram.alignment_bytes
    for *memories, result in product(Memory, repeat=3):
        if is_partial(way.result) and result is Memory.DRAM:
            continue
        kernel = kernel_of(found, node, way, tuple(memories), result, case.mesh)
        loops = list(zip(kernel.nest.dims, sizes, strict=True))
        if any(size > dim.extent for dim, size in loops):
            continue
        for order in permutations(range(len(loops))):
            roles = [kernel.nest.dims[d].role is Role.REDUCTION for d in order]
            if roles != sorted(roles):
                continue  # sums are innermost
            tiling = Tiling(sizes, order)
            cost = price(kernel, tiling, case.target)
            places = [
                Placement(m, replicated(case.mesh) if m is Memory.DRAM else sharding)
                for m, sharding in zip(
                    (*memories, result), (*way.operands, way.result), strict=True
                )
            ]
            yield Option(
                node=node,
                implementation=way,
                operands=tuple(places[:-1]),
                resident=(False, False),
                result=places[-1],
                tiling=tiling,
                cost=cost,
                units=pricing.objective.kernel_units(cost, case.target),
                working_bytes=footprint_bytes(kernel, tiling, alignment),
            )


@pytest.mark.parametrize("objective", [Objective.LATENCY, Objective.ENERGY])
@pytest.mark.parametrize("sizes", [(7, 11, 40), (13, 36, 9), (24, 5, 33), (48, 18, 40), (1, 36, 1)])
def test_a_forced_tile_gives_the_optimum_of_all_plans_with_it(
    sizes: tuple[int, int, int], objective: Objective
) -> None:
    case, session = product_case(), product_explorer(objective)
    alternatives, pricing, tables = case.tables(objective)
    by_node = implementations_by_node(alternatives[0])
    options = tuple(
        option
        for node in alternatives[0].nodes
        if node.kind == "matmul"
        for way in by_node[node.number]
        for option in by_hand(case, pricing, node, way, sizes)
    )
    (number,) = (v for v in tables.variables if v == session.variable("matmul0"))
    every = build_tables(
        *(case.graph, case.rolled, alternatives, pricing),
        lambda variable, _needed, _late: (
            options if variable == number else tables.options[tables.number[variable]]
        ),
    )
    least = Enumeration(case, alternatives, pricing, every).costs().min()
    m, n, k = sizes
    answer = session.answer(parse_demand(f"tile=m={m},n={n},k={k}@matmul0"))
    validate_plan(answer.plan, case.target)
    assert sizes_of(answer, "matmul0") == {"m": m, "n": n, "k": k}
    assert answer.plan.cost == pytest.approx(least, rel=1e-9)
    assert answer.plan.bound <= least * (1 + 1e-9)
    assert answer.delta == pytest.approx(least - session.base.plan.cost, rel=1e-9)


def test_loops_that_are_not_named_keep_their_choice() -> None:
    session = product_explorer()
    some = session.answer(parse_demand("tile=n=11@matmul0"))
    every = [
        session.answer(parse_demand(f"tile=m={m},n=11,k={k}@matmul0")).plan.cost
        for m in (48, 24, 12)
        for k in (40, 20)
    ]
    assert sizes_of(some, "matmul0")["n"] == 11
    assert some.plan.cost <= min(every) * (1 + 1e-9)
    both = session.answer(parse_demand("tile=n=11@matmul0"), parse_demand("tile=m=7@matmul0"))
    one = session.answer(parse_demand("tile=m=7,n=11@matmul0"))
    assert both.plan.ops == one.plan.ops


def test_a_forbidden_tile_is_not_taken_and_the_rest_stays() -> None:
    session = product_explorer()
    whole = ",".join(f"{loop}={size}" for loop, size in sizes_of(session.base, "matmul0").items())
    for demands in ([f"tile={whole}@matmul0"], [f"tile={whole}@matmul0", "tile=m=24@matmul0"]):
        asked = [parse_demand(text, is_forced=False) for text in demands]
        answer = session.answer(*asked)
        validate_plan(answer.plan, session.target)
        own = sizes_of(answer, "matmul0")
        assert own != sizes_of(session.base, "matmul0")
        assert len(demands) == 1 or own["m"] != 24
        assert answer.plan.bound <= answer.plan.cost
    kept = session.answer(
        parse_demand("tile=m=7@matmul0"), parse_demand("tile=m=7,n=36@matmul0", is_forced=False)
    )
    assert sizes_of(kept, "matmul0")["m"] == 7
    assert sizes_of(kept, "matmul0")["n"] != 36


def test_what_is_in_place_is_cut_if_that_is_asked_for() -> None:
    """A product of floats in the scratchpad needs no buffers, so that planning leaves it whole."""
    b = Builder("in_place")
    x = b.map("exp", b.input(32, 32))
    made = b.matmul(x, b.weight(32, 32))
    session = exploring(b.graph(b.map("tanh", made)), mesh_target(1, 1, sram_kib=256))
    demands = [parse_demand(f"{text}@{made}") for text in ("memory=sram", "weights=resident")]
    assert sizes_of(session.answer(*demands), made) == {"m": 32, "n": 32, "k": 32}
    cut = session.answer(*demands, parse_demand(f"tile=m=9,n=20@{made}"))
    validate_plan(cut.plan, session.target)
    assert op_of(cut, made).result.memory is Memory.SRAM
    assert sizes_of(cut, made) | {"k": 0} == {"m": 9, "n": 20, "k": 0}
    forbidden = parse_demand(f"tile=m=32,n=32,k=32@{made}", is_forced=False)
    assert sizes_of(session.answer(*demands, forbidden), made) != {"m": 32, "n": 32, "k": 32}


def test_repeated_layers_all_have_the_tile() -> None:
    case = saturated(layers(4), mesh_target(2, 2))
    session = Explorer(case.graph, case.rolled, case.alternatives, case.target, case.mesh)
    products = [op.output for op in case.graph.ops if op.kind == "matmul"][1::2]
    repeats = [name for name in products if session.variable(name) == session.variable(products[1])]
    assert len(repeats) > 1
    answer = session.answer(parse_demand(f"tile=m=3,n=7@{repeats[0]}"))
    validate_plan(answer.plan, case.target)
    for name in repeats:
        assert sizes_of(answer, name).items() >= {"m": 3, "n": 7}.items()


def test_a_size_beyond_the_loop_says_how_long_the_loop_is() -> None:
    session = product_explorer()
    with pytest.raises(
        InfeasibleDemandError, match="indices that loop 'n' has on a tile"
    ) as raised:
        session.answer(parse_demand("tile=m=48,n=50@matmul0"))
    assert (raised.value.demand, raised.value.limit, raised.value.gap) == (50, N, 50 - N)
    split = parse_demand("split=x:m@matmul0")
    with pytest.raises(DemandError, match="contradict each other") as both:
        session.answer(split, parse_demand("tile=m=30@matmul0"))
    assert f"demand 30, limit {M // 2}, gap 6 indices that loop 'm' has" in str(both.value)
    assert sizes_of(session.answer(split, parse_demand("tile=m=23@matmul0")), "matmul0")["m"] == 23


def test_loops_that_no_way_has_are_named_with_those_there_are() -> None:
    for text in ("tile=q=3@matmul0", "tile=m=3,q=3@matmul0"):
        with pytest.raises(DemandError, match="expected some of m, n, k"):
            product_explorer().answer(parse_demand(text))


def test_a_loop_that_runs_whole_says_so() -> None:
    b = Builder("rows")
    made = b.op("softmax", (b.input(12, 20),), (12, 20))
    session = exploring(b.graph(made), mesh_target(1, 1), without_rules=("algebra", "fusion"))
    rows, columns = (dim.name for dim in session.alternatives[0].nodes[0].nest.dims)  # type: ignore[union-attr]
    assert sizes_of(session.answer(parse_demand(f"tile={rows}=5@{made}")), made)[rows] == 5
    with pytest.raises(DemandError, match=f"found 7 for loop '{columns}'.* whole; expected 20"):
        session.answer(parse_demand(f"tile={rows}=5,{columns}=7@{made}"))


def test_a_tile_that_does_not_fit_says_what_it_takes() -> None:
    target = with_sram(mesh_target(1, 1), 8 * 1024)
    session = exploring(one_product(), target)
    demand = parse_demand(f"tile=m={M},n={N},k={K}@matmul0")
    with pytest.raises(InfeasibleDemandError, match="bytes of scratchpad in a tile") as raised:
        session.answer(demand)
    error = raised.value
    assert error.limit == 8 * 1024 < error.demand
    # both operands and the result, once each
    assert error.demand == pytest.approx(4 * (M * K + K * N + M * N), rel=0.07)
    roomier = exploring(one_product(), with_sram(target, int(error.demand)))
    validate_plan(roomier.answer(demand).plan, roomier.target)


def test_a_kernel_of_too_many_boxes_is_refused() -> None:
    b = Builder("elements")
    made = b.map("exp", b.input(512, 512))
    session = exploring(b.graph(made), mesh_target(1, 2))
    with pytest.raises(InfeasibleDemandError, match="boxes of a kernel") as raised:
        session.answer(parse_demand(f"tile=1@{made}"))
    assert (raised.value.demand, raised.value.limit) == (512 * 512 / 2, MOST_BOXES)


def test_tiles_that_left_out_rules_would_make_are_not_there() -> None:
    rules = tuple(r for r in tiling_rules() if r.name != "tiling.accumulate_over_parts")
    session = exploring(one_product(), mesh_target(1, 1), ExtractOptions(tiling=rules))
    assert sizes_of(session.answer(parse_demand("tile=m=7@matmul0")), "matmul0")["m"] == 7
    with pytest.raises(DemandError, match="no way to compute 'matmul0' satisfies it"):
        session.answer(parse_demand("tile=k=7@matmul0"))


def test_wanted_sizes_are_the_only_candidates_of_their_loops() -> None:
    case = product_case()
    every = tiling_candidates(case.alternatives, case.mesh, case.target)
    found = tiling_candidates(case.alternatives, case.mesh, case.target, wanted={"n": 11})
    assert every.keys() == found.keys()
    cut = 0
    for key, candidates in found.items():
        extents = [extent for extent, _ in key[1]]  # type: ignore[attr-defined]
        if candidates.sizes.size:
            cut += 1
            assert set(candidates.sizes[:, 1]) == {11.0}
            assert set(candidates.sizes[:, 0]) == set(every[key].sizes[:, 0])
            assert np.array_equal(np.unique(candidates.orders), np.unique(every[key].orders))
        else:
            assert extents[1] < 11
    assert cut > 1
