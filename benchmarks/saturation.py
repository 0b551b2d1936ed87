"""What saturation of full-size models costs, against the limits that were set."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.limits import Report, verdict_on
from benchmarks.measure import MeasurementError, in_subprocess
from benchmarks.models import SATURATED
from benchmarks.tables import print_table

TARGETS = ("toy", "corsair")
"""Meshes of two and of three axes."""

E_NODES_PER_OP = {2: 80, 3: 300}
"""On the average over models, by mesh axes."""

TRANSFORMER_SECONDS = 5.0
CNN_SECONDS = 15.0
PEAK_BYTES = 1.5e9
MEGABYTE = 1e6

HEADER = (
    *("model", "target", "verdict"),
    *("axes", "ops", "blocks", "their ops", "e-nodes", "per op", "import s", "saturate s", "MB"),
)


def main(names: Sequence[str] = ()) -> int:
    """Measure and print; return the exit code: 1 if a limit is broken or a model failed."""
    found: dict[tuple[str, str], Report] = {}
    failed = [f"unknown model: {name}" for name in names if name not in SATURATED]
    for name in SATURATED:
        for target in TARGETS:
            if names and name not in names:
                continue
            try:
                found[name, target] = in_subprocess(name, target, "--saturate")
            except MeasurementError as error:
                failed.append(str(error))
    rows = [_row(name, target, report) for (name, target), report in found.items()]
    print_table("saturation of full-size models", HEADER, rows, left=3)
    averages = average_rows(list(found.values()))
    header = ("mesh axes", "verdict", "e-nodes per op", "limit")
    print_table("e-nodes per op, averaged over models", header, averages, left=2)
    for (name, target), report in found.items():
        for note in (*report["notes"], *report["slow_rules"]):
            print(f"{name} on {target}: {note}")
    for message in failed:
        print(f"failed: {message}")
    is_over = any("OVER" in cell for row in (*rows, *averages) for cell in row[1:3])
    return 1 if failed or is_over else 0


def verdict(name: str, report: Report) -> str:
    """Return "ok", or which limits of one model are broken."""
    is_transformer = name.startswith(("llama", "gpt2", "minilm"))
    limit = TRANSFORMER_SECONDS if is_transformer else CNN_SECONDS
    return verdict_on(
        {
            "time": report["saturate_seconds"] > limit,
            "memory": report["peak_bytes"] > PEAK_BYTES,
        }
    )


def average_rows(reports: Sequence[Report]) -> list[tuple[str, ...]]:
    """Return a row for each number of mesh axes: the mean over models of e-nodes per op."""
    rows = []
    for axes, limit in E_NODES_PER_OP.items():
        per_op = [r["e_nodes"] / r["unique_ops"] for r in reports if r["mesh_axes"] == axes]
        if per_op:
            mean = sum(per_op) / len(per_op)
            word = "ok" if mean <= limit else "OVER"
            rows.append((str(axes), word, f"{mean:.1f}", str(limit)))
    return rows


def _row(name: str, target: str, report: Report) -> tuple[str, ...]:
    whole = ("mesh_axes", "ops", "unique_blocks", "unique_ops", "e_nodes")
    return (
        *(name, target, verdict(name, report)),
        *(f"{report[key]:,}" for key in whole),
        f"{report['e_nodes'] / report['unique_ops']:.1f}",
        f"{report['import_seconds']:.2f}",
        f"{report['saturate_seconds']:.2f}",
        f"{report['peak_bytes'] / MEGABYTE:,.0f}",
    )
