"""Every opcode on several meshes, against direct numpy."""

from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.graph import HostModel
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.builder import ProgramBuilder
from tilewright.lowering.isa import Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.lowering.program import HostRegion, Program
from tilewright.simulator.functional import LoadCache, run_program

MESHES = [(), (4,), (2, 3), (2, 2, 2)]
L1, DRAM = Space.L1, Space.DRAM


def builder(sizes: tuple[int, ...]) -> ProgramBuilder:
    return ProgramBuilder(load_target("corsair"), LogicalMesh(tuple("xyz"[: len(sizes)]), sizes))


def spread(sizes: tuple[int, ...], piece_bytes: int) -> tuple[int, ...]:
    """Coefficients that give each tile its own consecutive piece, row-major."""
    out, step = [0] * len(sizes), piece_bytes
    for axis in reversed(range(len(sizes))):
        out[axis] = step
        step *= sizes[axis]
    return tuple(out)


def execute(b: ProgramBuilder, **inputs: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Run with all checks, with and without sharing of equal contents."""
    program = b.build()
    first = run_program(program, inputs)
    second = run_program(program, inputs, check=False, track=False)
    for name, array in first.outputs.items():
        np.testing.assert_array_equal(array, second.outputs[name])
    return dict(first.outputs)


def load(b: ProgramBuilder, tensor: Any, domain: tuple[int, ...], **how: Any) -> int:
    """Copy a tensor's piece, dense, into the scratchpad."""
    size = tensor.dtype.itemsize_bytes
    address = b.scratch(int(np.prod(domain, dtype=int)) * size)
    source = b.access(DRAM, tensor.address, domain, tensor.dtype, **how)
    target = b.access(L1, address, domain, tensor.dtype)
    b.step(
        Instruction(
            opcode=Opcode.LD, engine=Engine.DI, domain=domain, dst=target, sources=(source,)
        )
    )
    return address


def store(
    b: ProgramBuilder, address: int, tensor: Any, domain: tuple[int, ...], axes: int = 0, **how: Any
) -> None:
    target = b.access(DRAM, tensor.address, domain, tensor.dtype, **how)
    source = b.access(L1, address, domain, tensor.dtype)
    b.step(
        Instruction(
            opcode=Opcode.ST,
            engine=Engine.DO,
            domain=domain,
            dst=target,
            sources=(source,),
            axes=axes,
        )
    )


def vector(
    b: ProgramBuilder, fn: str, dst: Any, *sources: Any, domain: tuple[int, ...], **rest: Any
) -> None:
    b.step(
        Instruction(
            opcode=Opcode.VEC,
            engine=Engine.VE,
            domain=domain,
            dst=dst,
            sources=sources,
            fn=fn,
            **rest,
        )
    )


@pytest.mark.parametrize("sizes", MESHES)
def test_each_tile_adds_its_own_piece(sizes: tuple[int, ...], rng: np.random.Generator) -> None:
    b, n = builder(sizes), int(np.prod(sizes, dtype=int))
    a, c, y = (b.input("a", (n, 6)), b.input("c", (1, 6)), b.output("y", (n, 6)))
    own = spread(sizes, 24)
    left = load(b, a, (6,), coefficients=own)
    right = load(b, c, (6,))
    out = b.scratch(24)
    vector(
        b,
        "add",
        b.access(L1, out, (6,)),
        b.access(L1, left, (6,)),
        b.access(L1, right, (6,)),
        domain=(6,),
    )
    store(b, out, y, (6,), coefficients=own)
    values = {"a": rng.normal(size=(n, 6)).astype("f4"), "c": rng.normal(size=(1, 6)).astype("f4")}
    np.testing.assert_array_equal(execute(b, **values)["y"], values["a"] + values["c"])


@pytest.mark.parametrize("sizes", MESHES)
def test_replicated_work_is_stored_by_the_leader(
    sizes: tuple[int, ...], rng: np.random.Generator
) -> None:
    b = builder(sizes)
    a, y = b.input("a", (5, 3)), b.output("y", (3, 5))
    address, out = load(b, a, (5, 3)), b.scratch(60)
    vector(
        b,
        "exp",
        b.access(L1, out, (5, 3), strides=(1, 5)),
        b.access(L1, address, (5, 3)),
        domain=(5, 3),
    )
    store(b, out, y, (3, 5), axes=(1 << len(sizes)) - 1)
    x = rng.normal(size=(5, 3)).astype("f4")
    np.testing.assert_array_equal(execute(b, a=x)["y"], np.exp(x).T)


@pytest.mark.parametrize("sizes", MESHES)
@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16, DType.I8])
def test_matrix_product_with_batch_and_accumulation(
    sizes: tuple[int, ...], dtype: DType, rng: np.random.Generator
) -> None:
    """dst [b, m, n] += src0 [b, m, k] * src1 [b, k, n]; weights differ on each tile."""
    b, n = builder(sizes), int(np.prod(sizes, dtype=int))
    result = DType.I32 if dtype == DType.I8 else DType.F32
    size = dtype.itemsize_bytes
    x, w, y = (
        b.input("x", (2, 3, 4), dtype),
        b.input("w", (n, 2, 4, 5), dtype),
        b.output("y", (n, 2, 3, 5), result),
    )
    at_x = load(b, x, (2, 3, 4))
    at_w = load(b, w, (2, 4, 5), coefficients=spread(sizes, 40 * size))
    out = b.scratch(120)
    domain = (2, 3, 5, 4)
    vector(b, "fill", b.access(L1, out, (30,), result), domain=(30,), immediates=(7.0, 0.0))
    mm = Instruction(
        opcode=Opcode.MM,
        engine=Engine.ME,
        domain=domain,
        dst=b.access(L1, out, domain, result, strides=(15, 5, 1, 0)),
        sources=(
            b.access(L1, at_x, domain, dtype, strides=(12, 4, 0, 1)),
            b.access(L1, at_w, domain, dtype, strides=(20, 0, 1, 5)),
        ),
        accumulate=True,
    )
    b.step(mm)
    store(b, out, y, (2, 3, 5), coefficients=spread(sizes, 120))
    xs = rng.integers(-8, 8, (2, 3, 4)).astype(dtype.numpy)
    ws = rng.integers(-8, 8, (n, 2, 4, 5)).astype(dtype.numpy)
    expected = 7 + np.einsum("bmk,tbkn->tbmn", xs.astype("i8"), ws.astype("i8"))
    np.testing.assert_array_equal(execute(b, x=xs, w=ws)["y"], expected.astype(result.numpy))


