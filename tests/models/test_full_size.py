"""Models at their published size, without weights, stay within the limits that do not depend on a clock."""

from __future__ import annotations

import pytest
from benchmarks.models import shapes_of
from benchmarks.saturation import average_rows, verdict

from tilewright import api
from tilewright.compiler import Compilation

LIMITS = {"mesh_4x4": 80, "corsair": 300}
"""E-nodes for each op on two and on three mesh axes."""


def saturated(name: str, target: str) -> Compilation:
    return api.compile(shapes_of(name), target, weights=False, stop_after="saturate")


@pytest.mark.parametrize(("target", "limit"), LIMITS.items())
def test_seventy_billion_parameters_cost_three_blocks(target: str, limit: int) -> None:
    done = saturated("llama3-70b_prefill", target)
    assert done.rolled is not None
    assert len(done.rolled.instances) == 82
    assert len(done.rolled.blocks) == 3
    ops = sum(len(block.graph.ops) for block in done.rolled.blocks)
    assert sum(found.ruleset_stats[-1].e_nodes for found in done.alternatives) <= limit * ops
    assert all(found.notes == () for found in done.alternatives)


def test_depth_costs_nothing() -> None:
    """The layers of both sizes are alike, so that their e-graphs are equally large."""
    small, large = (saturated(f"llama3-{size}_decode", "mesh_4x4") for size in ("8b", "70b"))
    counts = [
        [found.ruleset_stats[-1].e_nodes for found in done.alternatives] for done in (small, large)
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", ["mobilenetv2", "resnet50", "unet"])
def test_blocks_that_hardly_repeat(name: str) -> None:
    done = saturated(name, "corsair")
    assert done.rolled is not None
    ops = sum(len(block.graph.ops) for block in done.rolled.blocks)
    assert sum(found.ruleset_stats[-1].e_nodes for found in done.alternatives) <= 300 * ops
    assert all(found.notes == () for found in done.alternatives)


def test_the_benchmark_judges() -> None:
    report = {
        "saturate_seconds": 4.0,
        "peak_bytes": 1e9,
        "e_nodes": 7900,
        "unique_ops": 100,
        "mesh_axes": 2,
    }
    assert verdict("llama3-8b_decode", report) == "ok"
    slow = report | {"saturate_seconds": 5.1}
    assert verdict("llama3-8b_decode", slow) == "OVER: time"
    assert verdict("unet", slow) == "ok"
    assert verdict("unet", slow | {"peak_bytes": 1.6e9}) == "OVER: memory"
    dense = report | {"e_nodes": 8300}
    assert average_rows([report]) == [("2", "ok", "79.0", "80")]
    assert average_rows([report, dense]) == [("2", "OVER", "81.0", "80")]
