"""The measured process: compiles one model, maybe runs it, and prints figures, seconds and memory."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

_RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


class Clock:
    """User CPU seconds by name; of nested measurements of one name only the outermost counts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._open: set[str] = set()

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the user CPU time of a piece of work."""
        if name in self._open:
            yield
            return
        self._open.add(name)
        start = user_seconds()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + user_seconds() - start
            self._open.discard(name)

    def wrap(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose calls are measured."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.measure(name):
                return work(*args, **kwargs)

        return timed


def user_seconds() -> float:
    """Return the user CPU time of this process, all threads."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def peak_bytes() -> int:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT_BYTES


def measure(
    name: str, target: str, *, run: bool, simulate: bool, without: Sequence[str] = ()
) -> dict[str, Any]:
    """Compile a model, run and simulate it if asked to, and return what was measured.

    Args:
        name: A case of `benchmarks.models`.
        target: Name of a target.
        run: Also run the program functionally, with all checks, on made-up inputs.
        simulate: Also simulate the timing; the deterministic figures need it.
        without: Rules to leave out.
    """
    clock = Clock()
    start = user_seconds()
    from tilewright import api  # the import is measured

    imported = user_seconds() - start
    _watch_egraph(clock)
    from benchmarks.figures import figures_of
    from benchmarks.models import case_of, inputs_of, model_of

    case = case_of(name)
    model = model_of(case)
    start, before = user_seconds(), time.process_time()
    done = api.compile(model, target, dims=case.dims, without_rules=without)
    compiled, processor = user_seconds() - start, time.process_time() - before
    assert done.program is not None
    assert done.plan is not None
    report: dict[str, Any] = {
        "import_seconds": imported,
        "compile_seconds": compiled,
        "compile_processor_seconds": processor,
        "stage_seconds": {str(stage): spent for stage, spent in done.seconds.items()},
        "egraph_access_seconds": sum(clock.seconds.values()),
        "rejected_plans": len(done.rejected),
        "planned_rules": Counter(planned.rule for planned in done.plan.ops if planned.rule),
        "hidden_cycles": sum(d.hidden_cycles for op in done.plan.ops for d in op.deliveries),
        "compile_peak_bytes": peak_bytes(),
    }
    if run:
        inputs = inputs_of(case, done.graph)
        with clock.measure("run"):
            api.run(done.program, inputs)
        report["run_seconds"] = clock.seconds["run"]
    if simulate:
        with clock.measure("simulate"):
            timing = api.simulate(done.program)
        report["simulate_seconds"] = clock.seconds["simulate"]
        report["figures"] = asdict(figures_of(done, timing))
    report["peak_bytes"] = peak_bytes()
    return report


def measure_saturation(name: str, target: str) -> dict[str, Any]:
    """Import and saturate a model and return what was measured.

    Args:
        name: One of `benchmarks.models.SATURATED`; those of `SHAPES` have no weights.
        target: Name of a target.
    """
    from benchmarks.models import SHAPES, case_of, model_of, shapes_of
    from tilewright import api
    from tilewright.compiler import Stage
    from tilewright.rules.limits import slow_rules

    if name in SHAPES:
        done = api.compile(shapes_of(name), target, weights=False, stop_after=Stage.SATURATE)
    else:
        case = case_of(name)
        done = api.compile(model_of(case), target, dims=case.dims, stop_after=Stage.SATURATE)
    assert done.rolled is not None, "the compilation got beyond"
    return {
        "ops": len(done.graph.ops),
        "unique_blocks": len(done.rolled.blocks),
        "unique_ops": sum(len(block.graph.ops) for block in done.rolled.blocks),
        "mesh_axes": sum(size > 1 for size in done.mesh.sizes),
        "e_nodes": sum(found.ruleset_stats[-1].e_nodes for found in done.alternatives),
        "import_seconds": done.seconds["frontend"] + done.seconds["roll"],
        "saturate_seconds": done.seconds["saturate"],
        "peak_bytes": peak_bytes(),
        "notes": sorted({note for found in done.alternatives for note in found.notes}),
        "slow_rules": [str(slow) for slow in slow_rules(done.alternatives)],
    }


