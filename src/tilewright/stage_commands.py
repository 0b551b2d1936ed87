"""What `tilewright explore` prints of stages: demands on them, two divisions, why a cut is where it is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from tilewright.exploring import Session
from tilewright.extract.exploration.staging import PipelineAnswer
from tilewright.extract.pipeline.plan import PipelinePlan, PlannedStage
from tilewright.hwmodel.target import Target
from tilewright.terminal import Row, byte_text, print_facts, print_table, shorten

_HEADER = ("stage", "part", "tiles", "ops", "from", "to", "hands on", "cycles")
_NAME_WIDTH = 22


def print_division(
    session: Session, forced: tuple[str, ...], forbidden: tuple[str, ...], console: Console
) -> None:
    """Print the stages under demands, and those without."""
    begin = time.process_time()
    answer = session.divide(*forced, forbidding=forbidden)
    seconds = time.process_time() - begin
    base = session.divided.pipeline
    facts = [("demand", str(demand)) for demand in answer.demands]
    facts += [
        ("stages", _cost_line(answer.pipeline, session.target)),
        ("without demands", _cost_line(base, session.target)),
        ("delta", f"{_signed(answer.delta, base)} cycles"),
        ("answered in", f"{seconds:.2f} s"),
    ]
    print_facts(console, "stages under demands", facts)
    _print_stages(console, "stages under demands", answer.pipeline)
    if answer.pipeline != base:
        _print_stages(console, "stages without demands", base)


def division_data(
    session: Session, forced: tuple[str, ...], forbidden: tuple[str, ...]
) -> dict[str, Any]:
    """Return the stages under demands, and those without, as data."""
    begin = time.process_time()
    answer = session.divide(*forced, forbidding=forbidden)
    seconds = time.process_time() - begin
    base = session.divided.pipeline
    return _answer_data(answer) | {"base": _pipeline_data(base), "seconds": seconds}


def print_two_divisions(
    first: PipelineAnswer, second: PipelineAnswer, target: Target, console: Console
) -> None:
    """Print stages under some demands and under others."""
    facts = [
        (name, f"{_cost_line(one.pipeline, target)} {_named(one)}")
        for name, one in (("first", first), ("second", second))
    ]
    delta = second.pipeline.cost - first.pipeline.cost
    facts.append(("delta", f"{_signed(delta, first.pipeline)} cycles"))
    print_facts(console, "two divisions into stages", facts)
    _print_stages(console, "stages of the first", first.pipeline)
    _print_stages(console, "stages of the second", second.pipeline)


def two_divisions_data(first: PipelineAnswer, second: PipelineAnswer) -> dict[str, Any]:
    """Return stages under some demands and under others, as data."""
    return {"first": _answer_data(first), "second": _answer_data(second)}


def print_cut(session: Session, tensor: str, console: Console) -> None:
    """Print why stages are cut behind a tensor, or why not."""
    found = session.explain_cut(tensor)
    chosen, other = found.chosen, found.other
    facts = [
        ("chosen", "a cut" if found.is_cut else "no cut"),
        ("stages", _cost_line(chosen, session.target)),
        ("binding", _binding(chosen)),
    ]
    kind = "without a cut" if found.is_cut else "with a cut"
    if other is None:
        facts.append((kind, f"nothing: {found.why}"))
    else:
        facts.append((kind, _cost_line(other.pipeline, session.target)))
        facts.append(("delta", f"{_signed(other.delta, chosen)} cycles"))
        facts.append(("binding there", _binding(other.pipeline)))
    print_facts(console, f"behind {tensor}", facts)
    _print_stages(console, "stages as chosen", chosen)
    if other is not None:
        _print_stages(console, f"the best stages found {kind} there", other.pipeline)


def cut_data(session: Session, tensor: str) -> dict[str, Any]:
    """Return why stages are cut behind a tensor, or why not, as data."""
    found = session.explain_cut(tensor)
    return {
        "tensor": tensor,
        "is_cut": found.is_cut,
        "chosen": _pipeline_data(found.chosen),
        "other": None if found.other is None else _answer_data(found.other),
        "why": found.why,
    }


def _binding(pipeline: PipelinePlan) -> str:
    """Return what a division waits for: its slowest stage."""
    cycles = [stage.plan.cost for stage in pipeline.stages]
    slowest = cycles.index(max(cycles))
    return (
        f"stage {slowest + 1} of {len(cycles)} is the slowest with {cycles[slowest]:,.0f} of "
        f"{sum(cycles):,.0f} cycles in all stages"
    )


def _print_stages(console: Console, title: str, pipeline: PipelinePlan) -> None:
    rows = [_row(number, stage) for number, stage in enumerate(pipeline.stages, 1)]
    print_table(console, title, _HEADER, rows, left=0)


def _row(number: int, stage: PlannedStage) -> Row:
    first, last = _ends(stage)
    handed = sum(t.size_bytes for t in (stage.plan.types[name] for name in _handed(stage)))
    return (
        str(number),
        " x ".join(map(str, stage.shape)),
        f"{stage.tiles[0]}-{stage.tiles[-1]}",
        str(len(stage.plan.ops)),
        shorten(first, _NAME_WIDTH),
        shorten(last, _NAME_WIDTH),
        byte_text(handed),
        f"{stage.plan.cost:,.0f}",
    )


def _ends(stage: PlannedStage) -> tuple[str, str]:
    """Return the first tensor of the model that a stage computes, and the last."""
    constants = set(stage.plan.graph.constants)
    made = []
    for op in stage.plan.graph.ops:
        if constants.issuperset(op.inputs):
            constants.update(op.outputs)
        else:
            made.append(op.outputs[0])
    return made[0], made[-1]


def _handed(stage: PlannedStage) -> list[str]:
    return [port.tensor for port in stage.plan.graph.outputs]


def _answer_data(answer: PipelineAnswer) -> dict[str, Any]:
    data: Mapping[str, Any] = {
        "demands": [str(demand) for demand in answer.demands],
        "pipeline": _pipeline_data(answer.pipeline),
        "delta": answer.delta,
    }
    return dict(data)


def _pipeline_data(pipeline: PipelinePlan) -> dict[str, Any]:
    return {
        "cost": pipeline.cost,
        "bound": pipeline.bound,
        "gap": pipeline.gap,
        "unit": "cycles",
        "stages": [
            {
                "part": list(stage.shape),
                "tiles": [stage.tiles[0], stage.tiles[-1]],
                "ops": len(stage.plan.ops),
                "from": _ends(stage)[0],
                "to": _ends(stage)[1],
                "hands_on": _handed(stage),
                "cycles": stage.plan.cost,
            }
            for stage in pipeline.stages
        ],
    }


def _cost_line(pipeline: PipelinePlan, target: Target) -> str:
    time_us = target.seconds(pipeline.cost) * 1e6
    return (
        f"{len(pipeline.stages)}, {pipeline.cost:,.0f} cycles ({time_us:,.1f} us), "
        f"bound {pipeline.bound:,.0f}, gap {pipeline.gap:.2%}"
    )


def _signed(delta: float, base: PipelinePlan) -> str:
    share = f" ({delta / base.cost:+.1%})" if base.cost else ""
    return f"{delta:+,.0f}{share}"


def _named(answer: PipelineAnswer) -> str:
    return f"under {', '.join(map(str, answer.demands))}" if answer.demands else "without demands"
