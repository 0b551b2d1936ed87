"""Gathered operands in instructions: values on all tiles, counts, and overlap in the timing simulator."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np
import pytest
from gathered_cases import arrays, gathering, planned

from tilewright.dtypes import DType
from tilewright.extract.gathered import gather_price, gather_work
from tilewright.extract.kernel_price import price
from tilewright.extract.planned import planned_kernel
from tilewright.graph import DEQUANTISE, PROLOGUE, Graph, Op, Port, TensorType
from tilewright.hwmodel.block_format import with_block_format
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import is_partial
from tilewright.lowering.isa import Opcode
from tilewright.lowering.lower import build_program, lower
from tilewright.lowering.placement import axis_traffic_bytes
from tilewright.reference import map_function
from tilewright.rules.gathered import GATHERED
from tilewright.simulator.functional import run_program
from tilewright.simulator.timing import simulate

RULES = ("rows", "terms", "columns", "values")
DEQUANTISING = {PROLOGUE: DEQUANTISE}


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
    found = gathering(graph, target, f"gathered_matmul_{rule}")
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
    for seed, strategy in enumerate(gathering(graph, target, f"gathered_matmul_{rule}")):
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
    for strategy in gathering(graph, target, f"gathered_matmul_{rule}"):
        plan = planned(graph, target, strategy, chooser=random.Random(seed))
        made, tiling = plan.ops[0], plan.ops[0].tiling
        assert tiling is not None
        kernel = planned_kernel(made, graph.types, plan.mesh)
        assert kernel.gather is not None
        work = gather_work(kernel, tiling, *kernel.gather.operands)
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
    (strategy,) = gathering(graph, target, f"gathered_matmul_{rule}")
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
    (strategy,) = gathering(graph, target, "gathered_matmul_rows")
    program = build_program(planned(graph, target, strategy, sizes={"m": 8}), target)
    result = run_program(program, arrays(graph))
    given = arrays(graph)["a"]
    np.testing.assert_array_equal(result.outputs["c"], given @ graph.constants["b"])


def test_gathering_counts_as_traffic_of_its_axis() -> None:
    target = load_target("mesh_1x8")
    graph = product(64, 256, 64, constant="b")
    (strategy,) = gathering(graph, target, "gathered_matmul_rows")
    assert strategy.macros == ("", GATHERED)
    plan = planned(graph, target, strategy, sizes={"m": 2}, in_dram=("c",))
    piece_bytes = 64 * 256 * 4 // 8
    assert axis_traffic_bytes(plan) == (0.0, 7.0 * piece_bytes)


@pytest.mark.parametrize("rule", ["rows", "terms"])
@pytest.mark.parametrize("scales", [(1, 36), (48, 1), (48, 36), (1, 1)])
def test_products_that_gather_may_dequantise_and_round_to_blocks(
    rule: str, scales: tuple[int, int]
) -> None:
    """Chunks cut weights and scale alike; what 8 bits and a power of two hold, a block format keeps."""
    f32 = DType.F32
    types = {
        "a": TensorType((24, 48), f32),
        "b": TensorType((48, 36), DType.I8),
        "scale": TensorType(scales, f32),
        "c": TensorType((24, 36), f32),
    }
    ports = {n: Port(name=n, tensor=n, shape=t.shape, dtype=t.dtype) for n, t in types.items()}
    inputs = ("a", "b", "scale")
    graph = Graph(
        name="product",
        inputs=tuple(ports[name] for name in inputs),
        outputs=(ports["c"],),
        types=types,
        constants={},
        ops=(Op(name="c", kind="matmul", inputs=inputs, outputs=("c",), attrs=DEQUANTISING),),
    )
    generator = np.random.default_rng(5)
    given = arrays(graph) | {
        "b": generator.integers(-100, 101, (48, 36)).astype(np.int8),
        "scale": np.exp2(generator.integers(-3, 4, scales)).astype(np.float32),
    }
    wanted = given["a"] @ (given["b"] * given["scale"])
    plain = load_target("mesh_2x3")
    targets = [plain, with_block_format(plain, "mxint8")] if scales == (1, 1) else [plain]
    found = gathering(graph, plain, f"gathered_matmul_{rule}")
    assert found, "the rule applies"
    for seed, strategy in enumerate(found):
        plan = planned(graph, plain, strategy, in_dram=("b",), chooser=random.Random(seed))
        for target in targets:
            program = build_program(plan, target)
            np.testing.assert_array_equal(run_program(program, given).outputs["c"], wanted)
            functions = {m.fn for m in lower(plan, target).run if m.opcode is Opcode.MM}
            assert functions == {"" if target is plain else "mxint8"}
