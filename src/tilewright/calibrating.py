"""Calibration of constants of the cost model: plans are simulated, fitted, held out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import fmean, geometric_mean, median

from tilewright import __version__
from tilewright.alternative_plans import alternative_plans
from tilewright.calibration import (
    UNITS,
    AccuracyRecord,
    Calibration,
    HeldOutRecord,
    PlanRecord,
    ProgramRecord,
    Summary,
    target_record,
)
from tilewright.calibration_programs import built_in_programs
from tilewright.capacity import check_capacity
from tilewright.compiler import (
    Compilation,
    CompileOptions,
    Progress,
    Stage,
    compile_graph,
    extract_options,
)
from tilewright.errors import CalibrationError, InfeasibleError
from tilewright.exposure_fit import Accuracy, HeldOut, Measurement, fitted, held_out, measurement
from tilewright.extract.extraction import ExtractOptions, extract
from tilewright.extract.plan import Plan
from tilewright.frontend import load_onnx
from tilewright.graph import Graph
from tilewright.hwmodel.exposure import FULL, Exposure, exposed
from tilewright.hwmodel.target import Target
from tilewright.lowering.lower import build_program
from tilewright.lowering.scheduled import Scheduling
from tilewright.simulator.timing import NetworkModel, simulate

NETWORK = NetworkModel.FLUID

PLANS = 6
"""Tried of each program by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A graph to calibrate with, and where it is from."""

    name: str
    source: str
    graph: Graph


def built_in_sources() -> tuple[Source, ...]:
    """Return the programs that are always measured."""
    return tuple(
        Source(name=name, source=f"built in: tilewright.calibration_programs, {name}", graph=graph)
        for name, graph in built_in_programs().items()
    )


def model_source(path: Path, dims: Mapping[str, int]) -> Source:
    """Return a model of the user's; of `dims` it takes those that it has.

    Raises:
        CompileError: The model cannot be read.
    """
    graph = load_onnx(path, dims=dims)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Source(name=path.name, source=f"sha256 {digest}", graph=graph)


def calibrate(
    target: Target,
    sources: Sequence[Source],
    *,
    plans: int = PLANS,
    seed: int = 0,
    schedule: Scheduling = Scheduling.LIST,
    progress: Progress | None = None,
) -> Calibration:
    """Fit the shares of leads that planning counts to simulated plans of programs.

    Args:
        target: The machine.
        sources: Two programs or more with different names; each is held out once.
        plans: Tried of each program: the best one, and others that are best if prices are off.
        seed: Of the random factors of prices.
        schedule: How instructions are ordered, as in the compilations that the constants are for.
        progress: Called with a line of text as the work goes on.

    Raises:
        CalibrationError: Fewer than two programs fit the machine, or constants that were fitted to the other
            programs do not predict the plans of a program better.
    """
    tell = progress or (lambda text: None)
    _check_number([source.name for source in sources], "are given")
    known: list[_Program] = []
    for source in sources:
        tell(f"simulating plans of {source.name}")
        found = _Program.planned(source, target, schedule)
        if found is not None and found.measure(plans, seed):
            known.append(found)
    _check_number([program.source.name for program in known], f"fit '{target.name}'")
    measured = [m for program in known for m in program.measured]
    exposure, tests = fitted(measured), held_out(measured)
    records = []
    for program in known:
        tell(f"planning {program.source.name} with constants of the others")
        test = tests[program.source.name]
        records.append(_program_record(program, test, program.best(test.exposure), exposure))
    summary = _summary([record.held_out for record in records])
    _check_worth(summary, target)
    return Calibration(
        tilewright=__version__,
        target=target_record(target),
        constants=exposure,
        units=UNITS,
        seed=seed,
        plans=plans,
        schedule=schedule.value,
        network=NETWORK.value,
        held_out=summary,
        programs=tuple(records),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Program:
    """A planned program, and what was measured of it: the best plan first."""

    source: Source
    done: Compilation
    schedule: Scheduling
    measured: list[Measurement] = field(default_factory=list)

    @staticmethod
    def planned(source: Source, target: Target, schedule: Scheduling) -> _Program | None:
        """Plan a program on all tiles, with nothing hidden behind products; None if nothing fits."""
        check_capacity(source.graph, target)
        nothing_hidden = ExtractOptions(hides=False)
        options = CompileOptions(stop_after=Stage.EXTRACT, stages=1, extract=nothing_hidden)
        try:
            done = compile_graph(source.graph, target, options)
        except InfeasibleError:
            return None
        return _Program(source=source, done=done, schedule=schedule)

    def measure(self, plans: int, seed: int) -> bool:
        """Simulate the best plan and others; return whether the best one can be lowered."""
        assert self.done.plan is not None, "the compilation got there"
        others = alternative_plans(self.done, plans - 1, seed) if plans > 1 else ()
        for plan in chain((self.done.plan,), others):
            try:
                self.measured.append(self._simulated(plan, FULL))
            except InfeasibleError:  # its buffers cannot be packed
                if not self.measured:
                    return False
        return True

    def best(self, exposure: Exposure) -> Measurement:
        """Simulate the plan that is best at other shares."""
        done = self.done
        assert done.rolled is not None, "the compilation got beyond"
        machine = exposed(done.target, exposure)
        model = (done.graph, done.rolled, done.alternatives, machine, done.mesh)
        return self._simulated(extract(*model, extract_options(done.options)), exposure)

    def _simulated(self, plan: Plan, exposure: Exposure) -> Measurement:
        program = build_program(plan, self.done.target, self.schedule)
        cycles = simulate(program, network=NETWORK).run.cycles
        return measurement(plan, self.source.name, exposure, cycles)


def _check_number(names: Sequence[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise CalibrationError(
                f"calibration: {names.count(name)} programs of the name '{name}' {what}, expected different "
                "names; rename a model"
            )
    if len(names) < 2:
        raise CalibrationError(
            f"calibration: {len(names)} programs {what}, expected 2 or more, so that each can be predicted "
            "by constants fitted to the others; give more models"
        )


def _check_worth(summary: Summary, target: Target) -> None:
    """Refuse constants that predict nothing better which they were not fitted to."""
    before, after = summary.before.best_error, summary.after.best_error
    if after >= before:
        raise CalibrationError(
            f"target '{target.name}': constants do not carry over to programs that they were not fitted to: "
            f"the median error of their plans is {before:.1%} without and {after:.1%} with them; give more "
            "or other models"
        )


def _summary(tests: Sequence[HeldOutRecord]) -> Summary:
    def of(found: Sequence[AccuracyRecord]) -> AccuracyRecord:
        ranks = [record.rank for record in found if record.rank is not None]
        return AccuracyRecord(
            best_error=_error(median(record.best_error for record in found)),
            median_error=_error(median(record.median_error for record in found)),
            rank=_error(fmean(ranks)) if ranks else None,
        )

    return Summary(
        before=of([test.before for test in tests]),
        after=of([test.after for test in tests]),
        simulated_ratio=_error(geometric_mean(test.simulated_ratio for test in tests)),
    )


def _program_record(
    program: _Program, test: HeldOut, chosen: Measurement, exposure: Exposure
) -> ProgramRecord:
    first = program.measured[0]
    return ProgramRecord(
        name=program.source.name,
        source=program.source.source,
        plans=tuple(_plan_record(m, exposure) for m in program.measured),
        held_out=HeldOutRecord(
            constants=test.exposure,
            before=_accuracy_record(test.before, first, FULL),
            after=_accuracy_record(test.after, chosen, test.exposure),
            simulated_ratio=_error(chosen.simulated_cycles / first.simulated_cycles),
        ),
    )


def _plan_record(found: Measurement, exposure: Exposure) -> PlanRecord:
    return PlanRecord(
        simulated=_cycles(found.simulated_cycles),
        planned=_cycles(found.planned_cycles(FULL)),
        calibrated=_cycles(found.planned_cycles(exposure)),
        input_leads=_cycles(found.input_cycles),
        output_leads=_cycles(found.output_cycles),
    )


def _accuracy_record(found: Accuracy, best: Measurement, exposure: Exposure) -> AccuracyRecord:
    best_error = abs(best.planned_cycles(exposure) / best.simulated_cycles - 1.0)
    return AccuracyRecord(
        best_error=_error(best_error),
        median_error=_error(found.median_error),
        rank=None if found.rank is None else _error(found.rank),
    )


def _cycles(value: float) -> float:
    return round(value, 3)


def _error(value: float) -> float:
    return round(value, 4)
