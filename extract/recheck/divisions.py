"""Bounds of divisions into stages: no division is cheaper, whatever each stage costs at least.

What is claimed of items and of stages is checked by their certificates. Then divisions grow stage by stage,
from the first item on and as far to the front of the machine as there is room, and are given up where they
cost as much as the bound. A label says what the stages so far lead to; of labels at the same item, number of
stages and tile, one that is nowhere less than another one says nothing new.

Source:
    Hansen, "Bicriterion path problems", in Multiple Criteria Decision Making Theory and Application (1980)
    (labels of which none dominates another).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from math import inf

import numpy as np

from tilewright.errors import InfeasibleError
from tilewright.extract.certificate import Claim, Divisions
from tilewright.extract.pipeline.plan import PipelinePlan
from tilewright.extract.pipeline.planner import Task
from tilewright.extract.pipeline.search import Goal, Room
from tilewright.extract.pipeline.table import Parts, room_of
from tilewright.extract.plan_error import PlanError
from tilewright.extract.recheck.bound import check_certificate, no_certificate
from tilewright.extract.setting import Setting

_RELATIVE = 1e-8
"""By so much a bound may be above what is proven: more than rounding."""

Label = tuple[float, ...]

Extend = Callable[[Label, int, int, int], Label | None]
"""Returns the label with one more stage (first item, last one, shape); None if it is not to be followed."""


def validate_divisions(plan: PipelinePlan, task: Task, whole: Setting | None) -> None:
    """Raise PlanError unless the bound of a pipeline follows from its certificate.

    Args:
        plan: The pipeline.
        task: What was divided; its prices give what stages are chosen from.
        whole: What the plan for all tiles is chosen from, if the search knew that plan.
    """
    claims = plan.proof.certificate
    if not isinstance(claims, Divisions):
        raise no_certificate(plan.proof)
    _check_alone(claims, task)
    _check_stages(claims, task, whole)
    parts, goal = task.parts, task.goal
    costs = _Costs(parts, claims)
    enough = plan.bound * (1 - _RELATIVE)
    begin, extend = (
        ((0.0,), _beside(parts, costs, goal, enough))
        if parts.are_beside
        else ((0.0, 0.0), _in_a_row(costs, goal, enough))
    )
    cheaper = next(_divisions(parts.items, room_of(parts, task.prices), goal, begin, extend), None)
    if cheaper is not None:
        raise PlanError(
            f"the bound {plan.bound:.9g} is not proven by '{plan.proof.method}': "
            f"{cheaper} stages may cost less"
        )


def _check_alone(claims: Divisions, task: Task) -> None:
    """Raise PlanError unless each block by itself costs what is claimed."""
    parts, known = task.parts, dict[Hashable, float]()
    for shape, own in zip(parts.shapes, claims.alone, strict=True):
        for instance, claim in zip(parts.rolled.instances, own, strict=True):
            key = parts.segments.block_key(instance.block)
            if claim.bound <= known.get((key, shape), 0.0):
                continue
            block = parts.rolled.blocks[instance.block]
            _check(claim, lambda: task.prices.setting_alone(key, block, shape))  # noqa: B023
            known[key, shape] = claim.bound


def _check_stages(claims: Divisions, task: Task, whole: Setting | None) -> None:
    """Raise PlanError unless each stage costs what is claimed."""
    parts, prices, known = task.parts, task.prices, dict[Hashable, float]()
    for (first, last, shape), claim in claims.stages.items():
        if whole is not None and parts.is_all(first, last) and shape == 0:
            _check(claim, lambda: whole)
            continue
        segment, part = parts.segments.segment(first, last), parts.shapes[shape]
        key = prices.key(segment, part)
        if claim.bound > known.get(key, 0.0):
            _check(claim, lambda: prices.setting(segment, part))  # noqa: B023
            known[key] = claim.bound


def _check(claim: Claim, setting_of: Callable[[], Setting]) -> None:
    try:
        setting = setting_of()
    except InfeasibleError:
        return  # there is no plan at all
    if claim.certificate is None:
        raise PlanError(f"nothing proves that a stage costs {claim.bound:.9g}")
    check_certificate(claim.certificate, claim.bound, setting, "bounds of stages")


class _Costs:
    """What stages cost at least."""

    def __init__(self, parts: Parts, claims: Divisions) -> None:
        self._parts, self._claims = parts, claims
        sums = np.array([[claim.bound for claim in own] for own in claims.alone])
        self._alone = sums.reshape(len(parts.shapes), parts.items)

    def whole(self, first: int, last: int, shape: int) -> float:
        """Return what a stage costs; inf if there is none."""
        parts = self._parts
        is_machine = parts.is_all(first, last) and shape == 0
        if not is_machine and not (parts.is_divisible and parts.may_be(first, last)):
            return inf
        claim = self._claims.stages.get((first, last, shape))
        least = 0.0 if claim is None else claim.bound
        alone = float(self._alone[shape, first:last].sum())
        return max(alone, least) + parts.exchange_cycles(first, last)

    def left(self, first: int, last: int, shape: int, item: int) -> float:
        """Return what a stage has left to do when it comes to an item."""
        if item == first:
            return self.whole(first, last, shape)
        alone = float(self._alone[shape, item:last].sum())
        return alone + self._parts.exchange_cycles(first, last)


def _in_a_row(costs: _Costs, goal: Goal, enough: float) -> Extend:
    """Return what adds a stage behind another one; labels are the sum of the stages and the slowest."""

    def extend(label: Label, first: int, last: int, shape: int) -> Label | None:
        own = costs.whole(first, last, shape)
        total, slowest = label[0] + own, max(label[1], own)
        value = goal.slowest_weight * slowest
        if goal.sum_weight:
            value += goal.sum_weight * total
        is_late = goal.latency_limit < inf and total + goal.waits * slowest > goal.latency_limit
        return None if own == inf or value >= enough or is_late else (total, slowest)

    return extend


def _beside(parts: Parts, costs: _Costs, goal: Goal, enough: float) -> Extend:
    """Return what adds a stage that waits for what it reads.

    Labels are the end of all stages so far and, in the order of the items whose results are still to be
    read, when these are there.
    """
    reads, items = parts.segments.reads, parts.items
    last_reader = [
        max((i for i in range(items) if j in reads[i]), default=-1) for j in range(items)
    ]
    most = min(enough, float(np.nextafter(goal.latency_limit, inf)))

    def open_at(place: int) -> list[int]:
        return [item for item in range(place) if last_reader[item] >= place]

    def extend(label: Label, first: int, last: int, shape: int) -> Label | None:
        ready = dict(zip(open_at(first), label[1:], strict=True))
        end = costs.whole(first, last, shape)
        if end >= most:
            return None
        for item in range(first, last):
            for made in reads[item]:
                if made < first:
                    end = max(end, ready[made] + costs.left(first, last, shape, item))
        if end >= most:
            return None
        return (max(label[0], end), *(ready.get(item, end) for item in open_at(last)))

    return extend


def _divisions(items: int, room: Room, goal: Goal, begin: Label, extend: Extend) -> Iterator[int]:
    """Yield the numbers of stages of divisions of all items that were followed to their end."""
    begins = [
        [tile for tile in range(room.tiles - size + 1) if room.fits_at(shape, tile)]
        for shape, size in enumerate(room.sizes)
    ]
    found = _Labels(items)
    found.add(0, 0, 0, begin)
    for first in range(items):
        for count, tile, label in found.at(first):
            if count == max(goal.counts):
                continue
            for last in range(first + 1, items + 1):
                for shape, size in enumerate(room.sizes):
                    start = next((own for own in begins[shape] if own >= tile), None)
                    longer = None if start is None else extend(label, first, last, shape)
                    if start is not None and longer is not None:
                        found.add(last, count + 1, start + size, longer)
    yield from (count for count, _, _ in found.at(items) if count in goal.counts)


class _Labels:
    """Labels by items done, stages and tiles, of which none is as good as another."""

    def __init__(self, items: int) -> None:
        self._found: list[dict[tuple[int, int], list[Label]]] = [{} for _ in range(items + 1)]

    def at(self, item: int) -> Iterator[tuple[int, int, Label]]:
        """Yield count, tile and label of what ends before an item."""
        for (count, tile), labels in self._found[item].items():
            for label in labels:
                yield count, tile, label

    def add(self, item: int, count: int, tile: int, label: Label) -> None:
        """Add a label."""
        own = self._found[item].setdefault((count, tile), [])
        if not any(_is_as_good(other, label) for other in own):
            own[:] = [other for other in own if not _is_as_good(label, other)] + [label]


def _is_as_good(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))
