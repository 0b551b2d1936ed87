"""Pruning keeps the optimum and leaves nothing dangling."""

from __future__ import annotations

from dataclasses import replace

import pytest
from extract_cases import MODELS, OBJECTIVES, Builder, Case, Enumeration, saturated, tiny

from tilewright.extract.model_tables import build_tables
from tilewright.extract.objective import Objective
from tilewright.extract.pricing import Pricing
from tilewright.extract.pruning import prune
from tilewright.extract.tiling_candidates import tiling_candidates
from tilewright.hwmodel.family import mesh_target
from tilewright.rules.alternatives import Alternatives


def activation() -> Case:
    b = Builder("activation")
    x = b.map("relu", b.map("exp", b.map("mul", b.input(16, 16), b.input(16, 16))))
    return saturated(b.graph(x), mesh_target(1, 2))


def shared() -> Case:
    """Return two maps of which the first has another use."""
    b = Builder("shared")
    inner = b.map("exp", b.input(16, 16))
    outer = b.map("relu", inner)
    return saturated(
        b.graph(outer, b.op("reduce", (inner,), (16, 1), fn="sum", axes=(1,))), mesh_target(1, 2)
    )


def transposed() -> Case:
    """Return a product that two transposes lead to and one follows."""
    b = Builder("transposed")
    left = b.op("transpose", (b.input(8, 16),), (16, 8), perm=(1, 0))
    right = b.op("transpose", (b.map("exp", b.input(32, 8)),), (8, 32), perm=(1, 0))
    product = b.matmul(left, right)
    return saturated(
        b.graph(b.op("transpose", (product,), (32, 16), perm=(1, 0))), mesh_target(1, 2)
    )


CASES = {"activation": activation, "shared": shared, "transposed": transposed} | {
    name: lambda name=name: tiny(name, 1, 2) for name in MODELS if name != "attention_scores"
}


def optimum(case: Case, alternatives: tuple[Alternatives, ...], objective: Objective) -> float:
    pricing = Pricing(
        target=case.target,
        mesh=case.mesh,
        objective=objective,
        limit_bytes=case.target.tile.sram.size_bytes,
        tilings=tiling_candidates(alternatives, case.mesh, case.target),
    )
    tables = build_tables(case.graph, case.rolled, alternatives, pricing)
    return float(Enumeration(case, alternatives, pricing, tables).costs().min())


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", list(CASES))
def test_the_optimum_survives(name: str, objective: Objective) -> None:
    case = CASES[name]()
    pruned = tuple(prune(found) for found in case.alternatives)
    before = optimum(case, case.alternatives, objective)
    assert optimum(case, pruned, objective) == pytest.approx(before, rel=1e-9)


@pytest.mark.parametrize("name", [*CASES, "attention_scores"])
def test_nothing_dangles(name: str) -> None:
    case = CASES[name]() if name in CASES else tiny(name)
    for found in case.alternatives:
        pruned = prune(found)
        assert [n for n in found.nodes if n in pruned.nodes] == list(pruned.nodes)
        made = {c for node in pruned.nodes for c in (node.results or (node.result,))}
        for node in pruned.nodes:
            for argument in node.args:
                tensor = found.classes[argument]
                assert argument in made or tensor.is_input or tensor.is_constant
        assert made >= {c for c in found.outputs if not found.classes[c].is_input}
        numbers = {node.number for node in pruned.nodes}
        assert {i.node for i in pruned.implementations} <= numbers
        assert len(numbers) == len(pruned.nodes)
        kept = [i for i in found.implementations if i.node in numbers]
        assert kept == list(pruned.implementations)
        assert prune(pruned) == pruned


def test_a_fused_chain_replaces_its_parts() -> None:
    (found,) = activation().alternatives
    pruned = prune(found)
    assert len(pruned.nodes) < len(found.nodes)
    assert [node.kind for node in pruned.nodes] == ["map"]
    assert len(pruned.nodes[0].args) == 2


def test_attention_on_scaled_queries_goes_for_one_that_scales_them() -> None:
    b = Builder("attention")
    scores = b.map("mul_const(0.25)", b.matmul(b.input(2, 8, 4), b.input(2, 4, 8)))
    weights = b.op("softmax", (scores,), (2, 8, 8))
    (found,) = saturated(
        b.graph(b.matmul(weights, b.input(2, 8, 4))), mesh_target(1, 2)
    ).alternatives

    def scales(alternatives: Alternatives) -> list[object]:
        return [n.attrs["scale"] for n in alternatives.nodes if n.kind == "attention"]

    assert sorted(map(float, map(str, scales(found)))) == [0.25, 1.0]
    assert scales(prune(found)) == [0.25]


def test_a_part_with_another_use_stays() -> None:
    (found,) = shared().alternatives
    pruned = prune(found)
    fns = {node.attrs["fn"] for node in pruned.nodes if node.kind == "map"}
    assert "exp" in fns


def test_a_split_form_of_a_product_stays_beside_a_fused_map() -> None:
    """relu(h) with h = norm(x) w or (x w) / s: fused with the division, it is not relu of the product."""
    b = Builder("norm")
    x = b.input(1, 64)
    normal = b.op("rmsnorm", (x,), (1, 64), epsilon=1e-5)
    (found,) = saturated(
        b.graph(b.map("relu", b.matmul(normal, b.weight(64, 64)))), mesh_target(1, 2)
    ).alternatives
    fns = [node.attrs["fn"] for node in prune(found).nodes if node.kind == "map"]
    assert "relu" in fns
    assert any(str(fn).startswith("div_rms") for fn in fns)


def test_without_a_fused_form_nothing_is_dropped() -> None:
    (found,) = activation().alternatives
    originals = tuple(node for node in found.nodes if node.origin == "")
    plain = replace(found, nodes=originals)
    assert prune(plain).nodes == originals
