"""Values of matrix products, bit by bit, against plain loops over exact numbers."""

from __future__ import annotations

from fractions import Fraction
from math import floor, fsum, inf, isfinite, log2, nan
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import BlockFormat, DType
from tilewright.errors import ProgramError, TargetError
from tilewright.hwmodel.block_format import with_block_format
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.builder import ProgramBuilder
from tilewright.lowering.isa import Engine, Instruction, Opcode, Space
from tilewright.simulator.functional import run_program

AnyArray = np.ndarray[Any, np.dtype[Any]]
TOY = load_target("toy")
BLOCKS = {"mxint8": 32, "bfp16_64": 64}


def product(
    a: AnyArray,
    b: AnyArray,
    out: DType,
    *,
    fn: str = "",
    old: AnyArray | None = None,
    split: int = 1,
) -> AnyArray:
    """Run one MM, [m, k] by [k, n]; the k dimension of the domain may be split in two."""
    builder = ProgramBuilder(TOY, LogicalMesh((), ()))
    (m, k), n = a.shape, b.shape[1]
    outer = (split,) if split > 1 else ()
    domain = (m, n, *outer, k // split)
    ports = {"a": a, "b": b} | ({} if old is None else {"old": old})
    places = {}
    for name, array in ports.items():
        dtype = DType.from_numpy(array.dtype)
        tensor = builder.input(name, array.shape, dtype)
        places[name] = builder.scratch(array.nbytes)
        builder.step(
            Instruction(
                opcode=Opcode.LD,
                engine=Engine.DI,
                domain=array.shape,
                dst=builder.access(Space.L1, places[name], array.shape, dtype),
                sources=(builder.access(Space.DRAM, tensor.address, array.shape, dtype),),
            )
        )
    if old is None:
        places["old"] = builder.scratch(m * n * out.itemsize_bytes)
    step = ((k // split),) if split > 1 else ()
    left = (k, 0, *step, 1)
    right = (0, 1, *(s * n for s in step), n)
    result = builder.access(
        Space.L1, places["old"], domain, out, strides=(n, 1, *(0 for _ in outer), 0)
    )
    sources = (
        builder.access(Space.L1, places["a"], domain, DType.from_numpy(a.dtype), strides=left),
        builder.access(Space.L1, places["b"], domain, DType.from_numpy(b.dtype), strides=right),
    )
    builder.step(
        Instruction(
            opcode=Opcode.MM,
            engine=Engine.ME,
            domain=domain,
            dst=result,
            sources=sources,
            fn=fn,
            accumulate=old is not None,
        )
    )
    y = builder.output("y", (m, n), out)
    builder.step(
        Instruction(
            opcode=Opcode.ST,
            engine=Engine.DO,
            domain=(m, n),
            dst=builder.access(Space.DRAM, y.address, (m, n), out),
            sources=(builder.access(Space.L1, places["old"], (m, n), out),),
        )
    )
    return run_program(builder.build(), ports).outputs["y"]


def block(values: list[float]) -> tuple[list[int], Fraction | None]:
    """Return integers and their step; None for a block that is not a number."""
    if not all(isfinite(v) for v in values):
        return [0] * len(values), None
    largest = max(map(abs, values))
    if largest == 0:
        return [0] * len(values), Fraction(0)
    exponent = floor(log2(largest))
    # the logarithm is rounded; the powers of two are exact
    exponent += 2.0 ** (exponent + 1) <= largest
    exponent -= 2.0**exponent > largest
    step = Fraction(2) ** (max(-127, exponent) - 6)
    return [max(-127, min(127, round(Fraction(v) / step))) for v in values], step


def plain(a: AnyArray, b: AnyArray, fn: str, old: AnyArray | None) -> AnyArray:
    """The definition of an MM in a block format, element by element."""
    size, k = BLOCKS[fn], a.shape[1]
    out = np.zeros((len(a), b.shape[1]), np.float32) if old is None else old.copy()
    for i in range(len(a)):
        for j in range(b.shape[1]):
            total = out[i, j]
            for start in range(0, k, size):
                rows = [float(v) for v in a[i, start : start + size]]
                columns = [float(v) for v in b[start : start + size, j]]
                (p, p_step), (q, q_step) = block(rows), block(columns)
                if p_step is None or q_step is None:
                    total = np.float32(nan)
                    continue
                exact = sum(x * y for x, y in zip(p, q, strict=True)) * p_step * q_step
                with np.errstate(all="ignore"):
                    total = np.float32(total + np.float32(float(exact)))
            out[i, j] = total
    return out


@settings(max_examples=40)
@given(
    fn=st.sampled_from(sorted(BLOCKS)),
    kind=st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16]),
    k=st.sampled_from([2, 31, 32, 66, 130]),
    seed=st.integers(0, 2**32 - 1),
    accumulates=st.booleans(),
)
def test_block_formats_are_exact(
    fn: str, kind: type[Any], k: int, seed: int, accumulates: bool
) -> None:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> AnyArray:
        values = rng.standard_normal(shape) * 2.0 ** rng.integers(-12, 12, shape)
        values[rng.random(shape) < 0.2] = 0.0
        return values.astype(kind)

    a, b = draw(3, k), draw(k, 2)
    old = draw(3, 2).astype(np.float32) if accumulates else None
    split = 2 if k % 2 == 0 and k > 2 else 1
    found = product(a, b, DType.F32, fn=fn, old=old, split=split)
    np.testing.assert_array_equal(found, plain(a, b, fn, old))


@pytest.mark.parametrize("fn", sorted(BLOCKS))
def test_block_formats_at_their_limits(fn: str) -> None:
    """Ties, saturation, the smallest and largest exponents, blocks of zeros, NaN and infinity."""
    size = BLOCKS[fn]
    rows = np.zeros((8, 2 * size), np.float32)
    rows[0, :4] = [64.0, 0.5, 1.5, 2.5]  # ties go to even
    rows[1, :2] = [1.9999999, -1.9999999]  # rounds to 128 steps, saturates at 127
    rows[2, :2] = [1e-45, -1e-40]
    rows[3, :2] = [3.4e38, 1.0]
    rows[4, size] = 7.0  # a block of zeros before it
    rows[5, 3], rows[6, size] = nan, inf
    rows[7, ::7] = 1.0
    columns = np.ones((2 * size, 3), np.float32)
    columns[:, 1] = np.linspace(-3.0, 5.0, 2 * size)
    columns[:, 2] = 1e-30
    found = product(rows, columns, DType.F32, fn=fn)
    np.testing.assert_array_equal(found, plain(rows, columns, fn, None))
    assert found[0, 0] == 64.0 + 0.0 + 2.0 + 2.0
    assert found[1, 0] == 0.0
    assert np.isnan(found[5:7]).all()


@pytest.mark.parametrize("kind", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_floats_are_summed_wide_and_rounded_once(kind: type[Any], rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((5, 37)).astype(kind), rng.standard_normal((37, 4)).astype(kind)
    for out in (DType.F32, DType.from_numpy(a.dtype)):
        exact = [
            [fsum(float(x) * float(y) for x, y in zip(r, c, strict=True)) for c in b.T] for r in a
        ]
        expected = np.array(exact).astype(np.float32).astype(out.numpy)
        if kind is np.float32 or out is DType.F32:
            np.testing.assert_array_equal(product(a, b, out), expected)
        else:
            # f64 to a half at once, not by way of f32
            once = np.array(exact).astype(out.numpy)
            np.testing.assert_array_equal(product(a, b, out), once)


def test_integers_are_exact_and_wrap(rng: np.random.Generator) -> None:
    a, b = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((4, 200), (200, 3)))
    expected = [[sum(int(x) * int(y) for x, y in zip(r, c, strict=True)) for c in b.T] for r in a]
    np.testing.assert_array_equal(product(a, b, DType.I32), np.array(expected, np.int32))
    old = np.full((4, 3), 2**31 - 1, np.int32)
    wrapped = (np.array(expected, np.int64) + 2**31 - 1).astype(np.int32)
    np.testing.assert_array_equal(product(a, b, DType.I32, old=old), wrapped)


def test_wrong_block_formats_are_refused() -> None:
    ones = np.ones((2, 2), np.float32)
    with pytest.raises(
        ProgramError, match="found fn 'relu', expected none or one of mxint8, bfp16_64"
    ):
        product(ones, ones, DType.F32, fn="relu")
    with pytest.raises(
        ProgramError, match="found mxint8 with types f16, f32, f32, expected f32 of"
    ):
        product(ones, ones, DType.F16, fn="mxint8")
    with pytest.raises(TargetError, match="'mxint9' is unknown; choose one of mxint8, bfp16_64"):
        with_block_format(TOY, "mxint9")
    matrix = TOY.tile.matrix.model_copy(update={"columns": {DType.I8: 16}})
    integers = TOY.model_copy(update={"tile": TOY.tile.model_copy(update={"matrix": matrix})})
    with pytest.raises(TargetError, match="columns has i8 alone, expected one of f32, f16, bf16"):
        with_block_format(integers, "mxint8")


def test_a_machine_of_a_block_format_has_the_rates_of_its_elements() -> None:
    corsair = load_target("corsair")
    found = with_block_format(corsair, "mxint8")
    published = corsair.published_peaks["mxint8"].ops_per_s
    assert found.peak_ops_per_s(DType.F32) == pytest.approx(published, rel=1e-3)
    assert corsair.peak_ops_per_s(DType.F32) == pytest.approx(published / 4, rel=1e-3)
    assert found.tile.matrix.block_format is BlockFormat.MXINT8
    # what lies in memory stays as wide
    assert found.tile.matrix.weight_load_cycles == corsair.tile.matrix.weight_load_cycles
