"""Random instances of a left side, biased towards the borders: sizes 1 and primes, broadcasts, K = 1.

Attributes are drawn freely or, more often, from the rows of the tables that the rule's conditions ask,
so that rules with rare conditions fire too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import RuleError, ShapeError
from tilewright.graph import AttrValue, TensorType, parse_pipeline, pipeline_dtype
from tilewright.rules.checks.attributes import attribute_text
from tilewright.rules.checks.instance import Instance, fits, operator_of, value_of
from tilewright.rules.checks.leaf_types import leaf_type
from tilewright.rules.checks.matching import Facts, unified
from tilewright.rules.checks.patterns import (
    TYPING,
    Apply,
    Literal,
    Pattern,
    Term,
    Variable,
)
from tilewright.rules.checks.values import Values, random_values
from tilewright.rules.constructors import Constructor
from tilewright.rules.inference import infer_type
from tilewright.rules.instances import drawn

SIZES = (1, 2, 3, 5, 7)
_POOL = 6
"""Random texts of a column that tables may choose from."""
_KEEPS_TRUTH_VALUES = frozenset({"identity", "cast", "where", "not", "and", "or", "xor"})
_WHOLE_NUMBER_FUNCTIONS = frozenset(
    "abs neg floor ceil round sign relu identity square not cast leaky_relu clip_min clip_max add_const "
    "mul_const add sub mul div mod fmod min max eq ne lt le gt ge and or xor prelu where "
    "bitand bitor bitxor shl shr".split()
)


class _MisfitError(Exception):
    """A random choice that does not fit the pattern; another one is drawn."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What a sampler may choose from."""

    dtypes: tuple[DType, ...]
    sizes: tuple[int, ...] = SIZES
    ranks: tuple[int, ...] = (1, 2, 2, 3, 4)


class Sampler:
    """Draws instances of a pattern; the same ones for the same random numbers."""

    def __init__(self, pattern: Pattern, choices: Choices, random: np.random.Generator) -> None:
        self._pattern, self._choices, self._random = pattern, choices, random
        self._kinds = {a.constructor.kind for a in operators(pattern.left)}
        self._kinds |= {a.constructor.kind for a in operators(pattern.right)}

    def draw(self, values: Values) -> Instance | None:
        """Return an instance, or None when the random choices did not fit."""
        attempt = _Attempt(self._pattern, self._choices, self._random, self._rank())
        try:
            for term in self._pattern.present:
                attempt.build(term)
        except (_MisfitError, ShapeError, OverflowError):
            return None
        names = sorted(attempt.leaves)
        self._random.shuffle(names)  # leaves are numbered in this order
        leaves = {
            name: random_values(
                self._random, attempt.leaves[name], values, attempt.limits.get(name)
            )
            for name in names
        }
        instance = Instance(leaves, {k: str(v) for k, v in attempt.texts.items()})
        return instance if fits(self._pattern.present, instance) else None

    def _rank(self) -> int:
        if self._kinds & {"conv", "pool"} or self._kinds >= {"matmul", "expand", "reshape"}:
            return 4
        rank = drawn(self._random, self._choices.ranks)
        return max(rank, 2) if "matmul" in self._kinds else rank


