"""Rules of the engine read as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from egglog import Fact
from egglog.declarations import (
    CallDecl,
    ClassMethodRef,
    EqDecl,
    FunctionRef,
    LitDecl,
    MethodRef,
    TypedExprDecl,
    UnboundVarDecl,
)

from tilewright.rules.checks.patterns import (
    BESIDE,
    COMPARISONS,
    CONSTNESS,
    LEAF,
    NODE,
    TYPING,
    Apply,
    Compute,
    Condition,
    Literal,
    Pattern,
    Term,
    Value,
    Variable,
    names_in,
)
from tilewright.rules.constructors import CONSTRUCTORS, Constructor
from tilewright.rules.facts import fact_tables
from tilewright.rules.registry import ROOT, Rule, RuleWritingError, pattern_of, variables_of
from tilewright.rules.terms import Tensor

_ARITHMETIC = {"__add__": "+", "__sub__": "-", "__mul__": "*", "__truediv__": "/", "__mod__": "%"}


@lru_cache(maxsize=1)
def _constructors() -> dict[Any, Constructor]:
    return {constructor.build.__egg_ref__: constructor for constructor in CONSTRUCTORS.values()}


def pattern(made: Rule) -> Pattern:
    """Return a rule as plain data.

    Raises:
        RuleWritingError: The rule is not written as one.
    """
    rewrite = pattern_of(made)
    where = made.where
    reader = _Reader(where, {name for name, sort in made.sorts.items() if sort is Tensor})
    left = reader.term(rewrite.left.__egg_typed_expr__)  # type: ignore[attr-defined]
    if isinstance(left, Variable):
        raise RuleWritingError(
            f"{where}: the left side is the bare variable '{left.name}', which matches everything; "
            "write an operator"
        )
    found = _with_definitions(
        Pattern(
            left=left,
            right=reader.term(rewrite.to.__egg_typed_expr__),  # type: ignore[attr-defined]
            when=tuple(reader.condition(fact) for fact in rewrite.when),
            bounds=tuple(reader.condition(fact) for fact in rewrite.bounds),
        )
    )
    used = {ROOT, *variables_of(rewrite.left)}
    for fact in rewrite.conditions:
        used.update(variables_of(fact))
    for name in made.sorts:
        if name not in used:
            raise RuleWritingError(f"{where}: parameter '{name}' is not used; remove it")
    return found


def _with_definitions(found: Pattern) -> Pattern:
    """Return a pattern in which tensors that a condition defines, eq(x).to(operator), are spelled out."""
    for condition in found.when:
        if condition.name != "==":
            continue
        for name, term in (condition.args, condition.args[::-1]):
            if not (isinstance(name, Variable) and isinstance(term, Apply)):
                continue
            is_inside = any(name.name in names_in(t) for t in found.present)
            rest = [_replaced(c, name, term) for c in found.when if c is not condition]
            beside = [] if is_inside else [Condition(BESIDE, (term,))]
            return _with_definitions(
                Pattern(
                    left=_replaced(found.left, name, term),
                    right=_replaced(found.right, name, term),
                    when=(*beside, *rest),
                    bounds=tuple(_replaced(c, name, term) for c in found.bounds),
                )
            )
    return found


def _replaced(part: Any, name: Variable, term: Apply) -> Any:
    """Return a term or condition with a variable replaced."""
    match part:
        case Variable():
            return term if part == name else part
        case Apply(constructor, operands, texts, dtype):
            inner = tuple(_replaced(operand, name, term) for operand in operands)
            return Apply(constructor, inner, texts, dtype)
        case Condition(relation, args, table):
            return Condition(relation, tuple(_replaced(a, name, term) for a in args), table)
    return part


class _Reader:
    """Turns declarations of the engine into plain data."""

    def __init__(self, where: str, tensors: set[str]) -> None:
        self._where = where
        self._tensors = tensors
        self._tables = {table.relation.__egg_ref__: table for table in fact_tables()}

    def condition(self, fact: Any) -> Condition:
        """Return a condition of `when` or `bounds`."""
        if isinstance(fact, Fact):
            equation = fact.fact
            if isinstance(equation, EqDecl):
                return self.equation(equation.left, equation.right)
            call = _bare(equation.typed_expr)
        else:
            call = _bare(fact.__egg_typed_expr__)
        args = tuple(self.argument(arg) for arg in call.args)
        name = _name(call.callable)
        table = self._tables.get(call.callable)
        if name in COMPARISONS:
            return Condition(COMPARISONS[name], args)
        if table is None and name not in (*TYPING, *CONSTNESS):
            raise RuleWritingError(
                f"{self._where}: condition {name} is no fact table and no analysis; "
                "register its rows with facts.fact_table"
            )
        return Condition(name, args, table)

    def equation(self, left: Any, right: Any) -> Condition:
        """Return an equation of texts, numbers or tensors, or that a tensor is a leaf."""
        for one, other in ((left, right), (right, left)):
            if isinstance(other, CallDecl) and _name(other.callable) in (LEAF, NODE):
                return Condition(LEAF, (self.argument(one), self.value(other.args[0])))
        return Condition("==", (self.argument(left), self.argument(right)))

    def argument(self, decl: Any) -> Value | Apply:
        """Return an argument of a condition: a term, number or text."""
        expr = _bare(decl)
        if isinstance(expr, CallDecl) and expr.callable in _constructors():
            term = self.term(expr)
            assert isinstance(term, Apply), "calls are operators"
            return term
        return self.value(expr)

    def value(self, decl: Any) -> Value:
        """Return a number or text."""
        expr = _bare(decl)
        if isinstance(expr, UnboundVarDecl):
            return Variable(expr.name)
        if isinstance(expr, LitDecl):
            assert isinstance(expr.value, str | int), "literals are texts and numbers"
            return Literal(expr.value)
        name = _name(expr.callable)
        return Compute(_ARITHMETIC.get(name, name), tuple(self.value(arg) for arg in expr.args))

    def term(self, decl: Any) -> Term:
        """Return a tensor term."""
        expr = _bare(decl)
        if isinstance(expr, UnboundVarDecl):
            return Variable(expr.name)
        constructor = _constructors().get(expr.callable)
        if constructor is None:
            raise RuleWritingError(
                f"{self._where} uses {_name(expr.callable)}, which is no constructor of "
                "rules/terms.py"
            )
        columns = expr.args[: constructor.arity]
        operands = (
            tuple(self.items(columns[0]))
            if constructor.operands is None
            else tuple(self.term(arg) for arg in columns)
        )
        *texts, dtype = (self.value(arg) for arg in expr.args[constructor.arity :])
        return Apply(constructor, operands, tuple(texts), dtype)

    def items(self, decl: Any) -> Iterator[Term]:
        """Yield the elements of a list."""
        expr = _bare(decl)
        while _name(expr.callable) == "cons":
            yield self.term(expr.args[0])
            expr = _bare(expr.args[1])


def _bare(decl: Any) -> Any:
    """Return a declaration without its sort."""
    return decl.expr if isinstance(decl, TypedExprDecl) else decl


def _name(reference: Any) -> str:
    match reference:
        case FunctionRef(ident):
            return str(ident.name)
        case MethodRef(_, name) | ClassMethodRef(_, name):
            return str(name)
    return str(reference)
