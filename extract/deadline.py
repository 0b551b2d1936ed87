"""When planning is to end. Work that can be cut short asks; what cannot lets a plan be late by that much."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf

from tilewright.errors import TimeLimitError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of `time.monotonic`, [s], and the limit of wall time that led to it, [s]."""

    moment_seconds: float = inf
    limit_seconds: float = inf

    @classmethod
    def after(cls, limit_seconds: float | None) -> Deadline:
        """Return the deadline a time from now; None for never."""
        if limit_seconds is None:
            return cls()
        return cls(time.monotonic() + limit_seconds, limit_seconds)

    @property
    def left_seconds(self) -> float:
        """What is left of the time, at least 0."""
        return max(0.0, self.moment_seconds - time.monotonic())

    @property
    def is_past(self) -> bool:
        """Whether the time is up."""
        return self.moment_seconds != inf and time.monotonic() >= self.moment_seconds

    def check(self, what: str) -> None:
        """Raise an error that says what was not done yet if the time is up.

        Raises:
            TimeLimitError: It is.
        """
        if self.is_past:
            raise TimeLimitError(
                f"no plan within the time limit of {self.limit_seconds:g} s: {what}; allow more time, "
                "or leave rules out (tilewright rules list)"
            )


NO_DEADLINE = Deadline()