@dataclass(slots=True)
class _Attempt:
    """One instance while its left side is built from the operands up."""

    pattern: Pattern
    choices: Choices
    random: np.random.Generator
    rank: int
    leaves: dict[str, TensorType] = field(default_factory=dict)
    texts: dict[str, str | int] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    """Size of the table that a tensor of indices picks from."""
    types: dict[Term, TensorType] = field(default_factory=dict)
    columns: dict[str, list[str]] = field(default_factory=dict)
    dtype: DType = DType.F64
    common: int = 1

    def __post_init__(self) -> None:
        self.dtype = drawn(self.random, self.choices.dtypes)
        self.common = drawn(self.random, self.choices.sizes)

    def build(self, term: Apply) -> TensorType:
        """Draw everything below an operator and return its type."""
        constructor = term.constructor
        known: dict[int, TensorType] = {}
        for place, operand in enumerate(term.operands):
            if isinstance(operand, Apply):
                known[place] = self.build(operand)
            elif operand.name in self.leaves:
                known[place] = self.leaves[operand.name]
        for place, operand in enumerate(term.operands):
            if isinstance(operand, Variable) and place not in known:
                kind = leaf_type(
                    *(self.random, constructor, place, known, self._free(), self.choices.sizes)
                )
                known[place] = self.leaves[operand.name] = self.types[operand] = kind
        operands = [known[place] for place in range(len(term.operands))]
        for text, column in zip(term.texts, constructor.columns, strict=True):
            self._choose(text, constructor, column, operands)
        dtype = self._result_dtype(term, operands)
        self._bind(term.dtype, str(dtype))
        op, _ = operator_of(term, self.texts)
        result = infer_type(op.kind, op.attrs, operands, dtype)
        if op.kind == "gather" and isinstance(term.operands[1], Variable):
            size = operands[0].shape[op.integer("axis")]
            name = term.operands[1].name
            self.limits[name] = min(size, self.limits.get(name, size))
        self.types[term] = result
        return result

    def _free(self) -> TensorType:
        """Return a type that nothing constrains; sizes are often 1 or the common one."""
        sizes = (1, self.common, self.common, drawn(self.random, self.choices.sizes))
        shape = tuple(drawn(self.random, sizes) for _ in range(self.rank))
        dtype = self.dtype
        if self.random.random() < 0.05:
            dtype = drawn(self.random, self.choices.dtypes)
        return TensorType(shape, dtype)

    def _choose(
        self,
        text: object,
        constructor: Constructor,
        column: str,
        operands: Sequence[TensorType],
    ) -> None:
        """Give an attribute a text: written in the rule, bound before, asked for, or random."""
        if isinstance(text, Literal):
            self.columns.setdefault(column, []).append(str(text.value))
            return
        if not isinstance(text, Variable):
            raise RuleError(f"the left side computes an attribute, {text}; bind a variable instead")
        if text.name not in self.texts:
            asked = self._asked_for(text.name, constructor, column, operands)
            if asked and self.random.random() < 0.7:
                self.texts[text.name] = drawn(self.random, asked)
            else:
                self.texts[text.name] = attribute_text(self.random, constructor, column, operands)
        self.columns.setdefault(column, []).append(str(self.texts[text.name]))

    def _asked_for(
        self, name: str, constructor: Constructor, column: str, operands: Sequence[TensorType]
    ) -> list[str]:
        """Return texts with which every table that asks for a variable may still hold."""
        conditions = [
            c for c in self.pattern.conditions if c.table is not None and name in c.variables
        ]
        if not conditions:
            return []
        pool = [attribute_text(self.random, constructor, column, operands) for _ in range(_POOL)]
        facts = Facts(self.types, {**self.columns, column: [*self.columns.get(column, []), *pool]})
        bindings = {**self.texts, **self._type_numbers(facts)}
        allowed: list[dict[str, None]] = []
        for condition in conditions:
            rows = (unified(condition, row, bindings) for row in facts.rows(condition))
            allowed.append(dict.fromkeys(str(row[name]) for row in rows if row is not None))
        return [text for text in allowed[0] if all(text in other for other in allowed[1:])]

    def _type_numbers(self, facts: Facts) -> Mapping[str, int]:
        """Return the type numbers that conditions bind to terms which are built already."""
        numbers: dict[str, int] = {}
        for condition in self.pattern.conditions:
            if condition.name in TYPING and isinstance(condition.args[1], Variable):
                term = condition.args[0]
                number = facts.number(term) if isinstance(term, Variable | Apply) else None
                if number is not None:
                    numbers.setdefault(condition.args[1].name, number)
        return numbers

    def _bind(self, value: object, text: str) -> None:
        assert isinstance(value, Variable | Literal), "element types are variables or texts"
        if isinstance(value, Variable):
            self.texts.setdefault(value.name, text)
        if str(value_of(value, self.texts)) != text:
            raise _MisfitError

    def _result_dtype(self, term: Apply, operands: Sequence[TensorType]) -> DType:
        """Return the element type of a result; arithmetic on truth values does not fit."""
        kind = term.constructor.kind
        attrs: dict[str, AttrValue] = dict(
            zip(
                term.constructor.columns,
                (str(value_of(t, self.texts)) for t in term.texts),
                strict=True,
            )
        )
        if kind == "map":
            fn = str(attrs["fn"])
            if len({operand.dtype for operand in operands[-2:]}) > 1:
                raise _MisfitError
            _require_functions(fn, operands[-1].dtype)
            return pipeline_dtype(fn, operands[-1].dtype)
        if "epilogue" in attrs:
            first = DType(str(attrs["product_dtype"]))
            third = operands[2 : len(operands) - term.constructor.dequantises]
            if any(operand.dtype is not first for operand in third):
                raise _MisfitError
            _require_functions(str(attrs["epilogue"]), first)
            return pipeline_dtype(str(attrs["epilogue"]), first)
        dtype = operands[0].dtype
        is_moved = kind in ("reshape", "transpose", "slice", "pad", "expand", "gather", "concat")
        if dtype is DType.BOOL and not is_moved:
            raise _MisfitError
        if not dtype.is_float and kind in ("softmax", "layernorm", "rmsnorm"):
            raise _MisfitError
        if len({operand.dtype for operand in operands}) > 1 and kind in (
            "matmul",
            "conv",
            "concat",
        ):
            raise _MisfitError
        wished = value_of(term.dtype, self.texts)
        if kind in ("matmul", "conv") and wished is not None:
            return DType(str(wished))
        if kind in ("matmul", "conv") and dtype is DType.I8 and self.random.random() < 0.5:
            return DType.I32
        return dtype


def _require_functions(fn: str, dtype: DType) -> None:
    """Refuse arithmetic on truth values, and roots and exponentials of whole numbers."""
    for name, args in parse_pipeline(fn):
        if dtype is DType.BOOL and name not in _KEEPS_TRUTH_VALUES:
            raise _MisfitError
        if not dtype.is_float and name not in _WHOLE_NUMBER_FUNCTIONS:
            raise _MisfitError
        if dtype.is_float and (name.startswith(("bit", "sh")) or name == "not"):
            raise _MisfitError
        dtype = pipeline_dtype(f"{name}({','.join(args)})" if args else name, dtype)


def operators(term: Term) -> list[Apply]:
    """Return the operators of a term, itself first."""
    if isinstance(term, Variable):
        return []
    return [term, *(a for operand in term.operands for a in operators(operand))]
