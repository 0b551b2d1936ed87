"""In which ways the conditions of a rule hold on one instance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from tilewright.graph import TensorType
from tilewright.rules.checks.instance import Bindings, Instance, type_of, value_of
from tilewright.rules.checks.patterns import (
    BESIDE,
    LEAF,
    TYPING,
    Apply,
    Condition,
    Pattern,
    Term,
    Variable,
)
from tilewright.rules.facts import Row, Vocabulary
from tilewright.rules.registry import ROOT

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": eq,
    "!=": ne,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
}


@dataclass(slots=True)
class Facts:
    """What the conditions of a rule may ask about an instance: its types by number, its tables."""

    types: dict[Term, TensorType]
    texts: Mapping[str, Sequence[str]]
    leaves: Sequence[str] = ()
    """Tensor variables in the order of their leaf numbers."""
    _numbers: dict[TensorType, int] = field(default_factory=dict)
    _rows: dict[str, tuple[Row, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in self.types.values():
            self._numbers.setdefault(kind, len(self._numbers))

    def number(self, term: Term, relation: str = "has_type") -> int | None:
        """Return the number of a term's type, or of a leaf; None for what the instance does not have."""
        if relation == LEAF:
            is_leaf = isinstance(term, Variable) and term.name in self.leaves
            return self.leaves.index(str(term)) if is_leaf else None
        kind = self.types.get(term)
        return None if kind is None else self._numbers[kind]

    def rows(self, condition: Condition) -> tuple[Row, ...]:
        """Return the rows of a condition's table."""
        assert condition.table is not None, "only tables have rows"
        name = condition.table.name
        if name not in self._rows:
            texts = {column: tuple(dict.fromkeys(found)) for column, found in self.texts.items()}
            known = Vocabulary(tuple(self._numbers), texts, self._siblings())
            self._rows[name] = tuple(dict.fromkeys(condition.table.rows(known)))
        return self._rows[name]

    def _siblings(self) -> tuple[tuple[int, ...], ...]:
        """Return the leaves that multiply one tensor, alike but for their outputs."""
        groups: dict[tuple[object, ...], set[int]] = {}
        for term in self.types:
            if not isinstance(term, Apply) or term.constructor.name not in ("matmul", "conv"):
                continue
            left, right = term.operands
            number = self.number(right, LEAF)
            if number is not None:
                name, shape = term.constructor.name, self.types[right].shape
                inner = shape[:-1] if name == "matmul" else shape[1:]
                groups.setdefault((name, left, term.texts, inner), set()).add(number)
        return tuple(sorted(tuple(sorted(found)) for found in groups.values() if len(found) > 1))


def facts_of(pattern: Pattern, instance: Instance) -> Facts:
    """Return the facts of an instance."""
    types: dict[Term, TensorType] = {}
    for operator in pattern.present:
        type_of(operator, instance.types, instance.texts, types)
    texts: dict[str, list[str]] = {}
    for term in types:
        if isinstance(term, Apply):
            for column, text in zip(term.constructor.columns, term.texts, strict=True):
                texts.setdefault(column, []).append(str(value_of(text, instance.texts)))
    types[Variable(ROOT)] = types[pattern.left]
    return Facts(types, texts, tuple(instance.leaves))


def ways(conditions: Sequence[Condition], facts: Facts, bindings: Bindings) -> Iterator[Bindings]:
    """Yield the bindings under which all conditions hold, in the order of tables' rows.

    Conditions on constness hold always; the one with a type number binds it.
    """
    if not conditions:
        yield bindings
        return
    order = sorted(range(len(conditions)), key=lambda i: (_effort(conditions[i], bindings), i))
    chosen = conditions[order[0]]
    rest = [c for c in conditions if c is not chosen]
    for extended in _holding(chosen, facts, bindings):
        yield from ways(rest, facts, extended)


def _effort(condition: Condition, bindings: Bindings) -> int:
    """Return how many variables a condition would have to guess; comparisons cannot guess."""
    if condition.name in (*TYPING, LEAF, BESIDE) or condition.is_about_constness:
        return 0
    unknown = sum(value_of(a, bindings) is None for a in condition.args if not isinstance(a, Apply))
    return unknown if condition.table is not None else 100 * unknown


def _holding(condition: Condition, facts: Facts, bindings: Bindings) -> Iterator[Bindings]:
    """Yield the bindings under which a condition holds."""
    if condition.name in (*TYPING, LEAF):
        term, number = condition.args
        assert isinstance(term, Variable | Apply), "types are of terms"
        assert not isinstance(number, Apply), "their numbers are no terms"
        found = facts.number(term, condition.name)
        known = value_of(number, bindings)
        if found is None or known not in (None, found):
            return
        if known is None and isinstance(number, Variable):
            yield {**bindings, number.name: found}
        else:
            yield bindings
    elif condition.is_about_constness or condition.name == BESIDE:
        yield bindings
    elif condition.table is not None:
        for row in facts.rows(condition):
            extended = unified(condition, row, bindings)
            if extended is not None:
                yield extended
    else:
        yield from _compared(condition, facts, bindings)


def unified(condition: Condition, row: Row, bindings: Bindings) -> Bindings | None:
    """Return the bindings extended so that a condition's arguments are a row, if they can be."""
    extended = dict(bindings)
    for arg, cell in zip(condition.args, row, strict=True):
        assert not isinstance(arg, Apply), "tables have numbers and texts"
        known = value_of(arg, extended)
        if known is None:
            if not isinstance(arg, Variable):
                return None
            extended[arg.name] = cell
        elif known != cell:
            return None
    return extended


def _compared(condition: Condition, facts: Facts, bindings: Bindings) -> Iterator[Bindings]:
    left, right = condition.args
    terms = [a for a in (left, right) if isinstance(a, Apply) or a in facts.types]
    if terms:  # tensors: the samples have no two tensors that are one e-class
        if condition.name == "!=" and left != right:
            yield bindings
        return
    assert not isinstance(left, Apply), "terms are tensors"
    assert not isinstance(right, Apply), "terms are tensors"
    a, b = value_of(left, bindings), value_of(right, bindings)
    if a is not None and b is not None:
        if _COMPARE[condition.name](a, b):
            yield bindings
    elif condition.name == "==":
        if a is None and b is not None and isinstance(left, Variable):
            yield {**bindings, left.name: b}
        if b is None and a is not None and isinstance(right, Variable):
            yield {**bindings, right.name: a}
