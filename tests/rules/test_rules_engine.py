"""Saturation: what comes out is sound, acyclic, complete for its strategies, and deterministic."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from egglog import String
from rule_cases import check_structure

from tilewright.dtypes import DType
from tilewright.errors import RuleError
from tilewright.graph import Graph, HostModel, Op, Port, TensorType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.engine import saturate
from tilewright.rules.evaluation import disagreements
from tilewright.rules.options import SaturationOptions
from tilewright.rules.registry import Numerics, Rewrite, define
from tilewright.rules.scattered import SCATTERED
from tilewright.rules.splitting import strategies
from tilewright.rules.terms import Tensor, matmul, transpose

GRID = LogicalMesh(("x", "y"), (2, 2))
NO_MESH = LogicalMesh((), ())


def check_implementations(found: Alternatives) -> None:
    """Every legal strategy of every run-time node is there once, and nothing else."""
    by_node: dict[int, list[tuple[Any, ...]]] = {}
    for way in found.implementations:
        by_node.setdefault(way.node, []).append((way.split_dims, way.operands, way.result))
    for node in found.nodes:
        if found.classes[node.result].is_constant:
            assert node.number not in by_node
        elif node.nest is not None:
            op = Op(name="", kind=node.kind, inputs=(), outputs=(), attrs=node.attrs)
            expected = [
                (s.split_dims, s.operands, s.result)
                for s in strategies(op, node.nest, found.mesh)
                if SCATTERED not in s.macros  # offered for large sums alone
            ]
            assert by_node[node.number] == expected


def leaves_of(graph: Graph) -> dict[str, Any]:
    random = np.random.default_rng(5)
    inputs = {p.tensor: random.normal(size=p.shape).astype(p.dtype.numpy) for p in graph.inputs}
    return inputs | dict(graph.constants)


@pytest.mark.parametrize("name", ["transformer", "encoder", "resnet"])
def test_alternatives_of_models_are_sound(
    models: dict[str, Callable[..., Graph]], name: str
) -> None:
    graph = models[name](1)
    found = saturate(graph, GRID)
    check_structure(graph, found)
    check_implementations(found)
    assert disagreements(graph, found, leaves_of(graph), 1e-10) == ()
    inserted = {n.op_name for n in found.nodes if n.origin == ""}
    assert inserted == {op.name for op in graph.ops}
    families = {n.origin.partition(".")[0] for n in found.nodes}
    assert families == ({"", "fusion"} if name == "resnet" else {"", "algebra", "fusion"})
    assert found.notes == ()


@pytest.mark.parametrize(
    ("mesh", "limit"),
    [(LogicalMesh(("x", "y"), (4, 4)), 80), (LogicalMesh(("x", "y", "z"), (8, 16, 16)), 300)],
)
@pytest.mark.parametrize("name", ["transformer", "encoder", "resnet"])
def test_e_graphs_stay_small(
    models: dict[str, Callable[..., Graph]], name: str, mesh: LogicalMesh, limit: int
) -> None:
    sizes = {"resnet": {"channels": 64, "size": 16}}.get(
        name, {"tokens": 256, "width": 512, "heads": 16}
    )
    graph = models[name](1, **sizes)
    found = saturate(graph, mesh)
    last = found.ruleset_stats[-1]
    assert last.ruleset == "partition"
    assert len(found.implementations) + len(found.nodes) <= last.e_nodes <= limit * len(graph.ops)


def test_equal_ops_share_a_class_and_a_node(make_builder: Callable[..., Any]) -> None:
    b = make_builder()
    x = b.input("x", 2, 4)
    one, two = b.op("map", x, fn="exp"), b.op("map", x, fn="exp")
    graph = b.graph(b.op("map", one, two, fn="add"))
    found = saturate(graph, GRID)
    check_structure(graph, found)
    (shared,) = [c for c in found.classes if len(c.names) == 2]
    assert shared.names == (one, two)
    assert len([n for n in found.nodes if n.result == shared.number]) == 1


def test_what_rules_undo_leaves_no_cycle(make_builder: Callable[..., Any]) -> None:
    b = make_builder()
    x = b.op("map", b.input("x", 2, 3, 4), fn="exp")
    there = b.op("transpose", x, perm=(1, 2, 0))
    back = b.op("transpose", there, perm=(2, 0, 1))
    same = b.op("reshape", back, shape=(2, 3, 4))
    graph = b.graph(b.op("map", same, fn="neg"), there)
    found = saturate(graph, GRID)
    check_structure(graph, found)
    (merged,) = [c for c in found.classes if len(c.names) == 3]
    assert merged.names == (x, back, same)
    assert disagreements(graph, found, leaves_of(graph), 0.0) == ()


def test_input_that_is_output_needs_no_node(make_builder: Callable[..., Any]) -> None:
    b = make_builder()
    x = b.input("x", 2, 3)
    graph = b.graph(b.op("map", x, fn="identity"), x)
    found = saturate(graph, GRID)
    assert found.outputs == (0, 0)
    assert found.nodes == ()
    assert found.classes[0].is_input


def test_weights_computed_by_the_compiler_are_constant(make_builder: Callable[..., Any]) -> None:
    b = make_builder()
    x, w = b.input("x", 4, 8), b.constant("w", 8, 4)
    scaled = b.op("map", b.op("matmul", x, w), b.constant("s", 1, 4), fn="mul")
    graph = b.graph(scaled)
    found = saturate(graph, GRID)
    check_structure(graph, found)
    check_implementations(found)
    made = [n for n in found.nodes if n.origin == "algebra.scale_into_matmul_weight"]
    weight = next(n for n in made if n.kind == "map")
    assert found.classes[weight.result].is_constant
    assert found.classes[weight.result].names == ()
    assert any(n.kind == "matmul" and weight.result in n.args for n in made)


def test_fused_alternatives_keep_the_unfused_ones(make_builder: Callable[..., Any]) -> None:
    b = make_builder()
    x = b.input("x", 4, 8)
    y = b.op("map", b.op("map", b.linear(x, "fc", 6), fn="gelu"), b.input("r", 4, 6), fn="add")
    graph = b.graph(y)
    found = saturate(graph, GRID)
    origins = Counter(n.origin for n in found.nodes)
    assert origins[""] == len(graph.ops)
    epilogues = {n.attrs["epilogue"] for n in found.nodes if "epilogue" in n.attrs}
    assert epilogues == {"add", "add|gelu"}
    for node in found.nodes:
        if "epilogue" in node.attrs:
            reduction = len(node.nest.dims) - 1 if node.nest else -1
            ways = [w.split_dims for w in found.implementations if w.node == node.number]
            assert ways
            assert all(reduction not in split for split in ways)


def test_host_regions_are_opaque_and_replicated() -> None:
    types = {
        "x": TensorType((4, 4), DType.F32),
        "a": TensorType((4, 4), DType.F32),
        "b": TensorType((2,), DType.I64),
    }
    types["y"] = types["a"]
    op = Op(name="h", kind="host", inputs=("x", "x"), outputs=("a", "b"), attrs={"region": "r0"})
    after = Op(name="m", kind="map", inputs=("a",), outputs=("y",), attrs={"fn": "neg"})
    model = HostModel(
        model_bytes=b"",
        input_names=("i", "j"),
        input_shapes=((4, 4), (4, 4)),
        output_names=("a", "b"),
        op_types=("TopK",),
        reason="test",
    )
    graph = Graph(
        name="g",
        inputs=(Port(name="x", tensor="x", shape=(4, 4), dtype=DType.F32),),
        outputs=tuple(
            Port(name=n, tensor=n, shape=types[n].shape, dtype=types[n].dtype) for n in ("y", "b")
        ),
        types=types,
        constants={},
        ops=(op, after),
        host_models={"r0": model},
    )
    found = saturate(graph, GRID)
    check_structure(graph, found)
    (host,) = [n for n in found.nodes if n.kind == "host"]
    assert host.nest is None
    assert host.attrs == {"region": "r0"}
    assert [found.classes[r].names for r in host.results] == [("a",), ("b",)]
    (way,) = [w for w in found.implementations if w.node == host.number]
    assert way.operands == ((-1, -1), (-1, -1))
    assert way.result == (-1, -1)


def test_rules_can_be_left_out(models: dict[str, Callable[..., Graph]]) -> None:
    graph = models["encoder"](1)
    found = saturate(graph, GRID, without_rules=("fusion", "algebra.softmax_in_parts"))
    origins = {n.origin for n in found.nodes}
    assert "algebra.softmax_in_parts" not in origins
    assert not any(origin.startswith("fusion.") for origin in origins)
    assert {s.ruleset for s in found.ruleset_stats} == {"load", "analysis", "algebra", "partition"}
    with pytest.raises(
        RuleError, match=r"'algebra\.paded_sum' is unknown; did you mean algebra\.padded_sum"
    ):
        saturate(graph, GRID, without_rules=("algebra.paded_sum",))
    with pytest.raises(RuleError, match=r"'quux' is unknown; see 'tilewright rules list'"):
        saturate(graph, GRID, without_rules=("quux",))


def test_statistics_count_matches_and_sizes(models: dict[str, Callable[..., Graph]]) -> None:
    graph = models["encoder"](1)
    found = saturate(graph, GRID)
    per_rule = Counter({s.ruleset: 0 for s in found.ruleset_stats})
    for rule in found.rule_stats:
        per_rule[rule.ruleset] += rule.matches
        assert rule.matches > 0
    rewriting = {s.ruleset: s.matches for s in found.ruleset_stats if s.ruleset != "partition"}
    assert {name: per_rule[name] for name in rewriting} == rewriting
    uses = Counter(name for way in found.implementations for name in {*way.rules} - {""})
    split = {s.rule: s.matches for s in found.rule_stats if s.ruleset == "partition"}
    assert split == uses
    made = Counter(node.origin for node in found.nodes if node.origin)
    assert all(s.e_nodes >= made[s.rule] for s in found.rule_stats)
    load = found.ruleset_stats[0]
    tensors = {n for op in graph.ops for n in (*op.inputs, *op.outputs)}
    assert (load.ruleset, load.e_nodes, load.e_classes) == ("load", len(tensors), len(tensors))


def wrong_type(a: Tensor, b: Tensor, d: String) -> Rewrite:
    """A B = B A."""
    return Rewrite(matmul(a, b, d), to=matmul(b, a, d))


def wrong_merge(x: Tensor, p: String, d: String) -> Rewrite:
    """transpose(x) = x."""
    return Rewrite(transpose(x, p, d), to=x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            wrong_type,
            r"rule 'bad\.rule' made a matmul of type f64\[2,2\] in an e-class of type f64\[3,3\]",
        ),
        (wrong_merge, r"ruleset bad put f64\[2,3\] and f64\[3,2\] into one e-class"),
    ],
)
def test_wrong_types_are_errors_that_name_shapes(
    make_builder: Callable[..., Any], function: Any, message: str
) -> None:
    b = make_builder()
    x = b.input("x", 2, 3)
    y = b.op("matmul", b.op("transpose", x, perm=(1, 0)), x)
    rule = define("bad.rule", function, numerics=Numerics.EXACT, source="test")
    with pytest.raises(RuleError, match=message):
        saturate(b.graph(y), NO_MESH, options=SaturationOptions(rules=(rule,)))


def test_limits_are_noted(make_builder: Callable[..., Any]) -> None:
    b = make_builder()
    x = b.input("x", 4, 4)
    for _ in range(8):
        x = b.op("map", x, fn="exp")
    graph = b.graph(x)
    found = saturate(graph, NO_MESH, options=SaturationOptions(nodes_per_class=3))
    assert any("the limit is 3" in note for note in found.notes)
    assert max(Counter(n.result for n in found.nodes).values()) <= 3
    check_structure(graph, found)
    found = saturate(graph, NO_MESH, options=SaturationOptions(rounds=1))
    assert found.notes == (
        "rewriting stopped after 1 rounds, before it was saturated; the last of them added e-nodes "
        "of fusion.map_after_map (7)",
    )
    assert not saturate(graph, NO_MESH, options=SaturationOptions(nodes_per_class=64)).notes


PROGRAM = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from conftest import encoder
from dataclasses import replace
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.engine import saturate
found = saturate(encoder(1), LogicalMesh(("x", "y"), (2, 2)))
found = replace(found, ruleset_stats=(), rule_stats=())
text = repr((found.classes, [(n, sorted(n.attrs.items())) for n in found.nodes], found.implementations))
print(hashlib.sha256(text.encode()).hexdigest(), len(found.nodes))
"""


def test_result_does_not_depend_on_the_hash_seed() -> None:
    outputs = set()
    for seed in ("1", "77"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert int(outputs.pop().split()[1]) > 40
