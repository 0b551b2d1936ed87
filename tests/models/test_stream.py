"""What the comparison with Stream gives to Stream and takes from it, without Stream (benchmarks/stream).

The facts about its formats are those of stream-dse 2.1.1: `stream/parser/accelerator_validator.py`,
`core_validator.py` and `mapping_validator.py`.
"""

from __future__ import annotations

import os
import re
from math import prod
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmarks.stream.compare import Case, StreamError, check_stream, compare, follow
from benchmarks.stream.hardware import ACCELERATOR, DRAM, TILE, stream_documents
from benchmarks.stream.machines import mesh
from benchmarks.stream.mapping import Demands, candidates, demands_of, divisor
from benchmarks.stream.models import Workload, gemm_chain, perceptron
from benchmarks.stream.report import geometric_mean
from onnx import TensorProto

from tilewright import api
from tilewright.compiler import Stage
from tilewright.errors import TargetError
from tilewright.exploring import Session
from tilewright.extract.plan import Memory, Plan
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.target import Target
from tilewright.simulator.verifier.verdict import Property, Verdict

STREAM_PYTHON = os.environ.get("TILEWRIGHT_STREAM_PYTHON")
LOOPS = {"D0": 256, "D1": 512, "D2": 512}
GENERATED = """
layers:
- name: Gemm0
  core_allocation:
  - - 0
    - 1
    - 2
    - 3
  inter_core_tiling:
  - - dim: D1
      split: 4
- name: Relu0
  core_allocation:
  - - 0
    - 1
    - 2
    - 3
  inter_core_tiling:
  - - dim: D1
      split: 4
- name: Gemm1
  core_allocation:
  - - 0
    - 1
    - 2
    - 3
  inter_core_tiling:
  - - dim: D2
      split: 4
fused_groups:
- name: Fused_Group_1
  layers:
  - Gemm0
  - Relu0
  - Gemm1
  intra_core_tiling:
  - dim: Gemm0.D2
    tile: 128
  - dim: Gemm0.D0
    tile: 64
"""
"""As Stream's generator writes it for the perceptron on 2 x 2 tiles."""


def plan_of(workload: Workload, machine: Target) -> Plan:
    done = api.compile(workload.ours, machine, stop_after=Stage.EXTRACT)
    assert done.plan is not None
    return done.plan


@pytest.mark.parametrize(
    ("workload", "machine", "most"),
    [
        pytest.param(gemm_chain(1, TensorProto.INT8), mesh(2, 2, 2, 32), 1.15, id="port"),
        pytest.param(gemm_chain(2, TensorProto.INT8), mesh(2, 2, 2, 32), 1.12, id="two at a port"),
        pytest.param(gemm_chain(1, TensorProto.BFLOAT16), mesh(2, 2, 2, 32), 1.18, id="links"),
        pytest.param(gemm_chain(1, TensorProto.INT8), mesh(4, 4, 4, 16), 1.16, id="DRAM ports"),
        pytest.param(perceptron(TensorProto.BFLOAT16), mesh(2, 2, 2, 32), 1.1, id="products"),
    ],
)
def test_loads_products_and_stores_overlap(
    workload: Workload, machine: Target, most: float
) -> None:
    """Programs take little longer than planning expects, by what binds them."""
    done = api.compile(workload.ours, machine)
    assert done.plan is not None
    assert done.program is not None
    assert api.simulate(done.program).cycles <= most * done.plan.cost


def test_programs_that_do_more_than_is_planned_are_right() -> None:
    """Integers in parts, to the bit; floats with third buffers, as far as the verifier proves it."""
    machine = mesh(2, 2, 2, 32)
    integers = gemm_chain(1, TensorProto.INT8).ours
    assert all(c.error == 0.0 for c in api.verify(integers, api.compile(integers, machine)))
    floats = api.compile(perceptron(TensorProto.BFLOAT16).ours, machine)
    assert floats.program is not None
    verdicts = {f.property: f.verdict for f in api.check(floats.program).findings}
    assert set(verdicts.values()) == {Verdict.PROVEN}
    assert Property.ORDER in verdicts


def numbers_of_links(documents: Any) -> list[tuple[int, ...]]:
    return [tuple(link["cores"]) for link in documents[ACCELERATOR]["core_connectivity"]]


def test_rates_are_in_bits_and_sizes_too() -> None:
    documents = stream_documents(mesh(2, 2, 2, 32))
    memories = documents[TILE]["memories"]
    assert memories["sram"]["size"] == 256 * 1024 * 8
    assert [port["bandwidth_max"] for port in memories["sram"]["ports"]] == [1024, 1024]
    rates = {
        tuple(link["cores"]): link["bandwidth"]
        for link in documents[ACCELERATOR]["core_connectivity"]
    }
    assert rates == {(0, 1): 128, (0, 2): 128, (1, 3): 128, (2, 3): 128, (0, 4): 256, (3, 4): 256}
    # reads and writes of all links together pass the memory's one port, as ours do
    (port,) = documents[DRAM]["memories"]["dram"]["ports"]
    assert (port["type"], port["bandwidth_max"]) == ("read_write", 512)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (3, 2), (4, 4)])
