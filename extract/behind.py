"""Plans behind the convex hull of a front: no weights of two metrics make them the cheapest.

Between two neighbours of the hull, such a plan takes less of each metric than the corner, which takes the
most of both. At the weights of the hull's edge it costs less than the corner, too. So an exact search for
all choices that cost less meets every one of them; each plan that is met makes corners that cost less.
Chains of moves are the cheapest at those weights while the search bounds, and all those of which none is
better in both metrics once a choice is met.

Source:
    Ulungu and Teghem, "The two phases method: an efficient procedure to solve bi-objective combinatorial
    optimization problems", Foundations of Computing and Decision Sciences 20 (1995).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import inf, prod

from tilewright.extract.amounts import amounts
from tilewright.extract.chains import Amounts, Chain, Chains, is_as_good
from tilewright.extract.closing import counted
from tilewright.extract.exact import search_exactly
from tilewright.extract.objective import AnyMetric
from tilewright.extract.plan import Move, Plan, Proof
from tilewright.extract.plan_writer import PlanWriter, Use
from tilewright.extract.setting import Setting

_LITTLE = 1e-9
"""A plan that is better by a smaller share is not."""

_MOST_VARIABLES = 200
"""Of models that are searched, if their tables are small."""

_MOST_WAYS = 4096
"""Combinations of chains of one choice; of more, only those at the weights of the edge are looked at."""

_UNPROVEN = (0.0, Proof(method="choice"))

_Ways = dict[Use, tuple[Move, ...]]
"""Chains of some deliveries of a plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """Plans between two ends, each with less of the second metric than those before it.

    `is_complete` if there are no others, so that each has least of the second metric within its amount of
    the first one.
    """

    plans: tuple[Plan, ...]
    is_complete: bool


def plans_behind(
    setting: Setting, metrics: tuple[AnyMetric, AnyMetric], ends: tuple[Amounts, Amounts]
) -> Behind:
    """Return plans that are better than both ends' corner, as far as an exact search goes.

    Args:
        setting: What to choose from, at weights for which both ends cost the same.
        metrics: Two that add up.
        ends: What two plans take of them, the first one less of the first metric.
    """
    tables, pricing = setting.tables, setting.pricing
    steps = _Steps(setting, metrics, ends)
    found = search_exactly(
        tables.problem,
        tables.relaxed.usages,
        (),  # copies are those of one chain of moves
        steps.meet,
        steps.cost,
        sum_price=1 / tables.scale,
        deadline=pricing.deadline,
        most_variables=_MOST_VARIABLES,
    )
    # repeats that differ are met by no choice
    is_proven = found is not None and found.is_proven and not tables.has_repeats
    plans = tuple(plan for _, plan in steps.between)
    return Behind(plans=plans, is_complete=is_proven and not steps.is_cut_short)


class _Steps:
    """The plans met, from one end to the other, of which none is better than another."""

    def __init__(
        self,
        setting: Setting,
        metrics: tuple[AnyMetric, AnyMetric],
        ends: tuple[Amounts, Amounts],
    ) -> None:
        self._setting, self._metrics, self._ends = setting, metrics, ends
        self._chains = Chains(metrics)
        self.between: list[tuple[Amounts, Plan]] = []
        self.is_cut_short = False
        """Whether a choice had too many chains of moves, or some that fit may have been left out."""

    @property
    def cost(self) -> float:
        """What the dearest corner costs, above which there is nothing better than all plans met."""
        objective = self._setting.pricing.objective
        return max(
            objective.weigh(dict(zip(self._metrics, corner, strict=True)))
            for corner in self._corners()
        )

    def _corners(self) -> Iterator[Amounts]:
        first, last = self._ends
        for before, after in pairwise((first, *(own for own, _ in self.between), last)):
            yield after[0], before[1]

    def meet(self, choice: tuple[int, ...]) -> float:
        """Take what a choice has of new plans, and return what better ones cost at most."""
        for own, ways in self._variants(choice):
            if self._is_better(own):
                plan = self._counted(self._setting.writer(choice, ways=ways))
                if plan.peak_sram_bytes <= self._setting.pricing.limit_bytes:
                    self._enter(plan)
                elif ways:  # chains that take more of both metrics may take fewer bytes
                    self.is_cut_short = True
        return self.cost

    def _is_better(self, own: Amounts) -> bool:
        return any(
            all(mine < most * (1 - _LITTLE) for mine, most in zip(own, corner, strict=True))
            for corner in self._corners()
        )

    def _enter(self, plan: Plan) -> None:
        own = self._amounts(plan)
        if self._is_better(own):
            kept = [one for one in self.between if not is_as_good(own, one[0])]
            self.between = sorted([*kept, (own, plan)], key=lambda one: one[0])

    def _counted(self, writer: PlanWriter) -> Plan:
        return counted(writer.write(_UNPROVEN), self._setting.pricing.target)

    def _amounts(self, plan: Plan) -> Amounts:
        found = amounts(plan, self._setting.pricing.target, self._metrics)
        return found[self._metrics[0]], found[self._metrics[1]]

    def _variants(self, choice: tuple[int, ...]) -> Iterator[tuple[Amounts, _Ways]]:
        """Yield what the plans of a choice take, with their chains of moves."""
        late, free = self._chains_of(choice)
        if prod(map(len, late.values())) > _MOST_WAYS:
            self.is_cut_short = True
            late = {}
        others = _sums(free)
        for combination in product(*late.values()):
            fixed = {use: one.moves for use, one in zip(late, combination, strict=True)}
            first = fixed | {use: chains[0].moves for use, chains in free.items()}
            x, y = self._amounts(self._setting.writer(choice, ways=first).write(_UNPROVEN))
            for (more_x, more_y), ways in others:
                yield (x + more_x, y + more_y), fixed | ways

    def _chains_of(
        self, choice: tuple[int, ...]
    ) -> tuple[dict[Use, list[Chain]], dict[Use, list[Chain]]]:
        """Return the chains of deliveries that have several: of those that a product covers, and of others.

        What a product covers of one delivery is no sum of what its moves take.
        """
        writer = self._setting.writer(choice)
        writer.write(_UNPROVEN)
        late: dict[Use, list[Chain]] = {}
        free: dict[Use, list[Chain]] = {}
        for use, route in writer.routes.items():
            chains = self._chains.of(route)
            if len(chains) > 1:
                (late if self._is_late(choice, use) else free)[use] = chains
        return late, free

    def _is_late(self, choice: tuple[int, ...], use: Use) -> bool:
        if isinstance(use, str):
            return False
        _, variable, position = use
        number = self._setting.tables.number[variable]
        return self._setting.tables.options[number][choice[number]].late.position == position


def _sums(chains: Mapping[Use, Sequence[Chain]]) -> list[tuple[Amounts, _Ways]]:
    """Return the combinations that none is better than, with what they take more than the first chains."""
    found: list[tuple[Amounts, _Ways]] = [((0.0, 0.0), {})]
    for use, own in chains.items():
        first = own[0].amounts
        longer = [
            (
                (x + one.amounts[0] - first[0], y + one.amounts[1] - first[1]),
                {**ways, use: one.moves},
            )
            for (x, y), ways in found
            for one in own
        ]
        found, least = [], inf
        for amounts_, ways in sorted(longer, key=lambda one: one[0]):
            if amounts_[1] < least:
                least = amounts_[1]
                found.append((amounts_, ways))
    return found
