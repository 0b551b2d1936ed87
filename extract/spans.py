"""A bound for models with repeated blocks, whose repeats may keep different constants in the scratchpad.

Of all repeats together only the bytes of resident constants are limited: by what the fullest row leaves. At a
price for a byte, repeats are independent, and the best of one is the best of all. So, for any price,

    min over m of (least cost within rows of m bytes, residents priced) - price x (limit - m)

bounds every plan, m being its fullest row, residents apart. The least cost falls in steps as m grows; they
are walked from above. It is found by branch and bound: elimination finds the best choice, whatever it
needs; as long as that is more in some row than m, by the account of `account.py`, the options behind that
are split.

Sources:
    Geoffrion, "Lagrangean relaxation for integer programming", Math. Program. Study 2 (1974) (the price);
    Land, Doig, "An automatic method of solving discrete programming problems", Econometrica 28 (1960).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from math import floor, inf

import networkx as nx
import numpy as np

from tilewright.extract.account import Account, Kept, consistent
from tilewright.extract.certificate import Spans, SpanStep, Split
from tilewright.extract.choice import ChoiceProblem, Costs, restricted
from tilewright.extract.deadline import NO_DEADLINE, Deadline
from tilewright.extract.dominance import without_dominated
from tilewright.extract.elimination import Elimination
from tilewright.extract.linear import LinearProgram
from tilewright.extract.projection import Projection, part_of, project

_MOST_SPLITS, _SPLITS_OF_STEP = 800, 400
"""Of options into those behind a row that is too full and others, altogether and at one limit of rows."""

_LARGE = 0.125
"""Part of the scratchpad from which on a value that stays alive is looked at together with others."""

_SMALL = 1 / 32
"""Part of the scratchpad below which values that stay alive are not looked at."""

_STRIDE = 1 / 64
"""Of the limit: by so much it falls at once, if what is known is enough for that."""

_CONCEDED = 1 / 256
"""The same where nothing is enough."""

_LAST_STRIDE = 1 / 16
"""The same once nothing may be split any more."""

_FEWEST = 4
"""Variables that are worth a projection."""

_MOST_ENTRIES = 100_000_000
"""Of the largest table in which nodes are solved exactly; their linear relaxation serves otherwise."""

_ROUNDING = 1e-9
"""Relative error of sums of costs."""


def bound_by_spans(
    problem: ChoiceProblem,
    account: Account,
    shared: Sequence[Costs],
    price: float,
    aim: float = inf,
    known: float = -inf,
    most_splits: int = _MOST_SPLITS,
    deadline: Deadline = NO_DEADLINE,
) -> tuple[float, Spans]:
    """Return a lower bound of the cost of all repeats together, and the steps that prove it.

    Args:
        problem: The choice for one repeat of each variable, its costs those of all repeats. Its usages
            are not looked at, the limit is.
        account: What a repeat needs in its rows, in whole bytes.
        shared: What an option keeps in every row in all repeats together, [bytes] by variable and option.
        price: Of such a byte, at least 0.
        aim: The bound need not be above it.
        known: Another bound, which is not proven here. As soon as what can be proven is nearer to it than
            to the aim, the work ends.
        most_splits: How often options are split.
        deadline: After which no more are.
    """
    limit, work = problem.limit, _Work(most_splits, deadline)
    costs = tuple(own + price * kept for own, kept in zip(problem.costs, shared, strict=True))
    priced = replace(problem, costs=costs, usages=(), rows=0)
    variables = parts_of(priced)
    parts = [_Steps(part_of(priced, part), account.part(part), work) for part in variables]
    walked: list[SpanStep] = []
    least = max(float(own.min()) for own in account.own_bytes)
    bound, most = aim, float(floor(limit))
    while most >= least:
        stride = (_LAST_STRIDE if work.is_spent else _STRIDE) * limit
        enough = bound + price * (limit - most + stride)
        steps: list[_Step] = []
        for part in parts:
            others = sum(s.value for s in steps) + sum(p.least for p in parts[len(steps) + 1 :])
            steps.append(part.at(most, enough - others))
        value = sum(step.value for step in steps)
        walked.append(SpanStep(most, tuple(step.value for step in steps)))
        if value - price * (limit - least) >= bound:
            break  # and so is what is left
        low = max(step.low for step in steps)
        if value < enough:  # the bound gives way, and not by a byte at a time
            low = max(least, min(low, most - floor(_CONCEDED * limit)))
        bound = min(bound, value - price * (limit - low))
        if bound < (known + aim) / 2:
            bound = -inf  # rows of fewer bytes were not looked at
            break
        below = floor(limit - (value - bound) / price) if price > 0 else least - 1
        most = min(low - 1, below)  # in between, the bound is no lower
    splits = tuple(
        tuple(replace(split, variable=own[split.variable]) for split in part.splits)
        for own, part in zip(variables, parts, strict=True)
    )
    made = tuple(map(tuple, variables))
    return max(known, bound), Spans(price=price, steps=tuple(walked), parts=made, splits=splits)


@dataclass(slots=True)
class _Work:
    """How often options may be split, and until when."""

    left: int
    deadline: Deadline

    @property
    def is_spent(self) -> bool:
        """Whether nothing may be split any more."""
        return self.left <= 0 or self.deadline.is_past


@dataclass(frozen=True, slots=True)
class _Step:
    """The least cost within rows of a limit, and the limit down to which it stays as it is."""

    value: float
    low: float


@dataclass(order=True, slots=True)
class _Node:
    """Some options, with a bound of what can be chosen of them; `choice` is the best, once known."""

    bound: float
    number: int
    kept: Kept = field(compare=False)
    fits: float = field(default=inf, compare=False)
    """The limit of rows for which options that do not fit are out."""
    choice: tuple[int, ...] | None = field(default=None, compare=False)
    costs: Costs | None = field(default=None, compare=False)


@dataclass(slots=True)
class _Pendant:
    """Variables that one other joins to the rest, and that keep nothing large alive."""

    joint: int
    inner: tuple[int, ...]
    projection: Projection | None = None


class _Steps:
    """The least cost of a part of the problem as a function of the limit of its rows, which may only fall.

    Pendants are projected; of the others, the core, nodes of the search know what is left.
    """

    def __init__(self, problem: ChoiceProblem, account: Account, work: _Work) -> None:
        self._problem, self._account, self._work = problem, account, work
        self._pendants = [_Pendant(a, inner) for a, inner in _pendants(problem, account)]
        gone = {v for pendant in self._pendants for v in pendant.inner}
        self._core = [v for v in range(len(problem.costs)) if v not in gone]
        self._core_problem = part_of(problem, self._core)
        self._core_account = account.part(self._core).coarse(_SMALL * problem.limit)
        self._open: list[_Node] = []
        self._count = 0
        self.splits: list[Split] = []
        self._add(tuple(np.arange(len(own)) for own in self._core_problem.costs), -inf)

    @property
    def least(self) -> float:
        """A bound of the cost within any rows, as far as it is known."""
        return self._open[0].bound if self._open else inf

    def at(self, most: float, enough: float) -> _Step:
        """Return the step of a limit, or as much of the cost as is enough."""
        splits = 0
        while self._open:
            for pendant in self._pendants:
                if pendant.projection is None:
                    self._project(pendant, most)
            node = heappop(self._open)
            if node.fits > most:
                kept = self._left(node.kept, most)
                if kept is None:
                    continue
                node.kept, node.fits = kept, most
            if node.choice is None or not _has(node.kept, node.choice):
                self._solve(node)
                heappush(self._open, node)
                continue
            stale = self._stale(node.choice, most)
            if stale:
                for pendant in stale:
                    pendant.projection = None
                for other in (node, *self._open):
                    other.choice = None
                heappush(self._open, node)
                continue
            fullest = self._fullest(node.choice)
            is_split = fullest > most and node.bound < enough and splits < _SPLITS_OF_STEP
            if is_split and self._split(node, most):
                splits += 1
                continue
            heappush(self._open, node)
            return _Step(node.bound, min(fullest, most))
        return _Step(inf, most)

    def _project(self, pendant: _Pendant, most: float) -> None:
        kept = [np.flatnonzero(own <= most) for own in self._account.own_bytes]
        pendant.projection = project(self._problem, kept, pendant.inner, pendant.joint)

    def _stale(self, choice: tuple[int, ...], most: float) -> list[_Pendant]:
        """Return the pendants whose best options need more than the limit."""
        return [p for p in self._pendants if self._own_bytes(p, choice) > most]

    def _own_bytes(self, pendant: _Pendant, choice: tuple[int, ...]) -> float:
        if pendant.projection is None:
            return 0.0
        options = pendant.projection.options(choice[self._core.index(pendant.joint)])
        return max((float(self._account.own_bytes[v][o]) for v, o in options.items()), default=0.0)

    def _fullest(self, choice: tuple[int, ...]) -> float:
        rows = self._core_account.use(choice).max(initial=0.0)
        return max(float(rows), *(self._own_bytes(p, choice) for p in self._pendants), 0.0)

    def _left(self, kept: Kept, most: float) -> Kept | None:
        fitting = self._core_account.fitting(kept, most)
        return None if fitting is None else consistent(self._core_problem, fitting)

    def _add(self, kept: Kept, bound: float) -> None:
        heappush(self._open, _Node(bound, self._count, kept))
        self._count += 1

    def _solve(self, node: _Node) -> None:
        """Find the best of a node's options, whatever rows they need."""
        costs = [own.copy() for own in self._core_problem.costs]
        for pendant in self._pendants:
            if pendant.projection is not None:
                costs[self._core.index(pendant.joint)] += pendant.projection.costs
        problem = replace(self._core_problem, costs=tuple(costs))
        fewer, numbers = without_dominated(restricted(problem, node.kept))
        elimination = Elimination(fewer, most_entries=_MOST_ENTRIES)
        if elimination.is_small:
            chosen, value = elimination.solve(fewer.costs)
        else:
            relaxation = LinearProgram(fewer).solve()
            if relaxation is None:  # nothing is proven of these
                value, chosen = -inf, tuple(0 for _ in fewer.costs)
            else:
                value, chosen = relaxation.bound, relaxation.likely
        node.bound = max(node.bound, value - _ROUNDING * abs(value))
        node.choice = tuple(
            int(own[left[c]]) for own, left, c in zip(node.kept, numbers, chosen, strict=True)
        )

    def _split(self, node: _Node, most: float) -> bool:
        """Replace a node by two; return whether there was something to split."""
        assert node.choice is not None, "it is solved"
        if self._work.is_spent:
            return False
        for variable, mask in self._core_account.reasons(node.choice, most):
            own = node.kept[variable]
            if mask[own].all():
                continue
            self._work.left -= 1
            self.splits.append(Split(node.number, self._core[variable], mask))
            for side in (own[mask[own]], own[~mask[own]]):
                kept = (*node.kept[:variable], side, *node.kept[variable + 1 :])
                self._add(kept, node.bound)
            return True
        return False


