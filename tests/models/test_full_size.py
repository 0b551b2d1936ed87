"""Models at their published size, without weights, stay within the limits that do not depend on a clock."""

from __future__ import annotations

import pytest
from benchmarks import plans, simulation
from benchmarks.claim import dram_rates
from benchmarks.models import halved, shapes_of
from benchmarks.saturation import average_rows, verdict

from tilewright import api
from tilewright.compiler import Compilation
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.roofline import roofline

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


def test_the_planning_benchmark_judges() -> None:
    limit = plans.Limit(model="m", target="t", user_seconds=20.0, gap=0.02, peak_bytes=2e9)
    report = {"user_seconds": 19.0, "peak_bytes": 1e9, "gap": 0.01, "fault": ""}
    assert plans.verdict(limit, report) == "ok"
    assert plans.verdict(limit, report | {"user_seconds": 21.0}) == "OVER: time"
    worse = report | {"peak_bytes": 3e9, "gap": 0.03, "fault": "memory"}
    assert plans.verdict(limit, worse) == "OVER: memory, gap, validator"


def test_the_simulation_benchmark_judges() -> None:
    limit = simulation.Limit(model="m", target="t", seconds=10.0)
    report = {"simulate_seconds": 9.0, "events": 4_000_000, "event_seconds": 3.0}
    assert simulation.verdict(limit, report) == "ok"
    assert simulation.verdict(limit, report | {"simulate_seconds": 11.0}) == "OVER: time"
    assert simulation.verdict(limit, report | {"event_seconds": 5.0}) == "OVER: events"


def test_halved_models_have_half_the_weights() -> None:
    full = shapes_of("llama3-8b_decode_1")
    whole, half = (
        roofline(api.load(model, weights=False), load_target("corsair"))
        for model in (full, halved(full))
    )
    # a few whole numbers stay as they are
    assert 0 <= 2 * half.weight_bytes - whole.weight_bytes <= 64
    assert half.macs == whole.macs


def test_all_tiles_read_at_the_rate_of_the_narrowest_links() -> None:
    """Seven eighths of what a card reads come from the other seven over its link, 55.1 bytes a cycle."""
    target = load_target("corsair_server")
    rates = dram_rates(target)
    assert rates["links of level card"] == pytest.approx(8 * 55.1 / (7 / 8))
    assert rates["DRAM ports"] == pytest.approx(64 * 43.69 * 0.92)
