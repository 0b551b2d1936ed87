"""The command line: a function for each command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tilewright import __version__
from tilewright.cli_explore import explore_app
from tilewright.cli_options import (
    Dims,
    Model,
    Objective,
    Padding,
    RuleFiles,
    ScheduleName,
    SkipRefused,
    TargetName,
    WithoutRules,
    parse_dims,
    plan_request,
)
from tilewright.errors import CompileError, RuleError
from tilewright.simulator.limits import MAX_INSTRUCTIONS

# Must be set before numpy loads: the functional simulator multiplies many small matrices, for which
# threads of the BLAS only spin.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="tilewright",
    help="Compile ONNX models for spatial accelerators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


rules_app = typer.Typer(
    help="List, check and follow rewrite and partition rules.", no_args_is_help=True
)
app.add_typer(rules_app, name="rules")
app.add_typer(explore_app, name="explore")


class NetworkChoice(StrEnum):
    """How `simulate` lets transfers share the network."""

    FLUID = "fluid"
    PACKET = "packet"


class Emit(StrEnum):
    """What `compile` can write."""

    graph = "graph"
    blocks = "blocks"
    alternatives = "alternatives"
    plan = "plan"
    asm = "asm"
    bin = "bin"
    trace = "trace"


StageName = StrEnum("StageName", ["frontend", "roll", "saturate", "extract", "lower"])
"""The stages of a compilation; "roll" and the rest are of `tilewright.compiler.Stage`."""

Inputs = Annotated[
    Path | None,
    typer.Option("--inputs", help="An .npz file with an array for each input; else made up."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of made-up inputs.")]


@app.command("compile")
def compile_command(
    model: Model,
    target: TargetName = "corsair",
    dim: Dims = None,
    shapes_only: Annotated[
        bool,
        typer.Option("--shapes-only", help="Load no weights from external files; needs none."),
    ] = False,
    objective: Objective = "latency",
    stages: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Stages of a pipeline, each on tiles of its own; auto for whatever is best.",
        ),
    ] = "",
    schedule: Annotated[
        ScheduleName,
        typer.Option(
            help="Order of instructions: the best of lists, also an optimal one, or as planned."
        ),
    ] = ScheduleName.list,
    matmul_format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT", help="Multiply floats in a block format: mxint8 or bfp16_64."
        ),
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(metavar="CYCLES|TIME", help="What an inference may take: 20000 or 50us."),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="Take the best plan that is found in this time."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Plan with constants from 'tilewright calibrate' for this target."
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Run the instructions and compare with onnxruntime.")
    ] = False,
    check_bound: Annotated[
        bool,
        typer.Option("--check-bound", help="Prove the bounds again from their certificates."),
    ] = False,
    simulate: Annotated[bool, typer.Option(help="Simulate the timing.")] = True,
    emit: Annotated[
        list[Emit] | None, typer.Option(help="What to write to the output folder; repeatable.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for plan and program."),
    ] = None,
    stop_after: Annotated[
        StageName | None, typer.Option(help="Stop after this stage and print its result.")
    ] = None,
    padding: Padding = True,
    without_rule: WithoutRules = None,
    rules: RuleFiles = None,
    skip_refused: SkipRefused = False,
    inputs: Inputs = None,
    seed: Seed = 0,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Allowed error of floats relative to max |reference|; else 1e-4."),
    ] = None,
) -> None:
    """Compile a model, predict and simulate its latency, and write plan and instructions."""
    from tilewright.commands import CompileRequest, compile_and_report
    from tilewright.rule_commands import RuleSources
    from tilewright.terminal import output_console

    request = CompileRequest(
        model=model,
        name=model.name,
        target=target,
        dims=parse_dims(dim),
        shapes_only=shapes_only,
        objective=objective,
        stages=_stages(stages),
        schedule=schedule.value,
        matmul_format=matmul_format,
        max_latency=max_latency,
        time_limit_seconds=time_limit,
        calibration=calibration,
        verify=verify,
        check_bound=check_bound,
        tolerance=tolerance,
        simulate=simulate,
        emit=tuple(dict.fromkeys(item.value for item in emit or ())),
        output=output,
        stop_after=stop_after.value if stop_after else None,
        without_rules=tuple(without_rule or ()),
        pads=padding,
        rule_sources=RuleSources(files=tuple(rules or ()), skip_refused=skip_refused),
        inputs=inputs,
        seed=seed,
    )
    if not compile_and_report(request, output_console()):
        raise typer.Exit(EXIT_ERROR)


@app.command("run")
def run_command(
    program: Annotated[Path, typer.Argument(help="A program file (.twp).")],
    inputs: Inputs = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the outputs as .npz."),
    ] = None,
    seed: Seed = 0,
    check: Annotated[bool, typer.Option(help="Check for races and uninitialised reads.")] = True,
    max_instructions: Annotated[
        int, typer.Option(min=0, metavar="N", help="Unrolled instructions to execute at most.")
    ] = MAX_INSTRUCTIONS,
) -> None:
    """Execute a program on real data in the functional simulator."""
    from tilewright.program_commands import run_and_report
    from tilewright.terminal import output_console

    run_and_report(program, inputs, output, seed, check, max_instructions, output_console())


@app.command("simulate")
def simulate_command(
    program: Annotated[Path, typer.Argument(help="A program file (.twp).")],
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a Chrome/Perfetto trace."),
    ] = None,
    network: Annotated[
        NetworkChoice,
        typer.Option(help="Share links fluidly, or send packets through finite buffers (slower)."),
    ] = NetworkChoice.FLUID,
) -> None:
    """Simulate a program's timing: cycles, utilisation by resource, lower bound."""
    from tilewright.program_commands import simulate_and_report
    from tilewright.simulator.timing import NetworkModel
    from tilewright.terminal import output_console

    simulate_and_report(program, trace, NetworkModel(network.value), output_console())


