"""Ring attention in instructions: values on all tiles, multicasts, and overlap in the timing simulator."""

from __future__ import annotations

import random
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from gathered_cases import gathering, planned

from tilewright.dtypes import DType
from tilewright.extract.gathered import gather_price, gather_work
from tilewright.extract.kernel_price import price
from tilewright.extract.planned import planned_kernel
from tilewright.graph import Graph, Op, Port, TensorType
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.target import Target
from tilewright.lowering.isa import Opcode
from tilewright.lowering.lower import build_program, lower
from tilewright.lowering.placement import axis_traffic_bytes
from tilewright.rules.splitting import Strategy
from tilewright.simulator.functional import run_program
from tilewright.simulator.timing import simulate

RULE = "ring_attention"
NO_MASK, WHOLE, COLUMNS, ROWS = "none", "a number a score", "a number a key", "a number a query"


@cache
def attention(
    queries: int,
    keys: int,
    features: int = 8,
    values: int = 4,
    heads: int = 2,
    mask: str = NO_MASK,
    dtype: DType = DType.F32,
    constants: str = "",
) -> Graph:
    """Return a graph of one attention with scale 0.5; some operands may lie in scratchpads already."""
    masks = {WHOLE: (queries, keys), COLUMNS: (1, keys), ROWS: (queries, 1)}
    types = {
        "q": TensorType((heads, queries, features), dtype),
        "k": TensorType((heads, features, keys), dtype),
        "v": TensorType((heads, keys, values), dtype),
        **({"mask": TensorType((1, *masks[mask]), dtype)} if mask in masks else {}),
        "y": TensorType((heads, queries, values), dtype),
    }
    *inputs, _ = types
    op = Op(name="y", kind="attention", inputs=tuple(inputs), outputs=("y",), attrs={"scale": 0.5})

    def port(name: str) -> Port:
        return Port(name=name, tensor=name, shape=types[name].shape, dtype=dtype)

    return Graph(
        name="attention",
        inputs=tuple(port(name) for name in inputs if name not in constants),
        outputs=(port("y"),),
        types=types,
        constants={name: np.ones(types[name].shape, dtype.numpy) for name in constants},
        ops=(op,),
    )


def given_of(graph: Graph) -> dict[str, Any]:
    """Return inputs; a mask hides a third of the scores, whole chunks of some queries, but no query."""
    generator = np.random.default_rng(3)
    found = {
        port.name: generator.normal(size=port.shape).astype(port.dtype.numpy)
        for port in graph.inputs
    }
    if "mask" in found and found["mask"].shape[-1] > 1:
        hidden = generator.random(found["mask"].shape) < 0.3
        hidden[..., : hidden.shape[-1] // 2] |= generator.random((*hidden.shape[:-1], 1)) < 0.5
        hidden[..., -1] = False
        found["mask"] = np.where(hidden, -np.inf, found["mask"]).astype(found["mask"].dtype)
    return found


def expected(graph: Graph, given: dict[str, Any]) -> Any:
    """Return the textbook's softmax, in doubles."""
    wide = {name: array.astype(np.float64) for name, array in given.items()}
    scores = 0.5 * wide["q"] @ wide["k"] + wide.get("mask", 0.0)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ wide["v"]


def strategies_of(graph: Graph, target: Target) -> tuple[Strategy, ...]:
    found = gathering(graph, target, RULE)
    assert found, "the rule applies"
    return found


@pytest.mark.parametrize(
    ("mask", "target_name"),
    [
        *product([NO_MASK, WHOLE, COLUMNS, ROWS], ["mesh_2x3"]),
        *product([NO_MASK, WHOLE], ["mesh_1x2", "toy"]),
    ],
)
def test_every_strategy_computes_the_attention(mask: str, target_name: str) -> None:
    """Chunks of random sizes; races and uninitialised reads are errors."""
    target = load_target(target_name)
    graph = attention(24, 48, mask=mask)
    given = given_of(graph)
    for seed, strategy in enumerate(strategies_of(graph, target)):
        chooser = random.Random(seed)
        streamed = tuple(n for n in ("q", "mask", "y") if chooser.random() < 0.5)
        plan = planned(graph, target, strategy, in_dram=streamed, chooser=chooser)
        result = run_program(build_program(plan, target), given)
        np.testing.assert_allclose(
            result.outputs["y"], expected(graph, given), rtol=2e-5, atol=2e-6
        )


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(DType.F16, 2e-3), (DType.BF16, 2e-2), (DType.F64, 1e-12)]
)
def test_other_types(dtype: DType, tolerance: float) -> None:
    """Halves keep maximum, total and mixture in f32; doubles run on the vector unit."""
    target = load_target("mesh_2x2")
    graph = attention(8, 24, dtype=dtype)
    given = given_of(graph)
    for seed, strategy in enumerate(strategies_of(graph, target)):
        plan = planned(graph, target, strategy, chooser=random.Random(seed))
        result = run_program(build_program(plan, target), given)
        found = result.outputs["y"].astype(np.float64)
        np.testing.assert_allclose(found, expected(graph, given), rtol=tolerance, atol=tolerance)


