"""The stages of a compilation in order, each a function of the result of the one before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from math import inf

from tilewright.calibration import Calibration
from tilewright.constant_outputs import fold_constant_outputs
from tilewright.constants import absent
from tilewright.errors import CompileError, InfeasibleError, TimeLimitError
from tilewright.extract.avoid import NOTHING, Avoid
from tilewright.extract.deadline import Deadline
from tilewright.extract.draft import Draft
from tilewright.extract.extraction import ExtractOptions, drafted, extract
from tilewright.extract.limited import extract_within_latency, latency_cycles
from tilewright.extract.objective import Metric, Objective
from tilewright.extract.pipeline.part import plan_on_part
from tilewright.extract.pipeline.plan import PipelinePlan
from tilewright.extract.pipeline.planner import StageOptions, plan_pipeline
from tilewright.extract.pipeline.prices import Saturate
from tilewright.extract.plan import Plan
from tilewright.graph import Graph
from tilewright.hwmodel.exposure import exposed
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.submesh import boxes_near_port
from tilewright.hwmodel.target import Target
from tilewright.lowering.link import build_pipeline
from tilewright.lowering.lower import build_program
from tilewright.lowering.program import Program
from tilewright.lowering.scheduled import Scheduling
from tilewright.padding_choice import PaddingCost, Trial, Ways, choose_padding
from tilewright.realising import realised
from tilewright.rounding import rounds_values
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.engine import saturate
from tilewright.rules.lifting import lift_numbers
from tilewright.rules.options import SaturationOptions
from tilewright.rules.padding import Padding, paddings
from tilewright.rules.registry import Numerics
from tilewright.rules.roll import Rolled, roll
from tilewright.rules.user_rules import UserRules

_CLEARLY = 0.95
"""What stages may take of the time of all tiles: schedules are off by 5 % at worst (docs/accuracy.md)."""
_MUCH_HIDDEN = 0.015
"""Part of a plan's cost that, hidden behind products, makes a plan that hides nothing worth a look."""


class Stage(StrEnum):
    """The stages that a compilation can stop after."""

    FRONTEND = "frontend"
    ROLL = "roll"
    SATURATE = "saturate"
    EXTRACT = "extract"
    LOWER = "lower"


_BEFORE_PLANS = frozenset({Stage.FRONTEND, Stage.ROLL, Stage.SATURATE})

