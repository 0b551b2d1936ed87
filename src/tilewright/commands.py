"""What the commands do, with progress and tables on a console."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tilewright import api, report
from tilewright.arrays import read_arrays, write_file
from tilewright.bound_check import check_bound
from tilewright.compiler import Compilation, Stage
from tilewright.errors import CompileError
from tilewright.inputs import example_inputs, read_inputs
from tilewright.listings import alternatives_text, blocks_text, graph_text, plan_text, program_text
from tilewright.lowering.assembler import disassemble
from tilewright.lowering.program import Program
from tilewright.lowering.program_file import program_bytes
from tilewright.program_commands import print_timing, print_written, trace_bytes
from tilewright.rounding import rounds_somewhere
from tilewright.rule_commands import RuleSources, print_refusals
from tilewright.rules.limits import slow_rules
from tilewright.simulator.functional import run_program
from tilewright.simulator.timing import interval_cycles, simulate
from tilewright.simulator.timing_report import TimingReport
from tilewright.stage_report import pipeline_facts
from tilewright.terminal import clean, print_facts, print_table, print_text, progress
from tilewright.tolerances import allowed_errors
from tilewright.verification import OutputCheck, compare, reference_outputs

SHOWN_LINES = 400
"""Lines of a stage's result that a console gets; files get all."""
SHOWN_INSTRUCTIONS = 40

EMITTED_AFTER: Mapping[str, Stage] = {
    "graph": Stage.FRONTEND,
    "blocks": Stage.ROLL,
    "alternatives": Stage.SATURATE,
    "plan": Stage.EXTRACT,
    "asm": Stage.LOWER,
    "bin": Stage.LOWER,
    "trace": Stage.LOWER,
}
"""What can be emitted, and the stage that makes it."""

_DEFAULT_EMIT = ("plan", "bin")
_ORDER = tuple(Stage)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRequest:
    """The arguments of the compile command.

    With a `stop_after` the text of that stage is printed, too.
    """

    model: Path | bytes
    name: str
    target: str = api.DEFAULT_TARGET
    dims: Mapping[str, int] = field(default_factory=dict)
    shapes_only: bool = False
    objective: str = "latency"
    stages: int | None = None
    schedule: str = "list"
    matmul_format: str | None = None
    max_latency: str | None = None
    time_limit_seconds: float | None = None
    calibration: Path | None = None
    verify: bool = False
    check_bound: bool = False
    tolerance: float | None = None
    simulate: bool = True
    emit: tuple[str, ...] = ()
    output: Path | None = None
    stop_after: str | None = None
    without_rules: tuple[str, ...] = ()
    pads: bool = True
    rule_sources: RuleSources = field(default_factory=RuleSources)
    inputs: Path | None = None
    seed: int = 0

    @property
    def last(self) -> Stage:
        """The last stage to run."""
        return Stage(self.stop_after or Stage.LOWER)


def compile_and_report(request: CompileRequest, console: Console) -> bool:
    """Compile, print what was found, write what was asked for; return whether verification passed.

    Nothing is written if an error occurs or an output differs.
    """
    _check_request(request)
    begin = time.monotonic()
    with progress(console, begin) as tell:
        admission = request.rule_sources.admit(tell)
        tell(f"reading {request.name}")
        done = api.compile(
            request.model,
            request.target,
            dims=request.dims,
            weights=not request.shapes_only,
            objective=request.objective,
            stages=request.stages,
            schedule=request.schedule,
            matmul_format=request.matmul_format,
            max_latency=request.max_latency,
            time_limit_seconds=request.time_limit_seconds,
            calibration=request.calibration,
            without_rules=request.without_rules,
            pads=request.pads,
            rules=admission.rules,
            stop_after=request.last,
            progress=tell,
        )
    print_refusals(admission.refused, console)
    _print_front(done, console)
    seconds = dict(done.seconds)
    timing: TimingReport | None = None
    if done.program is not None and (request.simulate or "trace" in request.emit):
        with progress(console, begin) as tell, _timed(seconds, "timing simulation"):
            tell("simulating the timing")
            timing = simulate(done.program, trace="trace" in request.emit)
    _print_plan(done, timing, console)
    if request.check_bound:
        with progress(console, begin) as tell, _timed(seconds, "bound check"):
            tell("computing the bound again")
            bounded = check_bound(done)
        for what in bounded:
            print_text(
                console,
                f"bound of {what}: follows from its certificate, checked apart from the search",
            )
    if request.stop_after is not None:
        _print_stage(done, request.last, console)
    checks: tuple[OutputCheck, ...] | None = None
    if request.verify and done.program is not None:
        checks = _verify(request, done, done.program, seconds, console, begin)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT_BYTES
    print_facts(console, "processor time", report.seconds_facts(seconds, peak_bytes))
    passed = checks is None or all(check.passed for check in checks)
    if request.output is not None and passed:
        _write(request, done, timing, console)
    if checks is not None:
        style = "bold green" if passed else "bold red"
        console.print()
        console.print(Text(clean(report.verdict(checks)), style=style), soft_wrap=True)
    return passed


_RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


def _check_request(request: CompileRequest) -> None:
    """Refuse what cannot end well before the work begins."""
    if request.emit and request.output is None:
        raise CompileError("--emit needs a folder to write to; add -o DIR")
    for name in request.emit:
        if _ORDER.index(EMITTED_AFTER[name]) > _ORDER.index(request.last):
            raise CompileError(
                f"--emit {name} needs stage {EMITTED_AFTER[name]}, --stop-after is {request.last}; "
                "drop one of the two"
            )
    if request.check_bound:
        _check_bound_request(request)
    if request.verify and request.last is not Stage.LOWER:
        raise CompileError(
            f"--verify runs the program, --stop-after {request.last} makes none; drop one of the two"
        )
    if request.shapes_only and request.last is Stage.LOWER:
        raise CompileError(
            "--shapes-only loads no weights, of which a program is made; add --stop-after extract"
        )
    if (request.inputs is not None or request.tolerance is not None) and not request.verify:
        raise CompileError("--inputs and --tolerance are for the verification; add --verify")
    if request.tolerance is not None and not 0 <= request.tolerance < float("inf"):
        raise CompileError(f"--tolerance is {request.tolerance}, expected a number of at least 0")
    if request.inputs is not None:
        read_arrays(request.inputs)
    if request.output is not None:
        check_folder(request.output)


def _check_bound_request(request: CompileRequest) -> None:
    if _ORDER.index(request.last) < _ORDER.index(Stage.EXTRACT):
        raise CompileError(
            f"--check-bound is of a plan, --stop-after {request.last} makes none; drop one of the two"
        )


def check_folder(folder: Path) -> None:
    """Refuse a folder for results that cannot be written to.

    Raises:
        CompileError: It is a file, or not writable.
    """
    if folder.exists() and not folder.is_dir():
        raise CompileError(f"-o '{folder}' is a file, expected a folder; choose another name")
    nearest = next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path("/"))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise CompileError(f"-o '{folder}': cannot write in '{nearest}'; choose another folder")


def _print_front(done: Compilation, console: Console) -> None:
    facts = report.model_facts(done.graph) + report.target_facts(done) + report.block_facts(done)
    print_facts(console, "model and target", facts)
    if done.alternatives:
        rows = report.saturation_rows(done)
        print_table(console, "e-graph", report.SATURATION_HEADER, rows)
        notes = sorted({note for found in done.alternatives for note in found.notes})
        notes += map(str, slow_rules(done.alternatives))
        print_text(console, "\n".join(f"note: {note}" for note in notes))


def _print_plan(done: Compilation, timing: TimingReport | None, console: Console) -> None:
    plan = done.plan
    if plan is None:
        return
    stages = () if done.pipeline is None else done.pipeline.stages
    is_divided = done.pipeline is not None and done.pipeline.is_divided
    parts = [(f"stage {n}", stage.plan, None) for n, stage in enumerate(stages, 1)]
    for name, part, timed in parts if is_divided else [("where the time goes", plan, timing)]:
        header, rows, left = report.op_table(part, timed, console.width)
        title = f"{name}: the {len(rows)} dearest of {len(part.ops)} ops"
        print_table(console, title, header, rows, left=left)
    title = f"plan for least {plan.objective}" + (" on all tiles: not taken" if is_divided else "")
    print_facts(console, title, report.plan_facts(done, plan))
    if done.pipeline is not None:
        simulated = (
            None if timing is None or done.program is None else interval_cycles(done.program)
        )
        facts = pipeline_facts(done.pipeline, done.target, simulated)
        print_facts(console, "stages", facts)
    if done.program is not None:
        print_facts(console, "program", report.program_facts(done.program))
    if timing is not None and done.program is not None:
        is_time = plan.objective.is_time
        predicted = max(done.pipeline.ends()) if done.pipeline and is_divided else plan.cost
        print_timing(timing, done.program, predicted if is_time else None, console)