def test_no_row_of_scores_need_fit() -> None:
    """Keys and values are twice the scratchpad; a tile holds an eighth of them and two chunks."""
    target = load_target("mesh_1x8?sram_kib=32")
    graph = attention(64, 512, 16, 16, heads=1)
    assert graph.types["k"].size_bytes + graph.types["v"].size_bytes == 2 * (32 << 10)
    (strategy,) = strategies_of(graph, target)
    program = build_program(planned(graph, target, strategy, sizes={"n": 4}), target)
    given = given_of(graph)
    found = run_program(program, given).outputs["y"]
    np.testing.assert_allclose(found, expected(graph, given), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("seed", range(2))
def test_multicasts_are_those_that_were_counted(seed: int) -> None:
    target = load_target("mesh_2x3")
    graph = attention(24, 48, mask=WHOLE)
    for strategy in strategies_of(graph, target):
        plan = planned(graph, target, strategy, chooser=random.Random(seed))
        tiling = plan.ops[0].tiling
        assert tiling is not None
        kernel = planned_kernel(plan.ops[0], graph.types, plan.mesh)
        assert kernel.gather is not None
        assert kernel.gather.operands == (1, 2)
        linear = lower(plan, target)
        traffic = 0
        for operand in kernel.gather.operands:
            work = gather_work(kernel, tiling, operand)
            staging = {b.number for b in linear.buffers if b.name.startswith(f"y.operand{operand}")}
            sends = [
                m
                for m in linear.run
                if m.opcode is Opcode.MCS and m.dst is not None and m.dst.buffer in staging
            ]
            assert len(sends) == work.steps
            assert len(staging) == min(work.steps, 2)
            sent = sum(int(np.prod(m.domain)) * m.sources[0].dtype.itemsize_bytes for m in sends)
            assert sent == work.sent_bytes
            traffic += sent * (kernel.gather.size - 1)
        deliveries = axis_traffic_bytes(plan)[kernel.gather.axis]
        assert deliveries >= traffic


@pytest.mark.parametrize("chunk", [32, 16])
def test_chunks_travel_while_scores_are_weighed(chunk: int) -> None:
    """Most of what chunks take is hidden, predicted and simulated, beside keys and values that are whole."""
    target = load_target("mesh_1x8")
    graph = attention(256, 512, 32, 32, heads=1, constants="kv")
    predicted, simulated, sent_cycles = [], [], 0.0
    for rule, keys in (("attention_queries", 8 * chunk), (RULE, chunk)):
        strategy = gathering(graph, target, rule)[-1]
        plan = planned(graph, target, strategy, sizes={"n": keys})
        kernel, tiling = planned_kernel(plan.ops[0], graph.types, plan.mesh), plan.ops[0].tiling
        assert tiling is not None
        predicted.append(price(kernel, tiling, target).latency_cycles)
        simulated.append(simulate(build_program(plan, target)).run.cycles)
        if kernel.gather is not None:
            sent_cycles = gather_price(kernel, tiling, target)[0].dma_out_cycles
    for whole, chunks in (predicted, simulated):
        assert 0 < chunks - whole < 0.3 * sent_cycles
