"""The public API: load, compile, run, simulate and verify, and the list of targets.

>>> import tilewright
>>> tilewright.targets()[:2]
('blackhole_p150', 'corsair')
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from tilewright.calibration import Calibration, check_calibration, read_calibration
from tilewright.capacity import check_capacity
from tilewright.compiler import (
    Compilation,
    CompileOptions,
    Progress,
    Stage,
    available_rules,
    compile_graph,
)
from tilewright.errors import CompileError, ProgramError
from tilewright.exploring import Session, check_added_up
from tilewright.extract.front import check_points
from tilewright.extract.front_planner import check_metrics
from tilewright.extract.objective import (
    AnyMetric,
    Metric,
    Objective,
    parse_metric,
    parse_objective,
    single,
)
from tilewright.extract.user_metric import UserMetric
from tilewright.frontend import load_onnx
from tilewright.fronts import Front, find_front
from tilewright.graph import Array, Graph, Port
from tilewright.hwmodel.block_format import with_block_format
from tilewright.hwmodel.cost import Occupancy
from tilewright.hwmodel.load import load_target, target_names
from tilewright.hwmodel.target import Target
from tilewright.inputs import check_inputs, example_inputs
from tilewright.lowering.program import Program
from tilewright.lowering.program_file import read_program, write_program
from tilewright.lowering.scheduled import Scheduling
from tilewright.rules import admission
from tilewright.rules.admission import Admission
from tilewright.rules.user_rules import UserRules
from tilewright.simulator.functional import run_program
from tilewright.simulator.timing import NetworkModel, TimingReport
from tilewright.simulator.timing import simulate as simulate_program
from tilewright.simulator.verifier.verdict import Verification
from tilewright.simulator.verifier.verify import require_valid
from tilewright.simulator.verifier.verify import verify as verify_program
from tilewright.tolerances import allowed_errors
from tilewright.verification import OutputCheck, compare, reference_outputs

DEFAULT_TARGET = "corsair"

ModelSource = str | os.PathLike[str] | bytes

__all__ = [
    "DEFAULT_TARGET",
    "Compilation",
    "Front",
    "Objective",
    "Occupancy",
    "Session",
    "Stage",
    "UserMetric",
    "Verification",
    "check",
    "compile",
    "explore",
    "front",
    "input_ports",
    "load",
    "load_rules",
    "run",
    "save",
    "simulate",
    "target",
    "targets",
    "verify",
]


def load(
    model: ModelSource, *, dims: Mapping[str, int] | None = None, weights: bool = True
) -> Graph:
    """Import an ONNX model.

    Args:
        model: A file or its bytes.
        dims: Sizes of symbolic input dimensions by name.
        weights: Whether to load weights from external data files. Without them, which need not be
            there, a compilation goes up to the plan; what needs a value says which.

    Returns:
        The graph in core operators; `graph.notes` says what was folded or goes to the host.

    Raises:
        ModelError: The file is broken or unsafe; ShapeError when a dimension is unbound.
    """
    return load_onnx(model, dims=dims, weights=weights)


def load_rules(
    *paths: str | os.PathLike[str],
    installed: bool = False,
    skip_refused: bool = False,
    progress: Progress | None = None,
) -> Admission:
    """Load rules from files and check each of them.

    Args:
        paths: Python files that hold rule sets.
        installed: Also take rules of installed packages (entry points of group "tilewright.rules").
        skip_refused: Go on without rules that fail their check and files that cannot be loaded;
            otherwise the first failure raises.
        progress: Called with a line of text before each check.

    Returns:
        The rules that may run, for `compile`, and what was refused with the reason.

    Raises:
        RuleError: With the place in the file, what is wrong and what to change.
    """
    loaded = admission.load(map(Path, paths), installed=installed, skip_refused=skip_refused)
    admitted = admission.admit(loaded.rules, skip_refused=skip_refused, tell=progress)
    return replace(admitted, refused=(*loaded.refused, *admitted.refused))


def compile(  # the verb that users know from every other compiler's API
    model: ModelSource | Graph,
    target: str | Target = DEFAULT_TARGET,
    *,
    dims: Mapping[str, int] | None = None,
    weights: bool = True,
    objective: Objective | AnyMetric | str = Objective.LATENCY,
    stages: int | None = None,
    matmul_format: str | None = None,
    max_latency: float | str | None = None,
    time_limit_seconds: float | None = None,
    without_rules: Sequence[str] = (),
    rules: UserRules | None = None,
    pads: bool = True,
    schedule: Scheduling | str = Scheduling.LIST,
    calibration: Calibration | str | os.PathLike[str] | None = None,
    stop_after: Stage | str = Stage.LOWER,
    progress: Progress | None = None,
) -> Compilation:
    """Compile a model for a target.

    Args:
        model: An ONNX file, its bytes, or a graph from `load`.
        target: A preset's name, `mesh_RxC`, a YAML file, or a `Target`.
        dims: Sizes of symbolic input dimensions by name.
        weights: As in `load`; without them the last stage must be extract or an earlier one.
        objective: "latency", "throughput", "energy" or "sram" (bytes of a tile), or weights of several,
            such as "latency:0.7,energy:0.3", see `tilewright.extract.objective`; or a `UserMetric`.
        stages: Stages of a pipeline on disjoint tiles: their number, 0 for whatever is best, None for that
            where the objective is throughput, and one otherwise.
        matmul_format: Block format in which the matrix units multiply floats, "mxint8" or "bfp16_64"; None
            for what the target says.
        max_latency: What an inference may take: cycles, or a time such as "50us".
        time_limit_seconds: Wall time of planning, after which the best plan found is taken, with the bound
            that is known by then; steps that cannot be cut short may end a little later. None: no limit.
        without_rules: Names of rules or of whole rule sets to leave out.
        rules: More rules, from `load_rules`.
        pads: Whether rows may be padded for the mesh to divide them: what makes the cheapest plan is taken,
            and `Compilation.paddings` says what else there was, see `tilewright.padding_choice`.
        schedule: Orders of the instructions to try besides the plan's: those of "list" scheduling, also an
            "exact" one where the program is short, or none ("program").
        calibration: Constants of the cost model to plan with, or the file that `tilewright calibrate` wrote
            for this target; None for the cost model as it is.
        stop_after: The last stage to run: frontend, roll, saturate, extract or lower.
        progress: Called with a line of text as the work goes on.

    Returns:
        Graph, alternatives, plan (with cost, bound and proof) and program.

    Raises:
        CompileError: With what is wrong, where, and what to change.
    """
    machine = target if isinstance(target, Target) else load_target(target)
    if matmul_format is not None:
        machine = with_block_format(machine, matmul_format)
    options = CompileOptions(
        objective=_objective(objective),
        stages=stages,
        max_latency=max_latency,
        time_limit_seconds=time_limit_seconds,
        without_rules=tuple(without_rules),
        user_rules=rules or UserRules(),
        pads=pads,
        stop_after=_choice(Stage, stop_after, "stage"),
        scheduling=_choice(Scheduling, schedule, "schedule"),
        calibration=None if calibration is None else _calibration(calibration, machine),
    )
    _check_names(options)
    start = time.process_time()
    graph = model if isinstance(model, Graph) else load(model, dims=dims, weights=weights)
    seconds = {str(Stage.FRONTEND): time.process_time() - start}
    if options.stop_after in (Stage.EXTRACT, Stage.LOWER):
        check_capacity(graph, machine)
    done = compile_graph(graph, machine, options, progress)
    return replace(done, seconds=MappingProxyType(seconds | dict(done.seconds)))


def explore(
    model: ModelSource | Graph,
    target: str | Target = DEFAULT_TARGET,
    *,
    dims: Mapping[str, int] | None = None,
    weights: bool = True,
    objective: Objective | AnyMetric | str = Objective.LATENCY,
    without_rules: Sequence[str] = (),
    rules: UserRules | None = None,
    pads: bool = True,
    progress: Progress | None = None,
) -> Session:
    """Plan a model and keep what that took, for questions about alternatives.

    Args:
        model: An ONNX file, its bytes, or a graph from `load`.
        target: A preset's name, `mesh_RxC`, a YAML file, or a `Target`.
        dims: Sizes of symbolic input dimensions by name.
        weights: As in `load`; without them plans cannot be lowered.
        objective: "latency", "throughput", "energy" or "sram" (bytes of a tile), or weights of several,
            such as "latency:0.7,energy:0.3", see `tilewright.extract.objective`; or a `UserMetric`.
        without_rules: Names of rules or of whole rule sets to leave out.
        rules: More rules, from `load_rules`.
        pads: Whether rows may be padded for the mesh to divide them, as in `compile`.
        progress: Called with a line of text as the work goes on.

    Returns:
        The session: `alternatives`, `explain`, `diff`, `force`, `forbid`, `what_if`, and of stages `divide`
        and `explain_cut`.

    Raises:
        CompileError: With what is wrong, where, and what to change.
    """
    wanted = _objective(objective)
    check_added_up(wanted)
    done = compile(
        model,
        target,
        dims=dims,
        weights=weights,
        objective=wanted,
        without_rules=without_rules,
        rules=rules,
        pads=pads,
        stop_after=Stage.SATURATE,
        progress=progress,
    )
    check_capacity(done.graph, done.target)
    return Session(done, progress)


def front(
    model: ModelSource | Graph,
    target: str | Target = DEFAULT_TARGET,
    objectives: Sequence[AnyMetric | str] = ("latency", "energy"),
    *,
    points: int = 8,
    dims: Mapping[str, int] | None = None,
    weights: bool = True,
    without_rules: Sequence[str] = (),
    rules: UserRules | None = None,
    pads: bool = True,
    progress: Progress | None = None,
) -> Front:
    """Find plans of which none is better than another in every metric: a Pareto front.

    The model is saturated and its options are priced once for all of them, with the padding that is the
    cheapest in the first objective that adds up.

    Args:
        model: An ONNX file, its bytes, or a graph from `load`.
        target: A preset's name, `mesh_RxC`, a YAML file, or a `Target`.
        objectives: Two or three of "latency", "throughput", "energy", "sram" and metrics of users.
        points: Plans wanted at most.
        dims: Sizes of symbolic input dimensions by name.
        weights: As in `load`; without them plans cannot be lowered.
        without_rules: Names of rules or of whole rule sets to leave out.
        rules: More rules, from `load_rules`.
        pads: Whether rows may be padded for the mesh to divide them, as in `compile`.
        progress: Called with a line of text as the work goes on.

    Returns:
        The front: `points`, each with plan, amounts, bound and proof, `rooms` for what may lie between
        them, and `lower` for the program of one.

    Raises:
        CompileError: With what is wrong, where, and what to change.
    """
    metrics = check_metrics(tuple(map(_metric, objectives)))
    check_points(points)
    done = compile(
        model,
        target,
        dims=dims,
        weights=weights,
        objective=next(metric for metric in metrics if metric is not Metric.SRAM),
        without_rules=without_rules,
        rules=rules,
        pads=pads,
        stop_after=Stage.SATURATE,
        progress=progress,
    )
    check_capacity(done.graph, done.target)
    return find_front(done, metrics, points, progress)


def run(
    program: Program | str | os.PathLike[str], inputs: Mapping[str, Array], *, check: bool = True
) -> dict[str, Array]:
    """Execute a program's instructions on real data and return the model's outputs by name.

    Args:
        program: A program or its file, which holds all that is needed.
        inputs: An array for each model input, with the model's shape and element type.
        check: Also check for races, reads of uninitialised memory and unbalanced semaphores.

    Raises:
        ProgramError: The program is broken or breaks a rule of the machine.
    """
    loaded = _trusted(program)
    given = check_inputs(input_ports(loaded), inputs)
    return dict(run_program(loaded, given, check=check).outputs)


def simulate(
    program: Program | str | os.PathLike[str],
    *,
    network: Literal["fluid", "packet"] = "fluid",
) -> TimingReport:
    """Simulate a program's timing: cycles, utilisation and a lower bound, resource by resource.

    Args:
        program: The program or its file.
        network: "fluid": transfers share links fairly; "packet": cut-through routers with finite buffers,
            tile by tile, which takes longer.

    Raises:
        ProgramError: The program is broken.
        CompileError: There is no such network.
    """
    model = _choice(NetworkModel, network, "network")
    return simulate_program(_trusted(program), network=model)


def check(program: Program | str | os.PathLike[str]) -> Verification:
    """Verify a program without running it.

    Returns:
        A finding for each property: proven, refuted with the place, or not proven with the reason.

    Raises:
        ProgramError: The file cannot be read as a program.
    """
    return verify_program(_program(program))


def verify(
    model: ModelSource,
    compilation: Compilation,
    inputs: Mapping[str, Array] | None = None,
    *,
    seed: int = 0,
    tolerance: float | Mapping[str, float] | None = None,
) -> tuple[OutputCheck, ...]:
    """Run a compiled model and onnxruntime on the same inputs and compare every output.

    Args:
        model: The ONNX model that was compiled.
        compilation: What `compile` returned for it.
        inputs: Input arrays; without them seeded examples are made up.
        seed: For the examples.
        tolerance: Largest error of float outputs relative to max |reference|, for all or by output
            name; without it 1e-4 for 32-bit floats, what rounding to blocks costs in a reference where
            products are in a block format, and for models that round values on the way (quantised
            activations) twice what onnxruntime's outputs move by when the weights change by a millionth.

    Raises:
        CompileError: There is no program, the inputs do not fit, or onnxruntime refuses the model.
    """
    if compilation.program is None:
        raise CompileError("there is no program to verify; compile up to the last stage")
    graph = compilation.graph
    given = example_inputs(graph, seed) if inputs is None else check_inputs(graph.inputs, inputs)
    ours = run(compilation.program, given)
    expected = reference_outputs(model, given)
    if tolerance is None:
        tolerance = allowed_errors(model, compilation.target, graph, given, expected)
    return compare(ours, expected, tolerance)


def save(program: Program, path: str | os.PathLike[str]) -> Path:
    """Write a program file, whole or not at all, and return its path.

    Raises:
        ProgramError: The program is malformed, or the file cannot be written.
    """
    try:
        write_program(program, Path(path))
    except OSError as error:
        raise ProgramError(
            f"program file '{path}': cannot be written: {error.strerror or error}; "
            "choose another place"
        ) from None
    return Path(path)


def input_ports(program: Program) -> tuple[Port, ...]:
    """Return name, shape and element type of a program's inputs."""
    ports = (Port(name=t.name, tensor=t.name, shape=t.shape, dtype=t.dtype) for t in program.inputs)
    return tuple(dict.fromkeys(ports))  # every stage that reads an input has a copy of its own


