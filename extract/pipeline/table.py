"""What every stage of a model costs, as far as it is known: exact prices, guesses and bounds.

Pricing a stage is an extraction. Until then a stage is bounded by the sum of its blocks' bounds, and guessed
at by the sum of its blocks' prices.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from copy import copy
from dataclasses import dataclass
from math import gcd, inf
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tilewright.extract.certificate import Claim, Divisions
from tilewright.extract.pipeline.prices import Price, Prices
from tilewright.extract.pipeline.search import Prices as Table
from tilewright.extract.pipeline.search import Room, Stage
from tilewright.extract.pipeline.segments import Segments
from tilewright.graph import Graph
from tilewright.hwmodel.network import network_of
from tilewright.hwmodel.submesh import Submesh, fits_at
from tilewright.hwmodel.target import Target
from tilewright.rules.roll import Rolled


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """What stages are made of: items of a model, and sub-rectangles of a machine, the whole of it first."""

    graph: Graph
    rolled: Rolled
    segments: Segments
    target: Target
    shapes: tuple[Submesh, ...]
    are_beside: bool = False
    """Whether stages that do not wait for each other run side by side; else they are in a row."""
    cuts: frozenset[int] | None = None
    """The items in front of which, or behind all, stages may be cut; None: everywhere."""

    @property
    def items(self) -> int:
        """Number of items."""
        return len(self.rolled.instances)

    @property
    def edges(self) -> tuple[int, ...]:
        """Places between operators where items begin and end."""
        instances = self.rolled.instances
        return (instances[0].start, *(instance.stop for instance in instances))

    @property
    def is_divisible(self) -> bool:
        """Whether stages can run the model: nothing is for the host, and every output is computed."""
        return is_divisible(self.graph)

    def may_be(self, first: int, last: int) -> bool:
        """Whether items `first <= i < last` may be a stage."""
        is_cut = self.cuts is None or {first, last} <= self.cuts
        return is_cut and self.segments.is_legal(first, last, may_pass=self.are_beside)

    def is_all(self, first: int, last: int) -> bool:
        """Whether items `first <= i < last` are the whole model."""
        return last - first == self.items

    def exchange_cycles(self, first: int, last: int) -> float:
        """Return what a stage adds to the plan of its part: signals to its neighbours, a barrier at its end.

        Of an inference in a stream it waits at the end until others have read what it wrote. On the path
        of a single one there is the signal that it is written, and the barrier of what nobody reads.
        """
        if self.is_all(first, last):
            return 0.0
        tile = self.target.tile
        far = network_of(self.target).route(0, self.target.tiles - 1).latency_cycles
        read = tile.dma.startup_cycles + self.target.dram.latency_cycles
        neighbours = (first > 0) + (last < self.items)
        barrier = 2 * far + 8 * tile.control.issue_cycles
        if self.are_beside:
            reads = self.segments.reads[last:]
            is_read = any(first <= made < last for found in reads for made in found)
            return far if is_read else barrier
        return neighbours * far + (last < self.items) * (far + read) + barrier


def room_of(parts: Parts, prices: Prices) -> Room:
    """Return the tiles of a machine, in the largest units in which all sub-rectangles are whole."""
    target, shapes = parts.target, parts.shapes
    sizes = [prices.target_of(shape).tiles for shape in shapes]
    unit = gcd(*sizes, target.tiles)
    return Room(
        tiles=target.tiles // unit,
        sizes=tuple(size // unit for size in sizes),
        fits_at=lambda shape, tile: fits_at(target, shapes[shape], tile * unit),
    )


def is_divisible(graph: Graph) -> bool:
    """Whether stages can run a model: nothing is for the host, and every output is computed."""
    made = {name for op in graph.ops for name in op.outputs}
    return not graph.host_models and all(port.tensor in made for port in graph.outputs)


class StageTable:
    """Prices of the stages of a model on a machine, [first, last, shape] as in `search.py`."""

    def __init__(
        self, parts: Parts, prices: Prices, alone: Callable[[int, Submesh], Price] | None = None
    ) -> None:
        """Enter the sums of the items' prices for all legal stages.

        Args:
            parts: What stages are made of.
            prices: Prices stages.
            alone: Returns the price of an item by itself on a part; that of its block by default.
        """
        self.parts, self.prices = parts, prices
        size = (parts.items, parts.items + 1, len(parts.shapes))
        self.lower: Table = np.full(size, inf)
        self.known: Table = np.full(size, inf)
        self.is_priced: NDArray[np.bool_] = np.zeros(size, dtype=np.bool_)
        self._guess: Table = np.full(size, inf)
        self._extra = np.zeros(size[:2])
        self._items_alone = np.zeros((2, len(parts.shapes), parts.items))
        """What each item by itself costs, and at least."""
        self._alone_claims: list[tuple[Claim, ...]] = []
        self._claims: dict[tuple[int, int, int], Claim] = {}
        """Of stages that are priced."""
        self._item_costs: dict[tuple[int, int, int], tuple[float, ...]] = {}
        self._asked: set[Hashable] = set()
        self._before = frozenset[Hashable]()
        self._fill(alone or self._alone)

    def copy(self) -> StageTable:
        """Return a table that knows the same, and counts what is asked from now on."""
        other = copy(self)
        other.lower, other.known = self.lower.copy(), self.known.copy()
        other.is_priced, other._asked = self.is_priced.copy(), set(self._asked)
        other._item_costs, other._claims = dict(self._item_costs), dict(self._claims)
        other._before = frozenset(self._asked)
        return other

    def carry(self, known: StageTable) -> None:
        """Enter what another table knows of stages that are the same here.

        Its model is cut at all the places where this one's is, or at fewer; its parts are among those here.
        """
        edges, theirs = self.parts.edges, known.parts.edges
        for first, last, shape in np.argwhere(known.is_priced):
            begin, end = edges.index(theirs[first]), edges.index(theirs[last])
            if end - begin == last - first:
                place = begin, end, self.parts.shapes.index(known.parts.shapes[shape])
                self.known[place] = known.known[first, last, shape]
                self.lower[place] = known.lower[first, last, shape]
                self.is_priced[place] = True
                self._item_costs[place] = known._item_costs[int(first), int(last), int(shape)]
        self._before = frozenset(known._asked)

    def price_with(
        self, prices: Prices, touched: NDArray[np.bool_], unbounded: NDArray[np.bool_]
    ) -> None:
        """Go on with other prices.

        Args:
            prices: Those prices.
            touched: The stages that have them, [first, last].
            unbounded: The stages whose bounds no longer hold, likewise; they may cost anything.
        """
        self.prices = prices
        self.known[touched] = inf
        self.is_priced[touched] = False
        # what was ruled out stays so
        self.lower[unbounded] = np.where(np.isfinite(self.lower[unbounded]), 0.0, inf)

    @property
    def room(self) -> Room:
        """The tiles, in the largest units in which all sub-rectangles are whole."""
        return room_of(self.parts, self.prices)

    @property
    def asked(self) -> int:
        """Number of kinds of stages priced so far, here."""
        return len(self._asked - self._before)

    def set(self, place: tuple[int, int, int], price: Price) -> None:
        """Enter the price of a stage."""
        extra = self.parts.exchange_cycles(place[0], place[1])
        self.known[place] = price.cost + extra
        self._item_costs[place] = price.items
        self.lower[place] = max(self.lower[place], price.bound + extra)
        self.is_priced[place] = True
        if price.claim is not None:
            self._claims[place] = price.claim

    def evidence(self) -> Divisions:
        """Return what the bounds of all stages can be computed from again."""
        return Divisions(alone=tuple(self._alone_claims), stages=MappingProxyType(self._claims))

    def unpriced(self, stages: tuple[Stage, ...]) -> list[Stage]:
        """Return the stages that are not priced yet."""
        return [s for s in stages if not self.is_priced[s.first, s.last, s.shape]]

    def price(self, stage: Stage) -> None:
        """Find out what a stage costs."""
        segment = self.parts.segments.segment(stage.first, stage.last)
        price = self.prices.stage(segment, self.parts.shapes[stage.shape])
        self.set((stage.first, stage.last, stage.shape), price)
        self._asked.add(self.prices.key(segment, self.parts.shapes[stage.shape]))

    def guesses(self) -> Table:
        """Return known prices, and the blocks' sums for the rest, scaled by what they were off so far.

        Longer stages have less scratchpad for each block, so they are off by as much as shorter ones.
        """
        items, table = self.parts.items, self.known.copy()
        for shape in range(len(self.parts.shapes)):
            worst = np.ones(items + 1)
            for first, last in np.argwhere(self.is_priced[:, :, shape]):
                known, guess = self.known[first, last, shape], self._guess[first, last, shape]
                if np.isfinite(known) and 0.0 < guess < inf:
                    worst[last - first] = max(worst[last - first], known / guess)
            worst = np.maximum.accumulate(worst)
            lengths = np.maximum(np.arange(items + 1)[None, :] - np.arange(items)[:, None], 0)
            guessed = np.maximum(self._guess[:, :, shape] * worst[lengths], self.lower[:, :, shape])
            table[:, :, shape] = np.where(
                self.is_priced[:, :, shape], self.known[:, :, shape], guessed
            )
        return table

    def left(self, first: int, last: int, shape: int, item: int) -> float:
        """Return what the plan of a stage that is priced has left to do when it comes to an item."""
        if item == first or not self.parts.are_beside:
            return float(self.known[first, last, shape])
        costs = self._item_costs[first, last, shape][item - first :]
        return sum(costs) + float(self._extra[first, last])

    def left_at_least(self, first: int, last: int, shape: int, item: int) -> float:
        """Return what every plan of a stage has left to do when it comes to an item."""
        if item == first:
            return float(self.lower[first, last, shape])
        bounds = self._items_alone[1, shape, item:last]
        return float(bounds.sum() + self._extra[first, last])

    def left_if_known(self, first: int, last: int, shape: int, item: int) -> float:
        """Return what a stage has left to do, at least if it is not priced."""
        is_priced = self.is_priced[first, last, shape]
        return (self.left if is_priced else self.left_at_least)(first, last, shape, item)

    def left_by_guess(self, first: int, last: int, shape: int, item: int) -> float:
        """Return what a stage has left to do: its share of the items' prices, unless it is priced."""
        if self.is_priced[first, last, shape]:
            return self.left(first, last, shape, item)
        costs = self._items_alone[0, shape]
        share = costs[item:last].sum() / max(costs[first:last].sum(), 1.0)
        return float(share * self._guess[first, last, shape])

    def _alone(self, item: int, shape: Submesh) -> Price:
        rolled = self.parts.rolled
        number = rolled.instances[item].block
        return self.prices.alone(
            self.parts.segments.block_key(number), rolled.blocks[number], shape
        )

    def _fill(self, alone_of: Callable[[int, Submesh], Price]) -> None:
        parts = self.parts
        may_divide = parts.is_divisible
        is_legal = np.zeros((parts.items, parts.items + 1), dtype=np.bool_)
        extra = self._extra
        for first in range(parts.items):
            for last in range(first + 1, parts.items + 1):
                is_legal[first, last] = may_divide and parts.may_be(first, last)
                extra[first, last] = parts.exchange_cycles(first, last)
        for number, shape in enumerate(parts.shapes):
            allowed = is_legal.copy()
            allowed[0, parts.items] |= number == 0
            alone = [alone_of(item, shape) for item in range(parts.items)]
            nothing = Claim(bound=0.0, certificate=None)
            self._alone_claims.append(tuple(p.claim or nothing for p in alone))
            self._items_alone[:, number] = [[p.cost for p in alone], [p.bound for p in alone]]
            self.lower[:, :, number] = _sums([p.bound for p in alone], extra, allowed)
            self._guess[:, :, number] = _sums([p.cost for p in alone], extra, allowed)


def _sums(
    values: list[float], extra: NDArray[np.float64], allowed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the sums of the values of runs of items, [first, last], with what is added; inf if illegal."""
    finite = np.isfinite(values)
    sums = np.cumsum([0.0, *np.where(finite, values, 0.0)])
    counts = np.cumsum([0, *~finite])
    is_finite = counts[None, :] == counts[:-1, None]
    return np.where(allowed & is_finite, sums[None, :] - sums[:-1, None] + extra, inf)