@pytest.mark.parametrize("dtype", [DType.I32, DType.U8, DType.I64])
def test_integer_products_beyond_the_exact_floats_wrap(dtype: DType) -> None:
    b = builder(())
    result = DType.I64 if dtype == DType.I64 else DType.I32
    x, y = b.input("x", (2, 300), dtype), b.output("y", (2, 2), result)
    at, out = load(b, x, (2, 300)), b.scratch(32)
    domain = (2, 2, 300)
    left = b.access(L1, at, domain, dtype, strides=(300, 0, 1))
    right = b.access(L1, at, domain, dtype, strides=(0, 300, 1))
    dst = b.access(L1, out, domain, result, strides=(2, 1, 0))
    b.step(
        Instruction(
            opcode=Opcode.MM, engine=Engine.ME, domain=domain, dst=dst, sources=(left, right)
        )
    )
    store(b, out, y, (2, 2))
    top = min(np.iinfo(dtype.numpy).max, 2**45 + 1)
    values = np.full((2, 300), top, dtype.numpy)
    values[1] -= 3
    big = values.astype(object)
    with np.errstate(over="ignore"):
        expected = (big @ big.T % 2**64).astype(np.uint64).astype(result.numpy)
    np.testing.assert_array_equal(execute(b, x=values)["y"], expected)