@app.command("check")
def check_command(
    program: Annotated[Path, typer.Argument(help="A program file (.twp).")],
    max_instructions: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Unrolled instructions whose accesses to compare."),
    ] = MAX_INSTRUCTIONS,
) -> None:
    """Verify a program without running it: each property proven, refuted with the place, or open.

    Exit code 0 only if everything is proven.
    """
    from tilewright.program_commands import check_and_report
    from tilewright.terminal import output_console

    if not check_and_report(program, max_instructions, output_console()):
        raise typer.Exit(EXIT_ERROR)


@app.command("allocate")
def allocate_command(
    file: Annotated[Path, typer.Argument(help="Buffers as CSV: id,lower,upper,size ...")],
    capacity: Annotated[int, typer.Option(min=0, metavar="BYTES", help="Size of the memory.")],
    alignment: Annotated[
        int, typer.Option(min=1, metavar="BYTES", help="Every address is a multiple of it.")
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the CSV with offsets there."),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Give up after this long.")
    ] = 60.0,
) -> None:
    """Give buffers of known live ranges addresses in a memory (CSV of google/minimalloc)."""
    from tilewright.allocate_command import allocate_and_report
    from tilewright.terminal import output_console

    allocate_and_report(file, capacity, alignment, output, time_limit, output_console())


@app.command("targets")
def targets_command(
    name: Annotated[str | None, typer.Argument(help="Show this target in full.")] = None,
) -> None:
    """List the targets, or show one with the evidence for its figures."""
    from tilewright.target_command import report_targets
    from tilewright.terminal import output_console

    report_targets(name, output_console())


@app.command("calibrate")
def calibrate_command(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Write the constants there.")
    ],
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="MODEL...", help="ONNX models to measure, two or more; else built-in programs."
        ),
    ] = None,
    target: TargetName = "corsair",
    dim: Dims = None,
    plans: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Plans of each program to try.")
    ] = 6,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of what makes plans differ.")
    ] = 0,
    schedule: Annotated[
        ScheduleName, typer.Option(help="Order of instructions, as in compilations to come.")
    ] = ScheduleName.list,
) -> None:
    """Fit constants of the cost model to simulated plans; a compile uses them with --calibration."""
    from tilewright.calibrate_command import CalibrateRequest, calibrate_and_report
    from tilewright.terminal import output_console

    request = CalibrateRequest(
        target=target,
        models=tuple(models or ()),
        dims=parse_dims(dim),
        plans=plans,
        seed=seed,
        schedule=schedule.value,
        output=output,
    )
    calibrate_and_report(request, output_console())


@app.command("assign")
def assign_command(
    instance: Annotated[
        Path, typer.Argument(help="An instance of the IOPDDL contest (.json or .json.gz).")
    ],
    time_limit: Annotated[
        float,
        typer.Option(
            "--time-limit", metavar="S", min=1.0, max=1e6, help="Wall time in seconds, in all."
        ),
    ] = 300.0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the strategies; else print."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the local search.")] = 1,
) -> None:
    """Choose a strategy for every node of a large assignment problem under a memory limit."""
    from tilewright.assign_command import assign_and_report
    from tilewright.terminal import output_console

    assign_and_report(instance, time_limit, output, seed, output_console())


@app.command("demo")
def demo_command(
    target: TargetName = "corsair",
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write what is printed as an SVG picture."),
    ] = None,
) -> None:
    """Compile, simulate, run and check a convolutional network; needs no download."""
    from tilewright.commands import CompileRequest, compile_and_report
    from tilewright.demo import DEMO_TEXT, demo_model
    from tilewright.terminal import output_console, print_text, write_picture

    console = output_console(record=picture is not None)
    print_text(console, DEMO_TEXT)
    request = CompileRequest(model=demo_model(), name="squeezenet", target=target, verify=True)
    passed = compile_and_report(request, console)
    if picture is not None:
        write_picture(console, "./tw demo", picture)
    if not passed:
        raise typer.Exit(EXIT_ERROR)


@rules_app.command("list")
def rules_list_command(rules: RuleFiles = None) -> None:
    """List every rule with its equation."""
    from tilewright.rule_commands import RuleSources, report_rules
    from tilewright.terminal import output_console

    report_rules(RuleSources(files=tuple(rules or ())), output_console())


