"""What a verification says: one finding for each property."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Property(StrEnum):
    """What can be proven of a program; the value is what reports call it."""

    FORM = "form"
    BOUNDS = "bounds"
    BALANCE = "semaphores"
    PROGRESS = "progress"
    LASTING = "lasting data"
    INITIALISED = "initialised"
    ORDER = "order"


MEANING: dict[Property, str] = {
    Property.FORM: "every instruction is well formed",
    Property.BOUNDS: "every access of every tile and iteration is inside its memory",
    Property.BALANCE: "semaphores never overflow and are zero at the end of each phase",
    Property.PROGRESS: "no deadlock, whatever the timing",
    Property.LASTING: "a run leaves constants and resident data as they are",
    Property.INITIALISED: "nothing is read before it is written",
    Property.ORDER: "accesses to common bytes are ordered: no race, no overlap of live buffers",
}


class Verdict(StrEnum):
    """How far a property was decided."""

    PROVEN = "proven"
    REFUTED = "refuted"
    NOT_PROVEN = "not proven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The verdict on one property.

    Attributes:
        property: What was looked at.
        verdict: The outcome.
        detail: How it was proven; or the place and what is wrong there; or what the proof lacks.
    """

    property: Property
    verdict: Verdict
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Findings in the order of `Property`, one for each."""

    findings: tuple[Finding, ...]

    def __getitem__(self, what: Property) -> Finding:
        """Return the finding on a property."""
        return next(f for f in self.findings if f.property is what)

    @property
    def is_proven(self) -> bool:
        """Whether everything is proven."""
        return all(f.verdict is Verdict.PROVEN for f in self.findings)

    @property
    def refuted(self) -> tuple[Finding, ...]:
        """Properties that do not hold."""
        return tuple(f for f in self.findings if f.verdict is Verdict.REFUTED)


def proven(what: Property, detail: str) -> Finding:
    """Return the finding that a property holds."""
    return Finding(property=what, verdict=Verdict.PROVEN, detail=detail)


def refuted(what: Property, detail: str) -> Finding:
    """Return the finding that a property does not hold."""
    return Finding(property=what, verdict=Verdict.REFUTED, detail=detail)


def not_proven(what: Property, detail: str) -> Finding:
    """Return the finding that a property is open."""
    return Finding(property=what, verdict=Verdict.NOT_PROVEN, detail=detail)
