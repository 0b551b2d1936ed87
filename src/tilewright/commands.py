"""What the commands do, with progress and tables on a console."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from tilewright import api, report
from tilewright.compiler import Compilation, Stage
from tilewright.errors import CompileError
from tilewright.graph import Graph
from tilewright.hwmodel.describe import describe_target
from tilewright.hwmodel.load import load_target, target_names
from tilewright.inputs import example_inputs, read_inputs
from tilewright.lowering.assembler import disassemble
from tilewright.lowering.program import Program
from tilewright.lowering.program_file import read_program, write_program
from tilewright.simulator.functional import run_program
from tilewright.simulator.timing import simulate
from tilewright.simulator.trace import write_trace
from tilewright.verify import compare, reference_outputs

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRequest:
    """The arguments of the compile command."""

    model: Path
    target: str = api.DEFAULT_TARGET
    dims: Mapping[str, int] = field(default_factory=dict)
    objective: str = "latency"
    verify: bool = False
    simulate: bool = True
    emit: tuple[str, ...] = ()
    output: Path | None = None
    stop_after: str = "lower"
    without_rules: tuple[str, ...] = ()
    inputs: Path | None = None
    seed: int = 0


def compile_and_report(request: CompileRequest, console: Console) -> bool:
    """Compile, print what was found, write what was asked for; return whether verification passed."""
    if request.emit and request.output is None:
        raise CompileError("--emit needs a folder to write to; add -o DIR")
    with _progress(console) as tell:
        tell(f"reading {request.model.name}")
        done = api.compile(
            request.model,
            request.target,
            dims=request.dims,
            objective=request.objective,
            without_rules=request.without_rules,
            stop_after=request.stop_after,
            progress=tell,
        )
    _print_compilation(done, console, Stage(request.stop_after))
    passed = True
    if done.program is not None and done.plan is not None:
        if request.simulate:
            with _progress(console) as tell:
                tell("simulating the timing")
                timing = simulate(done.program)
            console.print(report.two_columns("timing simulation", report.simulation_rows(done.plan, timing)))
        if request.verify:
            passed = _verify(request, done, done.program, console)
    if request.output is not None:
        _write(request, done, console)
    return passed


def _print_compilation(done: Compilation, console: Console, last: Stage) -> None:
    console.print(report.two_columns("model", report.model_rows(done)))
    if last is Stage.FRONTEND:
        console.print(graph_text(done.graph), highlight=False, markup=False)
    if done.rolled is not None and last is Stage.ROLL:
        for block in done.rolled.blocks:
            console.print(f"block {block.name}", highlight=False)
            console.print(graph_text(block.graph), highlight=False, markup=False)
    if done.alternatives:
        console.print(report.saturation_table(done))
    if done.plan is not None:
        console.print(report.heavy_ops_table(done.plan))
        console.print(report.two_columns("plan", report.plan_rows(done, done.plan)))
    if done.program is not None:
        console.print(report.two_columns("program", report.program_rows(done.program)))
    console.print(report.two_columns("processor time", report.seconds_rows(done)))


def _verify(request: CompileRequest, done: Compilation, program: Program, console: Console) -> bool:
    inputs = (
        example_inputs(done.graph, request.seed)
        if request.inputs is None
        else read_inputs(done.graph, request.inputs)
    )
    with _progress(console) as tell:
        tell("running the instructions")
        start = time.process_time()
        result = run_program(program, inputs)
        seconds = time.process_time() - start
        tell("running onnxruntime")
        checks = compare(result.outputs, reference_outputs(request.model, inputs))
    rows = report.verification_rows(checks)
    rows.append(("executed", f"{result.report.instructions:,} instructions in {seconds:.1f} s"))
    console.print(report.two_columns("verification against onnxruntime", rows))
    return all(check.passed for check in checks)


def _write(request: CompileRequest, done: Compilation, console: Console) -> None:
    assert request.output is not None
    folder, stem = request.output, request.model.stem
    folder.mkdir(parents=True, exist_ok=True)
    wanted = request.emit or ("plan", "bin")
    if "graph" in wanted:
        _write_text(folder / f"{stem}.graph.txt", graph_text(done.graph), console)
    if "plan" in wanted and done.plan is not None:
        _write_text(folder / f"{stem}.plan.txt", report.plan_text(done, done.plan), console)
    if done.program is None:
        return
    if "asm" in wanted:
        _write_text(folder / f"{stem}.asm", disassemble(done.program), console)
    if "bin" in wanted:
        path = folder / f"{stem}.twp"
        write_program(done.program, path)
        console.print(f"wrote {path}")


def _write_text(path: Path, text: str, console: Console) -> None:
    """Write a text file whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, suffix=".part") as part:
        part.write(text)
    os.replace(part.name, path)
    console.print(f"wrote {path}")


