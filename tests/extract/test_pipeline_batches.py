"""Micro-batches: the model for pieces of the batch, and how many stages are worth while then."""

from __future__ import annotations

import numpy as np
import pytest
from extract_cases import Builder
from test_pipeline_plans import alternatives

from tilewright.errors import CompileError
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.objective import Objective
from tilewright.extract.pipeline.batches import micro_batched
from tilewright.extract.pipeline.planner import StageOptions, plan_pipeline
from tilewright.graph import Graph
from tilewright.hwmodel.family import mesh_target
from tilewright.lowering.link import build_pipeline
from tilewright.reference import evaluate
from tilewright.rules.pipeline.family import pipeline_rules
from tilewright.rules.pipeline.legality import Legality
from tilewright.rules.roll import roll
from tilewright.simulator.functional import run_stream

LEGALITY = Legality(rules=pipeline_rules())


def attention_like(batch: int) -> Graph:
    """Samples of five rows: products over all rows at once, then within each sample."""
    b = Builder("samples")
    x = b.input(batch, 5, 12)
    flat = b.op("reshape", (x,), (batch * 5, 12), shape=(batch * 5, 12))
    made = b.map("relu", b.matmul(flat, b.weight(12, 12)))
    apart = b.op("reshape", (made,), (batch, 5, 12), shape=(batch, 5, 12))
    turned = b.op("transpose", (apart,), (batch, 12, 5), perm=(0, 2, 1))
    scores = b.op("softmax", (b.matmul(apart, turned),), (batch, 5, 5))
    return b.graph(b.matmul(scores, apart))


def layers(batch: int) -> Graph:
    b = Builder("layers")
    x = b.input(batch, 34)
    for _ in range(4):
        x = b.map("relu", b.matmul(x, b.weight(34, 34)))
    return b.graph(x)


def pieces(
    graph: Graph, count: int, seed: int
) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    draw = np.random.default_rng(seed)
    whole = {p.name: draw.normal(size=p.shape).astype(np.float32) for p in graph.inputs}
    cut = {name: np.split(array, count) for name, array in whole.items()}
    return whole, [{name: parts[i] for name, parts in cut.items()} for i in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_pieces_put_together_are_the_whole(count: int) -> None:
    graph = attention_like(6)
    small = micro_batched(graph, count, LEGALITY)
    small.validate()
    whole, parts = pieces(graph, count, 0)
    (name,) = (port.name for port in graph.outputs)
    together = np.concatenate([evaluate(small, part)[name] for part in parts])
    np.testing.assert_allclose(together, evaluate(graph, whole)[name], rtol=1e-5, atol=1e-6)


def test_a_mixed_batch_is_refused() -> None:
    b = Builder("mixed")
    x = b.input(4, 6)
    graph = b.graph(b.op("reduce", (x,), (1, 6), fn="sum", axes=(0,)))
    with pytest.raises(CompileError, match=r"reduce 'reduce0' mixes the samples of its batch of 4"):
        micro_batched(graph, 2, LEGALITY)
    with pytest.raises(CompileError, match="has no 3 equal pieces"):
        micro_batched(layers(4), 3, LEGALITY)
    none = Legality(rules=tuple(r for r in pipeline_rules() if r.name != "pipeline.micro_batch"))
    with pytest.raises(CompileError, match="or no rule says"):
        micro_batched(layers(4), 2, none)


def test_micro_batches_make_stages_worth_while() -> None:
    target = mesh_target(1, 3, name="row_of_three", sram_kib=24)
    graph, count = layers(7 * 32), 32
    small = micro_batched(graph, count, LEGALITY)
    options = ExtractOptions(objective=Objective.LATENCY)
    best, alone = (
        plan_pipeline(
            small,
            roll(small),
            target,
            alternatives,
            options,
            StageOptions(items=3, most=3, micro_batches=batches),
        )
        for batches in (count, 1)
    )
    assert len(alone.stages) == 1
    assert len(best.stages) > 1
    assert best.bound <= best.cost < count * alone.cost
    program = build_pipeline(best, target)
    whole, parts = pieces(graph, count, 1)
    (name,) = (port.name for port in graph.outputs)
    together = np.concatenate([outputs[name] for outputs in run_stream(program, parts)])
    np.testing.assert_allclose(together, evaluate(graph, whole)[name], rtol=1e-4, atol=1e-4)
