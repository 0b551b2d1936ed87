"""The scratchpad that a choice is known to need, row by row: what reads what, and what is alive meanwhile.

The rows of a choice problem see each variable by itself. Here pairs count, too: the copy that a reader
makes of a value that lies elsewhere, and that a value is alive until its last reader has run. It is
never more than the exact account of the plan (`profile.py`), so that what does not fit here fits nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tilewright.extract.choice import NOT_ALLOWED, ChoiceProblem, Costs, Indices, Mask

Kept = tuple[Indices, ...]
"""Numbers of the options that are left of each variable."""

_NO_COPY = np.zeros((1, 1))

Condition = tuple[int, Mask]
"""A variable and some of its options."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Reader:
    """How a later variable uses an earlier one.

    `reads` are the reader's options that do, `copied_bytes` what they need for a copy and on its way,
    `arrived_bytes` the copy alone, `is_same` whether the result is the same bytes as the value; all by
    (option of the value, option of the reader).
    """

    variable: int
    reads: Mask
    copied_bytes: Costs
    arrived_bytes: Costs
    is_same: Mask


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Account:
    """What the options of each variable need: row v is that of variable v.

    `own_bytes` is what an option needs while it runs, its result included, `alive_bytes` its result.
    """

    own_bytes: tuple[Costs, ...]
    alive_bytes: tuple[Costs, ...]
    readers: tuple[tuple[Reader, ...], ...]

    def use(self, choice: Sequence[int]) -> Costs:
        """Return the bytes that a choice needs in each row."""
        ends = self._ends([np.array([option]) for option in choice])
        rows = np.array([own[option] for own, option in zip(self.own_bytes, choice, strict=True)])
        for variable, option in enumerate(choice):
            rows[variable + 1 : ends[variable] + 1] += self.alive_bytes[variable][option]
            for reader in self.readers[variable]:
                rows[reader.variable] += reader.copied_bytes[option, choice[reader.variable]]
        return rows

    def _ends(self, kept: Sequence[Indices]) -> list[int]:
        """Return the last row in which each variable is alive whatever is chosen."""
        ends = list(range(len(kept)))
        for variable in reversed(range(len(kept))):
            for reader in self.readers[variable]:
                others = kept[reader.variable]
                if reader.reads[others].all():
                    ends[variable] = max(ends[variable], reader.variable)
                    if reader.is_same[np.ix_(kept[variable], others)].all():
                        ends[variable] = max(ends[variable], ends[reader.variable])
        return ends

    def fitting(self, kept: Kept, limit_bytes: float) -> Kept | None:
        """Return the options that are left when rows are limited; None if some variable has none."""
        left = list(kept)
        while True:
            before = [len(own) for own in left]
            self._drop(left, limit_bytes)
            if not all(map(len, left)):
                return None
            if before == [len(own) for own in left]:
                return tuple(left)

    def _drop(self, left: list[Indices], limit_bytes: float) -> None:
        """Drop options with which some row is too full whatever the others are."""
        ends = self._ends(left)
        alive = [bytes_[own].min() for bytes_, own in zip(self.alive_bytes, left, strict=True)]
        need = [bytes_[own] for bytes_, own in zip(self.own_bytes, left, strict=True)]
        copies: dict[tuple[int, int], Costs] = {}
        for variable, end in enumerate(ends):
            for row in range(variable + 1, end + 1):
                need[row] = need[row] + alive[variable]
            for number, reader in enumerate(self.readers[variable]):
                copied = reader.copied_bytes[left[variable]][:, left[reader.variable]]
                if copied.any():
                    copies[variable, number] = copied
                    need[reader.variable] = need[reader.variable] + copied.min(axis=0)
        least = [own.min() for own in need]
        is_left = [own <= limit_bytes for own in need]
        for variable, end in enumerate(ends):
            rows = least[variable + 1 : end + 1]
            most = limit_bytes - max(rows, default=0.0) + alive[variable]
            if rows:
                is_left[variable] &= self.alive_bytes[variable][left[variable]] <= most
            for number, reader in enumerate(self.readers[variable]):
                copied = copies.get((variable, number), _NO_COPY)
                pairs = need[reader.variable] - copied.min(axis=0) + copied
                is_left[variable] &= pairs.min(axis=1) <= limit_bytes
        for variable, mask in enumerate(is_left):
            left[variable] = left[variable][mask]

    def reasons(self, choice: Sequence[int], limit_bytes: float) -> list[Condition]:
        """Return conditions that together make rows of a choice too full, most bytes first."""
        ends = self._ends([np.array([option]) for option in choice])
        rows = self.use(choice)
        found: list[tuple[float, int, Condition]] = []

        def add(bytes_: float, *conditions: Condition) -> None:
            found.extend((-bytes_, len(found), condition) for condition in conditions if bytes_ > 0)

        for row in np.flatnonzero(rows > limit_bytes).tolist():
            own = self.own_bytes[row]
            add(own[choice[row]], (row, own >= own[choice[row]]))
            for variable in range(row):
                option, bytes_ = choice[variable], self.alive_bytes[variable]
                for reader in self.readers[variable]:
                    if reader.variable == row:
                        copied = reader.copied_bytes
                        many = copied[option, choice[row]]
                        add(
                            many,
                            (variable, (copied == copied[option]).all(axis=1)),
                            (row, copied[option] >= many),
                        )
                if row <= ends[variable]:
                    alike = bytes_ >= bytes_[option]
                    add(
                        bytes_[option],
                        (variable, alike),
                        *self._alive_until(variable, row, choice, ends),
                    )
        return [condition for *_, condition in sorted(found, key=lambda one: one[:2])]

    def _alive_until(
        self, variable: int, row: int, choice: Sequence[int], ends: Sequence[int]
    ) -> list[Condition]:
        """Return conditions under which a value is alive in a row."""
        for reader in self.readers[variable]:
            own, option = reader.variable, choice[reader.variable]
            if reader.reads[option] and own >= row:
                return [(own, reader.reads)]
            same = reader.is_same[choice[variable]]
            if same[option] and ends[own] >= row:
                made = (reader.is_same == same).all(axis=1)
                return [
                    (own, same & reader.reads),
                    (variable, made),
                    *self._alive_until(own, row, choice, ends),
                ]
        raise AssertionError("some reader keeps it alive")

    def part(self, variables: Sequence[int]) -> Account:
        """Return the account of some variables, in increasing order."""
        number = {v: n for n, v in enumerate(variables)}
        return Account(
            own_bytes=tuple(self.own_bytes[v] for v in variables),
            alive_bytes=tuple(self.alive_bytes[v] for v in variables),
            readers=tuple(
                tuple(
                    replace(reader, variable=number[reader.variable])
                    for reader in self.readers[v]
                    if reader.variable in number
                )
                for v in variables
            ),
        )

    def coarse(self, least_bytes: float) -> Account:
        """Return the account without values and copies of fewer bytes."""

        def only(bytes_: Costs) -> Costs:
            return np.where(bytes_ >= least_bytes, bytes_, 0.0)

        return Account(
            own_bytes=self.own_bytes,
            alive_bytes=tuple(map(only, self.alive_bytes)),
            readers=tuple(
                tuple(replace(r, copied_bytes=only(r.copied_bytes)) for r in readers)
                for readers in self.readers
            ),
        )

    def large(self, least_bytes: float) -> frozenset[int]:
        """Return the variables of values that may take so many bytes while others run, and their readers."""
        found = set()
        for variable, readers in enumerate(self.readers):
            is_large = self.alive_bytes[variable].max() >= least_bytes
            for reader in readers:
                if is_large or reader.arrived_bytes.max() >= least_bytes:
                    found |= {variable, reader.variable}
        return frozenset(found)


def possible(problem: ChoiceProblem) -> Kept | None:
    """Return the options that are not forbidden and consistent; None if a variable has none."""
    kept = tuple(np.flatnonzero(own < NOT_ALLOWED) for own in problem.costs)
    return consistent(problem, kept) if all(map(len, kept)) else None


def consistent(problem: ChoiceProblem, kept: Kept) -> Kept | None:
    """Return the options that some option of every neighbour allows; None if a variable has none."""
    left = list(kept)
    allowed_ports = [edge.matrix < NOT_ALLOWED for edge in problem.edges]
    changed = True
    while changed:
        changed = False
        for edge, allowed in zip(problem.edges, allowed_ports, strict=True):
            if allowed.all():
                continue
            for own, ports, other, others, table in (
                (edge.left, edge.left_ports, edge.right, edge.right_ports, allowed),
                (edge.right, edge.right_ports, edge.left, edge.left_ports, allowed.T),
            ):
                is_reached = np.zeros(table.shape[1], dtype=bool)
                is_reached[others[left[other]]] = True
                mask = (table & is_reached).any(axis=1)[ports[left[own]]]
                if not mask.all():
                    left[own] = left[own][mask]
                    changed = True
                if not len(left[own]):
                    return None
    return tuple(left)