def _print_stage(done: Compilation, last: Stage, console: Console) -> None:
    """Print the last stage's result in full, up to a limit."""
    if last is Stage.LOWER:
        assert done.program is not None, "lowering makes a program"
        text = program_text(done.program, SHOWN_INSTRUCTIONS)
    else:
        wanted = next(name for name, stage in EMITTED_AFTER.items() if stage is last)
        text = _stage_text(done, wanted)
    console.print()
    print_text(console, text, SHOWN_LINES)


def _stage_text(done: Compilation, what: str) -> str:
    """Return the text of a stage's result."""
    if what == "graph":
        return graph_text(done.graph)
    assert done.rolled is not None, f"{what} comes after rolling"
    if what == "blocks":
        return blocks_text(done.rolled)
    if what == "alternatives":
        return alternatives_text(tuple(b.name for b in done.rolled.blocks), done.alternatives)
    assert done.plan is not None, f"{what} comes after extraction"
    if done.pipeline is not None and done.pipeline.is_divided:
        return "\n".join(plan_text(stage.plan) for stage in done.pipeline.stages)
    return plan_text(done.plan)


def _verify(
    request: CompileRequest,
    done: Compilation,
    program: Program,
    seconds: dict[str, float],
    console: Console,
    begin: float,
) -> tuple[OutputCheck, ...]:
    inputs = (
        example_inputs(done.graph, request.seed)
        if request.inputs is None
        else read_inputs(done.graph.inputs, request.inputs)
    )
    with progress(console, begin) as tell:
        tell("running the instructions")
        with _timed(seconds, "functional run"):
            result = run_program(program, inputs)
        tell("running onnxruntime")
        with _timed(seconds, "onnxruntime"):
            expected = reference_outputs(request.model, inputs)
        tolerance: float | Mapping[str, float] | None = request.tolerance
        if tolerance is None:
            tolerance = allowed_errors(request.model, done.target, done.graph, inputs, expected)
        checks = compare(result.outputs, expected, tolerance)
    source = (
        f"inputs of {request.inputs}" if request.inputs else f"made-up inputs, seed {request.seed}"
    )
    title = f"verification against onnxruntime ({source})"
    rows = report.verification_rows(checks)
    print_table(console, title, report.VERIFICATION_HEADER, rows, left=3)
    text = f"{result.report.instructions:,} instructions executed, each on all tiles of its group"
    if request.tolerance is None and rounds_somewhere(done.graph):
        text += (
            "\nthe model rounds values on the way: allowed is twice what onnxruntime's own outputs move by "
            "when its weights change by a millionth"
        )
    hazards = result.report.hazards
    if hazards is not None:
        text += "\nno race, no read of uninitialised memory, semaphores balanced"
    print_text(console, text)
    return checks


def _write(
    request: CompileRequest, done: Compilation, timing: TimingReport | None, console: Console
) -> None:
    """Write the files; their contents are complete before the first is touched."""
    assert request.output is not None, "the caller checks"
    folder, stem = request.output, Path(request.name).stem
    wanted = request.emit or tuple(
        name
        for name in _DEFAULT_EMIT
        if _ORDER.index(EMITTED_AFTER[name]) <= _ORDER.index(request.last)
    )
    files: dict[str, bytes] = {}
    for name in wanted:
        if name == "bin":
            assert done.program is not None, "the request was checked"
            files[f"{stem}.twp"] = program_bytes(done.program)
        elif name == "asm":
            assert done.program is not None, "the request was checked"
            files[f"{stem}.asm"] = disassemble(done.program).encode()
        elif name == "trace":
            assert timing is not None, "a trace makes the simulation run"
            files[f"{stem}.trace.json"] = trace_bytes(timing)
        else:
            files[f"{stem}.{name}.txt"] = _stage_text(done, name).encode()
    make_folder(folder)
    console.print()
    for name, data in files.items():
        write_file(folder / name, data)
        print_written(folder / name, len(data), console)


def make_folder(folder: Path) -> None:
    """Make a folder for results, with those that it is in.

    Raises:
        CompileError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompileError(
            f"-o '{folder}' cannot be made: {error.strerror or error}; choose another folder"
        ) from None


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Add the processor time of a piece of work."""
    start = time.process_time()
    yield
    seconds[what] = seconds.get(what, 0.0) + time.process_time() - start
