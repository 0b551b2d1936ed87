"""Vector instructions of map pipelines: integers that become floats and are scaled take one."""

from __future__ import annotations

import pytest

from tilewright.dtypes import DType
from tilewright.extract.vector_steps import factors_of, vector_steps

I8, I32, F32, F16 = DType.I8, DType.I32, DType.F32, DType.F16


@pytest.mark.parametrize(
    ("fn", "types", "instructions", "factors"),
    [
        (
            "cast(f32)|mul_const(0.5)|round|cast(i8)",
            (I32, F32, F32, F32, I8),
            "mul round cast",
            (0.5,),
        ),
        (
            "cast(f32)|mul_const(0.5)|cast(i8)|cast(f32)|mul_const(0.25)",
            *((I32, F32, F32, I8, F32, F32), "mul cast mul", (0.5, 0.25)),
        ),
        ("cast(f32)|mul_const(2.0)|mul_const(3.0)", (I8, F32, F32, F32), "mul mul_const", (2.0,)),
        # floats are no integers, halves are rounded twice, and sums are no products
        ("cast(f32)|mul_const(0.5)", (F16, F32, F32), "cast mul_const", ()),
        ("cast(f16)|mul_const(0.5)", (I32, F16, F16), "cast mul_const", ()),
        ("cast(f32)|add_const(0.5)", (I32, F32, F32), "cast add_const", ()),
    ],
)
def test_integers_are_scaled_as_they_become_floats(
    fn: str, types: tuple[DType, ...], instructions: str, factors: tuple[float, ...]
) -> None:
    steps = vector_steps(fn, types)
    assert " ".join(step.fn for step in steps) == instructions
    assert steps[0].before is types[0]
    assert steps[-1].after is types[-1]
    assert factors_of(fn, types) == factors
