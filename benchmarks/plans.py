"""How fast full-size models are planned, how far from optimal the plans can be, against what was set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from benchmarks.limits import Report, measured, verdict_on
from benchmarks.measure import MeasurementError, in_subprocess
from benchmarks.tables import print_table

GIGABYTE = 1e9

HEADER = (
    *("model", "target", "verdict", "user s", "limit", "GB", "limit", "gap", "limit"),
    *("cost", "bound", "blocks", "valid", "proof"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What planning a model may take. `user_seconds` are of the whole process, start and import included."""

    model: str
    target: str
    user_seconds: float
    gap: float = inf
    peak_bytes: float = inf


LIMITS = (
    Limit(
        model="llama3-8b_decode",
        target="corsair_server",
        user_seconds=20.0,
        gap=0.02,
        peak_bytes=2 * GIGABYTE,
    ),
    Limit(model="resnet50", target="corsair", user_seconds=30.0, gap=0.05),
    Limit(model="resnet50_b64", target="corsair", user_seconds=30.0, gap=0.05),
    Limit(model="bert-base", target="corsair", user_seconds=30.0, gap=0.10),
    Limit(model="vit-b16", target="corsair", user_seconds=30.0),
    Limit(model="unet", target="corsair", user_seconds=30.0),
    Limit(model="mixtral-8x7b_decode", target="corsair", user_seconds=30.0),
)

GROWTH_TARGET = "corsair"
LAYERS = (8, 128)
"""Layers of a Llama 3 8B; time must grow less than they do."""
BLOCKS = (2, 8)
"""Kinds of feed-forward layers; time may grow as they do."""


def main(names: Sequence[str] = ()) -> int:
    """Measure and print; return the exit code: 1 if a limit is broken, a plan invalid or a model failed."""
    known = {limit.model for limit in LIMITS} | {"growth"}
    failed = [f"unknown model: {name}" for name in names if name not in known]
    rows, errors = measured(LIMITS, names, "--plan", _row)
    failed += errors
    if rows:
        print_table("planning of full-size models", HEADER, rows, left=3)
    growth = []
    if not names or "growth" in names:
        try:
            growth = growth_rows()
        except MeasurementError as error:
            failed.append(str(error))
    if growth:
        header = ("growth", "verdict", "factor", "seconds", "factor", "limit")
        print_table(f"planning time on {GROWTH_TARGET}", header, growth, left=2)
    for message in failed:
        print(f"failed: {message}")
    is_over = any("OVER" in row[2] for row in rows) or any("OVER" in row[1] for row in growth)
    return 1 if failed or is_over else 0


def verdict(limit: Limit, report: Report) -> str:
    """Return "ok", or which limits a plan breaks."""
    return verdict_on(
        {
            "time": report["user_seconds"] > limit.user_seconds,
            "memory": report["peak_bytes"] > limit.peak_bytes,
            "gap": report["gap"] > limit.gap,
            "validator": bool(report["fault"]),
        }
    )


def growth_rows() -> list[tuple[str, ...]]:
    """Return how planning time grows with layers, and with unique blocks."""
    rows = []
    for what, names, sizes in (
        ("layers", [f"llama3-8b_decode_{n}" for n in LAYERS], LAYERS),
        ("unique blocks", [f"blocks_{n}" for n in BLOCKS], BLOCKS),
    ):
        reports = [in_subprocess(name, GROWTH_TARGET, "--plan") for name in names]
        few, many = (report["search_seconds"] for report in reports)
        factor, grown = sizes[1] / sizes[0], many / few
        word = "ok" if grown <= factor else "OVER"
        rows.append(
            (
                f"{what}, {sizes[0]} to {sizes[1]}",
                word,
                f"{factor:.0f}",
                f"{few:.1f} to {many:.1f}",
                f"{grown:.2f}",
                f"{factor:.0f}",
            )
        )
    return rows


def _row(limit: Limit, report: Report) -> tuple[str, ...]:
    def most(value: float, text: str) -> str:
        return "-" if value == inf else text

    return (
        *(limit.model, limit.target, verdict(limit, report)),
        *(f"{report['user_seconds']:.1f}", f"{limit.user_seconds:.0f}"),
        f"{report['peak_bytes'] / GIGABYTE:.2f}",
        most(limit.peak_bytes, f"{limit.peak_bytes / GIGABYTE:.0f}"),
        f"{report['gap']:.2%}",
        most(limit.gap, f"{limit.gap:.0%}"),
        *(f"{report['cost']:,.0f}", f"{report['bound']:,.0f}", str(report["unique_blocks"])),
        *(report["fault"] or "yes", report["method"]),
    )
