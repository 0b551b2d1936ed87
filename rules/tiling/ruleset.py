"""The tiling family: how loops of a kernel may be cut, and which loop may be outermost."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from egglog import Fact, RewriteOrRule, Unit, eq, i64, rule, union, var

from tilewright.errors import RuleError
from tilewright.rules.family import FunctionRule, RuleFamily, check_written
from tilewright.rules.tiling.terms import Kernel, Loop

ROOT = "root"


@dataclass(frozen=True, slots=True)
class TilingRewrite:
    """A loop or kernel run as `left` may also be run as `to` when the facts of `when` hold."""

    left: Loop | Kernel
    to: Loop | Kernel
    when: tuple[Fact | Unit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TilingRule(FunctionRule):
    """A registered tiling rule; `function` maps its pattern variables to a TilingRewrite."""

    sorts: Mapping[str, Any] = field(hash=False, compare=False)


class TilingRules(RuleFamily[TilingRule]):
    """The rules of the family in order of registration."""

    def rule(
        self, *, source: str
    ) -> Callable[[Callable[..., TilingRewrite]], Callable[..., TilingRewrite]]:
        """Register a function of pattern variables as a tiling rule.

        Raises:
            RuleError: No docstring, a variable without a sort, a bad or taken name.
        """

        def register(function: Callable[..., TilingRewrite]) -> Callable[..., TilingRewrite]:
            made = _defined(f"{self.name}.{function.__name__}", function, source)
            self._add(made)
            return function

        return register


def _defined(name: str, function: Callable[..., TilingRewrite], source: str) -> TilingRule:
    where = check_written(name, function)
    hints = get_type_hints(function)
    parameters = tuple(inspect.signature(function).parameters)
    for parameter in parameters:
        if hints.get(parameter) not in (i64, Loop, Kernel):
            raise RuleError(
                f"{where}: parameter '{parameter}' has no sort; annotate it as i64, Loop or Kernel"
            )
    return TilingRule(
        name=name,
        source=source,
        function=function,
        sorts={parameter: hints[parameter] for parameter in parameters},
    )


def instantiate(made: TilingRule) -> RewriteOrRule:
    """Return the engine's form of a rule.

    Raises:
        RuleError: A condition is a Python bool instead of a fact.
    """
    rewrite = made.function(**{name: var(name, sort) for name, sort in made.sorts.items()})
    if any(isinstance(fact, bool) for fact in rewrite.when):
        raise RuleError(f"{made.where}: a condition is a bool; write eq(x).to(y)")
    root: Any = var(ROOT, Loop if isinstance(rewrite.left, Loop) else Kernel)
    return rule(eq(root).to(rewrite.left), *rewrite.when, name=made.name).then(
        union(root).with_(rewrite.to)
    )


tiling = TilingRules("tiling")