def _has(kept: Kept, choice: tuple[int, ...]) -> bool:
    return all(option in own for own, option in zip(kept, choice, strict=True))


def _graph(problem: ChoiceProblem) -> nx.Graph[int]:
    near: nx.Graph[int] = nx.Graph()
    near.add_nodes_from(range(len(problem.costs)))
    near.add_edges_from((edge.left, edge.right) for edge in problem.edges)
    return near


def parts_of(problem: ChoiceProblem) -> list[list[int]]:
    """Return the variables of each connected part."""
    return [sorted(part) for part in nx.connected_components(_graph(problem))]


def _pendants(problem: ChoiceProblem, account: Account) -> list[tuple[int, tuple[int, ...]]]:
    """Return joints with the variables that they join to the rest, of which none is large."""
    near = _graph(problem)
    large = account.large(_LARGE * problem.limit)
    found = []
    for joint in sorted(nx.articulation_points(near)):
        rest = near.copy()
        rest.remove_node(joint)
        for part in nx.connected_components(rest):
            if len(part) >= _FEWEST and not part & large:
                found.append((joint, tuple(sorted(part))))
    found.sort(key=lambda one: (-len(one[1]), one))
    taken: list[tuple[int, tuple[int, ...]]] = []
    gone: set[int] = set()
    joints: set[int] = set()
    for joint, part in found:
        if joint not in gone and not gone & set(part) and not joints & set(part):
            taken.append((joint, part))
            gone |= set(part)
            joints.add(joint)
    return taken
