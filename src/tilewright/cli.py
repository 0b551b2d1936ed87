"""The command line: compile, run, simulate, targets, demo."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tilewright import __version__
from tilewright.errors import CompileError

app = typer.Typer(
    name="tilewright",
    help="Compile ONNX models for spatial accelerators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Emit(StrEnum):
    """What `compile` can write."""

    plan = "plan"
    asm = "asm"
    bin = "bin"
    graph = "graph"


class ObjectiveName(StrEnum):
    """What a plan minimises."""

    latency = "latency"
    throughput = "throughput"
    energy = "energy"


class StageName(StrEnum):
    """The stages of a compilation."""

    frontend = "frontend"
    roll = "roll"
    saturate = "saturate"
    extract = "extract"
    lower = "lower"


Dims = Annotated[list[str] | None, typer.Option("--dim", help="Size of a symbolic dimension, name=value; repeatable.")]
TargetName = Annotated[str, typer.Option("--target", "-t", help="Preset name, mesh_RxC or a YAML file.")]
Inputs = Annotated[Path | None, typer.Option("--inputs", help="An .npz file with one array for each model input.")]


@app.command("compile")
def compile_command(
    model: Annotated[Path, typer.Argument(help="An ONNX model.")],
    target: TargetName = "corsair",
    dim: Dims = None,
    objective: Annotated[ObjectiveName, typer.Option(help="What to minimise.")] = ObjectiveName.latency,
    verify: Annotated[bool, typer.Option("--verify", help="Run the instructions and compare with onnxruntime.")] = False,
    simulate: Annotated[bool, typer.Option(help="Simulate the timing.")] = True,
    emit: Annotated[list[Emit] | None, typer.Option(help="What to write to the output folder; repeatable.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for what is emitted.")] = None,
    stop_after: Annotated[StageName, typer.Option(help="Stop after this stage and print it.")] = StageName.lower,
    without_rule: Annotated[list[str] | None, typer.Option(help="Leave out a rewrite rule; repeatable.")] = None,
    inputs: Inputs = None,
    seed: Annotated[int, typer.Option(help="Seed of made-up inputs.")] = 0,
) -> None:
    """Compile a model, predict and simulate its latency, and write plan and instructions."""
    from tilewright.commands import CompileRequest, compile_and_report

    request = CompileRequest(
        model=model,
        target=target,
        dims=_dims(dim),
        objective=objective.value,
        verify=verify,
        simulate=simulate,
        emit=tuple(e.value for e in emit or ()),
        output=output,
        stop_after=stop_after.value,
        without_rules=tuple(without_rule or ()),
        inputs=inputs,
        seed=seed,
    )
    if not compile_and_report(request, Console()):
        raise typer.Exit(1)


@app.command("run")
def run_command(
    program: Annotated[Path, typer.Argument(help="A program file (.twp).")],
    inputs: Inputs = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the outputs to this .npz file.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of made-up inputs.")] = 0,
    check: Annotated[bool, typer.Option(help="Check for races and uninitialised reads.")] = True,
) -> None:
    """Execute a program on real data in the functional simulator."""
    from tilewright.commands import run_and_report

    run_and_report(program, inputs, output, seed, check, Console())


@app.command("simulate")
def simulate_command(
    program: Annotated[Path, typer.Argument(help="A program file (.twp).")],
    trace: Annotated[Path | None, typer.Option(help="Write a Chrome/Perfetto trace to this file.")] = None,
) -> None:
    """Simulate a program's timing: cycles, utilisation by resource, lower bound."""
    from tilewright.commands import simulate_and_report

    simulate_and_report(program, trace, Console())


@app.command("targets")
def targets_command(
    name: Annotated[str | None, typer.Argument(help="Show one target in full.")] = None,
) -> None:
    """List the targets, or show one with the evidence for its figures."""
    from tilewright.commands import report_targets

    report_targets(name, Console())


@app.command("demo")
def demo_command(target: TargetName = "corsair") -> None:
    """Compile, run and check a real model that comes with the onnx package."""
    from tilewright.commands import CompileRequest, compile_and_report
    from tilewright.demo import demo_model

    request = CompileRequest(model=demo_model(), target=target, verify=True)
    if not compile_and_report(request, Console()):
        raise typer.Exit(1)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tilewright {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Compile ONNX models for spatial accelerators."""


def _dims(pairs: list[str] | None) -> dict[str, int]:
    """Parse --dim options."""
    found = {}
    for pair in pairs or ():
        name, _, value = pair.rpartition("=")
        if not name or not value.isdecimal() or int(value) < 1:
            raise CompileError(f"--dim '{pair}' is not name=value with a positive whole number; write e.g. --dim batch=1")
        found[name] = int(value)
    return found


def main() -> None:
    """Run the command line; errors that a user can act on become one line and exit code 1."""
    try:
        app()
    except CompileError as error:
        Console(stderr=True).print(f"[bold red]error:[/bold red] {error}", markup=True, highlight=False, soft_wrap=True)
        sys.exit(1)
