"""Bounded proofs: both sides equal for all real numbers, on tensors of sizes 1 to 3.

For rules that are linear, polynomial or piecewise linear, and for others as far as they hold whatever their
functions are (`symbolic.py`). z3 is an optional dependency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import RuleError, ShapeError
from tilewright.graph import Op
from tilewright.reference import AnyArray
from tilewright.rules.checks.conditions import required
from tilewright.rules.checks.counterexample import counterexample
from tilewright.rules.checks.instance import Bindings, Instance, operator_of
from tilewright.rules.checks.judging import Failure, Kind
from tilewright.rules.checks.matching import facts_of, ways
from tilewright.rules.checks.patterns import Pattern, Term, Variable
from tilewright.rules.checks.reading import pattern
from tilewright.rules.checks.sampling import Choices, Sampler, operators
from tilewright.rules.checks.symbolic import NotSymbolicError, Symbolic
from tilewright.rules.checks.values import Values
from tilewright.rules.registry import Rule

_DRAWS = 1200
"""Instances drawn at least ..."""
_MOST_DRAWS = 8000
"""... and at most, for rules that match few."""
_CHOICES = 120
"""Draws stop at so many different choices of shapes and attributes ..."""
_LEAST_CHOICES = 15
"""... and with fewer than these a proof would say little."""
_MOST_ENTRIES = 60
"""Symbols of an instance; larger ones say little more and take long."""
_TIMEOUT_MS = 2000


_MOVEMENT = frozenset(("reshape", "transpose", "slice", "pad", "expand", "concat"))
"""Operators that mean the same for integers."""
_RING = frozenset(("add", "sub", "mul"))
"""Functions that, with products and movement, make polynomials with whole coefficients.

Two of these that are equal for all reals are one polynomial, so that they are equal in every commutative
ring: for integers that wrap around, too.
"""


@dataclass(frozen=True, slots=True)
class Proof:
    """Both sides are equal for all real entries, in each of these choices of shapes and attributes."""

    rule: str
    choices: int


@dataclass(frozen=True, slots=True)
class NotCovered:
    """The rule is not of the kind that is proved, or the solver did not decide."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Both sides differ for some real entries; the text shows them."""

    rule: str
    text: str


def solver() -> Any:
    """Return the module of z3.

    Raises:
        RuleError: It is not installed.
    """
    try:
        return import_module("z3")
    except ImportError as error:
        raise RuleError(
            "proofs of rules need z3; install it with pip install 'tilewright[proof]'"
        ) from error


def prove_rule(made: Rule, *, seed: int = 0) -> Proof | NotCovered | Counterexample:
    """Prove a rule on tensors of sizes 1 to 3 with symbolic real entries.

    Args:
        made: The rule.
        seed: Seed of the choice of shapes and attributes.

    Raises:
        RuleError: z3 is not installed, or the rule is not written as one.
    """
    return _Prover(made, solver()).run(seed)


