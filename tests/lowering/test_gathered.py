"""Gathered operands in instructions: values on all tiles, counts, and overlap in the timing simulator."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from tilewright.dtypes import DType
from tilewright.extract.gathered import gather_price, gather_work
from tilewright.extract.kernel import footprint_bytes, loop_order, tileable_dims
from tilewright.extract.kernel_price import price
from tilewright.extract.plan import (
    Delivery,
    Memory,
    Objective,
    Placement,
    Plan,
    PlannedOp,
    Proof,
    Tiling,
)
from tilewright.extract.planned import planned_kernel, planned_nest
from tilewright.extract.reshard import build_table, dram_placement
from tilewright.graph import Graph, Op, Port, TensorType
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import Sharding, is_partial
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.target import Target
from tilewright.lowering.isa import Opcode
from tilewright.lowering.lower import build_program, lower
from tilewright.lowering.placement import axis_traffic_bytes
from tilewright.reference import map_function
from tilewright.rules.annotations import annotate
from tilewright.rules.gathered import GATHERED
from tilewright.rules.splitting import Strategy, strategies
from tilewright.simulator.functional import run_program
from tilewright.simulator.timing import simulate

RULES = ("rows", "terms", "columns", "values")


@cache
def product(
    m: int,
    k: int,
    n: int,
    batch: tuple[int, ...] = (),
    epilogue: str = "",
    constant: str = "",
    dtype: DType = DType.F32,
) -> Graph:
    """Return a graph of one product, with a bias if it has an epilogue; one operand may be constant."""
    types = {
        "a": TensorType((*batch, m, k), dtype),
        "b": TensorType((*batch, k, n), dtype),
        "bias": TensorType((*(1 for _ in batch), 1, n), dtype),
        "c": TensorType((*batch, m, n), dtype),
    }
    constants = {constant: np.ones(types[constant].shape, np.float32)} if constant else {}
    inputs = ("a", "b", "bias") if epilogue else ("a", "b")
    attrs: dict[str, Any] = {"epilogue": epilogue, "product_dtype": "f32"} if epilogue else {}
    op = Op(name="c", kind="matmul", inputs=inputs, outputs=("c",), attrs=attrs)

    def port(name: str) -> Port:
        return Port(name=name, tensor=name, shape=types[name].shape, dtype=dtype)

    return Graph(
        name="product",
        inputs=tuple(port(name) for name in inputs if name not in constants),
        outputs=(port("c"),),
        types={name: types[name] for name in (*inputs, "c")},
        constants=constants,
        ops=(op,),
    )


def gathering(graph: Graph, target: Target, rule: str) -> tuple[Strategy, ...]:
    """Return the strategies of the product that follow a rule."""
    (op,) = graph.ops
    nest = annotate(op, tuple(graph.types[name] for name in op.inputs), graph.types["c"])
    assert nest is not None
    found = strategies(op, nest, logical_mesh(target))
    return tuple(s for s in found if f"partition.gathered_matmul_{rule}" in s.rules)


def planned(
    graph: Graph,
    target: Target,
    strategy: Strategy,
    sizes: dict[str, int] | None = None,
    in_dram: tuple[str, ...] = (),
    chooser: random.Random | None = None,
) -> Plan:
    """Return a plan of the product by one strategy.

    Args:
        graph: The product.
        target: The machine.
        strategy: How it is split.
        sizes: Tile sizes by name of the loop; whole by default.
        in_dram: Tensors that are streamed.
        chooser: Cuts loops at random, if given.
    """
    (op,), mesh = graph.ops, logical_mesh(target)
    in_memory = dram_placement(mesh)

    def place(name: str, sharding: Sharding) -> Placement:
        streamed = name in in_dram and not is_partial(sharding)
        return in_memory if streamed else Placement(Memory.SRAM, sharding)

    def deliver(name: str, before: Placement, after: Placement) -> Delivery:
        partials = frozenset({before.sharding} if is_partial(before.sharding) else ())
        table = build_table(graph.types[name], partials, mesh, target, Objective.LATENCY)
        moves = table.moves(table.index[before], table.index[after])
        return Delivery(tensor=name, before=before, moves=moves, after=after)

    def operand(name: str, sharding: Sharding) -> Delivery:
        if name in graph.constants:
            stays = Placement(Memory.SRAM, sharding)
            return Delivery(tensor=name, before=stays, moves=(), after=stays)
        return deliver(name, in_memory, place(name, sharding))

    result = place("c", strategy.result)
    made = PlannedOp(
        op=op,
        split_dims=strategy.split_dims,
        deliveries=tuple(
            operand(name, sharding)
            for name, sharding in zip(op.inputs, strategy.operands, strict=True)
        ),
        resident=tuple(name in graph.constants for name in op.inputs),
        result=result,
        tiling=None,
        buffer_bytes=0,
        cost=KernelCost(),
        cost_units=0.0,
        split_rules=strategy.rules,
        macros=strategy.macros,
    )
    kernel = planned_kernel(made, graph.types, mesh)
    cuts = [(sizes or {}).get(loop.name, loop.extent) for loop in kernel.nest.dims]
    for loop in tileable_dims(kernel):
        if chooser and chooser.random() < 0.6:
            cuts[loop] = chooser.randint(max(1, cuts[loop] // 3), cuts[loop])
    order = loop_order(kernel)
    if chooser:
        outer = chooser.randrange(len(planned_nest(made, graph.types).dims) - 1)
        order = (outer, *(dim for dim in order if dim != outer))
    tiling = Tiling(tuple(cuts), order)
    made = replace(made, tiling=tiling, buffer_bytes=footprint_bytes(kernel, tiling, 64))
    return Plan(
        graph=graph,
        target_name=target.name,
        mesh=mesh,
        objective=Objective.LATENCY,
        types=graph.types,
        ops=(made,),
        folded=(),
        output_deliveries=(deliver("c", result, in_memory),),
        cost=1.0,
        bound=1.0,
        proof=Proof(method="none"),
        peak_sram_bytes=0,
        resident_sram_bytes=0,
    )


def arrays(graph: Graph) -> dict[str, Any]:
    generator = np.random.default_rng(3)
    return {
        port.name: generator.integers(-4, 5, port.shape).astype(port.dtype.numpy)
        for port in graph.inputs
    }


def expected(graph: Graph) -> Any:
    given = arrays(graph)
    result = given["a"] @ given["b"]
    if "bias" in given:
        result = map_function("relu")(result + given["bias"])
    return result


@pytest.mark.parametrize("target_name", ["mesh_1x2", "mesh_2x3", "toy"])
@pytest.mark.parametrize("epilogue", ["", "add|relu"])
@pytest.mark.parametrize("rule", RULES)
def test_every_gathering_strategy_computes_the_product(
    rule: str, epilogue: str, target_name: str
) -> None:
    """Integers in f32, so that any order of sums is exact; races and uninitialised reads are errors."""
    target = load_target(target_name)
    graph = product(24, 48, 36 if target_name == "mesh_2x3" else 32, (2,), epilogue)
    found = gathering(graph, target, rule)
    assert found, "the rule applies"
    for seed, strategy in enumerate(found):
        chooser = random.Random(seed)
        streamed = tuple(n for n in ("bias", "c") if chooser.random() < 0.5)
        other = "b" if rule in ("rows", "terms") else "a"
        streamed += (other,) if chooser.random() < 0.3 else ()
        plan = planned(graph, target, strategy, in_dram=streamed, chooser=chooser)
        program = build_program(plan, target)
        result = run_program(program, arrays(graph))
        np.testing.assert_array_equal(result.outputs["c"], expected(graph))


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16, DType.I64])
@pytest.mark.parametrize("rule", RULES)
def test_other_types_accumulate_over_chunks(rule: str, dtype: DType) -> None:
    """Half precision sums in f32 and is rounded once; 64-bit integers run on the vector unit."""
    target = load_target("mesh_2x2")
    graph = product(8, 12, 8, dtype=dtype)
    given = {name: array / 4 for name, array in arrays(graph).items()}
    given = {name: np.round(a).astype(dtype.numpy) for name, a in given.items()}
    wanted = np.matmul(given["a"].astype(np.float64), given["b"].astype(np.float64))
    for seed, strategy in enumerate(gathering(graph, target, rule)):
        if is_partial(strategy.result):
            continue
        plan = planned(graph, target, strategy, chooser=random.Random(seed))
        result = run_program(build_program(plan, target), given)
        np.testing.assert_array_equal(result.outputs["c"].astype(np.float64), wanted)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_multicasts_are_those_that_were_counted(rule: str, seed: int) -> None:
    target = load_target("mesh_2x3")
    graph = product(24, 48, 36)
    for strategy in gathering(graph, target, rule):
        plan = planned(graph, target, strategy, chooser=random.Random(seed))
        made, tiling = plan.ops[0], plan.ops[0].tiling
        assert tiling is not None
        kernel = planned_kernel(made, graph.types, plan.mesh)
        work = gather_work(kernel, tiling)
        linear = lower(plan, target)
        staging = {b.number for b in linear.buffers if b.name.startswith("c.operand")}
        sends = [m for m in linear.run if m.opcode is Opcode.MCS and m.dst is not None]
        sends = [m for m in sends if m.dst is not None and m.dst.buffer in staging]
        assert len(sends) == work.steps
        assert len(staging) == min(work.steps, 2)
        sent = sum(int(np.prod(m.domain)) * m.sources[0].dtype.itemsize_bytes for m in sends)
        assert sent == work.sent_bytes


@pytest.mark.parametrize("chunks", [2, 4])
@pytest.mark.parametrize("rule", ["rows", "terms"])
def test_chunks_travel_while_products_run(rule: str, chunks: int) -> None:
    """Simulated, chunks save what the price says, so that the sum of both is not what it takes."""
    target = load_target("mesh_1x8")
    graph = product(64, 256, 64, constant="b")
    (strategy,) = gathering(graph, target, rule)
    loop, length = ("m", 8) if rule == "rows" else ("k", 32)
    predicted, simulated = [], []
    for size in (length, length // chunks):
        plan = planned(graph, target, strategy, sizes={loop: size})
        kernel, tiling = planned_kernel(plan.ops[0], graph.types, plan.mesh), plan.ops[0].tiling
        assert tiling is not None
        cost = price(kernel, tiling, target)
        predicted.append(cost.latency_cycles)
        simulated.append(simulate(build_program(plan, target)).run.cycles)
    gathering_cycles, _ = gather_price(kernel, tiling, target)
    assert predicted[1] < 0.8 * (cost.matrix_cycles + gathering_cycles.dma_out_cycles)
    assert simulated[0] - simulated[1] == pytest.approx(predicted[0] - predicted[1], rel=0.1)


def test_a_gathered_operand_need_not_fit_whole() -> None:
    """A is as large as the scratchpad; a tile holds an eighth of it and two chunks."""
    target = load_target("mesh_1x8")
    graph = product(256, 256, 64, constant="b")
    assert graph.types["a"].size_bytes == target.tile.sram.size_bytes
    (strategy,) = gathering(graph, target, "rows")
    program = build_program(planned(graph, target, strategy, sizes={"m": 8}), target)
    result = run_program(program, arrays(graph))
    given = arrays(graph)["a"]
    np.testing.assert_array_equal(result.outputs["c"], given @ graph.constants["b"])


def test_gathering_counts_as_traffic_of_its_axis() -> None:
    target = load_target("mesh_1x8")
    graph = product(64, 256, 64, constant="b")
    (strategy,) = gathering(graph, target, "rows")
    assert strategy.macros == ("", GATHERED)
    plan = planned(graph, target, strategy, sizes={"m": 2}, in_dram=("c",))
    piece_bytes = 64 * 256 * 4 // 8
    assert axis_traffic_bytes(plan) == (0.0, 7.0 * piece_bytes)