Progress = Callable[[str], None]
"""Called with a line of text when something begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """What a user chooses: objective, rules to leave out and to add, the stage to stop after."""

    objective: Objective = Objective.LATENCY
    stages: int | None = None
    """Stages of a pipeline; 0: whatever is best; None: the same for throughput, one for the rest."""
    max_latency: float | str | None = None
    """What an inference may take: cycles, or a time such as `50us`."""
    without_rules: tuple[str, ...] = ()
    pads: bool = True
    """Whether rows may be padded for the mesh to divide them, see `tilewright.rules.padding`."""
    user_rules: UserRules = field(default_factory=UserRules)
    stop_after: Stage = Stage.LOWER
    scheduling: Scheduling = Scheduling.LIST
    """Which orders of the instructions are tried."""
    extract: ExtractOptions = field(default_factory=ExtractOptions)
    time_limit_seconds: float | None = None
    """Wall time of planning, after which the best plan found is taken."""
    calibration: Calibration | None = None
    """Constants to plan with in place of the cost model's own."""
    only_timed: bool = False
    """Lower a model whose weights were not loaded, to a program that can be timed and not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """Everything that a compilation made; what lies behind the last stage is None.

    `plan` is that of all tiles together. `pipeline` says how stages would share them, if that was looked
    into; the program is of its stages if there are several. `seconds` gives the processor time of each stage,
    `rejected` why lowering sent plans back.
    """

    source: Graph
    """The graph that was given; `graph` is what became of it."""
    graph: Graph
    target: Target
    mesh: LogicalMesh
    options: CompileOptions
    rolled: Rolled | None = None
    alternatives: tuple[Alternatives, ...] = ()
    plan: Plan | None = None
    pipeline: PipelinePlan | None = None
    program: Program | None = None
    seconds: Mapping[str, float]
    rejected: tuple[str, ...] = ()
    paddings: tuple[PaddingCost, ...] = ()
    """Paddings that were considered, if there was a choice; that of `graph` first."""

    @property
    def planning_target(self) -> Target:
        """The machine at the constants that plans are priced with, which a calibration may give."""
        calibration = self.options.calibration
        return self.target if calibration is None else exposed(self.target, calibration.constants)


def allowed_numerics(graph: Graph) -> frozenset[Numerics]:
    """Return what rules may do to rounding.

    In a graph that rounds values on the way (quantised activations) the last bit of a sum decides
    between two quanta, so that only exact rules are safe there.
    """
    exact = frozenset({Numerics.EXACT})
    return exact if rounds_values(graph) else exact | {Numerics.REASSOCIATES}


_SLICED_SHARE = 1 / 4
"""Share of a scratchpad from which on what is between two products may be made and used in slices."""
_SCATTERED_SHARE = 1 / 2
"""Share of a scratchpad from which on sums may be scattered box by box; smaller ones have room."""


def saturation_options(graph: Graph, target: Target, options: CompileOptions) -> SaturationOptions:
    """Return which rules run on a graph, and how far."""
    return replace(
        available_rules(options.user_rules),
        numerics=allowed_numerics(graph),
        least_sliced_bytes=_SLICED_SHARE * target.tile.sram.size_bytes,
        least_scattered_bytes=_SCATTERED_SHARE * target.tile.sram.size_bytes,
        scratchpad_bytes=target.tile.sram.size_bytes,
    )


def available_rules(user: UserRules) -> SaturationOptions:
    """Return the rules of this package, then those of the user."""
    own = SaturationOptions()
    return replace(
        own,
        rules=(*own.rules, *user.rewrites),
        partition=(*own.partition, *user.partition),
        tiling=(*own.tiling, *user.tiling),
        memory=(*own.memory, *user.memory),
        collective=(*own.collective, *user.collective),
        pipeline=(*own.pipeline, *user.pipeline),
    )


def _check_values(graph: Graph) -> None:
    """Refuse to make a program of weights that were not loaded, before any work.

    Raises:
        CompileError: Says which values are missing.
    """
    missing = absent(graph.constants)
    if missing:
        place = next(iter(missing.values()))
        raise CompileError(
            f"model '{graph.name}': a program needs the values of {len(missing)} constants that were not "
            f"loaded, the first is {place}; stop after extract, or load the weights"
        )


class _Timed:
    """Calls functions and adds up their processor time by stage."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    def __call__[T](self, stage: Stage, work: Callable[[], T]) -> T:
        start = time.process_time()
        result = work()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + time.process_time() - start
        return result


def compile_graph(
    graph: Graph,
    target: Target,
    options: CompileOptions | None = None,
    progress: Progress | None = None,
) -> Compilation:
    """Compile an imported graph for a target.

    Raises:
        InfeasibleError: No plan fits the target, or none that fits can be lowered.
    """
    options = options or CompileOptions()
    seconds: dict[str, float] = {}
    tell = progress or (lambda text: None)
    if options.stop_after is Stage.LOWER and not options.only_timed:
        _check_values(graph)
    if options.max_latency is not None:
        latency_cycles(options.max_latency, target)  # refuses what it cannot read before any work
    timed = _Timed(seconds)
    mesh, source = logical_mesh(target), graph
    graph = fold_constant_outputs(graph)
    done = Compilation(
        source=source, graph=graph, target=target, mesh=mesh, options=options, seconds=seconds
    )
    offered = paddings(graph, mesh.sizes) if options.pads else ()
    if len(offered) > 1:
        return _with_best_padding(done, offered, tell, timed)
    done = _saturated(done, options.stop_after, tell, timed)
    if options.stop_after in _BEFORE_PLANS:
        return done
    return _planned(done, _with_deadline(options), tell, timed)