class _Prover:
    """Proves one rule."""

    def __init__(self, made: Rule, z3: Any) -> None:
        self._made, self._z3 = made, z3
        self._pattern: Pattern = pattern(made)
        self._symbolic = Symbolic(z3)

    def run(self, seed: int) -> Proof | NotCovered | Counterexample:
        """Return the outcome."""
        sampler = Sampler(self._pattern, self._choices(), np.random.default_rng(seed))
        seen: set[object] = set()
        uncovered: dict[str, None] = {}
        for draws in range(_MOST_DRAWS):
            if len(seen) >= (_CHOICES if draws < _DRAWS else _LEAST_CHOICES):
                break
            instance = sampler.draw(Values.WHOLE)
            if instance is None or sum(a.size for a in instance.leaves.values()) > _MOST_ENTRIES:
                continue
            facts = facts_of(self._pattern, instance)
            for bindings in ways(required(self._pattern), facts, instance.texts):
                key = (tuple(sorted(bindings.items())), tuple(instance.types.items()))
                if key in seen:
                    continue
                try:
                    found = self._differing(instance, bindings)
                except NotSymbolicError as error:
                    uncovered[str(error)] = None
                    continue
                seen.add(key)
                if isinstance(found, str):
                    return NotCovered(self._made.name, found)
                if found is not None:
                    return Counterexample(
                        self._made.name,
                        counterexample(self._made, self._pattern, found, required(self._pattern)),
                    )
            if draws >= _DRAWS and uncovered and not seen:
                break
        if not seen and uncovered:
            return NotCovered(self._made.name, f"not over the reals: {', '.join(uncovered)}")
        if len(seen) < _LEAST_CHOICES:
            return NotCovered(self._made.name, f"{len(seen)} small choices match, too few")
        return Proof(self._made.name, len(seen))

    def _choices(self) -> Choices:
        """Return sizes 1 to 3; 4 for 3 where a mean divides by it, since attributes cannot say 1 / 3."""
        kinds = {a.constructor.kind for a in operators(self._pattern.left)}
        sizes = (1, 2, 4) if kinds & {"layernorm", "rmsnorm"} else (1, 2, 3)
        return Choices((DType.F64, DType.I8), sizes, (1, 2, 3))

    def _differing(self, instance: Instance, bindings: Bindings) -> Failure | str | None:
        """Return where both sides differ; None if nowhere, a text if the solver does not decide."""
        self._symbolic.unknown.clear()
        symbols = {
            name: self._symbols(name, array.shape) for name, array in instance.leaves.items()
        }
        try:
            whole = all(array.dtype.kind in "iu" for array in instance.leaves.values())
            left = self._value(self._pattern.left, symbols, bindings, whole)
            right = self._value(self._pattern.right, symbols, bindings, whole)
        except (ShapeError, ValueError, IndexError) as error:
            return Failure(Kind.TYPES, instance, bindings, "a tensor", f"has no type: {error}")
        if left.shape != right.shape:
            shapes = (str(list(side.shape)) for side in (left, right))
            return Failure(Kind.TYPES, instance, bindings, *shapes)
        pairs = zip(left.flat, right.flat, strict=True)
        differences = [self._z3.simplify(a - b, som=True, sort_sums=True) for a, b in pairs]
        unequal = [d != 0 for d in differences if not self._is_zero(d)]
        if not unequal:
            return None
        solver = self._z3.Solver()
        solver.set("timeout", _TIMEOUT_MS)
        solver.add(self._z3.Or(unequal))
        verdict = solver.check()
        if verdict == self._z3.unsat:
            return None
        if verdict == self._z3.unknown:
            return f"z3 did not decide within {_TIMEOUT_MS} ms"
        if self._symbolic.unknown:
            functions = ", ".join(sorted(self._symbolic.unknown))
            return f"holds, if at all, for what is special about {functions}"
        if self._wraps(self._pattern.left, bindings) or self._wraps(self._pattern.right, bindings):
            return "differs for reals, which says little of integers that wrap around"
        model = solver.model()
        concrete = {name: self._numbers(model, array) for name, array in symbols.items()}
        return Failure(
            Kind.VALUES,
            Instance(concrete, instance.texts),
            bindings,
            self._numbers(model, left),
            self._numbers(model, right),
        )

    def _is_zero(self, difference: Any) -> bool:
        return bool(self._z3.is_rational_value(difference) and difference.as_fraction() == 0)

    def _symbols(self, name: str, shape: Sequence[int]) -> AnyArray:
        array = np.empty(tuple(shape), dtype=object)
        for index in np.ndindex(*shape):
            array[index] = self._z3.Real(f"{name}{list(index)}")
        return array

    def _value(
        self, term: Term, symbols: dict[str, AnyArray], bindings: Bindings, whole: bool
    ) -> AnyArray:
        """Return the entries of a term; `whole`: all variables are tensors of integers."""
        if isinstance(term, Variable):
            return symbols[term.name]
        op, dtype = operator_of(term, bindings)
        is_covered = dtype is DType.F64 or op.kind in _MOVEMENT or (whole and _is_of_ring(op))
        if not is_covered:
            raise NotSymbolicError(f"{op.kind} gives {dtype}")
        operands = [self._value(operand, symbols, bindings, whole) for operand in term.operands]
        return self._symbolic.apply(op, operands)

    def _wraps(self, term: Term, bindings: Bindings) -> bool:
        if isinstance(term, Variable):
            return False
        op, dtype = operator_of(term, bindings)
        is_sum = dtype is not DType.F64 and op.kind not in _MOVEMENT
        return is_sum or any(self._wraps(operand, bindings) for operand in term.operands)

    def _numbers(self, model: Any, array: AnyArray) -> AnyArray:
        def number(entry: Any) -> float:
            value = model.eval(self._z3.RealVal(0) + entry, model_completion=True)
            if self._z3.is_algebraic_value(value):
                value = value.approx(20)
            return float(value.as_fraction())

        return np.array([number(entry) for entry in array.flat]).reshape(array.shape)


def _is_of_ring(op: Op) -> bool:
    """Whether an operator's result is a polynomial of its operands with whole coefficients."""
    if op.kind == "matmul":
        return not op.attrs.get("epilogue")
    return op.kind == "map" and op.text("fn") in _RING
