"""Rules of other systems in one neutral form, before they are mapped to the term language.

Operators have TASO's names (`conv2d`, `ewadd`, `concat`); parameters are numbers by name. What a
name means is in `tilewright.rules.importing.operators`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tilewright.errors import RuleError

LARGEST_RULE = 50
"""A rule with more operators is refused; published ones have up to ten."""

LARGEST_FILE_BYTES = 8_000_000
"""A larger rule file is refused."""

MOST_RULES = 20_000
"""A file with more rules is refused."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A pattern variable: any tensor."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An operator applied to terms; `output` tells the results of a `split` apart."""

    operator: str
    parameters: tuple[tuple[str, int | tuple[int, ...]], ...] = ()
    operands: tuple[Term, ...] = ()
    output: int = 0

    def number(self, name: str) -> int:
        """Return a parameter that is one number."""
        value = dict(self.parameters)[name]
        assert isinstance(value, int), f"{self.operator}: {name} is not a number"
        return value

    def numbers(self, name: str) -> tuple[int, ...]:
        """Return a parameter that is a list of numbers."""
        value = dict(self.parameters)[name]
        assert isinstance(value, tuple), f"{self.operator}: {name} is not a list"
        return value


Term = Variable | Call


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRule:
    """Each term of `left` equals the term of `right` at the same position.

    `unreadable` says why a rule whose text is well formed has no terms: its operators are unknown.
    """

    name: str
    place: str
    text: str
    left: tuple[Term, ...] = ()
    right: tuple[Term, ...] = ()
    unreadable: str = ""

    def __post_init__(self) -> None:
        size = sum(1 for term in (*self.left, *self.right) for _ in calls(term))
        if size > LARGEST_RULE:
            raise RuleError(
                f"{self.place}: the rule has {size} operators, expected at most {LARGEST_RULE}"
            )


def calls(term: Term) -> Iterator[Call]:
    """Yield every operator of a term, operands first; shared ones as often as they occur."""
    if isinstance(term, Call):
        for operand in term.operands:
            yield from calls(operand)
        yield term


def variables(term: Term) -> Iterator[str]:
    """Yield the names of the variables of a term, as often as they occur."""
    if isinstance(term, Variable):
        yield term.name
    else:
        for operand in term.operands:
            yield from variables(operand)


_WORDS: Mapping[tuple[str, int], str] = MappingProxyType(
    {
        **{("acti", 1): "sigmoid", ("acti", 2): "relu", ("acti", 3): "tanh", ("pad", 1): "valid"},
        **{(name, 0): "" for name in ("acti", "pad")},
        **{(name, 1): "" for name in ("stride_h", "stride_w")},
    }
)
"""How parameters are written that have a name or go without saying."""

_UNWRITTEN = frozenset({"ndim", "parts", "shuffle"})


def term_text(term: Term) -> str:
    """Write a term: ``matmul(x, concat(y, z; axis 1))``; the usual parameters are left out."""
    if isinstance(term, Variable):
        return term.name
    written = []
    for name, value in term.parameters:
        if name not in _UNWRITTEN:
            text = value if isinstance(value, int) else "_".join(map(str, value))
            known = _WORDS.get((name, value)) if isinstance(value, int) else None
            written.append(f"{name} {text}" if known is None else known)
    operands = ", ".join(term_text(operand) for operand in term.operands)
    parameters = ", ".join(text for text in written if text)
    part = f"[{term.output}]" if term.operator == "split" else ""
    return f"{term.operator}({operands}{'; ' if parameters else ''}{parameters}){part}"


def equations(rule: ForeignRule) -> tuple[str, ...]:
    """Write a rule as equations, one for each result."""
    pairs = zip(rule.left, rule.right, strict=True)
    return tuple(f"{term_text(left)} = {term_text(right)}" for left, right in pairs)
