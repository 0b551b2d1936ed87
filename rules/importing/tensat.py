"""TENSAT's rule text: one rule a line, ``(ewadd ?x ?y)=>(ewadd ?y ?x)``.

Source:
    Yang et al., "Equality saturation for tensor graph superoptimization", MLSys 2021;
    operators and their arguments as in `src/model.rs` of uwplse/tensat.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tilewright.errors import RuleError
from tilewright.rules.importing.foreign import (
    LARGEST_RULE,
    MOST_RULES,
    Call,
    ForeignRule,
    Term,
    Variable,
)

_WINDOW = "kernel_h kernel_w stride_h stride_w pad acti"
_ARGUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "ewadd": "_ _",
        "ewmul": "_ _",
        "smul": "_ _",
        "transpose": "_ perm shuffle",
        "matmul": "acti _ _",
        "conv2d": "stride_h stride_w pad acti _ _",
        "enlarge": "_ _",
        "dropout": "_",
        "relu": "_",
        "tanh": "_",
        "sigmoid": "_",
        "poolmax": f"_ {_WINDOW}",
        "poolavg": f"_ {_WINDOW}",
        "concat": "axis ndim _ _",
        "concat3": "axis ndim _ _ _",
        "concat4": "axis ndim _ _ _ _",
        "concat5": "axis ndim _ _ _ _ _",
        "split": "axis _",
        "reshape": "_ shape",
    }
)
"""Arguments of each operator in order: names of numbers, and `_` for a term."""

_LISTS = frozenset({"perm", "shape"})
"""Arguments written as numbers with underscores between them, 1_0."""

_PARTS = MappingProxyType({"split_0": 0, "split_1": 1})
_DEEPEST = 100
_TOKEN = re.compile(r"\s*(=>|[()]|[^\s()=]+|=)")


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    column: int


type _Tree = tuple[_Token, tuple[_Tree, ...] | None]
"""A token and, for an operator, its arguments."""


class _UncoveredError(Exception):
    """A well-formed term with an operator or argument that has no neutral form."""


def read_tensat(name: str, text: str) -> tuple[ForeignRule, ...]:
    """Read TENSAT's rule text; empty lines are skipped.

    Args:
        name: Name of the file, for messages.
        text: Its content.

    Raises:
        RuleError: A line is no rule; says line, column, what was found and expected.
    """
    lines = [(n, line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise RuleError(f"{name}: no rule; expected lines such as (ewadd ?x ?y)=>(ewadd ?y ?x)")
    if len(lines) > MOST_RULES:
        raise RuleError(f"{name}: {len(lines):,} rules, expected at most {MOST_RULES:,}")
    return tuple(_Parser(f"{name}:{number}", line).rule(number) for number, line in lines)


class _Parser:
    """Recursive descent over the tokens of one line."""

    def __init__(self, place: str, line: str) -> None:
        self._place, self._line = place, line
        found = [(m.group(1), m.start(1) + 1) for m in _TOKEN.finditer(line)]
        self._tokens = [_Token(text, column) for text, column in found]
        self._end = _Token("", len(line.rstrip()) + 1)
        self._at = 0

    def rule(self, number: int) -> ForeignRule:
        """Return the rule of the line."""
        name, text = f"tensat.line_{number}", self._line.strip()
        tree_left = self._tree(0)
        self._expect("=>")
        tree_right = self._tree(0)
        if self._peek() is not self._end:
            self._fail(self._peek(), "the end of the line")
        try:
            left, right = self._term(tree_left), self._term(tree_right)
        except _UncoveredError as error:
            return ForeignRule(name=name, place=self._place, text=text, unreadable=str(error))
        return ForeignRule(name=name, place=self._place, text=text, left=(left,), right=(right,))

    def _fail(self, found: _Token, expected: str) -> None:
        what = f"'{found.text}'" if found.text else "the end of the line"
        raise RuleError(f"{self._place}:{found.column}: found {what}, expected {expected}")

    def _peek(self) -> _Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else self._end

    def _next(self) -> _Token:
        token = self._peek()
        self._at += 1
        return token

    def _expect(self, text: str) -> None:
        token = self._next()
        if token.text != text:
            self._fail(token, f"'{text}'")

    def _tree(self, depth: int) -> tuple[_Token, tuple[_Tree, ...] | None]:
        """Return a token, or an operator with its arguments."""
        token = self._next()
        if token.text in ("", ")", "=>", "="):
            self._fail(token, "a term such as ?x or (relu ?x)")
        if token.text != "(":
            return token, None
        if depth >= _DEEPEST:
            raise RuleError(
                f"{self._place}:{token.column}: terms are nested more than {_DEEPEST} deep"
            )
        head = self._next()
        if not re.fullmatch(r"[A-Za-z_]\w*", head.text):
            self._fail(head, "the name of an operator")
        arguments: list[_Tree] = []
        while self._peek().text != ")":
            if self._peek() is self._end:
                self._fail(self._end, f"')' for '({head.text}' of column {token.column}")
            arguments.append(self._tree(depth + 1))
            if len(arguments) > LARGEST_RULE:
                self._fail(head, f"at most {LARGEST_RULE} arguments")
        self._next()
        return head, tuple(arguments)

    def _term(self, tree: _Tree) -> Term:
        head, arguments = tree
        if arguments is None:
            if re.fullmatch(r"\?\w+", head.text):
                return Variable(head.text[1:])
            if re.fullmatch(r"-?\d[\d_]*", head.text):
                self._fail(head, "a term")
            raise _UncoveredError(f"operator {head.text}")
        if head.text in _PARTS:
            return self._part(head, arguments)
        if head.text not in _ARGUMENTS:
            raise _UncoveredError(f"operator {head.text}")
        names = _ARGUMENTS[head.text].split()
        if len(arguments) != len(names):
            self._fail(head, f"{len(names)} arguments ({' '.join(names)}), not {len(arguments)}")
        pairs = list(zip(names, arguments, strict=True))
        return Call(
            operator="concat" if head.text.startswith("concat") else head.text,
            parameters=tuple((n, self._parameter(n, a)) for n, a in pairs if n != "_"),
            operands=tuple(self._operand(a) for n, a in pairs if n == "_"),
        )

    def _operand(self, tree: _Tree) -> Term:
        if tree[1] is not None and tree[0].text == "split":
            self._fail(tree[0], "split_0 or split_1 around a split")
        return self._term(tree)

    def _part(self, head: _Token, arguments: tuple[_Tree, ...]) -> Term:
        if len(arguments) != 1 or arguments[0][0].text != "split" or arguments[0][1] is None:
            self._fail(head, "one argument, a split")
        split = self._term(arguments[0])
        assert isinstance(split, Call), "a split has arguments"
        return Call(
            operator="split",
            parameters=(*split.parameters, ("parts", 2)),
            operands=split.operands,
            output=_PARTS[head.text],
        )

    def _parameter(self, name: str, tree: _Tree) -> int | tuple[int, ...]:
        head, arguments = tree
        if arguments is None and head.text.startswith("?"):
            raise _UncoveredError(f"variable {head.text} as {name}")
        shape = r"\d{1,6}(_\d{1,6})*" if name in _LISTS else r"\d{1,6}"
        if arguments is not None or not re.fullmatch(shape, head.text):
            self._fail(head, f"a number as {name}")
        if name in _LISTS:
            return tuple(int(part) for part in head.text.split("_"))
        return int(head.text)
