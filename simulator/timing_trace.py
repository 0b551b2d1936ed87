"""Timelines for chrome://tracing and Perfetto."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tilewright.simulator.timing_report import TimingReport


def write_trace(report: TimingReport, path: Path | str) -> None:
    """Write the spans of the traced tiles as a Chrome trace (JSON); the run phase follows the load phase.

    A tile is a process, an engine a thread; times are microseconds at the target's clock.

    Args:
        report: Result of `simulate(..., trace=True)`; without spans the trace is empty.
        path: File to write.
    """
    events: list[dict[str, Any]] = []
    us_per_cycle = 1e-3 / report.clock_ghz
    threads: dict[tuple[int, str], int] = {}
    for phase, offset in ((report.load, 0.0), (report.run, report.load.cycles)):
        for span in phase.spans:
            thread = threads.setdefault((span.tile, span.engine), len(threads))
            events.append(
                {
                    "name": span.name,
                    "cat": phase.name,
                    "ph": "X",
                    "pid": span.tile,
                    "tid": thread,
                    "ts": (offset + span.start_cycle) * us_per_cycle,
                    "dur": (span.end_cycle - span.start_cycle) * us_per_cycle,
                }
            )
    for tile in sorted({tile for tile, _ in threads}):
        events.append(
            {"name": "process_name", "ph": "M", "pid": tile, "args": {"name": f"tile {tile}"}}
        )
    for (tile, engine), thread in threads.items():
        events.append(
            {"name": "thread_name", "ph": "M", "pid": tile, "tid": thread, "args": {"name": engine}}
        )
    Path(path).write_text(
        json.dumps({"displayTimeUnit": "ns", "traceEvents": events}), encoding="utf-8"
    )
