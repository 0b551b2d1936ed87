"""Tables of costs in cases: what ties many variables together does so in each case for few of them.

In an e-graph, one way to compute a value reads these values, and another one those. A table over all of
them would be large, and nearly all of it would say nothing or "not allowed". So it is the least of several
cases: tables over a few variables and some options of each, whatever the other variables take.

Source:
    Poole, Zhang, "Exploiting contextual independence in probabilistic inference", JAIR 18 (2003).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tilewright.extract.case_order import (
    Box,
    Outline,
    Sense,
    entries,
    is_idly,
    united,
    ways_together,
)
from tilewright.extract.choice import FORBIDDEN, NOT_ALLOWED, Costs, Indices, Mask
from tilewright.extract.elimination import Factor, without

Sizes = Mapping[int, int]
"""Of variables: how many options there are."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What the options of a box cost: the variables are the axes of the table."""

    box: Box
    table: Costs


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """The least of the cases that a choice is in; it is not allowed if it is in none."""

    outline: Outline
    tables: tuple[Costs, ...]
    """Of each box."""

    @property
    def each(self) -> tuple[Case, ...]:
        """All cases."""
        return tuple(map(Case, self.outline.boxes, self.tables))


def in_cases(factor: Factor, sizes: Sizes, idle: Mapping[int, int]) -> Cases:
    """Return a table of at most two variables in cases.

    Args:
        factor: The table.
        sizes: Of its variables.
        idle: The idle option of each variable that has one.
    """
    scope, table = factor.scope, factor.table
    whole = Case({v: (1 << n) - 1 for v, n in zip(scope, table.shape, strict=True)}, table)
    parts = [whole]
    if len(scope) == 2:
        # Options that do not mind what the other variable takes are a case of their own, on either side.
        minds = (table != table[:, :1]).any(axis=1)
        parts = [_part(whole, 0, ~minds), _part(whole, 0, minds)]
        if minds.all():
            minds = (table != table[:1]).any(axis=0)
            parts = [_part(whole, 1, ~minds), _part(whole, 1, minds)]
    idly = (
        v
        for axis, v in enumerate(scope)
        if v in idle and (table >= table.take([idle[v]], axis)).all()
    )
    return _cases([one for part in parts if (one := _tight(part, sizes)) is not None], idly)


def without_variable(mine: Sequence[Cases], variable: int, sizes: Sizes, sense: Sense) -> Cases:
    """Return what a sum costs at least, when one variable takes its best option.

    Args:
        mine: What is summed: the tables that the variable is in.
        variable: It goes.
        sizes: Of all variables.
        sense: What is known of sensible choices.
    """
    outlines = [cases.outline for cases in mine]
    found: dict[tuple[int, ...], list[Case]] = {}
    for box, numbers in ways_together(outlines, variable, sense):
        parts = [_within(c.each[n], box) for c, n in zip(mine, numbers, strict=True)]
        rest = {v: mask for v, mask in box.items() if v != variable}
        one = _tight(Case(rest, _least(parts, variable, rest)), sizes)
        if one is not None:
            found.setdefault(tuple(one.box), []).append(one)
    each = [one for alike in found.values() for one in _merged(alike)]
    scope = {v for one in each for v in one.box}
    return _cases(each, (v for v in scope if is_idly(outlines, v)))


def best_option(mine: Sequence[Cases], variable: int, size: int, chosen: Mapping[int, int]) -> int:
    """Return the best option of a variable, given what all others in its tables take."""
    total = np.zeros(size)
    for cases in mine:
        least = np.full(size, FORBIDDEN)
        for case in cases.each:
            box = {v: mask & 1 << chosen[v] for v, mask in case.box.items() if v != variable}
            if all(box.values()):
                own = _options(case.box.get(variable, (1 << size) - 1))
                table = _within(case, {**case.box, **box}).table.reshape(-1)
                least[own] = np.minimum(least[own], table)
        total += least
    return int(total.argmin())


def _cases(each: Sequence[Case], idly: Iterable[int]) -> Cases:
    outline = Outline(tuple(one.box for one in each), frozenset(idly))
    return Cases(outline, tuple(one.table for one in each))


@lru_cache(maxsize=10_000)
def _options(mask: int) -> Indices:
    return np.array([n for n in range(mask.bit_length()) if mask >> n & 1], dtype=np.int64)


def _mask(options: Indices) -> int:
    return sum(1 << n for n in options.tolist())


def _places(mask: int, inside: int) -> Indices:
    """Return the places of some options among others."""
    return np.searchsorted(_options(inside), _options(mask))


def _part(case: Case, axis: int, is_left: Mask) -> Case:
    """Return the part of a case with some options of an axis."""
    variable = tuple(case.box)[axis]
    left = _options(case.box[variable])[is_left]
    return Case({**case.box, variable: _mask(left)}, case.table.compress(is_left, axis))


def _within(case: Case, box: Box) -> Case:
    """Return the part of a case that is in a box."""
    table = case.table
    for axis, (variable, mask) in enumerate(case.box.items()):
        if box[variable] != mask:
            table = table.take(_places(box[variable], mask), axis)
    return Case({v: box[v] for v in case.box}, table)


def _tight(case: Case, sizes: Sizes) -> Case | None:
    """Return a case without options that are not allowed and variables that make no difference."""
    allowed = case.table < NOT_ALLOWED
    if not allowed.any():
        return None
    if not allowed.all():
        for axis in range(len(case.box)):
            is_left = allowed.any(axis=tuple(n for n in range(allowed.ndim) if n != axis))
            if not is_left.all():
                case = _part(case, axis, is_left)
    table, box = case.table, dict(case.box)
    for axis, (variable, mask) in reversed(list(enumerate(case.box.items()))):
        if mask.bit_count() == sizes[variable] and (table == table.take([0], axis)).all():
            table = np.asarray(table.take(0, axis))
            del box[variable]
    return Case(box, table)


def _least(parts: Sequence[Case], variable: int, rest: Box) -> Costs:
    """Return the least sum of tables of the same options over those of one variable."""
    alone = sum(float(part.table) for part in parts if not part.box)
    several = [Factor(tuple(part.box), part.table) for part in parts if part.box]
    shape = [mask.bit_count() for mask in rest.values()]
    if not any(variable in factor.scope for factor in several):
        several.append(Factor((variable,), np.zeros(1)))
    least = np.minimum(without(several, tuple(rest), variable)[0] + alone, FORBIDDEN)
    return np.array(np.broadcast_to(least, shape))


def _merged(cases: Sequence[Case]) -> list[Case]:
    """Return cases of the same variables as fewer ones."""
    merged: list[Case] = []
    for case in sorted(cases, key=lambda one: entries(one.box), reverse=True):
        for place, other in enumerate(merged):
            box = united(other.box, case.box)
            if box is not None:
                merged[place] = _united(other, case, box)
                break
        else:
            merged.append(case)
    return merged


def _united(one: Case, other: Case, box: Box) -> Case:
    table = np.full([mask.bit_count() for mask in box.values()], FORBIDDEN)
    for case in (one, other):
        place = np.ix_(*(_places(mask, box[v]) for v, mask in case.box.items()))
        table[place] = np.minimum(table[place], case.table)
    return Case(box, table)
