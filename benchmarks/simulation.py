"""How fast the timing simulator is on full-size models, against the limits that were set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.limits import Report, measured, verdict_on
from benchmarks.tables import print_table

EVENTS_PER_SECOND = 1e6

HEADER = (
    *("model", "target", "tiles", "verdict"),
    *("simulated", "user s", "limit", "first s", "events", "events / s", "GB", "cycles", "bound"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What simulating both phases of a model's program may take, user CPU."""

    model: str
    target: str
    seconds: float


LIMITS = (
    Limit(model="llama3-8b_decode", target="corsair", seconds=30.0),
    Limit(model="llama3-8b_decode", target="corsair_server", seconds=30.0),
    Limit(model="bert-base", target="mesh_16x16", seconds=10.0),
)


def main(names: Sequence[str] = ()) -> int:
    """Measure and print; return the exit code: 1 if a limit is broken or a model failed."""
    known = {limit.model for limit in LIMITS}
    failed = [f"unknown model: {name}" for name in names if name not in known]
    rows, errors = measured(LIMITS, names, "--time", _row)
    failed += errors
    if rows:
        print_table("timing simulation of full-size models", HEADER, rows, left=4)
    for message in failed:
        print(f"failed: {message}")
    return 1 if failed or any("OVER" in row[3] for row in rows) else 0


def verdict(limit: Limit, report: Report) -> str:
    """Return "ok", or which limits a simulation breaks."""
    return verdict_on(
        {
            "time": report["simulate_seconds"] > limit.seconds,
            "events": report["events"] / report["event_seconds"] < EVENTS_PER_SECOND,
        }
    )


def _row(limit: Limit, report: Report) -> tuple[str, ...]:
    return (
        *(limit.model, limit.target, f"{report['tiles']:,}", verdict(limit, report)),
        *(f"{report['simulated_tiles']:,}", f"{report['simulate_seconds']:.1f}"),
        *(f"{limit.seconds:.0f}", f"{report['first_seconds']:.1f}", f"{report['events']:,}"),
        f"{report['events'] / report['event_seconds']:,.0f}",
        f"{report['peak_bytes'] / 1e9:.2f}",
        *(f"{report['cycles']:,.0f}", f"{report['bound_cycles']:,.0f}"),
    )
