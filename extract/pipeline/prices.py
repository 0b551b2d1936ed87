"""What stages cost: extraction on the part of the machine that they run on, each kind of stage once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from math import inf
from types import MappingProxyType

from tilewright.errors import InfeasibleError
from tilewright.extract.extraction import ExtractOptions, extract, pricing_of
from tilewright.extract.model_tables import build_tables
from tilewright.extract.pipeline.segments import Segment
from tilewright.extract.plan import Plan
from tilewright.extract.pruning import prune
from tilewright.extract.solve import floor, lower_bound, solve
from tilewright.graph import Graph
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.submesh import Submesh, submesh_target
from tilewright.hwmodel.target import Target
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.roll import Block, Instance, Rolled

Saturate = Callable[[Graph, LogicalMesh], Alternatives]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a stage costs in a plan that was found, inf if none was, and what every plan costs at least."""

    cost: float
    bound: float


class Prices:
    """Prices by (blocks of a stage, sub-rectangle), and the tables of (block, sub-rectangle) behind them."""

    def __init__(
        self,
        target: Target,
        saturate: Saturate,
        options: ExtractOptions,
        reserved_semaphores: int,
    ) -> None:
        self._target = target
        self._saturate = saturate
        self._options = options
        self._reserved = reserved_semaphores
        self._targets: dict[Submesh, Target] = {}
        self._alternatives: dict[tuple[Hashable, Submesh], Alternatives] = {}
        self._alone: dict[tuple[Hashable, Submesh], Price] = {}
        self._stages: dict[tuple[Hashable, Submesh], Price] = {}

    @property
    def evaluated(self) -> int:
        """Number of stages extracted so far."""
        return len(self._stages)

    def target_of(self, shape: Submesh) -> Target:
        """Return the part of the machine."""
        if shape not in self._targets:
            self._targets[shape] = submesh_target(
                self._target, shape, reserved_semaphores=self._reserved
            )
        return self._targets[shape]

    def alone(self, key: Hashable, block: Block, shape: Submesh) -> Price:
        """Return the price of a block by itself; its bound leaves out the way from and to DRAM.

        So the sum of the bounds of its blocks bounds a stage.
        """
        if (key, shape) not in self._alone:
            self._alone[key, shape] = self._price_alone(key, block, shape)
        return self._alone[key, shape]

    def stage(self, segment: Segment, shape: Submesh) -> Price:
        """Return the price of a stage."""
        key = (segment.signature, shape)
        if key not in self._stages:
            lower = sum(
                self.alone(segment.keys[i.block], segment.rolled.blocks[i.block], shape).bound
                for i in segment.rolled.instances
            )
            try:
                plan = self.plan(segment, shape)
                self._stages[key] = Price(cost=plan.cost, bound=max(lower, plan.bound))
            except InfeasibleError:
                self._stages[key] = Price(cost=inf, bound=lower)
        return self._stages[key]

    def plan(self, segment: Segment, shape: Submesh) -> Plan:
        """Return the plan of a stage.

        Raises:
            InfeasibleError: Nothing that was found fits.
        """
        target = self.target_of(shape)
        alternatives = tuple(
            self._of_block(key, block, shape)
            for key, block in zip(segment.keys, segment.rolled.blocks, strict=True)
        )
        return extract(
            segment.graph, segment.rolled, alternatives, target, logical_mesh(target), self._options
        )

    def _of_block(self, key: Hashable, block: Block, shape: Submesh) -> Alternatives:
        if (key, shape) not in self._alternatives:
            mesh = logical_mesh(self.target_of(shape))
            self._alternatives[key, shape] = self._saturate(block.graph, mesh)
        return self._alternatives[key, shape]

    def _price_alone(self, key: Hashable, block: Block, shape: Submesh) -> Price:
        target = self.target_of(shape)
        found = (prune(self._of_block(key, block, shape)),)
        names = MappingProxyType({name: name for name in block.graph.types})
        alone = Rolled(
            blocks=(block,),
            instances=(Instance(block=0, start=0, stop=len(block.graph.ops), tensors=names),),
        )
        try:
            pricing = pricing_of(found, target, logical_mesh(target), self._options)
            tables = build_tables(block.graph, alone, found, pricing, are_ports_free=True)
        except InfeasibleError:
            return Price(cost=inf, bound=inf)
        few = replace(self._options.solve, price_steps=4, branching_gap=inf)
        below = floor(tables.relaxed, few)
        solution = solve(tables.problem, few, below=below)
        cutoff = tables.relaxed.cost(solution.choice) if solution.feasible else inf
        relaxed = lower_bound(below, cutoff, solution.multipliers, few)
        cost = solution.cost / tables.scale if solution.feasible else inf
        return Price(cost=cost, bound=relaxed.bound / tables.scale)
