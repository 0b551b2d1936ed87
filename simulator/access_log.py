"""The accesses that later ones must be ordered after, and the search for those that are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilewright.lowering.isa import Engine
from tilewright.simulator.actors import conflicting, union
from tilewright.simulator.clocks import Clock, Counts, full
from tilewright.simulator.footprint import Dims, StridedSet, apart_modulo
from tilewright.simulator.touches import LocalTouch, Relation, SharedTouch, Touch, local_conflict

Places = NDArray[np.intp]
Hull = tuple[int, int]

_PAIR_WORK = 1000
"""Records that are scanned in the time in which one is looked at in full."""

_FEW = 4
"""Records that are compared faster one by one than as arrays."""


@dataclass(frozen=True, slots=True)
class Record:
    """An access by the `number`-th instruction (from 1) of an engine."""

    engine: Engine
    number: int
    touch: Touch


class _Log:
    """Live accesses as parallel arrays, so that one comparison finds those that overlap."""

    def __init__(self) -> None:
        self._capacity = 256
        self._table: NDArray[np.int64] = np.zeros((6, self._capacity), np.int64)
        self.records: list[Record] = []

    # rows of the table
    LOW, HIGH, ENGINE, NUMBER, WRITE, LAYOUT = range(6)

    def column(self, row: int) -> NDArray[np.int64]:
        """Return one property of all records."""
        return self._table[row, : len(self.records)]

    def append(self, record: Record, hull: Hull, layout: int) -> None:
        """Add a record."""
        n = len(self.records)
        if n == self._capacity:
            self._capacity *= 2
            self._table = np.concatenate((self._table, np.zeros_like(self._table)), axis=1)
        self._table[:, n] = (*hull, record.engine, record.number, record.touch.write, layout)
        self.records.append(record)

    def overlapping(self, hull: Hull) -> Places:
        """Return the records whose hulls meet an interval."""
        return np.nonzero((self.column(self.LOW) < hull[1]) & (self.column(self.HIGH) > hull[0]))[0]

    def is_inside(self, place: int, hull: Hull) -> bool:
        """Whether the hull of a record lies in an interval."""
        low, high = self._table[self.LOW, place], self._table[self.HIGH, place]
        return bool(hull[0] <= low and high <= hull[1])

    def remove(self, places: Sequence[int]) -> None:
        """Remove records."""
        if not len(places):
            return
        if len(places) > 8:
            keep = np.ones(len(self.records), np.bool_)
            keep[list(places)] = False
            kept = np.flatnonzero(keep)
            self._table[:, : len(kept)] = self._table[:, kept]
            self.records = [self.records[k] for k in kept.tolist()]
            return
        for place in sorted(places, reverse=True):
            last = len(self.records) - 1
            self._table[:, place] = self._table[:, last]
            self.records[place] = self.records[last]
            self.records.pop()


def _minimum_known(
    clock: Clock, sizes: tuple[int, ...], earlier: Relation, later: Relation
) -> Sequence[int]:
    """Return how much the later actors know to be complete on every tile that may be the earlier actor.

    The actors are given relative to the tile whose memory they access, so the earlier one is
    at earlier - later from the later one.
    """
    if earlier.is_own and later.is_own:
        return clock.own
    axes = earlier.axes | later.axes
    index: list[slice | int] = []
    for axis, n in enumerate(sizes):
        distance = (earlier.offset[axis] - later.offset[axis]) % n
        index.append(slice(None) if axes >> axis & 1 else distance)
    table = full(clock, sizes)[tuple(index)]
    least: list[int] = table.reshape(-1, table.shape[-1]).min(axis=0).tolist()
    return least


def _is_again(a: LocalTouch, b: LocalTouch) -> bool:
    """Whether two accesses are the same but for reading or writing."""
    return (
        a.base == b.base
        and a.dims == b.dims
        and a.itemsize == b.itemsize
        and a.coefficients == b.coefficients
        and a.actor == b.actor
    )


class LocalLog:
    """Accesses to the scratchpad of one tile, by it and by others; the same on all tiles.

    `work` counts records scanned and bytes compared.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._sizes = sizes
        self._log = _Log()
        self._is_own = True
        self.compared = 0
        self.work = 0

    def compare(self, touch: LocalTouch, hull: Hull, clock: Clock) -> Record | None:
        """Compare an access with those kept; return one it races with, if any."""
        log = self._log
        self.work += len(log.records)
        near = log.overlapping(hull)
        if not len(near):
            return None
        self.work += _PAIR_WORK * len(near)
        places = near.tolist()
        ordered = self._ordered(places, touch.actor, clock)
        superseded: list[int] = []
        is_gapless = (
            not any(touch.coefficients)
            and not touch.piece((0,) * len(self._sizes), self._sizes).dims
        )
        for place, is_ordered in zip(places, ordered, strict=True):
            earlier: Record = log.records[place]
            other = earlier.touch
            assert isinstance(other, LocalTouch)
            self.compared += touch.write or other.write
            if is_ordered:
                is_covered = is_gapless and log.is_inside(place, hull)
                if (touch.write or not other.write) and (is_covered or _is_again(other, touch)):
                    superseded.append(place)
            elif touch.write or other.write:
                self.work += hull[1] - hull[0]
                if self._conflict(earlier, touch, clock):
                    return earlier
        log.remove(superseded)
        return None

    def keep(self, record: Record, touch: LocalTouch, hull: Hull) -> None:
        """Keep an access for comparison with later ones."""
        self._is_own = self._is_own and touch.actor.is_own
        self._log.append(record, hull, 0)

    def _conflict(self, earlier: Record, touch: LocalTouch, clock: Clock) -> bool:
        other = earlier.touch
        assert isinstance(other, LocalTouch)
        unordered = full(clock, self._sizes)[..., earlier.engine] < earlier.number
        return local_conflict(other, touch, self._sizes, unordered)

    def _ordered(self, places: Sequence[int], actor: Relation, clock: Clock) -> list[bool]:
        """Return which records are complete, whatever the timing, when an actor makes an access."""
        known: dict[Relation, Sequence[int]] = {}
        found = []
        for place in places:
            record = self._log.records[place]
            assert isinstance(record.touch, LocalTouch)
            earlier = record.touch.actor
            if earlier not in known:
                known[earlier] = _minimum_known(clock, self._sizes, earlier, actor)
            found.append(known[earlier][record.engine] >= record.number)
        return found

    def collect(self, running: Sequence[Clock]) -> None:
        """Forget accesses that every engine of every tile knows to be complete."""
        _collect(self._log, running, self._sizes, everywhere=not self._is_own)


