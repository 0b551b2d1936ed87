"""Models whose weights do not fit the scratchpads: their layers come from memory as fast as it gives them."""

from __future__ import annotations

import pytest
from benchmarks.models import case_of, model_of

from tilewright import api
from tilewright.compiler import Compilation
from tilewright.hwmodel.roofline import roofline

TARGET = "mesh_2x3"
TOLERANCE = 0.05
PRODUCTS_TOLERANCE = 0.06
"""Products share the scratchpad's port with all else, a twenty-fifth of their time."""


def compiled(name: str, machine: str = TARGET) -> Compilation:
    return api.compile(model_of(case_of(name)), machine)


def bounds(done: Compilation) -> tuple[float, float]:
    """Return the cycles that memory and matrix units need at least."""
    found = roofline(done.graph, done.target)
    return found.dram_cycles, found.matrix_cycles


@pytest.mark.parametrize(
    ("shallow", "deep"),
    [
        pytest.param("llama_mlp_2x512x4", "llama_mlp_4x512x4", id="feed-forward layers"),
        pytest.param(
            *("llama_decode_2x384", "llama_decode_4x384"),
            id="a decode step",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_more_layers_take_what_memory_takes_for_them(shallow: str, deep: str) -> None:
    """The steady state: what layers add to the time, against the most that a resource needs for them."""
    few, many = compiled(shallow), compiled(deep)
    assert few.program is not None
    assert many.program is not None
    weights = roofline(few.graph, few.target).weight_bytes
    assert weights > 2 * few.target.sram_bytes
    needed = max(more - less for less, more in zip(bounds(few), bounds(many), strict=True))
    reports = [api.simulate(done.program).run for done in (few, many)]
    added = reports[1].cycles - reports[0].cycles
    assert added <= (1 + TOLERANCE) * needed
    for done, report in zip((few, many), reports, strict=True):
        # of whole models: what begins and ends them may take a deeper one a little less
        assert report.cycles >= max(bounds(done))
        use = {resource.name: resource.utilisation_mean for resource in report.resources}
        assert use["DRAM ports"] > 1 - TOLERANCE


@pytest.mark.slow
def test_more_layers_take_what_products_take_for_them() -> None:
    """Sixty-four times the rows, and room for the activations of a layer: the matrix units bind."""
    machine = f"{TARGET}?sram_kib=1024"
    few, many = (compiled(f"llama_mlp_{layers}x512x256", machine) for layers in (2, 4))
    memory, products = (more - less for less, more in zip(bounds(few), bounds(many), strict=True))
    assert products > 2 * memory
    assert roofline(few.graph, few.target).weight_bytes > 2 * few.target.sram_bytes
    assert few.program is not None
    assert many.program is not None
    added = api.simulate(many.program).cycles - api.simulate(few.program).cycles
    assert products <= added <= (1 + PRODUCTS_TOLERANCE) * products
