"""Scattered sums in instructions: values on all tiles, counts, and overlap in the timing simulator."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest
from gathered_cases import arrays, gathering, planned

from tilewright.dtypes import DType
from tilewright.extract.kernel import buffers
from tilewright.extract.kernel_price import price
from tilewright.extract.kernel_work import kernel_work
from tilewright.extract.planned import planned_kernel
from tilewright.extract.scattered import exchanged_bytes
from tilewright.graph import Graph, Op, Port, TensorType
from tilewright.hwmodel.load import load_target
from tilewright.lowering.isa import Engine, Opcode
from tilewright.lowering.lower import build_program, lower
from tilewright.lowering.placement import axis_traffic_bytes
from tilewright.rules.scattered import SCATTERED
from tilewright.simulator.functional import run_program
from tilewright.simulator.timing import simulate

RULE = "scattered_matmul_rows"


@cache
def product(m: int, k: int, n: int, batch: tuple[int, ...] = (), dtype: DType = DType.F32) -> Graph:
    """Return a graph of one product."""
    types = {
        "a": TensorType((*batch, m, k), dtype),
        "b": TensorType((*batch, k, n), dtype),
        "c": TensorType((*batch, m, n), dtype),
    }

    def port(name: str) -> Port:
        return Port(name=name, tensor=name, shape=types[name].shape, dtype=dtype)

    return Graph(
        name="product",
        inputs=(port("a"), port("b")),
        outputs=(port("c"),),
        types=types,
        constants={},
        ops=(Op(name="c", kind="matmul", inputs=("a", "b"), outputs=("c",), attrs={}),),
    )


@pytest.mark.parametrize("target_name", ["mesh_1x2", "mesh_2x3", "mesh_2x2"])
def test_every_scattering_strategy_computes_the_product(target_name: str) -> None:
    """Integers in f32, so that any order of sums is exact; races and uninitialised reads are errors."""
    target = load_target(target_name)
    m, n = (24, 36) if target_name == "mesh_2x3" else (32, 64)
    graph = product(m, 48, n, (2,))
    found = gathering(graph, target, RULE)
    assert found, "the rule applies"
    given = arrays(graph)
    for seed, strategy in enumerate(found):
        chooser = random.Random(seed)
        streamed = tuple(name for name in ("a", "b", "c") if chooser.random() < 0.5)
        plan = planned(graph, target, strategy, in_dram=streamed, chooser=chooser)
        result = run_program(build_program(plan, target), given)
        np.testing.assert_array_equal(result.outputs["c"], given["a"] @ given["b"])


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16, DType.I32, DType.I64])
def test_other_types_are_added_up(dtype: DType) -> None:
    """Half precision sums in f32, its parts are rounded; 64-bit integers run on the vector unit."""
    target = load_target("mesh_2x2")
    graph = product(8, 12, 8, dtype=dtype)
    given = arrays(graph)
    wanted = np.matmul(given["a"].astype(np.float64), given["b"].astype(np.float64))
    for seed, strategy in enumerate(gathering(graph, target, RULE)):
        plan = planned(graph, target, strategy, chooser=random.Random(seed))
        result = run_program(build_program(plan, target), given)
        np.testing.assert_array_equal(result.outputs["c"].astype(np.float64), wanted)


@pytest.mark.parametrize("seed", range(3))
def test_instructions_are_those_that_were_counted(seed: int) -> None:
    target = load_target("mesh_2x3")
    graph = product(24, 48, 36, dtype=DType.BF16)
    for strategy in gathering(graph, target, RULE):
        plan = planned(graph, target, strategy, in_dram=("c",), chooser=random.Random(seed))
        made, tiling = plan.ops[0], plan.ops[0].tiling
        assert tiling is not None
        kernel = planned_kernel(made, graph.types, plan.mesh)
        assert kernel.scatter is not None
        linear = lower(plan, target)
        own = {b.name: b.size_bytes for b in linear.buffers if b.name.startswith("c.")}
        wanted = {
            f"c.{b.name}.{copy}": b.size_bytes
            for b in buffers(kernel, tiling)
            for copy in range(b.copies)
        }
        assert own.items() >= wanted.items()
        sends = [m for m in linear.run if m.opcode is Opcode.SND and m.dst is not None]
        slots = {b.number for b in linear.buffers if b.name.startswith("c.slots")}
        sent = [
            int(np.prod(m.domain)) * m.sources[0].dtype.itemsize_bytes
            for m in sends
            if m.dst is not None and m.dst.buffer in slots
        ]
        held = zip(kernel.scatter.sizes, exchanged_bytes(kernel), strict=True)
        assert sum(sent) == sum(size_bytes * (size - 1) // size for size, size_bytes in held)
        work = kernel_work(kernel, tiling, 1, multicast=True)
        names = {b.number: b.name for b in linear.buffers}
        vector = [
            m
            for m in linear.run
            if m.engine is Engine.VE and m.tag == 1 and m.dst is not None
            if not names[m.dst.buffer].startswith("c.in")  # deliveries
        ]
        counted = {
            fn: sum(w.times for w in work.vector if w.fn == fn)
            for fn in ("cast", "identity", "sum")
        }
        assert counted == {fn: sum(m.fn == fn for m in vector) for fn in counted}


@pytest.mark.parametrize("rows", [4, 2])
def test_boxes_travel_while_products_run(rows: int) -> None:
    """The price is what the simulator finds, and less than that of products and exchanges in turn."""
    target = load_target("mesh_1x8")
    graph = product(128, 1024, 128)
    (strategy,) = gathering(graph, target, RULE)
    plan = planned(graph, target, strategy, sizes={"m": rows}, in_dram=("c",))
    (made,) = plan.ops
    assert made.tiling is not None
    cost = price(planned_kernel(made, graph.types, plan.mesh), made.tiling, target)
    loads = sum(move.cycles for delivery in made.deliveries for move in delivery.moves)
    simulated = simulate(build_program(plan, target)).run.cycles - loads
    assert simulated == pytest.approx(cost.latency_cycles, rel=0.1)
    assert simulated < 0.9 * (cost.matrix_cycles + cost.dma_out_cycles)


def test_sums_need_not_fit_whole() -> None:
    """The parts of all sums are as large as the scratchpad; a tile holds an eighth of them and two boxes."""
    target = load_target("mesh_1x8")
    graph = product(512, 64, 128)
    assert graph.types["c"].size_bytes == target.tile.sram.size_bytes
    (strategy,) = gathering(graph, target, RULE)
    program = build_program(
        planned(graph, target, strategy, sizes={"m": 8}, in_dram=("a",)), target
    )
    given = arrays(graph)
    result = run_program(program, given)
    np.testing.assert_array_equal(result.outputs["c"], given["a"] @ given["b"])


def test_scattering_counts_as_traffic_of_its_axes() -> None:
    """The first axis takes half of all parts to the other tile, the second one two thirds of that half."""
    target = load_target("mesh_2x3")
    graph = product(24, 48, 36)
    (strategy,) = (s for s in gathering(graph, target, RULE) if s.macros == (SCATTERED, SCATTERED))
    plan = planned(graph, target, strategy, in_dram=("a", "b", "c"))
    whole_bytes = 24 * 36 * 4
    assert axis_traffic_bytes(plan) == (whole_bytes / 2, whole_bytes / 2 * 2 / 3)
