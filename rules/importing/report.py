"""What an import found: one entry a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tilewright.rules.importing.counterexample import Counterexample
from tilewright.rules.registry import Rule


class Verdict(StrEnum):
    """What became of a foreign rule."""

    ACCEPTED = "accepted"
    """Right wherever its left side has a meaning, broadcasting and groups included."""
    GUARDED = "accepted with guard"
    """Right under a condition that the rule does not state and the tool found."""
    REFUSED = "refused"
    """Wrong, and no condition of the vocabulary makes it right."""
    VACUOUS = "vacuous"
    """Says nothing: its left side never has a meaning, or both sides are one term."""
    NOT_COVERED = "not covered"
    """Uses what the language cannot say."""


class Assumed(StrEnum):
    """How a rule does where its authors meant it: operands of one shape, odd kernels."""

    RIGHT = "right"
    UNTYPED = "right side without a meaning"
    WRONG = "wrong"
    UNKNOWN = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRule:
    """A foreign rule, judged."""

    name: str
    """``tensat.line_12`` or ``taso.rule_7``."""
    place: str
    text: str
    """The rule as it is written, or as equations where the file has no text."""
    equations: tuple[str, ...]
    """One for each result, in TASO's names of operators."""
    verdict: Verdict
    assumed: Assumed = Assumed.UNKNOWN
    conditions: tuple[str, ...] = ()
    """The guard in words: all of them must hold."""
    note: str = ""
    """Why it is vacuous or not covered; for an accepted rule, why it is not offered."""
    counterexample: Counterexample | None = None
    """For a refused rule; for a guarded one, what the guard keeps out."""
    instances: int = 0
    """How many instances were compared."""
    rule: Rule | None = None
    """The rule in the term language, if it could run in the engine."""
    is_expansive: bool = False
    """Whether the right side is no smaller than the left, as in laws of associativity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What became of every rule of a file."""

    path: str
    source: str
    """Whose format the file has."""
    entries: tuple[ImportedRule, ...]

    @property
    def counts(self) -> Mapping[Verdict, int]:
        """Number of rules of each verdict, in the order of `Verdict`."""
        return {v: sum(entry.verdict is v for entry in self.entries) for v in Verdict}

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Offered rules that make terms smaller; add them to `SaturationOptions.rules`."""
        return tuple(e.rule for e in self.entries if e.rule is not None and not e.is_expansive)

    @property
    def expansive_rules(self) -> tuple[Rule, ...]:
        """Offered rules that rearrange or grow terms; they fill e-classes up to their cap."""
        return tuple(e.rule for e in self.entries if e.rule is not None and e.is_expansive)
