"""The public API: load, compile, run, simulate and verify, and the list of targets.

    >>> import tilewright
    >>> sorted(tilewright.targets())[:2]
    ['corsair', 'corsair_server']
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tilewright.compiler import Compilation, CompileOptions, Progress, Stage, compile_graph
from tilewright.errors import ModelError
from tilewright.extract.plan import Objective
from tilewright.frontend import load_onnx
from tilewright.graph import Array, Graph
from tilewright.hwmodel.load import load_target, target_names
from tilewright.hwmodel.target import Target
from tilewright.inputs import check_inputs, example_inputs
from tilewright.lowering.program import Program
from tilewright.lowering.program_file import read_program, write_program
from tilewright.simulator.functional import run_program
from tilewright.simulator.timing import TimingReport
from tilewright.simulator.timing import simulate as simulate_program
from tilewright.verify import OutputCheck, compare, reference_outputs

DEFAULT_TARGET = "corsair"

ModelSource = str | os.PathLike[str] | bytes

__all__ = [
    "DEFAULT_TARGET",
    "Compilation",
    "Objective",
    "Stage",
    "compile",
    "load",
    "run",
    "save",
    "simulate",
    "target",
    "targets",
    "verify",
]


def load(model: ModelSource, *, dims: Mapping[str, int] | None = None) -> Graph:
    """Import an ONNX model.

    Args:
        model: A file or its bytes.
        dims: Sizes of symbolic input dimensions by name.

    Returns:
        The graph in core operators; `graph.notes` says what was folded or goes to the host.

    Raises:
        ModelError: The file is broken or unsafe; ShapeError when a dimension is unbound.
    """
    return load_onnx(model, dims=dims)


def compile(  # the verb that users know from every other compiler's API
    model: ModelSource | Graph,
    target: str | Target = DEFAULT_TARGET,
    *,
    dims: Mapping[str, int] | None = None,
    objective: Objective | str = Objective.LATENCY,
    without_rules: Sequence[str] = (),
    stop_after: Stage | str = Stage.LOWER,
    progress: Progress | None = None,
) -> Compilation:
    """Compile a model for a target.

    Args:
        model: An ONNX file, its bytes, or a graph from `load`.
        target: A preset's name, `mesh_RxC`, a YAML file, or a `Target`.
        dims: Sizes of symbolic input dimensions by name.
        objective: "latency", "throughput" or "energy".
        without_rules: Names of rewrite rules to leave out.
        stop_after: The last stage to run: frontend, roll, saturate, extract or lower.
        progress: Called with a line of text as the work goes on.

    Returns:
        Graph, alternatives, plan (with cost, bound and proof) and program.

    Raises:
        CompileError: With what is wrong, where, and what to change.
    """
    graph = model if isinstance(model, Graph) else load(model, dims=dims)
    machine = target if isinstance(target, Target) else load_target(target)
    options = CompileOptions(
        objective=Objective(objective),
        without_rules=tuple(without_rules),
        stop_after=Stage(stop_after),
    )
    return compile_graph(graph, machine, options, progress)


def run(
    program: Program | str | os.PathLike[str], inputs: Mapping[str, Array], *, check: bool = True
) -> dict[str, Array]:
    """Execute a program's instructions on real data and return the model's outputs by name.

    Args:
        program: A program or its file.
        inputs: An array for each model input, with the model's shape and element type.
        check: Also check for races, reads of uninitialised memory and unbalanced semaphores.

    Raises:
        ProgramError: The program is broken or breaks a rule of the machine.
    """
    return dict(run_program(_program(program), inputs, check=check).outputs)


def simulate(program: Program | str | os.PathLike[str]) -> TimingReport:
    """Simulate a program's timing: cycles, utilisation and a lower bound, resource by resource."""
    return simulate_program(_program(program))


def verify(
    model: ModelSource, compilation: Compilation, inputs: Mapping[str, Array] | None = None, *, seed: int = 0
) -> tuple[OutputCheck, ...]:
    """Run a compiled model and onnxruntime on the same inputs and compare every output.

    Args:
        model: The ONNX model that was compiled.
        compilation: What `compile` returned for it.
        inputs: Input arrays; without them seeded examples are made up.
        seed: For the examples.
    """
    if compilation.program is None:
        raise ModelError("there is no program to verify; compile up to the last stage")
    graph = compilation.graph
    given = check_inputs(graph.inputs, inputs) if inputs is not None else example_inputs(graph, seed)
    return compare(run(compilation.program, given), reference_outputs(model, given))


def save(program: Program, path: str | os.PathLike[str]) -> Path:
    """Write a program file (temporary file, then rename) and return its path."""
    write_program(program, Path(path))
    return Path(path)


def target(name_or_path: str) -> Target:
    """Return a target by preset name, `mesh_RxC` or YAML file."""
    return load_target(name_or_path)


def targets() -> tuple[str, ...]:
    """Return the names of the preset targets."""
    return target_names()


def _program(program: Program | str | os.PathLike[str]) -> Program:
    return program if isinstance(program, Program) else read_program(Path(program))
