"""How fast a planned model answers demands and changes of its target, against its first planning."""

from __future__ import annotations

import resource
import time

from benchmarks.models import case_of, model_of
from benchmarks.tables import print_table
from tilewright import api
from tilewright.errors import CompileError, InfeasibleError
from tilewright.exploring import Session
from tilewright.extract.pipeline.plan import PipelinePlan
from tilewright.extract.plan import Plan

LIMIT_SECONDS = 1.0

FORCED = (
    "sharding=y:S1,x:S2@layers.3.mlp.residual",
    "sharding=y:S1,x:S1@layers.9.mlp.residual",
    "memory=dram@layers.0.mlp.residual",
    "weights=streamed@layers.3.mlp.down_proj",
    "weights=resident@layers.3.mlp.down_proj",
    "split=y:m,x:n@layers.5.attn.o_proj",
    "memory=dram@layers.3.attn.products",
    "rule=fusion@layers.3.attn.mixed",
    "weights=resident@logits",
    "tile=m=5,n=24@layers.3.mlp.down_proj",
)
STAGED = (
    "stages=3",
    "cut@layers.15.mlp.residual",
    "cut@layers.11.mlp.residual",
    "stage=2@layers.20.mlp.residual",
    "stage=3@layers.31.mlp.residual",
    "part=1x4@logits",
    "part=2x4@layers.0.mlp.residual",
)
UNSTAGED = ("stages=4", "cut@layers.7.mlp.residual", "part=1x4@logits")
"""Forced and forbidden stages."""
CHANGES = (
    "dram_bandwidth=x2",
    "sram=x0.5",
    "link_bandwidth=x2",
    "clock=x2",
    "tile.matrix.rows=x2",
    "lanes=x2",
    "mesh=2x8",
)
"""Of the target: all but the last keep its mesh."""
FORBIDDEN = ("rule=fusion", "rule=algebra", "memory=sram@layers.3.mlp.residual")


_PLAN_HEADER = ("cost", "delta", "bound", "gap")


def main(*, model: str, target: str, stages: bool) -> int:
    """Measure and print; return the exit code: 1 if an answer took longer than the limit."""
    begin = time.process_time()
    case = case_of(model)
    objective = "throughput" if stages else "latency"
    session = api.explore(model_of(case), target, dims=case.dims, objective=objective)
    base: Plan | PipelinePlan = session.divided.pipeline if stages else session.base.plan
    planned = time.process_time() - begin
    forced, forbidden = (STAGED, UNSTAGED) if stages else (FORCED, FORBIDDEN)
    asked = [(text, True) for text in forced] + [(text, False) for text in forbidden]
    rows: list[tuple[str, ...]] = []
    slowest = 0.0
    for text, is_forced in asked:
        seconds, row = _row(session, text, is_forced, stages)
        rows.append(row)
        slowest = max(slowest, seconds)
    title = f"{model} on {target}: planned in {planned:.1f} s, cost {base.cost:,.0f}, gap {base.gap:.1%}"
    print_table(title, ("demand", "CPU s", *_PLAN_HEADER), rows)
    if not stages:
        rows = [_change_row(session, change, planned) for change in CHANGES]
        print_table("changed targets", ("change", "CPU s", "of the first", *_PLAN_HEADER), rows)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"slowest {slowest:.2f} s of {LIMIT_SECONDS:.0f} s; peak memory {memory:.2f} GB")
    return int(slowest > LIMIT_SECONDS)


def _row(
    session: Session, text: str, is_forced: bool, stages: bool
) -> tuple[float, tuple[str, ...]]:
    forced, forbidden = ((text,), ()) if is_forced else ((), (text,))
    name = f"{'force' if is_forced else 'forbid'} {text}"
    begin = time.process_time()
    plan: Plan | PipelinePlan
    try:
        if stages:
            divided = session.divide(*forced, forbidding=forbidden)
            plan, delta = divided.pipeline, divided.delta
        else:
            answer = session.force(*forced, forbidding=forbidden)
            plan, delta = answer.plan, answer.delta
    except InfeasibleError as error:
        return 0.0, (name, "-", str(error)[:40], "-", "-", "-")
    except CompileError as error:
        raise SystemExit(f"{name}: {error}") from error
    seconds = time.process_time() - begin
    return seconds, (name, f"{seconds:.2f}", *_plan_cells(plan, delta))


def _change_row(session: Session, change: str, planned: float) -> tuple[str, ...]:
    begin = time.process_time()
    found = session.what_if(change)
    seconds = time.process_time() - begin
    share = f"{seconds / planned:.0%}"
    return (change, f"{seconds:.2f}", share, *_plan_cells(found.plan, found.delta))


def _plan_cells(plan: Plan | PipelinePlan, delta: float) -> tuple[str, ...]:
    return f"{plan.cost:,.0f}", f"{delta:+,.0f}", f"{plan.bound:,.0f}", f"{plan.gap:.1%}"
