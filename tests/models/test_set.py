"""SET's networks, machine and cost (benchmarks/set), without SET.

What is counted here by hand are layers of its `src/nns/googlenet.cpp` and `llm.cpp` (a7bd739).
"""

from __future__ import annotations

import stat
from math import prod
from pathlib import Path

import pytest
from benchmarks.set.compare import (
    CELLS,
    MACHINE,
    THREE_TERMS,
    WITHOUT,
    SetError,
    searched,
    segment_cycles,
    three_terms,
)
from benchmarks.set.models import googlenet, gpt2_cell
from benchmarks.set.report import goals

from tilewright import api
from tilewright.api import Occupancy
from tilewright.extract.validate import validate_plan
from tilewright.graph import Graph
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.roofline import contraction_macs

TARGET = load_target(str(MACHINE))


def macs(graph: Graph) -> int:
    return sum(contraction_macs(graph, op) for op in graph.ops if op.kind in ("matmul", "conv"))


def weight_bytes(graph: Graph) -> int:
    kinds = {n: graph.types[n] for n in graph.constants if n.endswith(".weight")}
    return sum(t.size_bytes for t in kinds.values())


def test_googlenet_has_the_layers_of_set() -> None:
    graph = api.load(googlenet(4), weights=False)
    # conv1, conv2, then (in, 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5, pool) by image size
    sizes = {28: "192 64 96 128 16 32 32/256 128 128 192 32 96 64"}
    sizes[14] = (
        "480 192 96 208 16 48 64/512 160 112 224 24 64 64/512 128 128 256 24 64 64/"
        "512 112 144 288 32 64 64/528 256 160 320 32 128 128"
    )
    sizes[7] = "832 256 160 320 32 128 128/832 384 192 384 48 128 128"
    stem = [(3, 64, 49, 112), (64, 64, 1, 56), (64, 192, 9, 56)]
    layers = list(stem)
    for size, lines in sizes.items():
        for line in lines.split("/"):
            c, one, r3, o3, r5, o5, p = map(int, line.split())
            for inner, out, window in (
                *((c, one, 1), (c, r3, 1), (r3, o3, 9), (c, r5, 1), (r5, o5, 25), (c, p, 1)),
            ):
                layers.append((inner, out, window, size))
    expected = 4 * (sum(c * k * w * s * s for c, k, w, s in layers) + 1024 * 1000)
    assert macs(graph) == expected
    assert weight_bytes(graph) == sum(c * k * w for c, k, w, _ in layers) + 1024 * 1000
    (output,) = graph.outputs
    assert output.shape == (4, 1000)


@pytest.mark.parametrize(("mode", "tokens", "keys"), [("prefill", 512, 512), ("decode", 1, 513)])
def test_the_cells_of_gpt2_have_the_layers_of_set(mode: str, tokens: int, keys: int) -> None:
    graph = api.load(gpt2_cell(mode), weights=False)
    width = 25 * 64
    weights = 4 * width * width + 2 * width * 2048 + width * 1000
    assert weight_bytes(graph) == weights
    assert macs(graph) == tokens * (weights + 2 * keys * width)
    cached = sum(prod(port.shape) for port in graph.inputs) - tokens * width
    assert cached == (2 * 512 * width if mode == "decode" else 0)


def test_the_machine_is_that_of_set() -> None:
    # main.cpp: tops = 2 * mac_num * tiles / 1024, DRAM_bw = 0.5 * tops
    matrix = TARGET.tile.matrix
    mac_num = matrix.rows * matrix.columns[next(iter(matrix.columns))]
    assert (TARGET.tiles, mac_num) == (16, 4 * 4 * 8 * 8)
    assert TARGET.dram_bytes_per_cycle == 0.5 * 2 * mac_num * TARGET.tiles / 1024
    assert TARGET.interconnects[0].link_bytes_per_cycle == 24


def test_the_three_terms() -> None:
    assert three_terms(Occupancy(core_cycles=3, dram_cycles=2, link_cycles=1)) == 3
    assert three_terms(Occupancy(core_cycles=3, dram_cycles=5, link_cycles=1)) == 5
    assert three_terms(Occupancy(core_cycles=3, dram_cycles=5, link_cycles=9)) == 9


def test_decoding_beats_set_and_costs_no_less_than_one_segment() -> None:
    """The cell that is nearest to its bound: all weights and the cache cross the DRAM's ports once."""
    cell = CELLS[-1]
    done = api.compile(
        cell.model(),
        TARGET,
        weights=False,
        objective=THREE_TERMS,
        without_rules=WITHOUT,
        stop_after="extract",
    )
    assert done.plan is not None
    validate_plan(done.plan, TARGET)
    assert not any(any(planned.resident) for planned in done.plan.ops)
    io_bytes = sum(prod(port.shape) for port in (*done.graph.inputs, *done.graph.outputs))
    least = (weight_bytes(done.graph) + io_bytes) / TARGET.dram_bytes_per_cycle
    one = segment_cycles(done.plan, TARGET)
    assert least <= one <= done.plan.cost < cell.recorded.delay_cycles


def test_a_program_that_is_not_sets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetError, match="expected SET's build/stschedule"):
        searched(CELLS[0], tmp_path / "nothing", TARGET)
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho hello\n")
    other.chmod(other.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(SetError, match="exit code 0 without a latency"):
        searched(CELLS[0], other, TARGET)


def test_the_best_of_its_searches_counts(tmp_path: Path) -> None:
    stand_in = tmp_path / "stschedule"
    stand_in.write_text("#!/bin/sh\nfor n in 40 20 30; do echo Latency: $n,Cost; done\necho $@\n")
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    assert searched(CELLS[0], stand_in, TARGET).delay_cycles == 20
    assert goals(()) == []
