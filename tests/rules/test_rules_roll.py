from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilewright.graph import Array, Graph
from tilewright.reference import evaluate
from tilewright.rules.roll import Rolled, roll, unroll


def check_exact(graph: Graph, rolled: Rolled) -> None:
    """Every operator is in one instance, in order; unrolling gives the graph up to op names."""
    assert [i.start for i in rolled.instances] + [len(graph.ops)] == [
        0,
        *(i.stop for i in rolled.instances),
    ]
    for block in rolled.blocks:
        block.graph.validate()
    again = unroll(rolled, graph)
    again.validate()
    assert len(again.ops) == len(graph.ops)
    for a, b in zip(again.ops, graph.ops, strict=True):
        assert (a.kind, a.inputs, a.outputs, dict(a.attrs)) == (
            b.kind,
            b.inputs,
            b.outputs,
            dict(b.attrs),
        )
    for instance in rolled.instances:
        part = rolled.blocks[instance.block].graph
        assert {n: part.types[n] for n in instance.tensors} == {
            n: graph.types[t] for n, t in instance.tensors.items()
        }
        for name, tensor in instance.tensors.items():
            assert (name in part.constants) == (tensor in graph.constants)


def run_blocks(graph: Graph, rolled: Rolled, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Evaluate a graph block by block, passing only block outputs on."""
    values: dict[str, Array] = {port.tensor: inputs[port.name] for port in graph.inputs}
    for instance in rolled.instances:
        part = rolled.blocks[instance.block].graph
        constants = {name: graph.constants[instance.tensors[name]] for name in part.constants}
        own = Graph(
            name=part.name,
            inputs=part.inputs,
            outputs=part.outputs,
            types=part.types,
            constants=constants,
            ops=part.ops,
        )
        found = evaluate(own, {p.name: values[instance.tensors[p.tensor]] for p in part.inputs})
        values |= {instance.tensors[name]: found[name] for name in found}
    return {port.name: values[port.tensor] for port in graph.outputs}


@pytest.mark.parametrize(
    ("name", "count", "blocks"),
    [("transformer", 5, 1), ("encoder", 4, 1), ("resnet", 4, 3), ("resnet", 1, 1)],
)
def test_models_roll_exactly(
    models: dict[str, Callable[..., Graph]], name: str, count: int, blocks: int
) -> None:
    graph = models[name](count)
    rolled = roll(graph)
    check_exact(graph, rolled)
    assert len(rolled.blocks) == blocks
    random = np.random.default_rng(0)
    inputs = {p.name: random.normal(size=p.shape) for p in graph.inputs}
    expected, found = evaluate(graph, inputs), run_blocks(graph, rolled, inputs)
    for port, value in expected.items():
        np.testing.assert_array_equal(found[port], value)


def test_residual_stream_is_the_only_block_output(models: dict[str, Callable[..., Graph]]) -> None:
    (block,) = roll(models["transformer"](4)).blocks
    assert len(block.outputs) == 1
    assert {p.name for p in block.graph.inputs} == {"x", "cos", "sin", "mask"}


def test_deep_models_roll_into_few_blocks(models: dict[str, Callable[..., Graph]]) -> None:
    graph = models["transformer"](62)
    assert len(graph.ops) > 3000
    rolled = roll(graph)
    check_exact(graph, rolled)
    assert len(rolled.blocks) <= 6
    assert len(rolled.instances) >= 62


def chain(builder: Callable[..., Any], units: list[int]) -> Graph:
    """Return a chain of units; unit number u has u + 2 operators, some reach back to the input."""
    b = builder("chain")
    first = x = b.input("x", 2, 6)
    for i, unit in enumerate(units):
        start = x
        for j in range(unit + 1):
            x = b.op(
                "map", x, b.constant(f"c{i}.{j}", 1, 6), fn=("add", "mul", "max")[(unit + j) % 3]
            )
        x = b.op("map", x, first if unit == 2 else start, fn="add")
    return b.graph(x)  # type: ignore[no-any-return]


def test_prologue_and_epilogue_become_blocks_of_their_own(make_builder: Callable[..., Any]) -> None:
    graph = chain(make_builder, [5, *(3,) * 6, 4])
    rolled = roll(graph)
    check_exact(graph, rolled)
    counts = [instance.block for instance in rolled.instances]
    repeated = max(set(counts), key=counts.count)
    assert counts.count(repeated) >= 5
    assert len(rolled.blocks) <= 4


def test_values_known_at_compile_time_do_not_cross_cuts(make_builder: Callable[..., Any]) -> None:
    b = make_builder("dequantised")
    x = b.input("x", 2, 4)
    shared = b.op("map", b.constant("shared", 1, 4), fn="exp")
    weights = [
        b.op(
            "map",
            b.op("map", b.constant(f"{i}.w", 4, 4), fn="round"),
            b.constant(f"{i}.s", 1, 4),
            fn="mul",
        )
        for i in range(6)
    ]
    unused = b.op("map", b.constant("unused", 1, 4), fn="neg")
    for weight in weights:
        x = b.op("map", b.op("matmul", x, weight), shared, fn="add")
        x = b.op("map", b.op("map", b.op("map", x, fn="relu"), fn="tanh"), fn="exp")
    graph = b.graph(x, unused)
    rolled = roll(graph)
    (block,) = rolled.blocks
    assert len(rolled.instances) == 6
    assert [p.name for p in block.graph.inputs] == ["x"]
    assert len(block.outputs) == 1
    kinds = [op.kind for op in block.graph.ops]
    assert kinds == ["map"] * 3 + ["matmul"] + ["map"] * 4
    again = unroll(rolled, graph)
    again.validate()
    made = {op.outputs: (op.kind, op.inputs, dict(op.attrs)) for op in again.ops}
    assert made == {op.outputs: (op.kind, op.inputs, dict(op.attrs)) for op in graph.ops}
    assert len(again.ops) == len(graph.ops)
    inputs = {"x": np.random.default_rng(0).normal(size=(2, 4))}
    expected = evaluate(graph, inputs)
    np.testing.assert_array_equal(evaluate(again, inputs)[x], expected[x])


def test_empty_graph_has_no_instances(make_builder: Callable[..., Any]) -> None:
    b = make_builder("empty")
    assert roll(b.graph(b.input("x", 2))) == Rolled(blocks=(), instances=())


def test_constants_shared_in_one_place_only_are_told_apart(
    make_builder: Callable[..., Any],
) -> None:
    b = make_builder("tied")
    x = b.input("x", 1, 4)
    for i in range(6):
        w = b.constant(f"{i}.w", 4, 4)
        v = w if i == 3 else b.constant(f"{i}.v", 4, 4)
        x = b.op("matmul", b.op("map", b.op("matmul", x, w), fn="relu"), v)
        x = b.op("map", b.op("map", x, fn="tanh"), fn="abs")
    graph = b.graph(x)
    rolled = roll(graph)
    check_exact(graph, rolled)
    assert len(rolled.blocks) == 2


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.integers(1, 5),
    st.lists(st.integers(0, 3), max_size=3),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_chains_roll_exactly(
    make_builder: Callable[..., Any], period: list[int], repeats: int, rest: list[int]
) -> None:
    graph = chain(make_builder, period * repeats + rest)
    rolled = roll(graph)
    check_exact(graph, rolled)
    inputs = {"x": np.random.default_rng(0).normal(size=(2, 6))}
    (expected,), (found,) = (
        evaluate(graph, inputs).values(),
        run_blocks(graph, rolled, inputs).values(),
    )
    np.testing.assert_array_equal(found, expected)
