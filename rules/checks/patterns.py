"""A rule as plain data, so that it can be run on one instance without the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tilewright.rules.constructors import Constructor
from tilewright.rules.facts import FactTable
from tilewright.rules.registry import ROOT


@dataclass(frozen=True, slots=True)
class Variable:
    """A pattern variable of any sort."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Literal:
    """A text or number."""

    value: str | int

    def __str__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, slots=True)
class Compute:
    """A primitive of texts or numbers, such as `join` or `+`."""

    function: str
    args: tuple[Value, ...]

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.args))})"


Value = Variable | Literal | Compute


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator: operands (a list is spelled out), attribute texts, element type."""

    constructor: Constructor
    operands: tuple[Term, ...]
    texts: tuple[Value, ...]
    dtype: Value
    _hash: int = field(init=False, repr=False, compare=False)
    """Of the whole tree, once: terms are looked up by the thousand."""

    def __post_init__(self) -> None:
        parts = (self.constructor.name, self.operands, self.texts, self.dtype)
        object.__setattr__(self, "_hash", hash(parts))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        parts = [*map(str, self.operands), *map(str, self.texts)]
        return f"{self.constructor.name}({', '.join(parts)})"


Term = Variable | Apply


@dataclass(frozen=True, slots=True)
class Condition:
    """A fact: a relation of terms, numbers and texts, or a comparison."""

    name: str
    args: tuple[Value | Apply, ...]
    table: FactTable | None = None

    def __str__(self) -> str:
        if self.name == BESIDE:
            return f"{self.args[0]} is there"
        if self.name == LEAF:
            return f"{self.args[0]} is leaf {self.args[1]}"
        if self.table is None and self.name not in (*TYPING, *CONSTNESS):
            return f"{self.args[0]} {self.name} {self.args[1]}"
        return f"{self.name}({', '.join(map(str, self.args))})"

    @property
    def variables(self) -> frozenset[str]:
        """Names of its variables."""
        return frozenset(name for arg in self.args for name in names_in(arg))

    @property
    def is_about_constness(self) -> bool:
        """Whether it only asks what is known at compile time, which no value depends on."""
        return self.name in CONSTNESS


CONSTNESS = frozenset({"is_constant", "constant_of_type", "all_constant"})
TYPING = frozenset({"has_type", "constant_of_type"})
"""Conditions that bind the number of a tensor's type."""

LEAF, NODE = "leaf", "node"
"""Conditions that a tensor is a leaf, or at least in the inserted graph; they bind its number."""

BESIDE = "beside"
"""Condition that the e-graph has another operator."""

COMPARISONS = {"__lt__": "<", "__le__": "<=", "__gt__": ">", "__ge__": ">=", "!=": "!="}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A rule: both sides, the conditions that equality rests on, and those that only bound growth."""

    left: Apply
    right: Term
    when: tuple[Condition, ...]
    bounds: tuple[Condition, ...]

    @property
    def present(self) -> tuple[Apply, ...]:
        """The operators that must be in the e-graph: the left side, and those beside it."""
        beside = (c.args[0] for c in self.when if c.name == BESIDE)
        return (self.left, *(term for term in beside if isinstance(term, Apply)))

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All conditions in order of writing."""
        return (*self.when, *self.bounds)

    def binder_of(self, name: str) -> Condition | None:
        """Return the condition that gives a variable its value, if the left side does not."""
        if name == ROOT or any(name in names_in(term) for term in self.present):
            return None
        mentions = [c for c in self.conditions if name in c.variables]
        typing = [c for c in mentions if c.name in (*TYPING, LEAF)]
        tables = [c for c in mentions if c.table is not None]
        return next(iter(typing or tables or mentions), None)

    def binds(self, condition: Condition) -> bool:
        """Whether the right side or another condition uses a variable that this one binds."""
        if condition.name == BESIDE:
            return True
        for name in sorted(condition.variables):
            used = name in names_in(self.right) or any(
                name in c.variables for c in self.conditions if c is not condition
            )
            if used and self.binder_of(name) is condition:
                return True
        return False


def names_in(term: Value | Term) -> Iterator[str]:
    """Yield the names of variables in a term or value."""
    match term:
        case Variable(name):
            yield name
        case Compute(_, args):
            for arg in args:
                yield from names_in(arg)
        case Apply(_, operands, texts, dtype):
            for part in (*operands, *texts, dtype):
                yield from names_in(part)


def size_of(term: Term) -> int:
    """Return the number of operators of a term."""
    return 0 if isinstance(term, Variable) else 1 + sum(size_of(o) for o in term.operands)


ARITHMETIC: dict[str, Callable[..., Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: None if b == 0 else int(a / b),
    "%": lambda a, b: None if b == 0 else a - b * int(a / b),
    "min": min,
    "max": max,
    "join": lambda *parts: "".join(map(str, parts)),
}
"""Primitives of the engine; None where the engine has no result."""
