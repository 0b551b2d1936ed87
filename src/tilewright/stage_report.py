"""What a person wants to know of a pipeline."""

from __future__ import annotations

from tilewright.extract.objective import Objective
from tilewright.extract.pipeline.plan import PipelinePlan
from tilewright.hwmodel.target import Target
from tilewright.report import Fact


def pipeline_facts(
    pipeline: PipelinePlan, target: Target, simulated_cycles: float | None = None
) -> list[Fact]:
    """Summarise a pipeline: its stages, what it costs, what bounds it, the interval of a simulated stream."""

    def time(cycles: float) -> str:
        return f"{cycles:,.0f} cycles ({target.seconds(cycles) * 1e6:,.1f} us)"

    what = "interval" if pipeline.objective == Objective.THROUGHPUT else "latency"
    facts = [
        (f"predicted {what}", time(pipeline.cost)),
        (
            "proven bound",
            f"{time(pipeline.bound)} of all stages considered, gap {pipeline.gap:.2%}",
        ),
    ]
    if simulated_cycles is not None:
        facts.insert(1, ("simulated interval", f"{time(simulated_cycles)} between inferences"))
    if not pipeline.is_divided:
        return [*facts, ("stages", "1, all tiles work on everything")]
    for number, (stage, end) in enumerate(zip(pipeline.stages, pipeline.ends(), strict=True), 1):
        shape = " x ".join(str(units) for units in stage.shape)
        read = ", ".join(str(wait.stage + 1) for wait in stage.waits)
        facts.append(
            (
                f"stage {number}",
                f"{len(stage.plan.ops)} ops on {shape} tiles from {stage.tiles[0]}, "
                f"{time(stage.plan.cost)}, {f'reads stage {read}' if read else 'waits for none'}, "
                f"ends at cycle {end:,.0f}",
            )
        )
    return facts