@pytest.mark.parametrize("sizes", MESHES)
def test_reduction_over_a_middle_dimension(
    sizes: tuple[int, ...], rng: np.random.Generator
) -> None:
    b, n = builder(sizes), int(np.prod(sizes, dtype=int))
    a, y = b.input("a", (n, 2, 7, 3)), b.output("y", (n, 4, 2, 3))
    at, out = load(b, a, (2, 7, 3), coefficients=spread(sizes, 168)), b.scratch(96)
    domain = (2, 7, 3)
    for number, fn in enumerate(("sum", "max", "min", "prod")):
        dst = b.access(L1, out + 24 * number, domain, strides=(3, 0, 1))
        source = b.access(L1, at, domain)
        for accumulate in (False, True):
            b.step(
                Instruction(
                    opcode=Opcode.RED,
                    engine=Engine.VE,
                    domain=domain,
                    dst=dst,
                    sources=(source,),
                    fn=fn,
                    accumulate=accumulate,
                )
            )
    store(b, out, y, (4, 2, 3), coefficients=spread(sizes, 96))
    x = rng.integers(-2, 3, (n, 2, 7, 3)).astype("f4")
    parts = [2 * x.sum(2), x.max(2), x.min(2), x.prod(2) ** 2]
    np.testing.assert_array_equal(execute(b, a=x)["y"], np.stack(parts, axis=1))


VECTOR_CASES: list[tuple[str, DType, Any]] = [
    ("where", DType.F32, None),
    ("cast", DType.F16, None),
    ("leaky_relu", DType.F32, lambda x: np.where(x < 0, x * np.float32(0.1), x)),
    ("hard_sigmoid", DType.F32, lambda x: np.clip(x * np.float32(0.1) + np.float32(0.5), 0, 1)),
    ("clip_max", DType.F32, lambda x: np.minimum(x, np.float32(0.1))),
    ("square", DType.F32, lambda x: x * x),
    ("isnan", DType.BOOL, np.isnan),
    ("round", DType.F32, np.rint),
]


@pytest.mark.parametrize(("fn", "dtype", "oracle"), VECTOR_CASES)
def test_vector_functions(fn: str, dtype: DType, oracle: Any, rng: np.random.Generator) -> None:
    b = builder((3,))
    a, y = b.input("a", (4, 5)), b.output("y", (4, 5), dtype)
    at, out = load(b, a, (4, 5)), b.scratch(80)
    sources = [b.access(L1, at, (4, 5))]
    x = rng.normal(size=(4, 5)).astype("f4")
    inputs = {"a": x}
    if fn == "where":
        mask = b.input("m", (4,), DType.BOOL)
        condition = load(b, mask, (4,))
        sources = [b.access(L1, condition, (4, 5), DType.BOOL, strides=(1, 0)), *sources]
        sources.append(b.access(L1, at, (4, 5), strides=(0, 1)))
        inputs["m"] = np.array([True, False, True, False])
        expected = np.where(inputs["m"][:, None], x, x[:1])
    else:
        expected = x.astype("f2") if fn == "cast" else oracle(x)
    vector(b, fn, b.access(L1, out, (4, 5), dtype), *sources, domain=(4, 5), immediates=(0.1, 0.5))
    store(b, out, y, (4, 5), axes=1)
    np.testing.assert_array_equal(execute(b, **inputs)["y"], expected)


def test_half_precision_is_computed_in_single_and_rounded_once() -> None:
    b = builder(())
    a, y = b.input("a", (3,), DType.BF16), b.output("y", (3,), DType.BF16)
    at, out = load(b, a, (3,)), b.scratch(6)
    vector(
        b,
        "add_const",
        b.access(L1, out, (3,), DType.BF16),
        b.access(L1, at, (3,), DType.BF16),
        domain=(3,),
        immediates=(0.3, 0.0),
    )
    store(b, out, y, (3,))
    x = np.array([1.0, 2.0, 100.0], ml_dtypes.bfloat16)
    expected = (x.astype("f4") + np.float32(0.3)).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(execute(b, a=x)["y"], expected)


