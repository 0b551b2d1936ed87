"""What the rules of all families share: names, places, order, and who may add rules."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilewright.errors import RuleError


def place_of(function: Callable[..., Any]) -> str:
    """Return file and line of a function, without what decorators wrapped around it."""
    code = inspect.unwrap(function).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionRule:
    """What registered rules of all families are: named functions, with a docstring."""

    name: str
    source: str
    function: Callable[..., Any]

    @property
    def ruleset(self) -> str:
        """Name of the family."""
        return self.name.partition(".")[0]

    @property
    def equation(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.function) or "").splitlines()[0]

    @property
    def where(self) -> str:
        """File, line and name, as errors begin."""
        return f"{place_of(self.function)}: rule '{self.name}'"

    def raised(self, error: Exception, on: str = "") -> str:
        """Return the text of the error for what the function raised, with the last line in its file.

        Args:
            error: What it raised.
            on: What it was called with, if that says more than the place.
        """
        file = inspect.unwrap(self.function).__code__.co_filename
        own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        place = f"{file}:{own[-1].lineno}" if own else place_of(self.function)
        what = f"{type(error).__name__}: {str(error).partition('\n')[0]}"
        where = f" on {on}" if on else ""
        return f"{place}: rule '{self.name}' raises {what}{where}; mend that line"


def check_written(
    name: str,
    function: Callable[..., Any],
    error: type[RuleError] = RuleError,
    *,
    form: str = "",
    parameters: tuple[str, ...] | None = None,
) -> str:
    """Check what rules of all families are: a name, a docstring, parameters; return how errors begin.

    Args:
        name: Family and function.
        function: The rule.
        error: What to raise.
        form: What rules with these parameters are called.
        parameters: What the function must take; None for any.

    Raises:
        RuleError: A bad name, no docstring, or other parameters.
    """
    where = f"{place_of(function)}: rule '{name}'"
    if not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", name):
        raise error(f"{where}: expected a name like family.snake_case")
    if not inspect.getdoc(function):
        raise error(f"{where} has no docstring; write its equation there")
    found = tuple(inspect.signature(function).parameters)
    if parameters is not None and found != parameters:
        raise error(
            f"{where} takes ({', '.join(found)}), a '{form}' rule takes ({', '.join(parameters)})"
        )
    return where


class RuleFamily[R: FunctionRule]:
    """Rules of one family in order of registration."""

    error: type[RuleError] = RuleError
    """What a rule that is not written as one raises."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._rules: dict[str, R] = {}
        self._is_closed = False

    def close(self) -> None:
        """Take no more rules: the set of this package is not for rules from outside."""
        self._is_closed = True

    @property
    def rules(self) -> tuple[R, ...]:
        """Rules in order of registration."""
        return tuple(self._rules.values())

    def _add(self, made: R) -> None:
        """Add a rule.

        Raises:
            RuleError: The set is closed, or has a rule of this name.
        """
        if self._is_closed:
            raise RuleError(
                f"rule '{made.name}': rule set '{self.name}' belongs to tilewright; "
                f"make a {type(self).__name__} of your own"
            )
        if made.name in self._rules:
            before = place_of(self._rules[made.name].function)
            raise self.error(f"{made.where} is registered twice, before in {before}; rename one")
        self._rules[made.name] = made
