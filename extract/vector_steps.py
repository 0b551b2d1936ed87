"""The vector instructions of a map pipeline: fewer than its steps where one of them does two."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from tilewright.dtypes import DType
from tilewright.graph import parse_pipeline

_SCALED = "cast(f32)|mul_const("
"""In the text of pipelines that rescale quantised values: integers become floats, times a constant."""


class VectorStep(NamedTuple):
    """One vector instruction of a pipeline."""

    fn: str
    args: tuple[str, ...]
    before: DType
    """Type of the (last) value that it takes."""
    after: DType
    """Type of the value that it makes."""
    factor: float | None = None
    """A constant f32 that it takes as its second operand."""


@lru_cache(maxsize=1 << 12)  # pricing asks for each tiling
def vector_steps(fn: str, types: tuple[DType, ...]) -> tuple[VectorStep, ...]:
    """Return the instructions of a pipeline.

    A product converts integers to the type of a float that they are multiplied with, so that

        cast(f32) | mul_const(c)  ->  mul by c

    reads and writes the scratchpad once instead of twice, and rounds alike.

    Args:
        fn: The pipeline.
        types: Type of the last value that its first step takes, then of the value after each step.
    """
    found: list[VectorStep] = []
    for (name, args), before, after in zip(parse_pipeline(fn), types, types[1:], strict=False):
        last = found[-1] if found else None
        if name == "mul_const" and last is not None and _widens_integers(last):
            found[-1] = VectorStep("mul", (), last.before, after, float(args[0]))
        else:
            found.append(VectorStep(name, args, before, after))
    assert found[-1].after is types[-1], f"'{fn}' has {len(types) - 1} types"
    return tuple(found)


def _widens_integers(step: VectorStep) -> bool:
    return step.fn == "cast" and step.after is DType.F32 and not step.before.is_float


def may_rescale(fn: str) -> bool:
    """Whether a pipeline has factors, unless it is of floats; quickly, for pricing asks often."""
    return _SCALED in fn


def factors_of(fn: str, types: tuple[DType, ...]) -> tuple[float, ...]:
    """Return the constants that instructions of a pipeline take as operands, each once."""
    if not may_rescale(fn):
        return ()
    steps = vector_steps(fn, types)
    return tuple(dict.fromkeys(step.factor for step in steps if step.factor is not None))
