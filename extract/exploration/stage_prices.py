"""Prices of stages under demands on their ops: sharding, split, tile, memory, weights, and rules to avoid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

from tilewright.errors import InfeasibleError
from tilewright.extract.exploration.demand import Demand
from tilewright.extract.exploration.messages import Messages
from tilewright.extract.exploration.naming import variables_of
from tilewright.extract.exploration.replan import NO_BOUND, replanned
from tilewright.extract.exploration.restrict import MOST_BRANCHES, Placed, Restriction, restrictions
from tilewright.extract.exploration.tables import NoOptionError, OptionMemo, PricedOptions
from tilewright.extract.exploration.warm import Known, known, with_messages
from tilewright.extract.extraction import ExtractOptions, plan_setting, plan_with_start
from tilewright.extract.origins import Variable
from tilewright.extract.pipeline.prices import Price, Prices, Saturate
from tilewright.extract.pipeline.segments import Segment
from tilewright.extract.plan import Plan, Proof
from tilewright.extract.setting import Setting
from tilewright.hwmodel.submesh import Submesh
from tilewright.hwmodel.target import Target
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.roll import Block


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Learnt:
    """A planned stage: its blocks, how often each occurs, and its solution, which numbers them alike."""

    counts: Mapping[Hashable, int]
    keys: tuple[Hashable, ...]
    known: Known


class WarmPrices(Prices):
    """Prices of stages, of which later ones are searched for from the most similar one planned before."""

    def __init__(
        self,
        target: Target,
        saturate: Saturate,
        options: ExtractOptions,
        reserved_semaphores: int,
    ) -> None:
        super().__init__(target, saturate, options, reserved_semaphores)
        self._learnt: dict[Submesh, list[_Learnt]] = {}
        self._priced: dict[Submesh, PricedOptions] = {}
        self.is_learning = True
        """Whether stages are planned as compiling does, and remembered."""

    def memo(self, segment: Segment, shape: Submesh, *, is_everything: bool = False) -> OptionMemo:
        """Return what makes settings of a stage; stages on a part share options of blocks.

        Args:
            segment: The stage.
            shape: Its part of the machine.
            is_everything: Whether forms that pruning leaves out may be asked for, too.
        """
        return OptionMemo(
            segment.graph,
            segment.rolled,
            self.pricing_of(segment, shape, is_everything=is_everything),
            keys=segment.keys,
            priced=self._priced.setdefault(shape, PricedOptions()),
        )

    def setting(self, segment: Segment, shape: Submesh) -> Setting:
        """Return what the plan of a stage is chosen from.

        Raises:
            InfeasibleError: Some tensor cannot be computed within the scratchpad.
        """
        everything = Restriction(alternatives=self.alternatives(segment, shape), demands={})
        return self.memo(segment, shape).setting(everything)

    def start(self, segment: Segment, shape: Submesh) -> Known | None:
        """Return what the search for a stage's plan begins with; None: nothing is known of its part."""
        learnt = self._learnt.get(shape, [])
        if self.is_learning or not learnt:
            return None
        counts = _counts(segment)
        best = min(learnt, key=lambda one: _distance(one.counts, counts))
        numbers = {key: number for number, key in enumerate(segment.keys)}

        def here(variable: Variable) -> Variable | None:
            key = best.keys[variable[0]]
            return (numbers[key], variable[1]) if key in numbers else None

        def mapped[T](found: Mapping[Variable, T]) -> dict[Variable, T]:
            return {
                own: value
                for variable, value in found.items()
                if (own := here(variable)) is not None
            }

        def joined(found: Messages) -> Messages:
            return {
                (own[0], own[1], argument): message
                for (maker, reader, argument), message in found.items()
                if (own := (here(maker), here(reader))) and own[0] and own[1]
            }

        return Known(
            chosen=mapped(best.known.chosen),
            prices=mapped(best.known.prices),
            relaxed_prices=mapped(best.known.relaxed_prices),
            sent=joined(best.known.sent),
            relaxed_sent=joined(best.known.relaxed_sent),
        )

    def _plan(self, segment: Segment, shape: Submesh) -> Plan:
        setting, start = self.setting(segment, shape), self.start(segment, shape)
        if start is not None:
            return replanned(setting, start, least=self.least(segment, shape))[0]
        plan, found = plan_with_start(setting, self.options)
        if self.is_learning and found is not None:
            solved = with_messages(
                known(setting.tables, found.first, found.relaxed), setting.tables
            )
            one = _Learnt(counts=_counts(segment), keys=segment.keys, known=solved)
            self._learnt.setdefault(shape, []).append(one)
        return plan


