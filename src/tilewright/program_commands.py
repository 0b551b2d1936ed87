"""What the commands on finished programs do: run, simulate, check."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from tilewright import api, report
from tilewright.arrays import npz_bytes, write_file
from tilewright.errors import CompileError
from tilewright.extract.objective import Objective
from tilewright.graph import Array
from tilewright.inputs import made_up, read_inputs
from tilewright.lowering.program import Program
from tilewright.lowering.program_file import read_program
from tilewright.simulator.functional import run_program
from tilewright.simulator.limits import Limits
from tilewright.simulator.timing import NetworkModel, simulate
from tilewright.simulator.timing_report import TimingReport
from tilewright.simulator.timing_trace import write_trace
from tilewright.simulator.verifier.verdict import MEANING
from tilewright.simulator.verifier.verify import require_valid, verify
from tilewright.terminal import byte_text, print_facts, print_table, print_text, progress


def run_and_report(
    program: Path,
    inputs: Path | None,
    output: Path | None,
    seed: int,
    check: bool,
    max_instructions: int,
    console: Console,
) -> None:
    """Execute a program file and print or write its outputs."""
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise CompileError(
            f"-o '{output}': expected a file in an existing folder; choose another name"
        )
    loaded = read_program(program)
    require_valid(loaded)
    ports = api.input_ports(loaded)
    given = made_up(ports, seed) if inputs is None else read_inputs(ports, inputs)
    with progress(console, time.monotonic()) as tell:
        tell(f"running the instructions of {loaded.name} for {loaded.target.name}")
        start = time.process_time()
        limits = Limits(instructions=max_instructions)
        result = run_program(loaded, given, check=check, limits=limits)
        seconds = time.process_time() - start
    rows = [_output_row(name, array) for name, array in result.outputs.items()]
    source = f"inputs of {inputs}" if inputs else f"made-up inputs, seed {seed}"
    header = ("output", "type", "min", "max", "mean")
    print_table(console, f"outputs of {loaded.name} ({source})", header, rows, left=2)
    checked = "; no race, no read of uninitialised memory, semaphores balanced" if check else ""
    print_text(
        console,
        f"{result.report.instructions:,} instructions executed in {seconds:.1f} s{checked}",
    )
    if output is not None:
        data = npz_bytes(result.outputs)
        write_file(output, data)
        print_written(output, len(data), console)


def check_and_report(program: Path, max_instructions: int, console: Console) -> bool:
    """Verify a program file, print a verdict for each property; return whether all are proven."""
    loaded = read_program(program)
    with progress(console, time.monotonic()) as tell:
        tell(f"verifying {loaded.name} for {loaded.target.name}")
        found = verify(loaded, max_instructions=max_instructions)
    rows = [(str(f.verdict), MEANING[f.property], f.detail) for f in found.findings]
    title = f"verification of {loaded.name} for {loaded.target.name}"
    print_table(console, title, ("verdict", "property", "how, or what is wrong"), rows, left=3)
    return found.is_proven


def _output_row(name: str, array: Array) -> tuple[str, ...]:
    values = array.astype(np.float64)
    with np.errstate(all="ignore"):
        stats = (values.min(), values.max(), values.mean()) if values.size else ()
    kind = f"{array.dtype}[{','.join(map(str, array.shape))}]"
    return (name, kind, *(f"{v:.6g}" for v in stats), *("-",) * (3 - len(stats)))


def simulate_and_report(
    program: Path, trace: Path | None, network: NetworkModel, console: Console
) -> None:
    """Simulate a program file's timing and print the result."""
    if trace is not None and (trace.is_dir() or not trace.absolute().parent.is_dir()):
        raise CompileError(
            f"--trace '{trace}': expected a file in an existing folder; choose another name"
        )
    loaded = read_program(program)
    require_valid(loaded)
    with progress(console, time.monotonic()) as tell:
        tell(f"simulating the timing of {loaded.name} on {loaded.target.name}")
        timing = simulate(loaded, network=network, trace=trace is not None)
    about = [("model", loaded.name), ("target", loaded.target.name)]
    facts = about + report.program_facts(loaded, program.stat().st_size)
    print_facts(console, "program", facts)
    print_timing(timing, loaded, _predicted_cycles(loaded), console)
    if trace is not None:
        data = trace_bytes(timing)
        write_file(trace, data)
        print_written(trace, len(data), console)


def _predicted_cycles(program: Program) -> float | None:
    """Return what the compiler promised of a program, None if that is not a time."""
    if program.facts.get("objective") not in (str(Objective.LATENCY), str(Objective.THROUGHPUT)):
        return None
    try:
        return float(program.facts["cost"])
    except (KeyError, ValueError):  # facts are free text
        return None


def trace_bytes(timing: TimingReport) -> bytes:
    """Return a Chrome trace of a simulation."""
    with tempfile.TemporaryDirectory(prefix="tilewright-") as folder:
        path = Path(folder, "trace.json")
        write_trace(timing, path)
        return path.read_bytes()


def print_timing(
    timing: TimingReport, program: Program, predicted: float | None, console: Console
) -> None:
    """Print what a timing simulation found, and how far the predictions were off."""
    facts = report.simulation_facts(timing, predicted, program.scheduled_cycles)
    print_facts(console, "timing simulation", facts)
    print_table(console, "engines", report.ENGINE_HEADER, report.engine_rows(timing), left=2)
    print_table(console, "resources", report.RESOURCE_HEADER, report.resource_rows(timing))


def print_written(path: Path, size_bytes: int, console: Console) -> None:
    """Say that a file was written."""
    print_text(console, f"wrote {path} ({byte_text(size_bytes)})")