def _planned(
    done: Compilation,
    options: CompileOptions,
    tell: Progress,
    timed: _Timed,
    trial: Trial[Compilation] | None = None,
) -> Compilation:
    """Plan and lower a saturated model; what a trial found of it saves work."""
    rolled = done.rolled
    assert rolled is not None, "the model is saturated"
    done = _realise(done, options, tell, timed, trial)
    done = _on_fewer_tiles(done, rolled, options, tell, timed)
    return _pipelined(done, rolled, options, tell, timed)


def _saturated(done: Compilation, last: Stage, tell: Progress, timed: _Timed) -> Compilation:
    """Return a compilation with the stages up to saturation, or up to one before."""
    if last is Stage.FRONTEND:
        return done
    graph, target, options = done.graph, done.target, done.options
    tell(f"rolling {len(graph.ops)} ops")
    graph, rolled = timed(Stage.ROLL, partial(_rolled, graph))
    done = replace(done, graph=graph, rolled=rolled)
    if last is Stage.ROLL:
        return done
    found: list[Alternatives] = []
    for block in rolled.blocks:
        tell(f"saturating {block.name} ({len(block.graph.ops)} ops)")
        found.append(
            timed(
                Stage.SATURATE,
                partial(
                    saturate,
                    block.graph,
                    done.mesh,
                    options=saturation_options(graph, target, options),
                    without_rules=options.without_rules,
                ),
            )
        )
    return replace(done, alternatives=tuple(found))


def _with_best_padding(
    done: Compilation, offered: tuple[Padding, ...], tell: Progress, timed: _Timed
) -> Compilation:
    """Compile the graph with the padding whose plan is the cheapest."""
    # costs of different paddings compare if a mix has the rates of one graph
    objective = done.options.objective.on(done.graph, done.planning_target)
    done = replace(done, options=replace(done.options, objective=objective))
    options = _with_deadline(done.options)
    ways = Ways(
        saturate=lambda padding: _saturated(
            replace(done, graph=padding.graph), Stage.SATURATE, tell, timed
        ),
        draft=lambda model: timed(
            Stage.EXTRACT, partial(drafted, *_model(model), extract_options(options))
        ),
        estimate=lambda draft: timed(Stage.EXTRACT, lambda: draft.cost),
        plan=lambda model, draft: _extracted(
            model, extract_options(options), options, timed, draft
        ),
        work=lambda model: sum(len(found.implementations) for found in model.alternatives),
        is_late=lambda: options.extract.solve.deadline.is_past,
        adds_up=options.max_latency is None and Metric.SRAM not in objective.metrics,
    )
    tell(f"choosing among {len(offered)} paddings")
    best, *others = choose_padding(offered, ways)
    found = (best.found, *(trial.found for trial in others))
    done = replace(done, graph=best.padding.graph, paddings=found)
    stop = done.options.stop_after
    if stop in _BEFORE_PLANS and stop is not Stage.SATURATE:
        return _saturated(done, stop, tell, timed)
    model = best.model
    if model is None:  # the time was up
        model = _saturated(done, Stage.SATURATE, tell, timed)
    done = replace(model, paddings=found)
    return done if stop is Stage.SATURATE else _planned(done, options, tell, timed, best)


def _with_deadline(options: CompileOptions) -> CompileOptions:
    """Return the options of planning that begins now."""
    deadline = Deadline.after(options.time_limit_seconds)
    solving = replace(options.extract.solve, deadline=deadline)
    return replace(options, extract=replace(options.extract, solve=solving))


def _rolled(graph: Graph) -> tuple[Graph, Rolled]:
    """Return the blocks of a graph, and the graph with what they need as constants."""
    rolled = roll(graph)
    lifted = lift_numbers(graph, rolled)
    return (graph, rolled) if lifted is graph else (lifted, roll(lifted))


def extract_options(options: CompileOptions, without_rules: tuple[str, ...] = ()) -> ExtractOptions:
    """Return how plans are extracted: the objective, and the rules that are not left out."""
    chosen = available_rules(options.user_rules).chosen((*options.without_rules, *without_rules))
    return replace(
        options.extract,
        objective=options.objective,
        tiling=chosen.tiling,
        memory=chosen.memory,
        collective=chosen.collective,
    )


