"""Measure one model on one target in a process of its own, so that memory and caches are its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


class MeasurementError(Exception):
    """The measured process failed."""


def in_subprocess(name: str, target: str, *options: str) -> dict[str, Any]:
    """Return what `python -m benchmarks measure NAME TARGET` reports.

    Raises:
        MeasurementError: The process failed; the message is the last line it wrote.
    """
    command = [sys.executable, "-m", "benchmarks", "measure", name, target, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise MeasurementError(f"{name} on {target}: {lines[-1]}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report
