"""One instance of a left side: its tensors and attributes, and what both sides make of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import ProgramError, ShapeError
from tilewright.graph import Array, Op, TensorType
from tilewright.reference import AnyArray, evaluate_op
from tilewright.rules.checks.patterns import (
    ARITHMETIC,
    Apply,
    Compute,
    Literal,
    Term,
    Value,
    Variable,
)
from tilewright.rules.constructors import Constructor, decode
from tilewright.rules.evaluation import evaluate_product
from tilewright.rules.inference import infer_type

Bindings = Mapping[str, str | int]
"""Texts and type numbers by variable."""

_WHOLE_DIGITS = {DType.F64: 53, DType.F32: 24, DType.F16: 11, DType.BF16: 8}


@dataclass(frozen=True, slots=True)
class Instance:
    """Tensors and attributes of a left side; the same for every way in which conditions bind."""

    leaves: Mapping[str, Array]
    texts: Mapping[str, str]

    @property
    def types(self) -> dict[str, TensorType]:
        """Types of the tensors."""
        return {
            name: TensorType(array.shape, DType.from_numpy(array.dtype))
            for name, array in self.leaves.items()
        }


def value_of(value: Value, bindings: Bindings) -> str | int | None:
    """Return a text or number; None when a variable is not bound or the engine has no result."""
    match value:
        case Literal(found):
            return found
        case Variable(name):
            return bindings.get(name)
        case Compute(function, args):
            parts = [value_of(arg, bindings) for arg in args]
            if any(part is None for part in parts):
                return None
            return ARITHMETIC[function](*parts)  # type: ignore[no-any-return]
    raise AssertionError(f"{value} is no value")


def text_of(value: Value, bindings: Bindings) -> str:
    """Return a text whose variables are bound."""
    found = value_of(value, bindings)
    assert found is not None, f"{value} is bound by the left side or a condition"
    return str(found)


def operator_of(term: Apply, bindings: Bindings) -> tuple[Op, DType]:
    """Return the operator of a term, and its element type."""
    texts = tuple(text_of(text, bindings) for text in term.texts)
    return _decoded(term.constructor, texts), DType(text_of(term.dtype, bindings))


@lru_cache(maxsize=4096)
def _decoded(constructor: Constructor, texts: tuple[str, ...]) -> Op:
    attrs = decode(constructor, texts)
    return Op(name="", kind=constructor.kind, inputs=(), outputs=("result",), attrs=attrs)


def type_of(
    term: Term,
    leaves: Mapping[str, TensorType],
    bindings: Bindings,
    known: dict[Term, TensorType] | None = None,
) -> TensorType:
    """Return the type of a term.

    Args:
        term: A term over the leaves.
        leaves: Types of the tensor variables.
        bindings: Texts of the text variables.
        known: Gets the types of all subterms.

    Raises:
        ShapeError: Operands do not fit an operator.
    """
    known = {} if known is None else known
    if term in known:
        return known[term]
    if isinstance(term, Variable):
        found = leaves[term.name]
    else:
        operands = [type_of(operand, leaves, bindings, known) for operand in term.operands]
        op, dtype = operator_of(term, bindings)
        product = DType(op.text("product_dtype")) if "product_dtype" in op.attrs else dtype
        if op.kind in ("matmul", "conv") and product.is_float != operands[0].dtype.is_float:
            raise ShapeError(f"{op.kind}: {operands[0].dtype} gives {product}; only maps convert")
        found = infer_type(op.kind, op.attrs, operands, dtype)
    known[term] = found
    return found


@dataclass(frozen=True, slots=True)
class Computed:
    """A value, and what its comparison must know of the numbers on the way to it."""

    value: AnyArray
    is_whole: bool
    """Every number on the way is whole and small enough that sums in any order are equal."""
    largest: float
    """Largest finite magnitude on the way."""


def compute(term: Term, instance: Instance, bindings: Bindings) -> Computed:
    """Evaluate a term that has a type.

    Raises:
        ProgramError: An operator has no result, such as a gather outside of its table.
        ShapeError: An operator does not get what it needs.
    """
    known = _values(term, instance, bindings)
    floats = [v for v in known.values() if DType.from_numpy(v.dtype).is_float]
    return Computed(
        value=known[term],
        is_whole=all(map(_is_whole, floats)),
        largest=max((_largest(v) for v in known.values()), default=0.0),
    )


def _values(term: Term, instance: Instance, bindings: Bindings) -> dict[Term, AnyArray]:
    """Return the value of a term and of all in it."""
    known: dict[Term, AnyArray] = {}
    types: dict[Term, TensorType] = {}
    type_of(term, instance.types, bindings, types)
    _value(term, instance, bindings, types, known)
    return known


def _value(
    term: Term,
    instance: Instance,
    bindings: Bindings,
    types: Mapping[Term, TensorType],
    known: dict[Term, AnyArray],
) -> AnyArray:
    if term in known:
        return known[term]
    if isinstance(term, Variable):
        known[term] = instance.leaves[term.name]
        return known[term]
    inputs = [_value(operand, instance, bindings, types, known) for operand in term.operands]
    op, dtype = operator_of(term, bindings)
    try:
        with np.errstate(all="ignore"):
            if "epilogue" in op.attrs:
                known[term] = evaluate_product(op, inputs, dtype)
            else:
                known[term] = evaluate_op(op, inputs, {"result": types[term]})[0]
    except (
        ArithmeticError,
        ValueError,
        IndexError,
        TypeError,
    ) as error:  # numpy refuses what no inference refused
        raise ShapeError(f"{op.kind} cannot be computed: {error}") from error
    return known[term]


def _is_whole(values: AnyArray) -> bool:
    limit = 2.0 ** _WHOLE_DIGITS[DType.from_numpy(values.dtype)]
    wide = values.astype(np.float64)
    return bool(np.all(np.abs(wide) <= limit) and np.all(wide == np.rint(wide)))


def _largest(values: AnyArray) -> float:
    wide = np.abs(values.astype(np.float64))
    finite = wide[np.isfinite(wide)]
    return float(finite.max()) if finite.size else 0.0


def fits(terms: Iterable[Apply], instance: Instance) -> bool:
    """Whether an instance has types and values for some terms."""
    try:
        for term in terms:
            _values(term, instance, instance.texts)
    except (ShapeError, ProgramError, ArithmeticError, ValueError, LookupError):
        return False  # an attribute that means nothing for this operator
    return True
