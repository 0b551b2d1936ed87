"""Durations and byte counts of single instructions, and the fair-sharing solver, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.simulator.timing_fair import fair_rates, filling
from tilewright.simulator.timing_heap import pop, pop_message, push_message, schedule
from tilewright.simulator.timing_kinds import Kind, KindTable, dram_bytes, kind_of
from tilewright.simulator.timing_lowered import expand
from tilewright.simulator.timing_routes import shifted, sub_mesh

MESH = LogicalMesh(("y", "x"), (4, 4))
I8 = DType.I8


def access(*strides: int, dtype: DType = I8, space: Space = Space.L1) -> Access:
    return Access(space, dtype, 0, (0, 0), strides)


def kind(instruction: Instruction) -> Kind:
    return kind_of(load_target("toy"), MESH, (), instruction)


def payload_cycles(found: Kind) -> float:
    return found.work_bytes / found.rate_bytes_per_cycle


def matmul(m: int, n: int, k: int, dtype: DType = I8, accumulate: bool = False) -> Instruction:
    return Instruction(
        opcode=Opcode.MM,
        engine=Engine.ME,
        domain=(m, n, k),
        dst=access(4 * n, 4, 0, dtype=DType.I32),
        sources=(access(k, 0, 1, dtype=dtype), access(0, 1, n, dtype=dtype)),
        accumulate=accumulate,
    )


def test_matrix_passes_hide_all_weight_loads_but_the_first() -> None:
    # toy: 16 x 16 array, 1 cycle a row, load 4 cycles for i8; 2 x 3 passes of 40 rows.
    found = kind(matmul(m=40, n=48, k=32))
    assert payload_cycles(found) == pytest.approx(4 + 6 * 40)
    assert found.lead_cycles == 32
    assert found.macs == 40 * 48 * 32
    # A once per column pass, B once, C written on both passes over K and read on the second
    assert found.work_bytes == 40 * 32 * 3 + 32 * 48 + 40 * 48 * 4 * 3


def test_few_rows_are_bound_by_weight_loads() -> None:
    assert payload_cycles(kind(matmul(m=2, n=48, k=32))) == pytest.approx(4 + 5 * 4 + 2)


def test_accumulating_reads_the_destination_once_more() -> None:
    extra = kind(matmul(8, 16, 16, accumulate=True)).work_bytes - kind(matmul(8, 16, 16)).work_bytes
    assert extra == 8 * 16 * 4


def test_weight_loads_add_up_without_overlap() -> None:
    target = load_target("toy")
    matrix = target.tile.matrix.model_copy(update={"overlap_weight_load": False})
    plain = target.model_copy(update={"tile": target.tile.model_copy(update={"matrix": matrix})})
    found = kind_of(plain, MESH, (), matmul(40, 48, 32))
    assert payload_cycles(found) == pytest.approx(6 * (40 + 4) + 5 * matrix.fill_cycles)


@pytest.mark.parametrize(
    ("fn", "dtype", "elements", "cycles"),
    [
        ("add", DType.F32, 33, 3),
        ("exp", DType.F32, 33, 12),
        ("add", DType.I64, 33, 5),
        ("add", I8, 16, 1),
    ],
)
def test_vector_cycles(fn: str, dtype: DType, elements: int, cycles: int) -> None:
    size = dtype.itemsize_bytes
    one = access(size, dtype=dtype)
    found = kind(
        Instruction(
            opcode=Opcode.VEC,
            engine=Engine.VE,
            fn=fn,
            domain=(elements,),
            dst=one,
            sources=(one, one),
        )
    )
    assert payload_cycles(found) == pytest.approx(cycles)
    assert found.work_bytes == 3 * elements * size
    assert found.lead_cycles == 8


def test_broadcast_operands_are_free_only_along_innermost_dims() -> None:
    full, row, column = access(8, 1), access(0, 1), access(1, 0)

    def bytes_of(source: Access) -> float:
        i = Instruction(
            opcode=Opcode.VEC,
            engine=Engine.VE,
            fn="abs",
            domain=(4, 8),
            dst=full,
            sources=(source,),
        )
        return kind(i).work_bytes - 32

    assert (bytes_of(full), bytes_of(row), bytes_of(column)) == (32, 32, 4)


def test_reduction_writes_its_result_once() -> None:
    i = Instruction(
        opcode=Opcode.RED,
        engine=Engine.VE,
        fn="sum",
        domain=(4, 8),
        dst=access(1, 0),
        sources=(access(8, 1),),
    )
    assert kind(i).work_bytes == 32 + 4


def test_short_runs_cost_a_burst() -> None:
    columns = access(100, 1, space=Space.DRAM)
    assert dram_bytes(columns, (10, 8), 64) == 640
    assert dram_bytes(columns, (10, 80), 64) == 800
    assert dram_bytes(access(80, 1, space=Space.DRAM), (10, 80), 64) == 800
    assert (
        dram_bytes(access(1, 16, space=Space.DRAM), (16, 4), 64) == 64
    )  # a transposed read of one run


def test_broadcast_load_leaves_dram_once() -> None:
    source = access(0, 1, space=Space.DRAM)
    found = kind(
        Instruction(
            opcode=Opcode.LD, engine=Engine.DI, domain=(4, 64), dst=access(64, 1), sources=(source,)
        )
    )
    assert found.work_bytes == 256
    assert found.factors == (1.0, 0.25, 0.25)


def test_gather_pads_each_row() -> None:
    table, index = access(8, 1, space=Space.DRAM), access(4, 0, dtype=DType.I32)
    i = Instruction(
        opcode=Opcode.GTH,
        engine=Engine.DI,
        domain=(10, 8),
        dst=access(8, 1),
        sources=(table, index),
        count=1000,
    )
    found = kind(i)
    assert found.work_bytes == 80
    assert found.factors[2] * 80 == pytest.approx(640)
    assert found.own_factor * 80 == pytest.approx(80 + 40)


def test_unknown_element_type_is_refused() -> None:
    target = load_target("toy")
    matrix = target.tile.matrix.model_copy(update={"columns": {DType.F32: 16}})
    small = target.model_copy(update={"tile": target.tile.model_copy(update={"matrix": matrix})})
    with pytest.raises(ProgramError, match="no columns for i8, expected one of f32"):
        kind_of(small, MESH, (), matmul(4, 4, 4))


def test_remote_posts_need_a_sending_instruction() -> None:
    i = Instruction(opcode=Opcode.WT, engine=Engine.CT, axes=1, posts=(Post(0, 1, True),))
    with pytest.raises(ProgramError, match="remote post"):
        kind(i)


def test_two_waits_on_one_semaphore_add_up() -> None:
    i = Instruction(opcode=Opcode.WT, engine=Engine.CT, waits=(Wait(3, 1), Wait(3, 2)))
    assert kind(i).waits == ((3, 3),)


def test_streams_unroll_to_the_order_of_execution() -> None:
    def plain(tag: int) -> Instruction:
        return Instruction(opcode=Opcode.WT, engine=Engine.CT, tag=tag)

    def loop(count: int) -> Instruction:
        return Instruction(opcode=Opcode.LOOP, engine=Engine.CT, count=count)

    end = Instruction(opcode=Opcode.END, engine=Engine.CT)
    stop = Instruction(opcode=Opcode.HALT, engine=Engine.CT)
    stream = (plain(0), loop(2), plain(1), loop(3), plain(2), end, end, plain(0), stop)
    table = KindTable(load_target("toy"), MESH, ())
    numbers = expand(table, stream).tolist()
    assert [table.kinds[n].tag for n in numbers] == [0, 1, 2, 2, 2, 1, 2, 2, 2, 0]


def test_sub_meshes_and_shifts_against_coordinates() -> None:
    mesh = LogicalMesh(("a", "b", "c"), (2, 3, 4))
    coords = [(a, b, c) for a in range(2) for b in range(3) for c in range(4)]
    for index, (a, b, c) in enumerate(coords):
        assert shifted(mesh, index, 0b010, -1) == coords.index((a, (b - 1) % 3, c))
        expected = [i for i, (x, y, z) in enumerate(coords) if y == b]
        assert sub_mesh(mesh, index, 0b101) == tuple(expected)


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[float], list[float], list[list[tuple[int, float]]]]:
    resources = draw(st.integers(1, 5))
    quarter = st.integers(1, 40).map(lambda n: n / 4)
    capacities = draw(st.lists(quarter, min_size=resources, max_size=resources))
    use = st.lists(
        st.tuples(st.integers(0, resources - 1), quarter),
        max_size=4,
        unique_by=lambda pair: pair[0],
    )
    flows = draw(st.lists(st.tuples(quarter, use), min_size=1, max_size=8))
    return capacities, [limit for limit, _ in flows], [used for _, used in flows]


@given(networks())
def test_rates_are_max_min_fair(
    network: tuple[list[float], list[float], list[list[tuple[int, float]]]],
) -> None:
    """Each flow is at its limit or a largest user of a full resource, and no resource is overfull.

    That characterises the max-min fair rates.
    """
    capacities, limits, uses = network
    starts = np.cumsum([0, *(len(use) for use in uses)])
    pairs = [pair for use in uses for pair in use]
    rates, causes = np.empty(len(uses)), np.empty(len(uses), dtype=np.int64)
    fair_rates(
        len(uses),
        np.array(limits),
        np.array(capacities),
        starts,
        np.array([r for r, _ in pairs], dtype=np.int64),
        np.array([c for _, c in pairs], dtype=np.float64),
        rates,
        causes,
        filling(len(uses), len(capacities), len(pairs)),
    )
    used = [0.0] * len(capacities)
    for rate, use in zip(rates, uses, strict=True):
        for r, share in use:
            used[r] += rate * share
    assert all(u <= capacity * (1 + 1e-9) for u, capacity in zip(used, capacities, strict=True))
    for flow, use in enumerate(uses):
        assert 0 < rates[flow] <= limits[flow]
        if causes[flow] < 0:
            assert rates[flow] == pytest.approx(limits[flow], rel=1e-9)
            continue
        cause = int(causes[flow])
        assert cause in [r for r, _ in use]
        assert used[cause] == pytest.approx(capacities[cause], rel=1e-9)
        rivals = [rates[other] for other, its in enumerate(uses) if cause in [r for r, _ in its]]
        assert rates[flow] >= max(rivals) * (1 - 1e-9)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), max_size=60))
def test_slot_heap_against_a_dictionary(steps: list[tuple[int, int]]) -> None:
    heap, place, times = np.zeros(10, dtype=np.int64), np.full(10, -1, dtype=np.int64), np.zeros(10)
    sizes = np.zeros(4, dtype=np.int64)
    model: dict[int, int] = {}
    for slot, time in steps:
        if time == 0 and model:
            expected = min(model, key=lambda s: (model[s], s))
            assert pop(heap, place, times, sizes, 0) == expected
            del model[expected]
        else:
            schedule(heap, place, times, sizes, 0, slot, float(time))
            model[slot] = time
    left = [pop(heap, place, times, sizes, 0) for _ in range(len(model))]
    assert left == sorted(model, key=lambda s: (model[s], s))


@given(st.lists(st.integers(0, 5), max_size=40))
def test_messages_come_in_order_of_time_then_number(arrivals: list[int]) -> None:
    heap = np.zeros((64, 4))
    for number, time in enumerate(arrivals):
        push_message(heap, number, float(time), float(number), 0.0, 0.0)
    order = []
    for size in range(len(arrivals), 0, -1):
        order.append((int(heap[0, 0]), int(heap[0, 1])))
        pop_message(heap, size)
    assert order == sorted((time, number) for number, time in enumerate(arrivals))
