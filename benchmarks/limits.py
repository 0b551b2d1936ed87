"""Models measured one by one, each against limits of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from benchmarks.measure import MeasurementError, in_subprocess

Report = Mapping[str, Any]


class Measured(Protocol):
    """What a model on a target is held to."""

    @property
    def model(self) -> str:
        """A name that `benchmarks.models.shapes_of` knows."""

    @property
    def target(self) -> str:
        """Name of a target."""


def verdict_on(broken: Mapping[str, bool]) -> str:
    """Return "ok", or which limits are broken."""
    over = [what for what, is_over in broken.items() if is_over]
    return f"OVER: {', '.join(over)}" if over else "ok"


def measured[L: Measured](
    limits: Sequence[L],
    names: Sequence[str],
    option: str,
    row: Callable[[L, Report], tuple[str, ...]],
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Measure models in a process each.

    Args:
        limits: What is measured.
        names: Only these models; all if there are none.
        option: Of `python -m benchmarks measure`: what to measure.
        row: Makes the cells of a table of a limit and what was measured.

    Returns:
        The rows, and what failed.
    """
    rows: list[tuple[str, ...]] = []
    failed: list[str] = []
    for limit in limits:
        if names and limit.model not in names:
            continue
        try:
            rows.append(row(limit, in_subprocess(limit.model, limit.target, option)))
        except MeasurementError as error:
            failed.append(str(error))
    return rows, failed