def test_one_link_joins_each_pair_of_neighbours(rows: int, columns: int) -> None:
    documents = stream_documents(mesh(rows, columns, 1, 8))
    links = numbers_of_links(documents)
    memory = rows * columns
    neighbours = {
        (one, two)
        for one in range(memory)
        for two in range(one + 1, memory)
        if abs(one // columns - two // columns) + abs(one % columns - two % columns) == 1
    }
    assert sorted(links) == sorted([*neighbours, (0, memory)])
    accelerator = documents[ACCELERATOR]
    assert accelerator["offchip_core_id"] == memory
    assert (
        list(accelerator["cores"])
        == list(range(memory + 1))
        == list(accelerator["core_coordinates"])
    )


def test_four_ports_sit_on_the_corners() -> None:
    documents = stream_documents(mesh(4, 4, 4, 16))
    assert sorted(a for a, b in numbers_of_links(documents) if b == 16) == [0, 3, 12, 15]


def test_names_are_those_that_the_schema_takes() -> None:
    documents = stream_documents(mesh(2, 2, 2, 32))
    assert documents[TILE]["type"] == "zigzag.compute"
    assert documents[DRAM]["type"] == "zigzag.offchip"
    for name in (TILE, DRAM):
        for memory in documents[name]["memories"].values():
            ports = [port["name"] for port in memory["ports"]]
            assert all(re.fullmatch(r"[r]?[w]?_port_\d+", port) for port in ports)
            assert len(set(ports)) == len(ports)
            served = {
                operand for p in memory["ports"] for operand in (a[:2] for a in p["allocation"])
            }
            assert {text.strip(", ") for text in served} == set(memory["operands"])


def test_a_machine_that_stream_cannot_describe_is_refused() -> None:
    with pytest.raises(TargetError, match="expected one mesh"):
        stream_documents(load_target("corsair"))


def check_mapping(document: Any, workload: Workload, tiles: int) -> None:
    """Hold a mapping to what Stream asks of one; for products of 256 x 512 with 512 x 512."""
    names = [layer.name for layer in workload.layers]
    assert [layer["name"] for layer in document["layers"]] == names
    assert [n for group in document["fused_groups"] for n in group["layers"]] == names
    local = {}
    for layer in document["layers"]:
        (cores,) = layer["core_allocation"]
        assert len(set(cores)) == len(cores)
        assert max(cores) < tiles
        splits = {s["dim"]: s["split"] for group in layer["inter_core_tiling"] for s in group}
        assert prod(splits.values()) == len(cores)
        assert all(LOOPS[dim] % split == 0 for dim, split in splits.items())
        local[layer["name"]] = {dim: LOOPS[dim] // splits.get(dim, 1) for dim in LOOPS}
    for group in document["fused_groups"]:
        assert group["intra_core_tiling"], "Stream takes no group without a tile"
        for entry in group["intra_core_tiling"]:
            name, dim = entry["dim"].split(".")
            assert name in group["layers"]
            assert local[name][dim] % entry["tile"] == 0


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 2)])
def test_plans_become_mappings_that_stream_takes(rows: int, columns: int) -> None:
    workload = gemm_chain(2, TensorProto.INT8)
    plan = plan_of(workload, mesh(rows, columns, 1, 8 * rows * columns))
    found = candidates(plan, workload.layers, least_k=64)
    assert found
    for document in found:
        check_mapping(document, workload, rows * columns)
    # the first one is the plan: cut where its product goes through DRAM, whole boxes along the contraction
    (first,) = (op for op in plan.ops if op.op.output == "y0")
    groups = 2 if first.result.memory is Memory.DRAM else 1
    assert len(found[0]["fused_groups"]) == groups
    cores = found[0]["layers"][0]["core_allocation"][0]
    split = [n for n, dim in zip(plan.mesh.sizes, first.split_dims, strict=True) if dim >= 0]
    assert len(cores) == prod(split)


def test_an_activation_rides_with_its_product() -> None:
    workload = perceptron(TensorProto.BFLOAT16)
    plan = plan_of(workload, mesh(1, 1, 1, 8))
    for document in candidates(plan, workload.layers, least_k=64):
        for group in document["fused_groups"]:
            assert ("Gemm0" in group["layers"]) == ("Relu0" in group["layers"])


def test_tiles_are_rounded_down_to_divisors() -> None:
    assert [divisor(256, size) for size in (256, 255, 43, 1)] == [256, 128, 32, 1]