@rules_app.command("check")
def rules_check_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RULE...", help="Rules or rule sets; else those of --rules, or all."
        ),
    ] = None,
    rules: RuleFiles = None,
    prove: Annotated[
        bool,
        typer.Option(
            "--prove",
            help="Also prove rules of algebra and fusion on small tensors, for all real entries (z3).",
        ),
    ] = False,
) -> None:
    """Check that rules are sound; show the smallest counterexample of those that are not."""
    from tilewright.rule_commands import RuleSources, check_and_report
    from tilewright.terminal import output_console

    sources = RuleSources(files=tuple(rules or ()))
    if not check_and_report(tuple(names or ()), sources, output_console(), prove=prove):
        raise typer.Exit(EXIT_ERROR)


@rules_app.command("stats")
def rules_stats_command(
    model: Model,
    target: TargetName = "corsair",
    dim: Dims = None,
    objective: Objective = "latency",
    rules: RuleFiles = None,
    skip_refused: SkipRefused = False,
    without_rule: WithoutRules = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="RULE", help="Look at this rule or family; repeatable."),
    ] = None,
    worth: Annotated[
        bool, typer.Option(help="Plan again without each rule that the plan rests on.")
    ] = True,
) -> None:
    """Show what each rule did for a model, and what the plan would lose without it."""
    from tilewright.rule_commands import stats_and_report
    from tilewright.terminal import output_console

    request = plan_request(model, target, dim, objective, rules, skip_refused, without_rule)
    stats_and_report(request, worth, output_console(), tuple(only or ()))


@rules_app.command("explain")
def rules_explain_command(
    model: Model,
    tensor: Annotated[str, typer.Option(metavar="NAME", help="A tensor that the model computes.")],
    target: TargetName = "corsair",
    dim: Dims = None,
    objective: Objective = "latency",
    rules: RuleFiles = None,
    skip_refused: SkipRefused = False,
    without_rule: WithoutRules = None,
) -> None:
    """Show which rules connect a tensor's term in the model with the one that the plan computes."""
    from tilewright.rule_commands import explain_and_report
    from tilewright.terminal import output_console

    request = plan_request(model, target, dim, objective, rules, skip_refused, without_rule)
    explain_and_report(request, tensor, output_console())


@rules_app.command("import")
def rules_import_command(
    file: Annotated[
        Path, typer.Argument(help="TENSAT's rule text, or TASO's graph_subst.pb (a name in .pb).")
    ],
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also print each rule, and what its guard keeps out.")
    ] = False,
) -> None:
    """Judge the rules of a file of TASO or TENSAT; find the guards that they lack."""
    from tilewright.import_listing import import_command

    raise typer.Exit(import_command(file, verbose=verbose))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tilewright {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Compile ONNX models for spatial accelerators."""


def _stages(text: str) -> int | None:
    """Read the option --stages: a number, auto (0), or nothing (None)."""
    if text in ("", "auto"):
        return 0 if text else None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"found '{text}', expected a number of at least 1, or auto")
    return int(text)


@app.command("extract")
def extract_command(
    egraph: Annotated[Path, typer.Argument(help="A serialized e-graph (JSON).")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Else stdout.")
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which the best choice so far is taken.")
    ] = 60.0,
) -> None:
    """Choose the cheapest e-nodes of any e-graph, with a bound; the choice as JSON."""
    from tilewright.extract_command import extract_and_report

    extract_and_report(egraph, output, time_limit)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what goes wrong becomes one line on stderr and an exit code.

    0: done; 1: an error, or outputs that differ from the reference; 2: wrong usage; 130: interrupted.
    """
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: Sequence[str] | None) -> int:
    try:
        result = app(arguments, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except RuleError as error:
        from tilewright.terminal import clean

        # a counterexample has lines of its own; nothing in it comes from a model
        first, *rest = str(error).splitlines()
        code = _fail(first, EXIT_ERROR)
        print(*(f"{clean(line)}\n" for line in rest), sep="", end="", file=sys.stderr)
        return code
    except CompileError as error:
        return _fail(str(error), EXIT_ERROR)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # the reader has left; what is still buffered must not raise again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except MemoryError:
        return _fail("out of memory; choose smaller --dim values or more memory", EXIT_ERROR)
    except Exception as error:
        # typer brings its own copy of click, whose usage errors have no public name
        if not hasattr(error, "format_message"):
            raise
        return _usage_error(error)


def _usage_error(error: Any) -> int:
    command = error.ctx.command_path if getattr(error, "ctx", None) else "tilewright"
    message = " ".join(error.format_message().split()).replace("Value error, ", "").rstrip(".")
    return _fail(f"{message[:1].lower()}{message[1:]}; see '{command} --help'", EXIT_USAGE)


def _fail(message: str, code: int) -> int:
    from tilewright.terminal import clean

    print(f"error: {clean(message)}", file=sys.stderr)
    return code
