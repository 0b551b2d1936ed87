"""What `tilewright calibrate` does and prints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tilewright.arrays import write_file
from tilewright.calibrating import built_in_sources, calibrate, model_source
from tilewright.calibration import (
    UNITS,
    Calibration,
    HeldOutRecord,
    ProgramRecord,
    Summary,
    calibration_text,
)
from tilewright.commands import check_folder
from tilewright.errors import CalibrationError
from tilewright.hwmodel.load import load_target
from tilewright.lowering.scheduled import Scheduling
from tilewright.terminal import Row, print_facts, print_table, print_text, progress

HEADER = (
    *("program", "plans", "inputs", "outputs", "error", "calibrated"),
    *("rank", "calibrated", "cycles"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateRequest:
    """The arguments of the command."""

    target: str
    models: tuple[Path, ...]
    dims: Mapping[str, int]
    plans: int
    seed: int
    schedule: str
    output: Path


def calibrate_and_report(request: CalibrateRequest, console: Console) -> None:
    """Calibrate, print how well programs that were held out are predicted, and write the file.

    Raises:
        CompileError: A model or the target is wrong, or constants would not help; nothing is written.
    """
    target = load_target(request.target)
    if request.output.is_dir():
        raise CalibrationError(
            f"-o '{request.output}' is a folder, expected a file; choose another name"
        )
    check_folder(request.output.parent)
    with progress(console, time.monotonic()) as tell:
        sources = [] if request.models else list(built_in_sources())
        for path in request.models:
            tell(f"reading {path.name}")
            sources.append(model_source(path, request.dims))
        found = calibrate(
            target,
            sources,
            plans=request.plans,
            seed=request.seed,
            schedule=Scheduling(request.schedule),
            progress=tell,
        )
    rows = [_row(program) for program in found.programs]
    title = f"programs on {target.name}, each predicted by constants fitted to the others"
    print_table(console, title, HEADER, [*rows, _summary_row(found)])
    shares = found.constants.model_dump()
    facts = [(name, f"{share:.2f}, {UNITS[name]}") for name, share in shares.items()]
    print_facts(console, "constants, fitted to all programs", facts)
    write_file(request.output, calibration_text(found).encode())
    console.print()
    print_text(console, f"wrote {request.output}; no compile uses it without --calibration")


def _row(program: ProgramRecord) -> Row:
    test = program.held_out
    return (
        *(program.name, str(len(program.plans))),
        *(f"{test.constants.input:.2f}", f"{test.constants.output:.2f}"),
        *_test_cells(test),
    )


def _summary_row(found: Calibration) -> Row:
    plans = sum(len(program.plans) for program in found.programs)
    return ("median, mean, mean", str(plans), "", "", *_test_cells(found.held_out))


def _test_cells(test: HeldOutRecord | Summary) -> Row:
    """Return the errors of the plans chosen, the ranks, and what the choice does to simulated cycles."""
    records = (test.before, test.after)
    return (
        *(f"{record.best_error:.1%}" for record in records),
        *("-" if record.rank is None else f"{record.rank:.3f}" for record in records),
        f"{test.simulated_ratio - 1:+.1%}",
    )
