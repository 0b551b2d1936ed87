"""Rules and rule sets: what a rule is, and what registration asks of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, get_type_hints

from egglog import (
    Fact,
    RewriteOrRule,
    String,
    Unit,
    eq,
    get_callable_args,
    get_callable_fn,
    i64,
    join,
    rule,
    set_,
    union,
    var,
)
from egglog.declarations import CallDecl, UnboundVarDecl

from tilewright.errors import RuleError
from tilewright.rules.constructors import CONSTRUCTORS, Constructor
from tilewright.rules.family import FunctionRule, RuleFamily, check_written
from tilewright.rules.terms import MOST_OPERANDS, Tensor, origin

ROOT = "root"
"""Name of the parameter that stands for the whole left side, for facts about it."""


class RuleWritingError(RuleError):
    """A rule is not written as a rule; says in which line of the user's file, and what to write."""


class Numerics(StrEnum):
    """What a rule may do to floating-point results."""

    EXACT = "exact"  # the same operations on the same numbers
    REASSOCIATES = "reassociates"  # equal in real arithmetic, rounded in another order
    APPROXIMATE = "approximate"  # within a stated tolerance; off unless asked for


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Left side and right side are the same value whenever the facts of `when` hold.

    `bounds` are further conditions that equality does not need: they say where the rule is worth its
    e-nodes. The rule must be right without them.
    """

    left: Tensor
    to: Tensor
    when: tuple[Fact | Unit, ...] = ()
    bounds: tuple[Fact | Unit, ...] = ()

    @property
    def conditions(self) -> tuple[Fact | Unit, ...]:
        """Everything that must hold for the rule to fire."""
        return (*self.when, *self.bounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(FunctionRule):
    """A registered rule; `function` maps its pattern variables to a Rewrite."""

    numerics: Numerics
    sorts: Mapping[str, Any] = field(hash=False, compare=False)
    """Sort of each parameter."""
    tolerance: float | None = None
    """Largest error of an APPROXIMATE rule, relative to the largest magnitude of the result."""


class RuleSet(RuleFamily[Rule]):
    """Rules of one family; filled by decorators while its modules are imported."""

    error = RuleWritingError

    def rule(
        self, *, numerics: Numerics, source: str, tolerance: float | None = None
    ) -> Callable[[Callable[..., Rewrite]], Callable[..., Rewrite]]:
        """Register a function of pattern variables as a rule.

        Args:
            numerics: What the rule does to floating-point results.
            source: Where the rule comes from.
            tolerance: Largest relative error; for APPROXIMATE rules only, which must state it.

        Raises:
            RuleWritingError: No docstring, a parameter without a sort, a bad or taken name, a
                tolerance that does not go with the numerics.
        """

        def register(function: Callable[..., Rewrite]) -> Callable[..., Rewrite]:
            made = define(
                f"{self.name}.{function.__name__}",
                function,
                numerics=numerics,
                source=source,
                tolerance=tolerance,
            )
            self._add(made)
            return function

        return register


def define(
    name: str,
    function: Callable[..., Rewrite],
    *,
    numerics: Numerics,
    source: str,
    tolerance: float | None = None,
) -> Rule:
    """Return a checked rule named `family.snake_case`.

    Raises:
        RuleWritingError: No docstring or none with an equation, a parameter without a sort, a bad
            name, a tolerance that does not go with the numerics.
    """
    where = check_written(name, function, RuleWritingError)
    doc = inspect.getdoc(function) or ""
    if "=" not in doc.splitlines()[0]:
        raise RuleWritingError(
            f"{where}: the docstring starts with '{doc.splitlines()[0]}'; "
            "expected an equation, such as 'f(g(x)) = h(x).'"
        )
    if (tolerance is not None and tolerance > 0) != (numerics is Numerics.APPROXIMATE):
        raise RuleWritingError(
            f"{where} is {numerics.value} with tolerance {tolerance}; approximate rules state a positive "
            "tolerance, others none"
        )
    return Rule(
        name=name,
        numerics=numerics,
        source=source,
        function=function,
        sorts=_sorts(function, where),
        tolerance=tolerance,
    )


def _sorts(function: Callable[..., Rewrite], where: str) -> dict[str, Any]:
    """Return the sort of each parameter."""
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise RuleWritingError(f"{where}: {error}; import the sorts of its parameters") from error
    parameters = inspect.signature(function).parameters
    for parameter in parameters:
        if hints.get(parameter) not in (Tensor, String, i64):
            raise RuleWritingError(
                f"{where}: parameter '{parameter}' has no sort; "
                "annotate it as Tensor, String or i64"
            )
    return {parameter: hints[parameter] for parameter in parameters}


def variables_of(term: Any) -> Iterator[str]:
    """Yield the names of the variables of a term or fact, as often as they occur."""
    if isinstance(term, Fact):
        parts: list[Any] = [term.fact]
    else:
        parts = [term.__egg_typed_expr__]
    while parts:
        part = parts.pop()
        if isinstance(part, UnboundVarDecl):
            yield part.name
        elif isinstance(part, CallDecl):
            parts += part.args
        else:  # an equation, or a typed wrapper of one of the above
            parts += [
                getattr(part, name) for name in ("left", "right", "expr") if hasattr(part, name)
            ]


def pattern_of(made: Rule) -> Rewrite:
    """Return a rule's rewrite over variables named as its parameters.

    Raises:
        RuleWritingError: The function raises, does not return a rewrite, has a condition that is no
            fact, or uses a variable on the right side that nothing binds.
    """
    where = made.where
    try:
        rewrite = made.function(**{name: var(name, sort) for name, sort in made.sorts.items()})
    except Exception as error:
        raise RuleWritingError(made.raised(error)) from error
    if not isinstance(rewrite, Rewrite):
        raise RuleWritingError(f"{where} returns {type(rewrite).__name__}, expected a Rewrite")
    for number, fact in enumerate(rewrite.conditions):
        if not (isinstance(fact, Fact) or hasattr(fact, "__egg_typed_expr__")):
            raise RuleWritingError(
                f"{where}: condition {number + 1} is the Python {type(fact).__name__} {fact!r}, "
                "decided before any tensor is seen; write a fact, such as eq(x).to(y)"
            )
    bound = {ROOT, *variables_of(rewrite.left)}
    for fact in rewrite.conditions:
        bound.update(variables_of(fact))
    for name in variables_of(rewrite.to):
        if name not in bound:
            raise RuleWritingError(
                f"{where}: the right side uses '{name}', which neither the left side nor a condition "
                "binds; bind it there"
            )
    return rewrite


def instantiate(made: Rule, number: int) -> RewriteOrRule:
    """Return the engine's form of a rule; e-nodes that it makes carry `number` as their origin.

    Raises:
        RuleWritingError: The rule is not written as one.
    """
    rewrite = pattern_of(made)
    root = var(ROOT, Tensor)
    marks = [
        set_(origin_of(constructor, args)).to(i64(number))
        for constructor, args in _made(rewrite.to)
    ]
    return rule(eq(root).to(rewrite.left), *rewrite.conditions, name=made.name).then(
        union(root).with_(rewrite.to), *marks
    )


def _made(term: Any) -> Iterable[tuple[Constructor, tuple[Any, ...]]]:
    """Return every e-node of a right side: constructor and arguments."""
    if not isinstance(term, Tensor):
        return
    function = get_callable_fn(term)
    if function is None:  # a variable
        return
    args = get_callable_args(term)
    assert args is not None, "a call has arguments"
    for arg in args:
        yield from _made(arg)
    for constructor in CONSTRUCTORS.values():
        if constructor.build == function:
            yield constructor, args
            return
    raise RuleError(f"right side makes {function}, which is no constructor of rules/terms.py")


def origin_of(constructor: Constructor, args: tuple[Any, ...]) -> Any:
    """Return the `origin` entry of an e-node."""
    count = constructor.arity
    nothing: tuple[Any, ...] = (Tensor.nothing(),) * (MOST_OPERANDS - count)
    a, b, c, d, e = args[:count] + nothing
    texts: list[Any] = []
    for text in args[count:]:
        texts += [text, "\t"]
    return origin(constructor.name, a, b, c, d, e, join(*texts[:-1]))