def _model(
    done: Compilation,
) -> tuple[Graph, Rolled, tuple[Alternatives, ...], Target, LogicalMesh]:
    """Return what plans are extracted from."""
    assert done.rolled is not None, "the model is saturated"
    return done.graph, done.rolled, done.alternatives, done.planning_target, done.mesh


def _extracted(
    done: Compilation,
    choice: ExtractOptions,
    options: CompileOptions,
    timed: _Timed,
    draft: Draft | None = None,
) -> Plan:
    """Return the best plan within a choice's limits, and within the latency that a user allows."""
    model = (*_model(done), choice)
    if options.max_latency is None:
        return timed(Stage.EXTRACT, partial(extract, *model, draft))
    most = latency_cycles(options.max_latency, done.target)
    return timed(Stage.EXTRACT, partial(extract_within_latency, *model, most))


def _realise(
    done: Compilation,
    options: CompileOptions,
    tell: Progress,
    timed: _Timed,
    trial: Trial[Compilation] | None,
) -> Compilation:
    """Extract and lower; the first plan is that of a trial, if there is one."""
    target, choice = done.target, extract_options(options)
    limit_bytes = choice.sram_limit_bytes or target.tile.sram.size_bytes

    def plan_within(
        limit_bytes: int,
        avoid: Avoid = NOTHING,
        *,
        hides: bool = True,
        draft: Draft | None = None,
    ) -> Plan:
        tell("extracting a plan" if hides else "extracting a plan in which products cover nothing")
        within = replace(choice, sram_limit_bytes=limit_bytes, avoid=avoid, hides=hides)
        return _extracted(done, within, options, timed, draft)

    def lower(plan: Plan) -> Program:
        tell(f"lowering {len(plan.ops)} ops")
        return timed(Stage.LOWER, partial(build_program, plan, target, options.scheduling))

    plan = None if trial is None else trial.plan
    if plan is None:
        plan = plan_within(limit_bytes, draft=None if trial is None else trial.draft)
    if options.stop_after is Stage.EXTRACT:
        return replace(done, plan=plan)
    found = realised(
        plan,
        lower,
        lambda _, limit_bytes, avoid: plan_within(limit_bytes, avoid),
        what=f"model '{done.graph.name}'",
        target=target,
        limit_bytes=limit_bytes,
    )
    # what is proven of plans within less scratchpad, or that avoid something, does not bound the others
    plan = replace(found.planned, bound=plan.bound, proof=plan.proof)
    program = found.program
    if options.max_latency is None:
        others = _others(plan, partial(plan_within, limit_bytes, found.avoid, hides=False))
        plan, program = _fastest(plan, program, others, lower)
    return replace(done, plan=plan, program=program, rejected=found.rejected)


def _others(plan: Plan, plan_without_hiding: Callable[[], Plan]) -> Iterator[Plan]:
    """Yield plans that cost more, but may be faster for what the sum of costs does not see.

    That is the room that loads ahead need, and how much of a delivery runs beside the product that covers it.
    """
    if not plan.objective.is_time:
        return
    if plan.unfilled is not None:
        yield plan.unfilled
    hidden_cycles = sum(delivery.hidden_cycles for op in plan.ops for delivery in op.deliveries)
    if hidden_cycles > _MUCH_HIDDEN * plan.cost:
        with suppress(InfeasibleError, TimeLimitError):
            yield plan_without_hiding()


def _fastest(
    plan: Plan, program: Program, others: Iterable[Plan], lower: Callable[[Plan], Program]
) -> tuple[Plan, Program]:
    """Return the plan with the shortest static schedule; the bound is that of the first."""
    best = plan, program
    for other in others:
        try:
            made = lower(other)
        except InfeasibleError:
            continue
        assert made.scheduled_cycles is not None, "the program has one group"
        assert best[1].scheduled_cycles is not None, "the program has one group"
        if made.scheduled_cycles < best[1].scheduled_cycles:
            best = replace(other, bound=plan.bound, proof=plan.proof), made
    return best


