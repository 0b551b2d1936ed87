"""Calibration of constants of the cost model: plans are simulated, fitted, held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
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
from tilewright.lowering.program import Program
from tilewright.lowering.scheduled import Scheduling
from tilewright.realising import realised
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
    """Return the programs that are measured unless models are given."""
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
        known += _measured(source, target, plans, seed, schedule)
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
    """A saturated program, and what was measured of it: the best plan first."""

    source: Source
    done: Compilation
    schedule: Scheduling
    measured: tuple[Measurement, ...] = ()

    def best(self, exposure: Exposure) -> Measurement:
        """Simulate the plan that is best at these shares, with less scratchpad if it cannot be lowered.

        Raises:
            InfeasibleError: None can be.
        """
        done, options = self.done, extract_options(self.done.options)
        assert done.rolled is not None, "the program is saturated"
        machine = exposed(done.target, exposure)
        model = (done.graph, done.rolled, done.alternatives, machine, done.mesh)
        found = realised(
            extract(*model, options),
            partial(build_program, target=done.target, scheduling=self.schedule),
            lambda _, limit_bytes, avoid: extract(
                *model, replace(options, sram_limit_bytes=limit_bytes, avoid=avoid)
            ),
            what=f"program '{self.source.name}'",
            target=done.target,
            limit_bytes=done.target.tile.sram.size_bytes,
        )
        return self._simulated(found.planned, found.program, exposure)

    def others(self, plans: int, seed: int) -> Iterator[Measurement]:
        """Simulate plans that are best if prices are off, but for those that cannot be lowered."""
        for plan in alternative_plans(self.done, plans, seed) if plans else ():
            with suppress(InfeasibleError):
                program = build_program(plan, self.done.target, self.schedule)
                yield self._simulated(plan, program, FULL)

    def _simulated(self, plan: Plan, program: Program, exposure: Exposure) -> Measurement:
        cycles = simulate(program, network=NETWORK).run.cycles
        return measurement(plan, self.source.name, exposure, cycles)


def _measured(
    source: Source, target: Target, plans: int, seed: int, schedule: Scheduling
) -> Iterator[_Program]:
    """Yield a program with its measurements, unless no plan of it fits the machine."""
    check_capacity(source.graph, target)
    # what products cover of a move is not linear in its share
    options = CompileOptions(stop_after=Stage.SATURATE, extract=ExtractOptions(hides=False))
    done = compile_graph(source.graph, target, options)
    program = _Program(source=source, done=done, schedule=schedule)
    with suppress(InfeasibleError):
        best = program.best(FULL)
        yield replace(program, measured=(best, *program.others(plans - 1, seed)))


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
