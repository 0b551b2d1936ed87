"""What the cases of tables look like, and the order in which variables leave them for the least work.

A *box* says which options of which variables a case is about. Boxes alone tell what tables an elimination
takes, so that an order is found before anything is computed.

Source:
    Poole, Zhang, "Exploiting contextual independence in probabilistic inference", JAIR 18 (2003).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import prod
from operator import and_

from tilewright.extract.exclusive import Patterns, Use, find_apart

Box = Mapping[int, int]
"""By variable, in increasing order: the options that a case is about, option n as bit n."""

_MERGED = 1.5
"""Up to so many times the entries of both, two cases of the same variables are made one."""

_RESULT_WEIGHT = 10
"""Entries of a result make later tables larger: each counts as so many of the table that it is made from."""

_MOST_WAYS = 20_000
"""To be in cases together, that are looked at for an order."""


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """The boxes of the cases of a table.

    `idly` are variables that cost least while they are idle, whatever the others take.
    """

    boxes: tuple[Box, ...]
    idly: frozenset[int]
    scope: frozenset[int] = field(init=False)
    """The variables of all boxes."""

    def __post_init__(self) -> None:
        """Collect the variables."""
        object.__setattr__(self, "scope", frozenset(v for box in self.boxes for v in box))


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """What it takes to eliminate a variable from tables, and what they leave."""

    mine: tuple[Outline, ...]
    left: Outline
    ways: int
    work: int
    result: int


class Sense:
    """What is known of sensible choices: there is one that costs least.

    A variable that nothing asks for is idle in it; so are both of which uses exclude each other.
    """

    def __init__(self, patterns: Mapping[int, Patterns]) -> None:
        """Take what the options of each variable demand, by its number."""
        self.idle = {v: own.idle for v, own in patterns.items() if own.idle >= 0}
        """The idle option of each variable that has one."""
        numbers = list(patterns)
        self._masks = {v: _masks(own) for v, own in patterns.items()}
        self._apart: dict[Use, dict[int, int]] = {}
        for (one, pattern), (other, excluded) in find_apart(list(patterns.values())):
            own, variable = self._apart.setdefault((numbers[one], pattern), {}), numbers[other]
            own[variable] = own.get(variable, 0) | self._masks[variable][excluded]
        self._known: dict[tuple[int, int], Box] = {}

    def left(self, box: Box) -> dict[int, int] | None:
        """Return the options of a box that are in sensible choices; None if some variable has none."""
        left = dict(box)
        for variable, mask in box.items():
            for other, excluded in self._excluded(variable, mask).items():
                if other in left:
                    left[other] &= ~excluded
                    if not left[other]:
                        return None
        return left

    def _excluded(self, variable: int, mask: int) -> Box:
        """Return the options of others that none of some options of a variable is chosen with."""
        if (variable, mask) not in self._known:
            each = [
                self._apart.get((variable, number), {})
                for number, own in enumerate(self._masks[variable])
                if own & mask
            ]
            shared = set(each[0]).intersection(*each[1:])
            self._known[variable, mask] = {
                other: found
                for other in sorted(shared)
                if (found := reduce(and_, (own[other] for own in each)))
            }
        return self._known[variable, mask]


def _masks(patterns: Patterns) -> list[int]:
    masks = [0] * len(patterns.demands)
    for option, number in enumerate(patterns.of_option.tolist()):
        masks[number] |= 1 << option
    return masks


def entries(box: Box) -> int:
    """Return the entries of a case's table."""
    return prod(mask.bit_count() for mask in box.values())


