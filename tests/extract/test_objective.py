"""Objectives as users write them, their rates, and limits of latency."""

from __future__ import annotations

import pytest
from extract_cases import tiny
from hypothesis import given
from hypothesis import strategies as st

from tilewright.errors import CompileError
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.front import check_points
from tilewright.extract.front_planner import check_metrics
from tilewright.extract.limited import extract_within_latency, latency_cycles
from tilewright.extract.objective import Metric, Objective, parse_objective, references, single
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.family import mesh_target

TARGET = mesh_target(2, 2)


@pytest.mark.parametrize("metric", list(Metric))
def test_a_metric_alone_has_its_own_unit(metric: Metric) -> None:
    objective = parse_objective(metric)
    assert objective == single(metric) == parse_objective(f"{metric}:3")
    assert objective.rate(metric) == 1.0
    assert objective.unit in ("cycles", "pJ", "bytes")
    assert str(objective) == metric


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.floats(0.1, 10.0))
def test_weights_are_relative_and_rates_measure_in_references(
    latency: float, energy: float, factor: float
) -> None:
    graph = tiny("matmul_chain").graph
    known = references(graph, TARGET)
    mix = parse_objective(f"latency:{latency!r},energy:{energy!r}").on(graph, TARGET)
    scaled = parse_objective(f"energy:{energy * factor!r},latency:{latency * factor!r}")
    scaled = scaled.on(graph, TARGET)
    for metric, weight in ((Metric.LATENCY, latency), (Metric.ENERGY, energy)):
        # one reference of a metric costs the share of its weight, in cycles of the reference
        share = mix.rate(metric) * known[metric] / known[Metric.LATENCY]
        assert share == pytest.approx(weight / (latency + energy))
        assert scaled.rate(metric) == pytest.approx(mix.rate(metric))
    assert mix.unit == "weighted cycles"
    assert mix.on(graph, mesh_target(4, 4)) == mix, "rates stay once they are known"


def test_a_kernel_costs_the_sum_of_its_metrics() -> None:
    cost = KernelCost(matrix_cycles=70, startup_cycles=30, energy_pj=50)
    both = Objective(((Metric.LATENCY, 1.0), (Metric.ENERGY, 1.0)), (2.0, 0.5))
    alone = [single(m).kernel_units(cost, TARGET) for m in both.metrics]
    assert alone[0] == 100
    assert both.kernel_units(cost, TARGET) == pytest.approx(2 * alone[0] + 0.5 * alone[1])
    assert Objective.THROUGHPUT.kernel_units(cost, TARGET) == 70


def test_the_footprint_is_no_sum() -> None:
    mix = parse_objective("latency:1,sram:2,energy:1").on(tiny("matmul_chain").graph, TARGET)
    assert mix.additive.metrics == (Metric.LATENCY, Metric.ENERGY)
    assert mix.additive.rate(Metric.ENERGY) == mix.rate(Metric.ENERGY)
    assert Objective.SRAM.additive == Objective.LATENCY


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("speed", "choose one of latency, throughput, energy, sram"),
        ("latency:1,latency:2", "twice"),
        ("latency,energy:1", "weight of latency is ''"),
        ("latency:nan,energy:1", "positive number"),
        ("latency:-1,energy:1", "positive number"),
        ("latency:1,throughput:1", "count the same cycles"),
        ("", "is unknown"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, match: str) -> None:
    with pytest.raises(CompileError, match=match):
        parse_objective(text)


def test_limits_of_latency_are_cycles_or_times() -> None:
    assert latency_cycles(20_000, TARGET) == latency_cycles("20000", TARGET) == 20_000
    assert latency_cycles("2us", TARGET) == pytest.approx(2_000 * TARGET.clock_ghz)
    assert latency_cycles("1.5ms", TARGET) == pytest.approx(1.5e6 * TARGET.clock_ghz)
    for text in ("soon", "-3", "0", "5 parsecs", "nan", "inf", "us", "3min"):
        with pytest.raises(CompileError, match="20000 or 50us"):
            latency_cycles(text, TARGET)


def test_the_footprint_has_no_price_of_latency() -> None:
    case = tiny("matmul_chain")
    options = ExtractOptions(objective=Objective.SRAM)
    with pytest.raises(CompileError, match="explore pareto --objectives latency,sram"):
        extract_within_latency(
            case.graph, case.rolled, case.alternatives, case.target, case.mesh, options, 1e6
        )


def test_fronts_are_of_two_or_three_metrics_and_points() -> None:
    good = (Metric.LATENCY, Metric.ENERGY, Metric.SRAM)
    assert check_metrics(good) == good
    for wrong in (good[:1], (Metric.LATENCY,) * 2, (*good, Metric.THROUGHPUT), tuple(Metric)[:2]):
        with pytest.raises(CompileError, match="objectives"):
            check_metrics(wrong)
    for number in (-1, 0, 1, 10_000):
        with pytest.raises(CompileError, match="expected 2 to"):
            check_points(number)
