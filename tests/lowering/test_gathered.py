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
from tilewright.reference import map_function
from tilewright.rules.annotations import annotate
from tilewright.rules.gathered import GATHERED
from tilewright.rules.splitting import Strategy, strategies
from tilewright.simulator.functional import run_program
from tilewright.simulator.timing import simulate

RULES = ("rows", "terms", "columns", "values")


@cache
def product(
    m: int, k: int, n: int, batch: tuple[int, ...], epilogue: str, dtype: DType = DType.F32
) -> Graph:
    """Return a graph of one product of two inputs, with a bias if it has an epilogue."""
    types = {
        "a": TensorType((*batch, m, k), dtype),
        "b": TensorType((*batch, k, n), dtype),
        "bias": TensorType((*(1 for _ in batch), 1, n), dtype),
        "c": TensorType((*batch, m, n), dtype),
    }
    inputs = ("a", "b", "bias") if epilogue else ("a", "b")
    attrs: dict[str, Any] = {"epilogue": epilogue, "product_dtype": "f32"} if epilogue else {}
    op = Op(name="c", kind="matmul", inputs=inputs, outputs=("c",), attrs=attrs)

    def port(name: str) -> Port:
        return Port(name=name, tensor=name, shape=types[name].shape, dtype=dtype)

    return Graph(
        name="product",
        inputs=tuple(port(name) for name in inputs),
        outputs=(port("c"),),
        types={name: types[name] for name in (*inputs, "c")},
        constants={},
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

    result = place("c", strategy.result)
    made = PlannedOp(
        op=op,
        split_dims=strategy.split_dims,
        deliveries=tuple(
            deliver(name, in_memory, place(name, sharding))
            for name, sharding in zip(op.inputs, strategy.operands, strict=True)
        ),
        resident=(False,) * len(op.inputs),
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
