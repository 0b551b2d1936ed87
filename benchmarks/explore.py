"""How fast a planned model answers demands: a forced alternative within a second of processor time."""

from __future__ import annotations

import resource
import time

from benchmarks.models import case_of, model_of
from benchmarks.tables import print_table
from tilewright import api
from tilewright.errors import CompileError, InfeasibleError
from tilewright.exploring import Session

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
)
FORBIDDEN = ("rule=fusion", "rule=algebra", "memory=sram@layers.3.mlp.residual")


def main(*, model: str, target: str) -> int:
    """Measure and print; return the exit code: 1 if an answer took longer than the limit."""
    begin = time.process_time()
    case = case_of(model)
    session = api.explore(model_of(case), target, dims=case.dims)
    planned = time.process_time() - begin
    base = session.base.plan
    asked = [(text, True) for text in FORCED] + [(text, False) for text in FORBIDDEN]
    rows: list[tuple[str, ...]] = []
    slowest = 0.0
    for text, is_forced in asked:
        seconds, row = _row(session, text, is_forced)
        rows.append(row)
        slowest = max(slowest, seconds)
    title = f"{model} on {target}: planned in {planned:.1f} s, cost {base.cost:,.0f}, gap {base.gap:.1%}"
    header = ("demand", "CPU s", "cost", "delta", "bound", "gap")
    print_table(title, header, rows)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"slowest {slowest:.2f} s of {LIMIT_SECONDS:.0f} s; peak memory {memory:.2f} GB")
    return int(slowest > LIMIT_SECONDS)


def _row(session: Session, text: str, is_forced: bool) -> tuple[float, tuple[str, ...]]:
    ask = session.force if is_forced else session.forbid
    name = f"{'force' if is_forced else 'forbid'} {text}"
    begin = time.process_time()
    try:
        answer = ask(text)
    except InfeasibleError as error:
        return 0.0, (name, "-", str(error)[:40], "-", "-", "-")
    except CompileError as error:
        raise SystemExit(f"{name}: {error}") from error
    seconds = time.process_time() - begin
    plan = answer.plan
    cells = (f"{plan.cost:,.0f}", f"{answer.delta:+,.0f}", f"{plan.bound:,.0f}", f"{plan.gap:.1%}")
    return seconds, (name, f"{seconds:.2f}", *cells)
