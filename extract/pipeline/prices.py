"""What stages cost: extraction on the part of the machine that they run on, each kind of stage once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from math import inf
from types import MappingProxyType

from tilewright.errors import InfeasibleError
from tilewright.extract.certificate import Certificate, Claim
from tilewright.extract.extraction import (
    ExtractOptions,
    plan_setting,
    prepare,
    pricing_of,
)
from tilewright.extract.model_tables import build_tables
from tilewright.extract.pipeline.segments import Segment
from tilewright.extract.plan import Plan, Proof
from tilewright.extract.pricing import Pricing
from tilewright.extract.pruning import prune
from tilewright.extract.reshard import delivery_units
from tilewright.extract.setting import Setting
from tilewright.extract.solve import floor, lower_bound, solve
from tilewright.extract.tiling_candidates import tiling_candidates
from tilewright.extract.tiling_choice import Candidates
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
    items: tuple[float, ...] = ()
    """What each item of the stage costs in that plan."""
    claim: Claim | None = field(default=None, compare=False, repr=False)
    """The part of the bound that can be checked again."""


def alone(block: Block) -> Rolled:
    """Return a block as a model of its own."""
    names = MappingProxyType({name: name for name in block.graph.types})
    only = Instance(block=0, start=0, stop=len(block.graph.ops), tensors=names)
    return Rolled(blocks=(block,), instances=(only,))


class Prices:
    """Prices by (blocks of a stage, sub-rectangle), and the tables of (block, sub-rectangle) behind them."""

    def __init__(
        self,
        target: Target,
        saturate: Saturate,
        options: ExtractOptions,
        reserved_semaphores: int,
    ) -> None:
        self.target, self.saturate, self.options = target, saturate, options
        self.reserved_semaphores = reserved_semaphores
        self._targets: dict[Submesh, Target] = {}
        self._alternatives: dict[tuple[Hashable, Submesh], Alternatives] = {}
        self._pricings: dict[
            Submesh, tuple[Pricing, dict[tuple[object, ...], Candidates], set[Hashable]]
        ] = {}
        """What options are priced with on each part, its tilings, and the blocks that these are of."""
        self._alone: dict[tuple[Hashable, Submesh], Price] = {}
        self._stages: dict[Hashable, Price] = {}
        self._plans: dict[Hashable, Plan] = {}
        """By what prices depend on, and what a stage makes last: stages of one price differ in names."""

    def target_of(self, shape: Submesh) -> Target:
        """Return the part of the machine."""
        if shape not in self._targets:
            self._targets[shape] = submesh_target(
                self.target, shape, reserved_semaphores=self.reserved_semaphores
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
        key = self.key(segment, shape)
        if key not in self._stages:
            lower, _ = self.least(segment, shape)
            try:
                plan = self._plan(segment, shape)
                self._plans[key, segment.graph.ops[-1].outputs] = plan
                self._stages[key] = Price(
                    cost=plan.cost,
                    bound=max(lower, plan.bound),
                    items=_item_costs(plan, segment),
                    claim=claim_of(plan),
                )
            except InfeasibleError:
                self._stages[key] = Price(cost=inf, bound=lower)
        return self._stages[key]

    def least(self, segment: Segment, shape: Submesh) -> tuple[float, Proof]:
        """Return what a stage costs at least as its blocks by themselves do."""
        bounds = (
            self.alone(segment.keys[i.block], segment.rolled.blocks[i.block], shape).bound
            for i in segment.rolled.instances
        )
        return sum(bounds), Proof(method="blocks by themselves")

    def plan(self, segment: Segment, shape: Submesh) -> Plan:
        """Return the plan of a stage.

        Raises:
            InfeasibleError: Nothing that was found fits.
        """
        key = self.key(segment, shape), segment.graph.ops[-1].outputs
        if key not in self._plans:
            self._plans[key] = self._plan(segment, shape)
        return self._plans[key]

    def _plan(self, segment: Segment, shape: Submesh) -> Plan:
        return plan_setting(self.setting(segment, shape), self.options)

    def key(self, segment: Segment, shape: Submesh) -> Hashable:
        """Return what the price of a stage depends on."""
        return segment.signature, shape

    def setting(self, segment: Segment, shape: Submesh) -> Setting:
        """Return what the plan of a stage is chosen from.

        Raises:
            InfeasibleError: Some tensor cannot be computed within the scratchpad.
        """
        target, alternatives = self.target_of(shape), self.alternatives(segment, shape)
        pricing = self.pricing_of(segment, shape)
        mesh = pricing.mesh
        return prepare(
            segment.graph, segment.rolled, alternatives, target, mesh, self.options, pricing
        )

    def pricing_of(
        self, segment: Segment, shape: Submesh, *, is_everything: bool = False
    ) -> Pricing:
        """Return what the options of a stage are priced with; stages on a part share what was priced.

        Args:
            segment: The stage.
            shape: Its part of the machine.
            is_everything: Whether forms that pruning leaves out may be asked for, too.
        """
        found = self.alternatives(segment, shape)
        return self._pricing(segment.keys, found, shape, is_everything=is_everything)

    def _pricing(
        self,
        keys: tuple[Hashable, ...],
        blocks: tuple[Alternatives, ...],
        shape: Submesh,
        *,
        is_everything: bool = False,
    ) -> Pricing:
        """Return what the options of blocks on a part are priced with: one for all blocks."""
        target = self.target_of(shape)
        mesh = logical_mesh(target)
        if shape not in self._pricings:
            own = pricing_of((), target, mesh, self.options)
            tilings = dict[tuple[object, ...], Candidates]()
            self._pricings[shape] = replace(own, tilings=tilings), tilings, set()
        found, tilings, known = self._pricings[shape]
        for key, block in zip(keys, blocks, strict=True):
            if (key, is_everything) not in known:
                known.add((key, is_everything))
                some = block if is_everything else prune(block)
                tilings |= tiling_candidates((some,), mesh, target, self.options.tiling)
        return found

    def alternatives(self, segment: Segment, shape: Submesh) -> tuple[Alternatives, ...]:
        """Return the alternatives of each block of a stage."""
        pairs = zip(segment.keys, segment.rolled.blocks, strict=True)
        return tuple(self.of_block(key, block, shape) for key, block in pairs)

    def of_block(self, key: Hashable, block: Block, shape: Submesh) -> Alternatives:
        """Return the alternatives of a block on a part."""
        if (key, shape) not in self._alternatives:
            mesh = logical_mesh(self.target_of(shape))
            self._alternatives[key, shape] = self.saturate(block.graph, mesh)
        return self._alternatives[key, shape]

    def setting_alone(self, key: Hashable, block: Block, shape: Submesh) -> Setting:
        """Return what the plan of a block by itself is chosen from, the way from and to DRAM free.

        Raises:
            InfeasibleError: Some tensor cannot be computed within the scratchpad.
        """
        found = (prune(self.of_block(key, block, shape)),)
        pricing, rolled = self._pricing((key,), found, shape), alone(block)
        tables = build_tables(block.graph, rolled, found, pricing, are_ports_free=True)
        return Setting(
            graph=block.graph, rolled=rolled, alternatives=found, pricing=pricing, tables=tables
        )

    def _price_alone(self, key: Hashable, block: Block, shape: Submesh) -> Price:
        try:
            tables = self.setting_alone(key, block, shape).tables
        except InfeasibleError:
            return Price(cost=inf, bound=inf, claim=Claim(bound=inf, certificate=None))
        few = replace(self.options.solve, price_steps=4, branching_gap=inf)
        below = floor(tables.relaxed, few)
        solution = solve(tables.problem, few, below=below)
        cutoff = tables.relaxed.cost(solution.choice) if solution.feasible else inf
        relaxed = lower_bound(below, cutoff, solution.multipliers, few)
        cost = solution.cost / tables.scale if solution.feasible else inf
        bound = relaxed.bound / tables.scale
        proof = None if relaxed.proof is None else Certificate(priced=relaxed.proof)
        return Price(cost=cost, bound=bound, claim=Claim(bound=bound, certificate=proof))


def claim_of(plan: Plan) -> Claim | None:
    """Return the bound of a plan of all of a part, if it can be checked again."""
    certificate = plan.proof.certificate
    if not isinstance(certificate, Certificate):
        return None
    return Claim(bound=plan.bound, certificate=certificate)


def _item_costs(plan: Plan, segment: Segment) -> tuple[float, ...]:
    """Return what each item of a stage costs; what is computed again belongs to the first one."""
    count = segment.last - segment.first
    extra = len(segment.rolled.instances) - count
    costs = [0.0] * count
    makers = {name: op.instance for op in plan.ops for name in op.op.outputs}
    for op in plan.ops:
        costs[max(0, op.instance - extra)] += op.cost_units
    for delivery in {delivery.tensor: delivery for delivery in plan.output_deliveries}.values():
        maker = max(0, makers.get(delivery.tensor, 0) - extra)
        costs[maker] += delivery_units(delivery, plan.objective)
    return tuple(costs)