@pytest.mark.parametrize("sizes", MESHES)
@pytest.mark.parametrize("space", [DRAM, L1])
def test_gather_rows(sizes: tuple[int, ...], space: Space, rng: np.random.Generator) -> None:
    """The table's columns are split over the tiles; indices are the same everywhere."""
    b, n = builder(sizes), int(np.prod(sizes, dtype=int))
    table, ids, y = (
        b.input("t", (10, n, 3)),
        b.input("i", (4,), DType.I64),
        b.output("y", (4, n, 3)),
    )
    index, out = load(b, ids, (4,)), b.scratch(48)
    if space == DRAM:
        rows = b.access(
            DRAM, table.address, (4, 3), strides=(3 * n, 1), coefficients=spread(sizes, 12)
        )
    else:
        local = load(b, table, (10, 3), strides=(3 * n, 1), coefficients=spread(sizes, 12))
        rows = b.access(L1, local, (4, 3))
    b.step(
        Instruction(
            opcode=Opcode.GTH,
            engine=Engine.DI,
            domain=(4, 3),
            dst=b.access(L1, out, (4, 3)),
            sources=(rows, b.access(L1, index, (4, 3), DType.I64, strides=(1, 0))),
            count=10,
        )
    )
    store(b, out, y, (4, 3), strides=(3 * n, 1), coefficients=spread(sizes, 12))
    x, i = rng.normal(size=(10, n, 3)).astype("f4"), np.array([9, 0, 3, 9])
    np.testing.assert_array_equal(execute(b, t=x, i=i)["y"], x[i])
    with pytest.raises(ProgramError, match=r"outside 0\.\.9"):
        execute(b, t=x, i=np.array([0, 1, 2, 10]))


def multicast(b: ProgramBuilder, axes: int, dst: Any, source: Any, domain: tuple[int, ...]) -> None:
    """All-gather with its handshake: free buffers, payload, arrival."""
    tiles = int(np.prod([n for a, n in enumerate(b.mesh.sizes) if axes >> a & 1]))
    ready, arrival = b.semaphore(), b.semaphore()
    b.step(
        Instruction(
            opcode=Opcode.PS, engine=Engine.CT, axes=axes, posts=(Post(ready, 1, remote=True),)
        )
    )
    b.step(
        Instruction(
            opcode=Opcode.MCS,
            engine=Engine.DO,
            domain=domain,
            dst=dst,
            sources=(source,),
            axes=axes,
            waits=(Wait(ready, tiles - 1),),
            posts=(Post(arrival, 1, remote=True),),
        )
    )
    b.step(Instruction(opcode=Opcode.WT, engine=Engine.CT, waits=(Wait(arrival, tiles - 1),)))


@pytest.mark.parametrize(("sizes", "axes"), [(s, a) for s in MESHES for a in range(1, 1 << len(s))])
def test_multicast_gathers_along_axes(
    sizes: tuple[int, ...], axes: int, rng: np.random.Generator
) -> None:
    b, n = builder(sizes), int(np.prod(sizes, dtype=int))
    inside = [a for a in range(len(sizes)) if axes >> a & 1]
    group = int(np.prod([sizes[a] for a in inside]))
    x, y = b.input("x", (n, 2)), b.output("y", (n, group, 2))
    at, buffer = load(b, x, (2,), coefficients=spread(sizes, 8)), b.scratch(8 * group)
    slots = iter(spread(tuple(sizes[a] for a in inside), 8))
    own_slot = tuple(next(slots) if a in inside else 0 for a in range(len(sizes)))
    for _ in range(2):
        multicast(
            b, axes, b.access(L1, buffer, (2,), coefficients=own_slot), b.access(L1, at, (2,)), (2,)
        )
    store(b, buffer, y, (group, 2), coefficients=spread(sizes, 8 * group))
    values = rng.normal(size=(n, 2)).astype("f4")
    grid, result = values.reshape(*sizes, 2), execute(b, x=values)["y"].reshape(*sizes, group, 2)
    for tile in product(*map(range, sizes)):
        peers = product(*(range(m) if a in inside else (tile[a],) for a, m in enumerate(sizes)))
        np.testing.assert_array_equal(result[tile], np.stack([grid[p] for p in peers]))


