"""A pipeline: stages on disjoint parts of the machine, each with a plan of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.extract.objective import Objective
from tilewright.extract.plan import Plan, Proof
from tilewright.graph import Graph
from tilewright.hwmodel.submesh import Submesh
from tilewright.hwmodel.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What a stage reads of another one before it, and the cycles that it has left when it comes to that."""

    stage: int
    left_cycles: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStage:
    """A run of the model's blocks on a sub-rectangle of kind `shape`.

    `plan.graph` is its part of the model: values of other stages are its inputs, in DRAM, and what other
    stages read are its outputs. `target` is the part of the machine as the stage sees it.
    """

    plan: Plan
    target: Target
    shape: Submesh
    tiles: tuple[int, ...]
    """Ids of the tiles in the whole machine, in the order of the part."""
    cycles: float
    """What its plan takes, and the exchange with its neighbours."""
    waits: tuple[Wait, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelinePlan:
    """Stages in the order of the model, with the value of the objective and how good it is.

    Throughput: cycles of the slowest stage, the time from one inference to the next. Latency: the longest
    path through the stages, which wait for what they read of others; of several micro-batches, the sum of the
    stages and the slowest once for each but the first. `bound` is below every
    division into stages that was considered: cuts, sub-rectangles and, in each stage, what bounds its plan.
    """

    graph: Graph
    target_name: str
    objective: Objective
    micro_batches: int
    stages: tuple[PlannedStage, ...]
    cost: float
    bound: float
    proof: Proof

    @property
    def is_divided(self) -> bool:
        """Whether there are several stages, or one on a part of the machine."""
        return len(self.stages) > 1 or self.stages[0].target.name != self.target_name

    def ends(self, plan_cycles: Sequence[float] | None = None) -> tuple[float, ...]:
        """Return when each stage has ended, of one inference that begins at 0.

        Args:
            plan_cycles: What the plan of each stage takes by a better estimate than its cost.
        """
        ends: list[float] = []
        for number, stage in enumerate(self.stages):
            cost = stage.plan.cost
            exchange = stage.cycles - cost
            rate = 1.0 if plan_cycles is None or not cost else plan_cycles[number] / cost
            arrivals = (
                ends[wait.stage] + (wait.left_cycles - exchange) * rate for wait in stage.waits
            )
            ends.append(max(cost * rate, max(arrivals, default=0.0)) + exchange)
        return tuple(ends)

    @property
    def gap(self) -> float:
        """Relative distance of the cost from the bound; 0 is optimal."""
        return 0.0 if self.cost == 0 else (self.cost - self.bound) / self.cost
