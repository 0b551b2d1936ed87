"""The accesses that later ones must be ordered after, and the search for those that are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilewright.lowering.isa import Engine
from tilewright.simulator.actors import conflicting
from tilewright.simulator.clocks import Clock, Counts, full
from tilewright.simulator.touches import LocalTouch, Relation, SharedTouch, Touch, local_conflict

Places = NDArray[np.intp]
Hull = tuple[int, int]


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
    LOW, HIGH, ENGINE, NUMBER, WRITE, RELATION = range(6)

    def column(self, row: int) -> NDArray[np.int64]:
        """Return one property of all records."""
        return self._table[row, : len(self.records)]

    def append(self, record: Record, hull: Hull, relation: int) -> None:
        """Add a record."""
        n = len(self.records)
        if n == self._capacity:
            self._capacity *= 2
            self._table = np.concatenate((self._table, np.zeros_like(self._table)), axis=1)
        self._table[:, n] = (*hull, record.engine, record.number, record.touch.write, relation)
        self.records.append(record)

    def overlapping(self, hull: Hull) -> Places:
        """Return the records whose hulls meet an interval."""
        return np.flatnonzero(
            (self.column(self.LOW) < hull[1]) & (self.column(self.HIGH) > hull[0])
        )

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
) -> NDArray[np.int64]:
    """Return how much the later actors know to be complete on every tile that may be the earlier actor.

    The actors are given relative to the tile whose memory they access, so the earlier one is
    at earlier - later from the later one.
    """
    if earlier.is_own and later.is_own:
        return np.asarray(clock.own, np.int64)
    axes = earlier.axes | later.axes
    index: list[slice | int] = []
    for axis, n in enumerate(sizes):
        distance = (earlier.offset[axis] - later.offset[axis]) % n
        index.append(slice(None) if axes >> axis & 1 else distance)
    table = full(clock, sizes)[tuple(index)]
    return table.reshape(-1, table.shape[-1]).min(axis=0).astype(np.int64)


def _signature(touch: Touch) -> object:
    if isinstance(touch, SharedTouch):
        return touch.actors
    return (touch.actor, touch.base, touch.itemsize, touch.dims, touch.coefficients)


class LocalLog:
    """Accesses to the scratchpad of one tile, by it and by others; the same on all tiles."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._sizes = sizes
        self._log = _Log()
        self._relations: dict[Relation, int] = {}
        self.compared = 0

    def compare(self, touch: LocalTouch, hull: Hull, clock: Clock) -> Record | None:
        """Compare an access with those kept; return one it races with, if any."""
        log = self._log
        near = log.overlapping(hull)
        if not len(near):
            return None
        ordered = self._ordered(near, touch.actor, clock)
        if not touch.write:
            relevant = log.column(log.WRITE)[near] != 0
        else:
            relevant = np.ones(len(near), np.bool_)
        self.compared += int(relevant.sum())
        for place in near[relevant & ~ordered].tolist():
            earlier = log.records[int(place)]
            if self._conflict(earlier, touch, clock):
                return earlier
        log.remove(self._superseded(near[ordered], touch, hull))
        return None

    def keep(self, record: Record, touch: LocalTouch, hull: Hull) -> None:
        """Keep an access for comparison with later ones."""
        number = self._relations.setdefault(touch.actor, len(self._relations))
        self._log.append(record, hull, number)

    def _conflict(self, earlier: Record, touch: LocalTouch, clock: Clock) -> bool:
        other = earlier.touch
        assert isinstance(other, LocalTouch)
        unordered = full(clock, self._sizes)[..., earlier.engine] < earlier.number
        return local_conflict(other, touch, self._sizes, unordered)

    def _ordered(self, near: Places, actor: Relation, clock: Clock) -> NDArray[np.bool_]:
        log = self._log
        relations = log.column(log.RELATION)[near]
        engines, numbers = log.column(log.ENGINE)[near], log.column(log.NUMBER)[near]
        ordered = np.zeros(len(near), np.bool_)
        present = set(relations.tolist())
        for relation, number in self._relations.items():
            if number in present:
                known = _minimum_known(clock, self._sizes, relation, actor)
                ordered |= (relations == number) & (known[engines] >= numbers)
        return ordered

    def _superseded(self, places: Places, touch: LocalTouch, hull: Hull) -> list[int]:
        """Return earlier accesses that can race with nothing that does not race with this one too."""
        gapless = (
            not any(touch.coefficients)
            and touch.piece((0,) * len(self._sizes), self._sizes).dims == ()
        )
        out = []
        for place in places.tolist():
            other = self._log.records[place].touch
            if other.write and not touch.write:
                continue
            low, high = self._log.column(_Log.LOW)[place], self._log.column(_Log.HIGH)[place]
            if (gapless and hull[0] <= low and high <= hull[1]) or _signature(other) == _signature(
                touch
            ):
                out.append(place)
        return out

    def collect(self, running: Sequence[Clock]) -> None:
        """Forget accesses that every engine of every tile knows to be complete."""
        _collect(
            self._log, running, self._sizes, everywhere=any(not r.is_own for r in self._relations)
        )


class SharedLog:
    """Accesses to DRAM by all tiles."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._sizes = sizes
        self._log = _Log()
        self.compared = 0
        self._verdicts: dict[object, bool] = {}

    def compare(self, touch: SharedTouch, hull: Hull, clock: Clock) -> Record | None:
        """Compare an access with those kept; return one it races with, if any."""
        log = self._log
        near = log.overlapping(hull)
        if not touch.write:
            near = near[log.column(log.WRITE)[near] != 0]
        self.compared += len(near)
        if len(near):
            table = full(clock, self._sizes)
            known = table.reshape(-1, table.shape[-1]).min(axis=0)
            engines, numbers = log.column(log.ENGINE)[near], log.column(log.NUMBER)[near]
            ordered = known[engines] >= numbers
            for place in near[~ordered].tolist():
                earlier = log.records[int(place)]
                if self._conflict(earlier, touch, table):
                    return earlier
            own = np.asarray(clock.own)[engines] >= numbers
            log.remove(self._superseded(near, ordered, own, touch, hull))
        return None

    def keep(self, record: Record, hull: Hull) -> None:
        """Keep an access for comparison with later ones."""
        self._log.append(record, hull, 0)

    def _conflict(self, earlier: Record, touch: SharedTouch, table: Counts) -> bool:
        assert isinstance(earlier.touch, SharedTouch)
        unordered = table[..., earlier.engine] < earlier.number
        key = (earlier.touch.actors, touch.actors, unordered.tobytes())
        if key not in self._verdicts:
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
        """Return earlier accesses that can race with nothing that does not race with this one too."""
        actors = touch.actors
        gapless = not any(actors.shares) and not actors.piece.dims
        out = []
        for place, everywhere, here in zip(
            places.tolist(), ordered.tolist(), own.tolist(), strict=True
        ):
            other = self._log.records[place].touch
            if other.write and not touch.write:
                continue
            low, high = self._log.column(_Log.LOW)[place], self._log.column(_Log.HIGH)[place]
            covered = gapless and everywhere and hull[0] <= low and high <= hull[1]
            # the same tile touches the same bytes again
            if covered or (here and _signature(other) == _signature(touch)):
                out.append(place)
        return out

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