def measure_plan(name: str, target: str) -> dict[str, Any]:
    """Plan a model without weights, check the plan and return what was measured.

    Args:
        name: A name that `benchmarks.models.shapes_of` knows.
        target: Name of a target.
    """
    from benchmarks.models import shapes_of
    from tilewright import api
    from tilewright.compiler import Stage
    from tilewright.extract.plan_error import PlanError
    from tilewright.extract.validate import validate_plan

    model = shapes_of(name)
    done = api.compile(model, target, weights=False, stop_after=Stage.EXTRACT)
    spent, peak, plan = user_seconds(), peak_bytes(), done.plan
    assert done.rolled is not None, "the compilation got beyond"
    assert plan is not None, "the compilation got there"
    fault = ""
    try:
        validate_plan(plan, done.target)
    except PlanError as error:
        fault = str(error)
    return {
        "user_seconds": spent,
        "search_seconds": done.seconds["saturate"] + done.seconds["extract"],
        "peak_bytes": peak,
        "cost": plan.cost,
        "bound": plan.bound,
        "gap": plan.gap,
        "method": plan.proof.method,
        "unique_blocks": len(done.rolled.blocks),
        "fault": fault,
    }


def measure_timing(name: str, target: str) -> dict[str, Any]:
    """Plan and lower a model without weights, simulate its timing twice and return what was measured.

    The first simulation also loads compiled code. The speed of events is that of the event loop alone.

    Args:
        name: A name that `benchmarks.models.shapes_of` knows.
        target: Name of a target.
    """
    from benchmarks.models import shapes_of
    from tilewright import api
    from tilewright.compiler import CompileOptions, compile_graph
    from tilewright.hwmodel.load import load_target
    from tilewright.simulator import timing

    graph = api.load(shapes_of(name), weights=False)
    done = compile_graph(graph, load_target(target), CompileOptions(only_timed=True))
    assert done.program is not None, "the compilation got there"
    start = user_seconds()
    timing.simulate(done.program)
    first, clock, module = user_seconds() - start, Clock(), timing
    setattr(module, "simulate_events", clock.wrap("events", timing.simulate_events))  # noqa: B010
    with clock.measure("simulate"):
        found = timing.simulate(done.program)
    return {
        "tiles": found.tiles,
        "simulated_tiles": found.run.simulated_tiles,
        "first_seconds": first,
        "simulate_seconds": clock.seconds["simulate"],
        "event_seconds": clock.seconds["events"],
        "events": found.load.events + found.run.events,
        "cycles": found.run.cycles,
        "bound_cycles": found.run.bound_cycles,
        "peak_bytes": peak_bytes(),
    }


def measure_alternatives(name: str, target: str) -> dict[str, Any]:
    """Lower and simulate the plan of a model and many others; return the cycles of each.

    Instructions keep the order of their plan: plans are compared here, not orders.

    Args:
        name: A case of `benchmarks.models`.
        target: Name of a target.
    """
    from benchmarks.models import case_of, model_of
    from tilewright import api
    from tilewright.alternative_plans import alternative_plans
    from tilewright.compiler import CompileOptions, Stage, compile_graph
    from tilewright.errors import InfeasibleError
    from tilewright.hwmodel.load import load_target
    from tilewright.lowering.lower import build_program
    from tilewright.lowering.scheduled import Scheduling

    case = case_of(name)
    graph = api.load(model_of(case), dims=case.dims)
    options = CompileOptions(stop_after=Stage.EXTRACT)
    done = compile_graph(graph, load_target(target), options)
    assert done.plan is not None, "the compilation got there"
    samples = []
    for plan in (done.plan, *alternative_plans(done)):
        try:
            program = build_program(plan, done.target, Scheduling.PROGRAM)
        except InfeasibleError:  # its buffers cannot be packed
            continue
        samples.append(
            {
                "planned": plan.cost,
                "predicted": program.scheduled_cycles,
                "simulated": api.simulate(program).run.cycles,
            }
        )
    return {"samples": samples}


def _watch_egraph(clock: Clock) -> None:
    """Measure insertion into the e-graph and reading it out, wherever the engine calls them."""
    from tilewright.rules import engine
    from tilewright.rules.session import Session

    module: Any = engine
    for name in ("rows_of", "take_snapshot", "ReadOut", "read_implementations"):
        setattr(module, name, clock.wrap("access", getattr(module, name)))
    session: Any = Session
    session.insert = clock.wrap("access", Session.insert)
    session.read = clock.wrap("access", Session.read)


def main(
    name: str,
    target: str,
    *,
    run: bool,
    simulate: bool,
    saturate: bool,
    plan: bool,
    timing: bool,
    alternatives: bool,
    without: Sequence[str] = (),
) -> None:
    """Print the measurement as one line of JSON."""
    if saturate:
        print(json.dumps(measure_saturation(name, target)))
    elif plan:
        print(json.dumps(measure_plan(name, target)))
    elif timing:
        print(json.dumps(measure_timing(name, target)))
    elif alternatives:
        print(json.dumps(measure_alternatives(name, target)))
    else:
        print(json.dumps(measure(name, target, run=run, simulate=simulate, without=without)))