def run_and_report(
    program: Path, inputs: Path | None, output: Path | None, seed: int, check: bool, console: Console
) -> None:
    """Execute a program file and print or write its outputs."""
    loaded = read_program(program)
    given = _program_inputs(loaded, inputs, seed)
    with _progress(console) as tell:
        tell("running the instructions")
        result = run_program(loaded, given, check=check)
    table = Table(title="outputs", title_justify="left", title_style="bold")
    for name in ("name", "type", "min", "max", "mean"):
        table.add_column(name)
    for name, array in result.outputs.items():
        values = array.astype(np.float64)
        stats = (values.min(), values.max(), values.mean()) if values.size else (0.0, 0.0, 0.0)
        table.add_row(name, f"{array.dtype}{list(array.shape)}", *(f"{v:.6g}" for v in stats))
    console.print(table)
    if output is not None:
        with tempfile.NamedTemporaryFile(dir=output.parent, delete=False, suffix=".part") as part:
            np.savez(part, allow_pickle=False, **result.outputs)
        os.replace(part.name, output)
        console.print(f"wrote {output}")


def _program_inputs(program: Program, path: Path | None, seed: int) -> Mapping[str, np.ndarray]:  # type: ignore[type-arg]
    ports = _interface(program)
    return example_inputs(ports, seed) if path is None else read_inputs(ports, path)


def _interface(program: Program) -> Graph:
    """Return a graph without ops that has the program's inputs."""
    from tilewright.graph import Port

    ports = tuple(Port(name=t.name, tensor=t.name, shape=t.shape, dtype=t.dtype) for t in program.inputs)
    return Graph(name=program.name, inputs=ports, outputs=(), types={}, constants={}, ops=())


def simulate_and_report(program: Path, trace: Path | None, console: Console) -> None:
    """Simulate a program file's timing and print the result."""
    loaded = read_program(program)
    with _progress(console) as tell:
        tell("simulating the timing")
        timing = simulate(loaded, trace=trace is not None)
    console.print(report.two_columns("program", report.program_rows(loaded, program.stat().st_size)))
    console.print(report.two_columns("timing simulation", report.simulation_rows(None, timing)))
    for fact, value in loaded.facts.items():
        console.print(f"{fact}: {value}", highlight=False)
    if trace is not None:
        write_trace(timing, trace)
        console.print(f"wrote {trace}")


def report_targets(name: str | None, console: Console) -> None:
    """List targets, or describe one."""
    if name is None:
        table = Table(title="targets", title_justify="left", title_style="bold")
        for column in ("name", "tiles", "SRAM", "DRAM", "clock", "what it is"):
            table.add_column(column, justify="right" if column in ("tiles", "SRAM", "DRAM", "clock") else "left")
        for preset in target_names():
            target = load_target(preset)
            table.add_row(
                preset,
                f"{target.tiles:,}",
                f"{target.sram_bytes / 1e6:,.1f} MB",
                f"{target.dram.size_bytes / 1e9:,.1f} GB",
                f"{target.clock_ghz:g} GHz",
                target.description,
            )
        console.print(table)
        console.print("also mesh_RxC, e.g. mesh_4x8, and any YAML file")
        return
    table = Table(title=name, title_justify="left", title_style="bold")
    for column in ("figure", "value", "evidence"):
        table.add_column(column)
    for row in describe_target(load_target(name)):
        table.add_row(*row)
    console.print(table)


def graph_text(graph: Graph) -> str:
    """Write a graph as plain text, one line an op."""
    lines = [f"graph {graph.name}"]
    lines += [f"input {port.name}: {graph.types.get(port.tensor, '?')}" for port in graph.inputs]
    for op in graph.ops:
        attrs = " ".join(f"{key}={value}" for key, value in sorted(op.attrs.items()))
        results = ", ".join(f"{name}: {graph.types[name]}" for name in op.outputs)
        lines.append(f"{results} = {op.kind}({', '.join(op.inputs)}) {attrs}".rstrip())
    lines += [f"output {port.name} = {port.tensor}" for port in graph.outputs]
    return "\n".join(lines) + "\n"


@contextmanager
def _progress(console: Console) -> Iterator[api.Progress]:
    """Show what is being done: a spinner on terminals, lines elsewhere."""
    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda text: status.update(text)
    else:
        yield lambda text: console.print(f"… {text}", style="dim", highlight=False, markup=False)