class SharedLog:
    """Accesses to DRAM by all tiles."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._sizes = sizes
        self._log = _Log()
        self.compared = 0
        self.work = 0
        self._verdicts: dict[object, bool] = {}
        # layouts of the bytes of all tiles; those of a record begin at its LOW
        self._layouts: dict[tuple[int, Dims], int] = {}

    def compare(self, touch: SharedTouch, hull: Hull, clock: Clock) -> Record | None:
        """Compare an access with those kept; return one it races with, if any."""
        log = self._log
        self.work += len(log.records)
        near = log.overlapping(hull)
        if not touch.write:
            near = near[log.column(log.WRITE)[near] != 0]
        self.compared += len(near)
        if len(near):
            table = full(clock, self._sizes)
            known = table.reshape(-1, table.shape[-1]).min(axis=0)
            engines, numbers = log.column(log.ENGINE)[near], log.column(log.NUMBER)[near]
            ordered = known[engines] >= numbers
            for place in self._meeting(near[~ordered], touch).tolist():
                earlier: Record = log.records[place]
                if self._conflict(earlier, touch, table):
                    return earlier
            if touch.write:
                own = np.asarray(clock.own)[engines] >= numbers
                log.remove(self._superseded(near, ordered, own, touch, hull))
        return None

    def keep(self, record: Record, hull: Hull) -> None:
        """Keep an access for comparison with later ones."""
        assert isinstance(record.touch, SharedTouch)
        self._log.append(record, hull, self._layout(record.touch))

    def _layout(self, touch: SharedTouch) -> int:
        everywhere = union(touch.actors, self._sizes)
        key = (everywhere.itemsize, everywhere.dims)
        return self._layouts.setdefault(key, len(self._layouts))

    def _meeting(self, places: Places, touch: SharedTouch) -> Places:
        """Return the records but for those whose bytes are apart modulo some period."""
        if len(places) <= _FEW:
            return places
        log, own = self._log, union(touch.actors, self._sizes)
        lows, layouts = log.column(log.LOW)[places], log.column(log.LAYOUT)[places]
        meets = np.ones(len(places), np.bool_)
        present = set(layouts.tolist())
        for (itemsize, dims), number in self._layouts.items():
            if number in present:
                alike = np.flatnonzero(layouts == number)
                other = StridedSet(0, itemsize, dims)
                meets[alike] = ~apart_modulo(other, own, own.base - lows[alike])
        return places[meets]

    def _conflict(self, earlier: Record, touch: SharedTouch, table: Counts) -> bool:
        assert isinstance(earlier.touch, SharedTouch)
        unordered = table[..., earlier.engine] < earlier.number
        key = (earlier.touch.actors, touch.actors, unordered.tobytes())
        if key not in self._verdicts:
            low, high = touch.hull(self._sizes)
            self.work += high - low
            self._verdicts[key] = conflicting(
                earlier.touch.actors, touch.actors, self._sizes, unordered
            )
        return self._verdicts[key]

    def _superseded(
        self,
        places: Places,
        ordered: NDArray[np.bool_],
        own: NDArray[np.bool_],
        touch: SharedTouch,
        hull: Hull,
    ) -> list[int]:
        """Return earlier accesses that can race with nothing that does not race with this write too."""
        log, actors = self._log, touch.actors
        lows, highs = log.column(log.LOW)[places], log.column(log.HIGH)[places]
        covered = np.zeros(len(places), np.bool_)
        if not any(actors.shares) and not actors.piece.dims:
            covered = ordered & (hull[0] <= lows) & (highs <= hull[1])
        # the same tile touches the same bytes again
        alike = own & ~covered & (lows == hull[0]) & (highs == hull[1])
        again = [p for p in places[alike].tolist() if log.records[p].touch.actors == actors]
        return [*places[covered].tolist(), *again]

    def collect(self, running: Sequence[Clock]) -> None:
        """Forget accesses that every engine of every tile knows to be complete."""
        _collect(self._log, running, self._sizes, everywhere=True)


def _collect(
    log: _Log, running: Sequence[Clock], sizes: tuple[int, ...], *, everywhere: bool
) -> None:
    if not running or not log.records:
        return
    known = np.min([clock.own for clock in running], axis=0)
    if everywhere:
        for clock in running:
            table = full(clock, sizes)
            known = np.minimum(known, table.reshape(-1, table.shape[-1]).min(axis=0))
    done = known[log.column(log.ENGINE)] >= log.column(log.NUMBER)
    log.remove(np.flatnonzero(done).tolist())
