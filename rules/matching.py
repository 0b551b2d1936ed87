"""Patterns of rules matched against a read-out e-graph, outside of the engine.

For explanations only: saturation itself is the engine's. Conditions are not looked at; that a rule fired is
known from the e-nodes of its right side being there, in the class of its left side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from egglog import get_callable_args, get_callable_fn, get_literal_value, get_var_name, join

from tilewright.rules.constructors import CONSTRUCTORS, Constructor
from tilewright.rules.snapshot import ENode, Snapshot
from tilewright.rules.terms import Items

Bindings = Mapping[str, int | str]
"""Values of pattern variables: an e-class or a text."""


@dataclass(frozen=True, slots=True)
class Variable:
    """Stands for an e-class or a text."""

    name: str


@dataclass(frozen=True, slots=True)
class Joined:
    """A text of several parts; None for a part that cannot be known."""

    parts: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A constructor on patterns; its operands are None where they are a list of any length."""

    constructor: Constructor
    operands: tuple[Pattern, ...] | None
    texts: tuple[Text, ...]


type Text = Variable | Joined | str | None
type Pattern = Variable | Call


@dataclass(frozen=True, slots=True)
class Match:
    """A pattern found at an e-class: its outermost e-node (None: a variable), all of its e-nodes."""

    root: ENode | None
    nodes: tuple[ENode, ...]
    bindings: Bindings


class Matcher:
    """E-nodes of a snapshot by class and constructor."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._nodes: defaultdict[tuple[int, str], list[ENode]] = defaultdict(list)
        for node in snapshot.enodes:
            self._nodes[node.result, node.constructor.name].append(node)

    def matches(self, pattern: Pattern, e_class: int, bindings: Bindings) -> Iterator[Match]:
        """Yield every way in which a pattern holds of a class, given some bindings."""
        if isinstance(pattern, Variable):
            bound = _bound(bindings, pattern.name, e_class)
            if bound is not None:
                yield Match(None, (), bound)
            return
        operands = pattern.operands
        for node in self._nodes[e_class, pattern.constructor.name]:
            texts = _match_texts(pattern.texts, node.signature_texts, bindings)
            if texts is None or operands is None or len(operands) != len(node.args):
                continue
            for nodes, found in self._match_all(operands, node.args, texts):
                yield Match(node, (node, *nodes), found)

    def _match_all(
        self, patterns: tuple[Pattern, ...], classes: tuple[int, ...], bindings: Bindings
    ) -> Iterator[tuple[tuple[ENode, ...], Bindings]]:
        if not patterns:
            yield (), bindings
            return
        for first in self.matches(patterns[0], classes[0], bindings):
            for nodes, found in self._match_all(patterns[1:], classes[1:], first.bindings):
                yield (*first.nodes, *nodes), found


def read_pattern(term: Any) -> Pattern:
    """Return a side of a rule as plain data; to ask the engine's terms again takes far longer."""
    variable = get_var_name(term)
    if variable is not None:
        return Variable(variable)
    function, args = get_callable_fn(term), get_callable_args(term)
    assert args is not None, "patterns are variables or calls"
    for constructor in CONSTRUCTORS.values():
        if constructor.build == function:
            texts = tuple(_read_text(arg) for arg in args[constructor.arity :])
            return Call(constructor, _read_operands(constructor, args), texts)
    raise AssertionError(f"{function} is no constructor")


def _read_operands(constructor: Constructor, args: tuple[Any, ...]) -> tuple[Pattern, ...] | None:
    """Return the operand patterns; those of a list, or None if the list is a variable."""
    if constructor.operands is not None:
        return tuple(read_pattern(arg) for arg in args[: constructor.operands])
    items: list[Pattern] = []
    rest = args[0]
    while get_callable_fn(rest) == Items.cons:
        inner = get_callable_args(rest)
        assert inner is not None
        items.append(read_pattern(inner[0]))
        rest = inner[1]
    return None if get_var_name(rest) is not None else tuple(items)


def _read_text(term: Any) -> Text:
    variable = get_var_name(term)
    if variable is not None:
        return Variable(variable)
    literal = get_literal_value(term)
    if literal is not None:
        return str(literal)
    if get_callable_fn(term) != join:
        return None
    return Joined(tuple(_read_text(part) for part in get_callable_args(term) or ()))


def _bound(bindings: Bindings, variable: str, value: int | str) -> Bindings | None:
    """Return the bindings with one more, or None if it contradicts."""
    known = bindings.get(variable)
    if known is None:
        return {**bindings, variable: value}
    return bindings if known == value else None


def _match_texts(
    patterns: tuple[Text, ...], texts: tuple[str, ...], bindings: Bindings
) -> Bindings | None:
    for pattern, text in zip(patterns, texts, strict=True):
        if isinstance(pattern, Variable):
            bound = _bound(bindings, pattern.name, text)
            if bound is None:
                return None
            bindings = bound
        elif _value(pattern, bindings) not in (None, text):
            return None
    return bindings


def _value(pattern: Text, bindings: Bindings) -> str | None:
    """Return the value of a text pattern, None if it cannot be known from the bindings."""
    if isinstance(pattern, Variable):
        value = bindings.get(pattern.name)
        return None if value is None else str(value)
    if not isinstance(pattern, Joined):
        return pattern
    parts = [_value(part, bindings) for part in pattern.parts]
    return None if any(part is None for part in parts) else "".join(map(str, parts))