@pytest.mark.parametrize("sizes", [s for s in MESHES if s])
@pytest.mark.parametrize("shift", [1, -1, 3])
def test_send_addresses_with_receiver_and_sender(
    sizes: tuple[int, ...], shift: int, rng: np.random.Generator
) -> None:
    """Every tile sends the row meant for its receiver into the slot kept for the sender."""
    b, n = builder(sizes), int(np.prod(sizes, dtype=int))
    axis = len(sizes) - 1
    size = sizes[axis]
    x, y = b.input("x", (n, size, 2)), b.output("y", (n, size, 2))
    at, buffer = load(b, x, (size, 2), coefficients=spread(sizes, 8 * size)), b.scratch(8 * size)
    vector(b, "fill", b.access(L1, buffer, (2 * size,)), domain=(2 * size,))
    ready, arrival = b.semaphore(), b.semaphore()
    by_row = tuple(8 if a == axis else 0 for a in range(len(sizes)))
    mask = 1 << axis
    b.step(
        Instruction(
            opcode=Opcode.PS, engine=Engine.CT, axes=mask, posts=(Post(ready, 1, remote=True),)
        )
    )
    b.step(
        Instruction(
            opcode=Opcode.SND,
            engine=Engine.DO,
            domain=(2,),
            dst=b.access(L1, buffer, (2,), coefficients=by_row),
            sources=(b.access(L1, at, (2,), coefficients=by_row),),
            axes=mask,
            shift=shift,
            waits=(Wait(ready, size - 1),),
            posts=(Post(arrival, 1, remote=True),),
        )
    )
    b.step(Instruction(opcode=Opcode.WT, engine=Engine.CT, waits=(Wait(arrival, 1),)))
    store(b, buffer, y, (size, 2), coefficients=spread(sizes, 8 * size))
    values = rng.normal(size=(*sizes, size, 2)).astype("f4")
    result = execute(b, x=values.reshape(n, size, 2))["y"].reshape(values.shape)
    expected = np.zeros_like(values)
    for sender in product(*map(range, sizes)):
        to = (sender[axis] + shift) % size
        expected[(*sender[:axis], to, sender[axis])] = values[(*sender, to)]
    np.testing.assert_array_equal(result, expected)