def target(name_or_path: str) -> Target:
    """Return a target by preset name, `mesh_RxC` or YAML file."""
    return load_target(name_or_path)


def targets() -> tuple[str, ...]:
    """Return the names of the preset targets."""
    return target_names()


def _program(program: Program | str | os.PathLike[str]) -> Program:
    return program if isinstance(program, Program) else read_program(Path(program))


def _trusted(program: Program | str | os.PathLike[str]) -> Program:
    """Return a program; one that comes from a file is verified as far as that is cheap."""
    loaded = _program(program)
    if loaded is not program:
        require_valid(loaded)
    return loaded


def _choice[T: StrEnum](kind: type[T], name: str, what: str) -> T:
    try:
        return kind(name)
    except ValueError:
        known = ", ".join(item.value for item in kind)
        raise CompileError(f"{what} '{name}' is unknown; choose one of {known}") from None


def _objective(given: Objective | AnyMetric | str) -> Objective:
    if isinstance(given, Objective):
        return given
    return single(given) if isinstance(given, Metric | UserMetric) else parse_objective(given)


def _metric(given: AnyMetric | str) -> AnyMetric:
    return given if isinstance(given, UserMetric) else parse_metric(given, "objective")


def _calibration(given: Calibration | str | os.PathLike[str], machine: Target) -> Calibration:
    if isinstance(given, Calibration):
        check_calibration(given, machine, "given")
        return given
    return read_calibration(Path(given), machine)


def _check_names(options: CompileOptions) -> None:
    """Refuse unknown rules before the work begins."""
    available_rules(options.user_rules).chosen(options.without_rules)