def _on_fewer_tiles(
    done: Compilation, rolled: Rolled, options: CompileOptions, tell: Progress, timed: _Timed
) -> Compilation:
    """Leave tiles idle if the others are faster alone and what they run can be lowered."""
    whole, shapes = done.plan, boxes_near_port(done.target)
    is_free = options.stages is None and options.max_latency is None and not done.graph.host_models
    if whole is None or not shapes or not is_free or options.objective != Objective.LATENCY:
        return done
    tell(f"planning for {len(shapes)} parts near the DRAM port")
    model = (
        done.graph,
        rolled,
        done.planning_target,
        saturation_of(done, options),
        extract_options(options),
    )
    work = partial(plan_on_part, *model, whole, shapes)
    try:
        pipeline = timed(Stage.EXTRACT, work)
        if pipeline is None:
            return done
        return _linked(replace(done, pipeline=pipeline), pipeline, options, tell, timed)
    except CompileError as error:
        return replace(done, rejected=(*done.rejected, str(error)))


def saturation_of(done: Compilation, options: CompileOptions) -> Saturate:
    """Return what gives the alternatives of a block on any mesh."""
    return partial(
        saturate,
        options=saturation_options(done.graph, done.target, options),
        without_rules=options.without_rules,
    )


def stage_options(options: CompileOptions, target: Target) -> StageOptions:
    """Return what a user chose of stages."""
    chosen = available_rules(options.user_rules).chosen(options.without_rules)
    most = options.max_latency
    return StageOptions(
        stages=options.stages or 0,
        rules=chosen.pipeline,
        max_latency_cycles=inf if most is None else latency_cycles(most, target),
    )


def _linked(
    done: Compilation,
    pipeline: PipelinePlan,
    options: CompileOptions,
    tell: Progress,
    timed: _Timed,
) -> Compilation:
    """Lower the stages of a pipeline, unless there is but the plan for all tiles."""
    if not pipeline.is_divided or options.stop_after is not Stage.LOWER:
        return done
    tell(f"lowering {len(pipeline.stages)} stages")
    build = partial(build_pipeline, pipeline, done.target, options.scheduling)
    return replace(done, program=timed(Stage.LOWER, build))


def _pipelined(
    done: Compilation, rolled: Rolled, options: CompileOptions, tell: Progress, timed: _Timed
) -> Compilation:
    """Divide the model into stages if that was asked for, or if it is better and can be lowered."""
    is_demand = options.stages is not None and options.stages > 1
    may_help = options.objective == Objective.THROUGHPUT and not done.graph.host_models
    is_wanted = bool(done.graph.ops) and (options.stages is not None or may_help)
    if options.stages == 1 or not (is_demand or is_wanted):
        return done
    wanted = stage_options(options, done.target)
    run = saturation_of(done, options)
    tell("dividing the model into stages")
    try:
        pipeline = timed(
            Stage.EXTRACT,
            partial(
                plan_pipeline,
                done.graph,
                rolled,
                done.planning_target,
                run,
                extract_options(options),
                wanted,
                whole=done.plan if options.objective == Objective.LATENCY else None,
            ),
        )
        divided = _linked(replace(done, pipeline=pipeline), pipeline, options, tell, timed)
    except CompileError as error:
        if is_demand:
            raise
        return replace(done, pipeline=None, rejected=(*done.rejected, str(error)))
    return divided if is_demand else _sooner(done, divided)


def _sooner(whole: Compilation, divided: Compilation) -> Compilation:
    """Return stages, for latency only if by static schedules they clearly end an inference first.

    Planning adds up what an order of instructions lets overlap, and all tiles together leave more of that.
    """
    is_latency = whole.options.objective == Objective.LATENCY
    one, other = (c.program.scheduled_cycles if c.program else None for c in (whole, divided))
    if divided.pipeline is None or not divided.pipeline.is_divided:
        return divided
    if not is_latency or one is None or other is None or other <= _CLEARLY * one:
        return divided
    reason = (
        f"{len(divided.pipeline.stages)} stages would take {other:,.0f} cycles by their static schedules, "
        f"all tiles together {one:,.0f}"
    )
    return replace(whole, rejected=(*whole.rejected, reason))