def host_model() -> HostModel:
    node = helper.make_node("CumSum", ["v", "axis"], ["s"])
    info = [helper.make_tensor_value_info("v", TensorProto.FLOAT, [6])]
    out = [helper.make_tensor_value_info("s", TensorProto.FLOAT, [6])]
    axis = helper.make_tensor("axis", TensorProto.INT64, [], [0])
    graph = helper.make_graph([node], "region", info, out, [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return HostModel(
        model_bytes=model.SerializeToString(),
        input_names=("v",),
        input_shapes=((6,),),
        output_names=("s",),
        op_types=("CumSum",),
        reason="no kernel",
    )


def host_program(sizes: tuple[int, ...], *, barriers: bool) -> Program:
    b, n = builder(sizes), int(np.prod(sizes, dtype=int))
    x, y = b.input("x", (n, 6 // n)), b.output("y", (n, 6))
    middle, result = b.tensor("middle", (6,), DType.F32), b.tensor("result", (6,), DType.F32)
    piece = (6 // n,)
    at = load(b, x, piece, coefficients=spread(sizes, 24 // n))
    vector(b, "neg", b.access(L1, at, piece), b.access(L1, at, piece), domain=piece)
    store(b, at, middle, piece, coefficients=spread(sizes, 24 // n))
    region = b.host_region(HostRegion(model=host_model(), inputs=(middle,), outputs=(result,)))
    if barriers:
        b.barrier()
    b.step(Instruction(opcode=Opcode.HOST, engine=Engine.CT, count=region))
    if barriers:
        b.barrier()
    back = load(b, result, (6,))
    store(b, back, y, (6,), coefficients=spread(sizes, 24))
    return b.build()


@pytest.mark.parametrize("sizes", [(), (2,), (1, 3)])
def test_host_region(sizes: tuple[int, ...], rng: np.random.Generator) -> None:
    n = int(np.prod(sizes, dtype=int))
    x = rng.normal(size=(n, 6 // n)).astype("f4")
    result = run_program(host_program(sizes, barriers=True), {"x": x}).outputs["y"]
    np.testing.assert_array_equal(result, np.tile(np.cumsum(-x.reshape(6)), (n, 1)))


def test_host_region_without_barriers_is_a_race() -> None:
    with pytest.raises(ProgramError, match="race"):
        run_program(host_program((2,), barriers=False), {"x": np.zeros((2, 3), np.float32)})


@pytest.mark.parametrize("sizes", [(), (2,), (1, 3)])
def test_host_region_reads_what_the_one_before_wrote(
    sizes: tuple[int, ...], rng: np.random.Generator
) -> None:
    b = builder(sizes)
    x, y = b.input("x", (6,)), b.output("y", (6,))
    middle = b.tensor("middle", (6,), DType.F32)
    for source, result in ((x, middle), (middle, y)):
        region = HostRegion(model=host_model(), inputs=(source,), outputs=(result,))
        b.step(Instruction(opcode=Opcode.HOST, engine=Engine.CT, count=b.host_region(region)))
    values = rng.normal(size=6).astype("f4")
    result = run_program(b.build(), {"x": values}).outputs["y"]
    np.testing.assert_array_equal(result, np.cumsum(np.cumsum(values)))


def test_load_phase_fills_resident_weights_once(rng: np.random.Generator) -> None:
    b = builder((4,))
    weights = rng.normal(size=(4, 3)).astype("f4")
    w, x, y = b.constant("w", weights), b.input("x", (3,)), b.output("y", (4, 3))
    resident, at = b.scratch(12), b.scratch(12)
    own = (12,)
    b.step(
        Instruction(
            opcode=Opcode.LD,
            engine=Engine.DI,
            domain=(3,),
            dst=b.access(L1, resident, (3,)),
            sources=(b.access(DRAM, w.address, (3,), coefficients=own),),
        ),
        "load",
    )
    b.step(
        Instruction(
            opcode=Opcode.LD,
            engine=Engine.DI,
            domain=(3,),
            dst=b.access(L1, at, (3,)),
            sources=(b.access(DRAM, x.address, (3,)),),
            axes=1,
        )
    )
    vector(
        b,
        "mul",
        b.access(L1, at, (3,)),
        b.access(L1, at, (3,)),
        b.access(L1, resident, (3,)),
        domain=(3,),
    )
    store(b, at, y, (3,), coefficients=own)
    program, cache = b.build(), LoadCache()
    for _ in range(3):
        value = rng.normal(size=3).astype("f4")
        result = run_program(program, {"x": value}, load_cache=cache)
        np.testing.assert_array_equal(result.outputs["y"], weights * value)
    # the load phase's LD is not executed again
    assert result.report.by_opcode == {"LD": 1, "ST": 1, "VEC": 1}


def test_progress_and_report() -> None:
    b = builder((2,))
    x, y = b.input("x", (4,)), b.output("y", (4,))
    at = load(b, x, (4,))
    store(b, at, y, (4,), axes=1)
    seen: list[tuple[int, int]] = []
    result = run_program(
        b.build(), {"x": np.ones(4, "f4")}, progress=lambda d, n: seen.append((d, n))
    )
    assert seen == [(2, 2)]
    assert result.report.hazards is not None
    assert result.report.hazards.accesses == 4


def test_inputs_are_checked() -> None:
    b = builder(())
    x, y = b.input("x", (4,)), b.output("y", (4,))
    store(b, load(b, x, (4,)), y, (4,))
    program = b.build()
    with pytest.raises(ProgramError, match="input 'x' is missing"):
        run_program(program, {})
    with pytest.raises(ProgramError, match=r"float64\[4\], expected f32\[4\]"):
        run_program(program, {"x": np.zeros(4)})