def ways_together(
    mine: Sequence[Outline], variable: int, sense: Sense
) -> list[tuple[Box, tuple[int, ...]]]:
    """Return the ways to be in one case of each table, and the numbers of these cases.

    Where only tables that cost least if the variable is idle ask for something of it, it is idle.

    Args:
        mine: The tables that the variable is in.
        variable: It is in each of the boxes returned.
        sense: What is known of sensible choices.
    """
    order = sorted(range(len(mine)), key=lambda n: (variable in mine[n].idly, len(mine[n].boxes)))
    ways: list[tuple[dict[int, int], dict[int, int]]] = [({}, {})]
    for place in order:
        if variable in mine[place].idly:
            ways = [(_with_idle(box, variable, sense.idle), numbers) for box, numbers in ways]
        ways = [
            (both, {**numbers, place: number})
            for box, numbers in ways
            for number, other in enumerate(mine[place].boxes)
            if (both := _both(box, other)) is not None and (both := sense.left(both)) is not None
        ]
    return [
        (
            dict(sorted(_with_idle(box, variable, sense.idle).items())),
            tuple(numbers[place] for place in range(len(mine))),
        )
        for box, numbers in ways
    ]


def _with_idle(box: dict[int, int], variable: int, idle: Mapping[int, int]) -> dict[int, int]:
    """Return a box in which a variable is idle, or anything, if it was not in it."""
    return {variable: 1 << idle.get(variable, 0), **box}


def _both(one: Mapping[int, int], other: Box) -> dict[int, int] | None:
    """Return the options in both boxes; None if some variable has none."""
    both = dict(one)
    for variable, mask in other.items():
        left = both.get(variable, mask) & mask
        if not left:
            return None
        both[variable] = left
    return both


def united(one: Box, other: Box) -> Box | None:
    """Return a box around two of the same variables; None if it is much larger than both."""
    box = {variable: mask | other[variable] for variable, mask in one.items()}
    return box if entries(box) <= _MERGED * (entries(one) + entries(other)) else None


def is_idly(mine: Iterable[Outline], variable: int) -> bool:
    """Whether a variable costs least while it is idle in all tables that it is in."""
    return all(variable in one.idly or variable not in one.scope for one in mine)


def find_order(tables: Sequence[Outline], sense: Sense, most_work: int) -> list[int] | None:
    """Return an order of elimination; None if all tables together may have more entries than allowed.

    Of the variable that goes next, tables are small, its own and what it leaves.
    """
    left, steps = list(tables), dict[int, _Step]()
    todo = set[int]().union(*(one.scope for one in left))
    ways = 0
    order, stale = list[int](), set(todo)
    while todo:
        for variable in stale:
            steps[variable] = _step([one for one in left if variable in one.scope], variable, sense)
            ways += steps[variable].ways
        variable = min(todo, key=lambda v: (steps[v].work + _RESULT_WEIGHT * steps[v].result, v))
        step = steps[variable]
        most_work -= step.work
        if most_work < 0 or ways > _MOST_WAYS:
            return None
        left = [one for one in left if one not in step.mine] + [step.left]
        order.append(variable)
        todo.remove(variable)
        stale = set[int]().union(*(one.scope for one in step.mine)) & todo
    return order


def _step(mine: Sequence[Outline], variable: int, sense: Sense) -> _Step:
    ways = [box for box, _ in ways_together(mine, variable, sense)]
    boxes: dict[tuple[int, ...], list[Box]] = {}
    for box in ways:
        rest = {v: mask for v, mask in box.items() if v != variable}
        boxes.setdefault(tuple(rest), []).append(rest)
    each = tuple(box for alike in boxes.values() for box in _merged(alike))
    scope = {v for box in each for v in box}
    return _Step(
        mine=tuple(mine),
        left=Outline(each, frozenset(v for v in scope if is_idly(mine, v))),
        ways=len(ways),
        work=sum(map(entries, ways)),
        result=sum(map(entries, each)),
    )


def _merged(boxes: Sequence[Box]) -> list[Box]:
    merged: list[Box] = []
    for box in sorted(boxes, key=entries, reverse=True):
        for place, other in enumerate(merged):
            both = united(other, box)
            if both is not None:
                merged[place] = both
                break
        else:
            merged.append(box)
    return merged
