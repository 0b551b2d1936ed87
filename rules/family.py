"""What the rule sets of all families but the rewrites' share: names, order, and who may add rules."""

from __future__ import annotations

from typing import Protocol

from tilewright.errors import RuleError


class Named(Protocol):
    """A rule of any family."""

    @property
    def name(self) -> str:
        """Family and function, joined by a dot."""


class RuleFamily[R: Named]:
    """Rules of one family in order of registration."""

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
                f"make a {type(self).__name__} set of your own"
            )
        if made.name in self._rules:
            raise RuleError(f"rule '{made.name}' is registered twice; rename one")
        self._rules[made.name] = made
