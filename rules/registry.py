"""Rules and rule sets: what a rule is, and what registration asks of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
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

from tilewright.errors import RuleError
from tilewright.rules.constructors import CONSTRUCTORS, Constructor
from tilewright.rules.terms import Tensor, origin

ROOT = "root"
"""Name of the parameter that stands for the whole left side, for facts about it."""


class Numerics(StrEnum):
    """What a rule may do to floating-point results."""

    EXACT = "exact"  # the same operations on the same numbers
    REASSOCIATES = "reassociates"  # equal in real arithmetic, rounded in another order
    APPROXIMATE = "approximate"  # rounded more coarsely; off unless asked for


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Left side and right side are the same value whenever the facts of `when` hold."""

    left: Tensor
    to: Tensor
    when: tuple[Fact | Unit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A registered rule; `function` maps its pattern variables to a Rewrite."""

    name: str
    ruleset: str
    numerics: Numerics
    source: str
    function: Callable[..., Rewrite]
    sorts: Mapping[str, Any] = field(hash=False, compare=False)
    """Sort of each parameter."""

    @property
    def equation(self) -> str:
        """First line of the docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]


class RuleSet:
    """Rules of one family; filled by decorators while its modules are imported."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._rules: dict[str, Rule] = {}
        self._is_closed = False

    def close(self) -> None:
        """Take no more rules: the sets of this package are not for rules from outside."""
        self._is_closed = True

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Rules in order of registration."""
        return tuple(self._rules.values())

    def rule(
        self, *, numerics: Numerics, source: str
    ) -> Callable[[Callable[..., Rewrite]], Callable[..., Rewrite]]:
        """Register a function of pattern variables as a rule.

        Args:
            numerics: What the rule does to floating-point results.
            source: Where the rule comes from.

        Raises:
            RuleError: No docstring, a parameter without a sort, a bad or taken name.
        """

        def register(function: Callable[..., Rewrite]) -> Callable[..., Rewrite]:
            made = define(
                f"{self.name}.{function.__name__}", function, numerics=numerics, source=source
            )
            if self._is_closed:
                raise RuleError(
                    f"rule '{made.name}': rule set '{self.name}' belongs to tilewright; "
                    "make a RuleSet of your own"
                )
            if made.name in self._rules:
                raise RuleError(f"rule '{made.name}' is registered twice; rename one")
            self._rules[made.name] = made
            return function

        return register


def define(name: str, function: Callable[..., Rewrite], *, numerics: Numerics, source: str) -> Rule:
    """Return a checked rule named `family.snake_case`.

    Raises:
        RuleError: No docstring, a parameter without a sort, a bad name.
    """
    if not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", name):
        raise RuleError(f"rule '{name}': expected a name like family.snake_case")
    if not inspect.getdoc(function):
        raise RuleError(f"rule '{name}' has no docstring; write its equation there")
    hints = get_type_hints(function)
    for parameter in inspect.signature(function).parameters:
        if hints.get(parameter) not in (Tensor, String, i64):
            raise RuleError(
                f"rule '{name}': parameter '{parameter}' has no sort; "
                "annotate it as Tensor, String or i64"
            )
    return Rule(
        name=name,
        ruleset=name.partition(".")[0],
        numerics=numerics,
        source=source,
        function=function,
        sorts={parameter: hints[parameter] for parameter in inspect.signature(function).parameters},
    )


def pattern_of(made: Rule) -> Rewrite:
    """Return a rule's rewrite over variables named as its parameters."""
    return made.function(**{name: var(name, sort) for name, sort in made.sorts.items()})


def instantiate(made: Rule, number: int) -> RewriteOrRule:
    """Return the engine's form of a rule; e-nodes that it makes carry `number` as their origin.

    Raises:
        RuleError: A condition is a Python bool instead of a fact.
    """
    rewrite = pattern_of(made)
    root = var(ROOT, Tensor)
    for fact in rewrite.when:
        if isinstance(fact, bool):
            raise RuleError(f"rule '{made.name}': a condition is a bool; write eq(x).to(y)")
    marks = [
        set_(origin_of(constructor, args)).to(i64(number))
        for constructor, args in _made(rewrite.to)
    ]
    return rule(eq(root).to(rewrite.left), *rewrite.when, name=made.name).then(
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
    """Return the `origin` entry of an e-node of up to three operands."""
    count = constructor.arity
    nothing: tuple[Any, ...] = (Tensor.nothing(),) * (3 - count)
    a, b, c = args[:count] + nothing
    texts: list[Any] = []
    for text in args[count:]:
        texts += [text, "\t"]
    return origin(constructor.name, a, b, c, join(*texts[:-1]))