def _counts(segment: Segment) -> dict[Hashable, int]:
    """Return how often each block occurs in a stage."""
    return dict(Counter(segment.keys[i.block] for i in segment.rolled.instances))


def _distance(some: Mapping[Hashable, int], others: Mapping[Hashable, int]) -> int:
    """Return how many instances of blocks two stages do not have in common."""
    return sum(abs(some.get(key, 0) - others.get(key, 0)) for key in {*some, *others})


class DemandedPrices(Prices):
    """Prices of stages that satisfy demands; those that none is on have the prices they have without."""

    def __init__(self, base: WarmPrices, demands: tuple[Demand, ...]) -> None:
        """Take blocks, parts and bounds from prices without demands.

        Args:
            base: Those prices.
            demands: On ops; without a tensor, on those of all stages.
        """
        super().__init__(base.target, base.saturate, base.options, base.reserved_semaphores)
        self._base, self._demands = base, demands

    def is_touched(self, segment: Segment) -> bool:
        """Whether a demand is on a stage."""
        return bool(self._own(segment))

    def target_of(self, shape: Submesh) -> Target:
        """Return the part of the machine."""
        return self._base.target_of(shape)

    def of_block(self, key: Hashable, block: Block, shape: Submesh) -> Alternatives:
        """Return the alternatives of a block on a part."""
        return self._base.of_block(key, block, shape)

    def alone(self, key: Hashable, block: Block, shape: Submesh) -> Price:
        """Return the price of a block by itself, without demands: its bound holds with them all the more."""
        return self._base.alone(key, block, shape)

    def key(self, segment: Segment, shape: Submesh) -> Hashable:
        """Return what the price of a stage depends on."""
        key = self._base.key(segment, shape)
        return (key, tuple(self._placed(segment, shape))) if self.is_touched(segment) else key

    def stage(self, segment: Segment, shape: Submesh) -> Price:
        """Return the price of a stage."""
        if not self.is_touched(segment):
            return self._base.stage(segment, shape)
        return super().stage(segment, shape)

    def least(self, segment: Segment, shape: Submesh) -> tuple[float, Proof]:
        """Return what a stage costs at least; nothing is known of it where demands add ways."""
        if any(demand.adds_ways for demand in self._own(segment)):
            return NO_BOUND
        return super().least(segment, shape)

    def plan(self, segment: Segment, shape: Submesh) -> Plan:
        """Return the plan of a stage.

        Raises:
            InfeasibleError: Nothing that was found fits or does what is demanded.
        """
        if not self.is_touched(segment):
            return self._base.plan(segment, shape)
        return super().plan(segment, shape)

    def _plan(self, segment: Segment, shape: Submesh) -> Plan:
        memo = self._base.memo(segment, shape, is_everything=True)
        alternatives = self._base.alternatives(segment, shape)
        start = self._base.start(segment, shape)
        branches = restrictions(alternatives, self._placed(segment, shape))
        least = self.least(segment, shape)
        plans, bounds = [], [0.0] if len(branches) == MOST_BRANCHES else []
        for restriction in branches:
            try:
                setting = memo.setting(restriction)
                plan = (
                    replanned(setting, start, least=least)[0]
                    if start
                    else plan_setting(setting, self.options)
                )
            except NoOptionError:
                continue
            except InfeasibleError:
                bounds.append(0.0)
                continue
            plans.append(plan)
            bounds.append(plan.bound)
        if not plans:
            named = ", ".join(f"'{demand}'" for demand in self._own(segment))
            raise InfeasibleError(f"stage '{segment.graph.name}': no plan found under {named}")
        return replace(min(plans, key=lambda plan: plan.cost), bound=min(bounds))

    def _own(self, segment: Segment) -> tuple[Demand, ...]:
        made = {name for i in segment.rolled.instances for name in i.tensors.values()}
        made -= {port.tensor for port in segment.graph.inputs}
        return tuple(d for d in self._demands if d.tensor is None or d.tensor in made)

    def _placed(self, segment: Segment, shape: Submesh) -> list[Placed]:
        alternatives = self._base.alternatives(segment, shape)
        names = variables_of(segment.graph, segment.rolled, alternatives)
        return [(d, None if d.tensor is None else names[d.tensor]) for d in self._own(segment)]
