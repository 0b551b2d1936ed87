"""What the form of programs says of element types is what executing them finds."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.builder import ProgramBuilder
from tilewright.lowering.isa import VECTOR_FUNCTIONS, Engine, Instruction, Opcode, Space
from tilewright.lowering.structure import check_structure
from tilewright.lowering.vector_functions import ARITY
from tilewright.simulator.semantics import elementwise

TOY = load_target("toy")
TYPES = (DType.F32, DType.BF16, DType.I8, DType.I64, DType.BOOL)


def instruction(fn: str, sources: tuple[DType, ...], result: DType) -> Instruction:
    b = ProgramBuilder(TOY, LogicalMesh((), ()))
    return Instruction(
        opcode=Opcode.VEC,
        engine=Engine.VE,
        domain=(2,),
        dst=b.access(Space.L1, 0, (2,), result),
        sources=tuple(b.access(Space.L1, 64, (2,), s) for s in sources),
        fn=fn,
        immediates=(1.0, 1.0),
    )


def is_well_formed(vector: Instruction) -> bool:
    b = ProgramBuilder(TOY, LogicalMesh((), ()))
    b.emit(vector)
    try:
        check_structure(b.build())
    except ProgramError:
        return False
    return True


def can_execute(vector: Instruction) -> bool:
    try:
        elementwise(vector, [np.ones(2, s.dtype.numpy) for s in vector.sources], 0)
    except ProgramError:
        return False
    return True


@pytest.mark.parametrize("fn", [f for f in VECTOR_FUNCTIONS if f not in ("sum", "prod")])
def test_types_are_accepted_exactly_where_they_can_be_computed(fn: str) -> None:
    arity = ARITY.get(fn, 1)
    accepted = 0
    for first in TYPES:
        for last in TYPES if arity > 1 else (first,):
            for result in TYPES:
                sources = (first, *(last,) * (arity - 1)) if arity else ()
                vector = instruction(fn, sources, result)
                assert is_well_formed(vector) == can_execute(vector), (fn, sources, result)
                accepted += is_well_formed(vector)
    assert accepted


@pytest.mark.parametrize(
    ("integers", "floats"),
    [(DType.I16, DType.F16), (DType.I16, DType.BF16), (DType.I32, DType.F32)],
)
def test_products_convert_integers_to_the_floats_type_first(integers: DType, floats: DType) -> None:
    """Weights of 16 bits are rounded as by the cast that a dequantisation begins with."""
    rng = np.random.default_rng(0)
    bounds = np.iinfo(integers.numpy)
    q = rng.integers(bounds.min, bounds.max, 500).astype(integers.numpy)
    scale = rng.uniform(0.001, 0.01, 500).astype(floats.numpy)
    rounded = q.astype(floats.numpy)
    expected = rounded.astype(np.float32) * scale.astype(np.float32)
    found = elementwise(instruction("mul", (integers, floats), floats), [q, scale], 0)
    np.testing.assert_array_equal(found, expected.astype(floats.numpy))
    assert np.any(rounded.astype(np.int64) != q), "some integers have no float of this type"


def test_the_message_says_what_to_do() -> None:
    b = ProgramBuilder(TOY, LogicalMesh((), ()))
    b.emit(instruction("relu", (DType.I8,), DType.F32))
    with pytest.raises(ProgramError, match="found relu of i8 into f32, expected i8; use cast"):
        check_structure(b.build())
