"""What demands allow of the stages of a model, and why they allow nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import numpy as np

from tilewright.errors import DemandError
from tilewright.extract.choice import Mask
from tilewright.extract.exploration.conflict import (
    contradiction,
    core_of,
    nothing_offered,
    offered,
    shortened,
)
from tilewright.extract.exploration.demand import Aspect, Demand
from tilewright.extract.exploration.naming import variables_of
from tilewright.extract.exploration.restrict import can_be_met
from tilewright.extract.exploration.stage_values import number_of, part_of, part_text
from tilewright.extract.pipeline.items import Places
from tilewright.extract.pipeline.prices import alone
from tilewright.extract.pipeline.search import Goal, Permitted, divide
from tilewright.extract.pipeline.table import StageTable
from tilewright.hwmodel.submesh import Submesh


class StageLimits:
    """Which stages demands allow: masks over [number, first, last, shape] as `divide` takes them."""

    def __init__(
        self, table: StageTable, places: Places, everywhere: frozenset[Submesh], most: int
    ) -> None:
        """Ask a table of stages.

        Args:
            table: The stages, of which those with a finite bound are legal.
            places: The model's operators.
            everywhere: Parts that any stage may have; others only where a demand forces them.
            most: Stages at most.
        """
        self._table, self._places, self._most = table, places, most
        parts = table.parts
        self._items, self._shapes = parts.items, parts.shapes
        self._is_everywhere = np.array([shape in everywhere for shape in parts.shapes])
        self._edges = parts.edges
        self._computes: dict[str, Mask] = {}
        self._ways: dict[tuple[int, int, tuple[Demand, ...]], bool] = {}

    def counts(self, demands: Sequence[Demand]) -> tuple[int, ...]:
        """Return the numbers of stages that demands allow."""
        counts, target = list(range(1, self._most + 1)), self._table.parts.target
        for demand in demands:
            if demand.aspect is Aspect.STAGES:
                number = number_of(demand, target)
                counts = [c for c in counts if (c == number) == demand.is_forced]
            elif demand.aspect is Aspect.STAGE and demand.is_forced:
                counts = [c for c in counts if c >= number_of(demand, target)]
        return tuple(counts)

    def permitted(self, demands: Sequence[Demand]) -> Permitted:
        """Return the stages that demands allow."""
        size = (self._most, self._items, self._items + 1, len(self._shapes))
        found = np.zeros(size, dtype=np.bool_)
        found[..., self._is_everywhere] = True
        for demand in demands:
            if demand.aspect is Aspect.PART and demand.is_forced:
                shape = self._shapes.index(part_of(demand, self._table.parts.target))
                found[..., shape] |= self.computing(demand.subject)
        for demand in demands:
            found &= self._mask(demand)
        return found & self._with_ways(demands)

    def divides(self, demands: Sequence[Demand]) -> bool:
        """Whether some division into stages is what demands allow, whatever it costs."""
        counts = self.counts(demands)
        if not counts:
            return False
        free = np.where(np.isfinite(self._table.lower), 0.0, inf)
        goal = Goal(sum_weight=1.0, slowest_weight=0.0, counts=counts)
        return divide(free, self._table.room, goal, self.permitted(demands)) is not None

    def computing(self, tensor: str) -> Mask:
        """Return which stages compute a tensor, themselves or again, [first, last]."""
        if tensor not in self._computes:
            mask = np.zeros((self._items, self._items + 1), dtype=np.bool_)
            for first in range(self._items):
                for last in range(first + 1, self._items + 1):
                    mask[first, last] = self._table.parts.segments.computes(tensor, first, last)
            self._computes[tensor] = mask
        return self._computes[tensor]

    def _mask(self, demand: Demand) -> Mask:
        """Return what a demand on stages allows, all for others; axes of one entry stand for all."""
        match demand.aspect:
            case Aspect.STAGE:
                return self._of_number(demand)
            case Aspect.CUT:
                return self._of_cut(demand)
            case Aspect.PART:
                part = part_of(demand, self._table.parts.target)
                is_part = np.array([shape == part for shape in self._shapes])
                computing = self.computing(demand.subject)[None, :, :, None]
                return np.asarray(~computing | (is_part == demand.is_forced))
            case _:
                return np.ones((1, 1, 1, 1), dtype=np.bool_)

    def _of_number(self, demand: Demand) -> Mask:
        """Return what leaves a tensor to one stage, or not to that one."""
        tensor = demand.subject
        number, computing = number_of(demand, self._table.parts.target), self.computing(tensor)
        found = np.ones((self._most, *computing.shape, 1), dtype=np.bool_)
        if not demand.is_forced:
            found[number - 1 : number] = ~computing[None, :, :, None]
            return found
        if tensor not in self._table.parts.segments.computed_again:
            found[:] = ~computing[None, :, :, None]
        found[number - 1] = computing[:, :, None]
        return found

    def _of_cut(self, demand: Demand) -> Mask:
        """Return what has a cut behind a tensor, or none."""
        place = self._places.made_by[demand.subject] + 1
        first, last = np.ogrid[: self._items, : self._items + 1]
        if place not in self._edges:
            assert not demand.is_forced, "the model is cut where demands need it"
            found = np.ones((self._items, self._items + 1), dtype=np.bool_)
        else:
            edge = self._edges.index(place)
            is_end = 0 < edge < self._items
            found = (first >= edge) | (last <= edge)
            if not demand.is_forced and is_end:
                found = (first != edge) & (last != edge)
            elif not demand.is_forced:
                found = np.ones_like(found)
        return found[None, :, :, None]

    def _with_ways(self, demands: Sequence[Demand]) -> Mask:
        """Return the stages whose parts have ways to compute tensors as demands on ops ask."""
        found = np.ones((1, self._items, self._items + 1, len(self._shapes)), dtype=np.bool_)
        on_ops = [demand for demand in demands if not demand.is_on_stages]
        everywhere = tuple(demand for demand in on_ops if demand.tensor is None)
        segments = self._table.parts.segments
        first, last = np.ogrid[: self._items, : self._items + 1]
        for item in range(self._items):
            own = tuple(d for d in on_ops if d.tensor and segments.item_of(d.tensor) == item)
            if not own and not everywhere:
                continue
            inside = (first <= item) & (item < last)
            for shape in range(len(self._shapes)):
                if not self._has_way(item, shape, (*everywhere, *own)):
                    found[0, :, :, shape] &= ~inside
        return found

    def _has_way(self, item: int, shape: int, demands: tuple[Demand, ...]) -> bool:
        key = item, shape, demands
        if key not in self._ways:
            self._ways[key] = self._asked(item, shape, demands, can_be_met)
        return self._ways[key]

    def _asked[T](
        self, item: int, shape: int, demands: Sequence[Demand], ask: Callable[..., T]
    ) -> T:
        """Ask about the alternatives of an item's block on a part, and demands with their variables."""
        parts = self._table.parts
        instance = parts.rolled.instances[item]
        block = parts.rolled.blocks[instance.block]
        key = parts.segments.block_key(instance.block)
        found = (self._table.prices.of_block(key, block, self._shapes[shape]),)
        inner = {outer: name for name, outer in instance.tensors.items()}
        variables = variables_of(block.graph, alone(block), found)
        for demand in demands:
            if demand.tensor and inner[demand.tensor] not in variables:
                raise DemandError(
                    f"demand '{demand}': found that '{demand.tensor}' equals an input or a constant, "
                    "expected a tensor that is computed; demand something of what reads it"
                )
        placed = [(d, variables[inner[d.tensor]] if d.tensor else None) for d in demands]
        return ask(found, placed)

    def error(self, demands: Sequence[Demand]) -> DemandError:
        """Return why demands allow no division into stages: a smallest set of them that does not."""
        core = core_of(demands, self.divides)
        if len(core) > 1:
            return DemandError(contradiction(core, self._reason(core)))
        (demand,) = core
        if not demand.is_on_stages:
            return DemandError(nothing_offered(demand, self._offered(demand)))
        values = shortened(self._possible(demand)) or "nothing"
        return DemandError(
            f"demand '{demand}': no division into stages "
            + (f"satisfies it; expected one of: {values}" if demand.is_forced else "does without")
            + ("" if demand.is_forced else f"; all that is possible here is: {values}")
        )

    def _possible(self, demand: Demand) -> list[str]:
        """Return the values with which a demand on stages could be forced."""
        match demand.aspect:
            case Aspect.STAGE | Aspect.STAGES:
                texts = [str(number) for number in range(1, self._most + 1)]
            case Aspect.PART:
                texts = [part_text(shape) for shape in self._shapes]
            case _:
                names = [self._places.ops[edge - 1].outputs[0] for edge in self._edges[1:-1]]
                cuts = [Demand(aspect=Aspect.CUT, value="", tensor=name) for name in names]
                return [str(cut.tensor) for cut in cuts if self.divides([cut])]
        made = (Demand(aspect=demand.aspect, value=text, tensor=demand.tensor) for text in texts)
        return [one.value for one in made if self.divides([one])]

    def _offered(self, demand: Demand) -> list[str]:
        """Return the values of a demand on an op that ways on some part have."""
        if demand.tensor is None:
            return []
        item, values = self._table.parts.segments.item_of(demand.tensor), dict[str, None]()
        for shape in range(len(self._shapes)):
            own = self._asked(
                item,
                shape,
                (demand,),
                lambda found, placed: offered(found[0], placed[0][1][1], demand.aspect),
            )
            values |= dict.fromkeys(own)
        return sorted(filter(None, values))

    def _reason(self, core: Sequence[Demand]) -> str:
        """Return why two demands contradict each other, where that is the order of the model."""
        staged = [d for d in core if d.aspect is Aspect.STAGE and d.is_forced and d.tensor]
        if len(core) != 2 or len(staged) != 2:
            return ""
        target = self._table.parts.target
        one, other = sorted(staged, key=lambda d: self._places.made_by[d.subject])
        if number_of(one, target) > number_of(other, target):
            before = f"'{one.tensor}' comes before '{other.tensor}'"
            return f"stages follow the order of the model, in which {before}"
        inside = self._places.made_by[one.subject], self._places.made_by[other.subject]
        if not any(inside[0] < edge <= inside[1] for edge in self._edges):
            return f"no rule allows a cut between '{one.tensor}' and '{other.tensor}'"
        return ""