def test_a_mapping_becomes_demands() -> None:
    layers = perceptron(TensorProto.BFLOAT16).layers
    found = demands_of([yaml.safe_load(GENERATED)], layers, {"y": 2, "x": 2})
    assert found.splits == ("split=y:n,x:n@b", "split=y:k,x:k@y")
    assert found.memories == ("memory=sram@b",)
    # both products have the rows that the group's loop is cut in
    assert found.tiles == ()
    assert found.shared_tiles == ("tile=m=64,k=128@b", "tile=m=64@y")
    assert len(found.lost) == 1
    whole, alone, *scattered = found.without_tiles()
    assert (whole, alone) == ((*found.splits, *found.memories), found.splits)
    split = "split=y:k+scattered,x:k+scattered@y"
    assert scattered == [(found.splits[0], split, *found.memories), (found.splits[0], split)]


def test_boxes_of_scattered_sums_have_rows_of_all_pieces() -> None:
    """Features that never move: both products are split over them, the second one scatters its sums."""
    workload = perceptron(TensorProto.BFLOAT16)
    session = Session(api.compile(workload.ours, mesh(2, 2, 2, 32), stop_after=Stage.SATURATE))
    plan = session.force("split=y:n,x:n@b", "split=y:k+scattered,x:k+scattered@y").plan
    scattering = plan.ops[-1]
    assert scattering.tiling is not None
    rows, *_, pieces = scattering.tiling.sizes
    assert pieces == 4
    apart = candidates(plan, workload.layers, least_k=64)[-3]
    assert [len(group["layers"]) for group in apart["fused_groups"]] == [2, 1]
    tiles = {t["dim"]: t["tile"] for t in apart["fused_groups"][1]["intra_core_tiling"]}
    assert tiles["Gemm1.D0"] == divisor(256, 4 * rows)
    assert apart["layers"][2]["inter_core_tiling"] == [[{"dim": "D2", "split": 4}]]


def test_columns_of_one_product_are_terms_of_the_next() -> None:
    text = GENERATED.replace("dim: Gemm0.D2\n    tile: 128", "dim: Gemm0.D1\n    tile: 32")
    layers = perceptron(TensorProto.BFLOAT16).layers
    found = demands_of([yaml.safe_load(text)], layers, {"y": 2, "x": 2})
    assert found.shared_tiles == ("tile=m=64,n=32@b", "tile=m=64,k=32@y")


@pytest.fixture(scope="module")
def followed() -> Session:
    workload = gemm_chain(1, TensorProto.BFLOAT16)
    return Session(api.compile(workload.ours, mesh(1, 1, 1, 8), stop_after=Stage.SATURATE))


def demanding(*tiles: str, shared: tuple[str, ...] = ()) -> Demands:
    return Demands(splits=(), memories=(), tiles=tiles, shared_tiles=shared, lost=())


def test_tiles_of_a_single_product_are_followed_and_others_are_named(followed: Session) -> None:
    found = follow(followed, demanding("tile=m=32,n=64@y0", "tile=k=1024@y0"))
    assert found.demands == ("tile=m=32,n=64@y0",)
    (lost,) = found.lost
    assert "demand 1,024, limit 512" in lost
    # Stream's own price of its mapping with these tiles; both are bound by the arrays
    assert found.predicted == pytest.approx(361_598, rel=1e-3)


def test_tiles_of_shared_loops_count_where_they_are_no_slower(followed: Session) -> None:
    free = follow(followed, demanding())
    found = follow(followed, demanding(shared=("tile=m=32,n=64@y0",)))
    assert (found.demands, found.simulated) == ((), free.simulated)
    assert "tiles of shared loops" in found.lost[-1]
    (planned,) = followed.base.plan.ops
    assert planned.tiling is not None
    m, n, k = planned.tiling.sizes
    chosen = f"tile=m={m},n={n},k={k}@y0"
    found = follow(followed, demanding(shared=(chosen,)))
    assert (found.demands, found.simulated, found.lost) == ((chosen,), free.simulated, ())


def test_a_split_over_some_of_the_tiles_is_lost_if_no_axes_make_it() -> None:
    text = GENERATED.replace("split: 4", "split: 3")
    layers = perceptron(TensorProto.BFLOAT16).layers
    found = demands_of([yaml.safe_load(text)], layers, {"y": 2, "x": 2})
    assert found.splits == ()
    assert any("Gemm0" in lost for lost in found.lost)


def test_without_stream_the_message_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"pip install stream-dse==2\.1\.1"):
        check_stream(tmp_path / "python")


def test_means_are_geometric() -> None:
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)


@pytest.mark.slow
@pytest.mark.skipif(
    not STREAM_PYTHON, reason="set TILEWRIGHT_STREAM_PYTHON to a Python with stream-dse"
)
def test_stream_finds_the_published_figures_and_ours_no_dearer() -> None:
    """One product and two on one tile: 87,422 and 247,101 cycles by Stream, which fuses the two."""
    machine = mesh(1, 1, 1, 8)
    chosen = [Case(gemm_chain(length, TensorProto.INT8), machine) for length in (1, 2)]
    one, two = compare(chosen, Path(str(STREAM_PYTHON)), repeats=1)
    assert (one.stream_cycles, two.stream_cycles) == (87_422, 247_101)
    assert one.plan_cycles[0] is not None
    assert one.plan_cycles[0] <= one.stream_cycles
    assert two.refereed_plan <= 174_844
