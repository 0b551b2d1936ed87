"""How long the stages take and how much memory they need, against the limits that were set."""

from __future__ import annotations

from typing import Any

from benchmarks.measure import MeasurementError, in_subprocess
from benchmarks.tables import print_table

MODEL = "minilm_int8w"
TARGETS = ("toy", "corsair")
MEGABYTE = 1e6

LIMITS = (
    ("compile [user s]", "compile_seconds", 20.0, 1.0),
    ("functional simulation [user s]", "run_seconds", 60.0, 1.0),
    ("timing simulation [user s]", "simulate_seconds", 20.0, 1.0),
    ("peak memory [MB]", "peak_bytes", 2000.0, MEGABYTE),
)
LAYER_RATIO_LIMIT = 1.5
ACCESS_SHARE_LIMIT = 0.2
LAYERS = (2, 32)
WIDTH = 64
REPEATS = 3

Row = tuple[str, str, str, str]


def main() -> int:
    """Measure and print; the exit code tells only whether the measurement was possible."""
    try:
        reports = {
            target: in_subprocess(MODEL, target, "--run", "--simulate") for target in TARGETS
        }
        rows: list[Row] = []
        for target, report in reports.items():
            rows += _limit_rows(target, report)
        rows += [_access_row(target, report) for target, report in reports.items()]
        ratios = [_layer_row(target) for target in TARGETS]
    except MeasurementError as error:
        print(f"failed: {error}")
        return 1
    for target, report in reports.items():
        _print_stages(target, report)
    print_table("limits", ("what", "found", "limit", "verdict"), rows + ratios, left=1)
    return 0


def _verdict(found: float, limit: float) -> str:
    return "ok" if found <= limit else "OVER"


def _limit_rows(target: str, report: dict[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for what, key, limit, unit in LIMITS:
        found = report[key] / unit
        title = f"{MODEL} seq 128 on {target}: {what}"
        rows.append((title, f"{found:,.1f}", f"{limit:,.0f}", _verdict(found, limit)))
    return rows


def _access_row(target: str, report: dict[str, Any]) -> Row:
    """Share of e-graph insertion and read-out in the compile time."""
    share = report["egraph_access_seconds"] / report["compile_seconds"]
    title = f"{MODEL} seq 128 on {target}: e-graph insertion and read-out"
    return (title, f"{share:.1%}", f"{ACCESS_SHARE_LIMIT:.0%}", _verdict(share, ACCESS_SHARE_LIMIT))


def _layer_row(target: str) -> Row:
    """Saturation and extraction of many layers over that of few, the fastest of several runs each."""
    spent = [
        min(_search_seconds(f"llama_prefill_{layers}x{WIDTH}", target) for _ in range(REPEATS))
        for layers in LAYERS
    ]
    ratio = spent[1] / spent[0]
    title = f"llama on {target}: saturate + extract, {LAYERS[1]} layers / {LAYERS[0]} layers"
    found = f"{ratio:.2f} ({spent[1]:.2f} s / {spent[0]:.2f} s)"
    return (title, found, f"{LAYER_RATIO_LIMIT}", _verdict(ratio, LAYER_RATIO_LIMIT))


def _search_seconds(name: str, target: str) -> float:
    stages = in_subprocess(name, target)["stage_seconds"]
    return float(stages["saturate"]) + float(stages["extract"])


def _print_stages(target: str, report: dict[str, Any]) -> None:
    """Print seconds by stage; those of the compiler's stages include system time."""
    rows = [("import", report["import_seconds"])]
    rows += list(report["stage_seconds"].items())
    rows += [
        ("e-graph insertion and read-out (within saturate)", report["egraph_access_seconds"]),
        ("functional simulation", report["run_seconds"]),
        ("timing simulation", report["simulate_seconds"]),
    ]
    cells = [(what, f"{seconds:.2f}") for what, seconds in rows]
    cells += [
        ("peak MB after compiling", f"{report['compile_peak_bytes'] / MEGABYTE:,.0f}"),
        ("peak MB at the end", f"{report['peak_bytes'] / MEGABYTE:,.0f}"),
        ("plans sent back by lowering", f"{report['rejected_plans']}"),
    ]
    print_table(f"{MODEL} at sequence 128 on {target}", ("stage", "CPU s"), cells)
