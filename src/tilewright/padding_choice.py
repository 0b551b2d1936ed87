"""Which rows of a model are padded: the padding whose plan is the cheapest.

Every padding that is offered starts with a bound of what its plans cost. The one with the least value is
looked at closer, its bound becoming a first choice or a plan, until the least is no bound any more. So
what cannot be the cheapest is never planned, and a bound that exceeds another one's plan ends a padding.
Where planning takes long, first choices are compared, with which the search for a plan begins: as a rule they
are dearer than plans, all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf

from tilewright.errors import InfeasibleError, TimeLimitError
from tilewright.extract.draft import Draft
from tilewright.extract.plan import Plan
from tilewright.rules.padding import Padding

_LITTLE_WORK = 2_000
"""Implementations of a model up to which every padding that may be best is planned to the end."""

_MOST_WORK = 12_000
"""Implementations, of all paddings together, above which no third one is looked at."""


class Known(StrEnum):
    """What is known of the cost of a padding's plans."""

    NOTHING = "not looked at"
    INFEASIBLE = "no plan found fits"
    BOUND = "at least"
    DRAFT = "first choice"
    PLAN = "planned"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddingCost:
    """What a padding was found to cost, in the unit of the objective; inf if nothing is known of it."""

    padding: Padding
    known: Known
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial[T]:
    """A padding with its saturated model, draft and plan, as far as it got.

    `cost` is what `known` says of it. A draft may be there or not, whatever is known.
    """

    padding: Padding
    known: Known = Known.NOTHING
    cost: float = inf
    model: T | None = None
    draft: Draft | None = None
    plan: Plan | None = None

    @property
    def begun(self) -> T:
        """The saturated model of a trial that has begun."""
        assert self.model is not None, "the trial has begun"
        return self.model

    @property
    def found(self) -> PaddingCost:
        """What the padding was found to cost."""
        return PaddingCost(padding=self.padding, known=self.known, cost=self.cost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways[T]:
    """How a model with a padding is saturated, bounded and planned.

    Attributes:
        saturate: Returns the saturated model of a padding.
        draft: Begins to plan it.
        estimate: Returns what the first choice of a draft costs, inf if it does not fit.
        plan: Plans it.
        work: Says how much there is to choose from in a model: implementations.
        is_late: Whether the time is up.
        adds_up: Whether costs of the objective add up, so that drafts bound and estimate them.
    """

    saturate: Callable[[Padding], T]
    draft: Callable[[T], Draft]
    estimate: Callable[[Draft], float]
    plan: Callable[[T, Draft], Plan]
    work: Callable[[T], int]
    is_late: Callable[[], bool]
    adds_up: bool


def choose_padding[T](paddings: Sequence[Padding], ways: Ways[T]) -> tuple[Trial[T], ...]:
    """Return what was found of each padding, the chosen one first; the others are in their order.

    What has most added rows is looked at first: at two paddings at least, unless the time is up, then at
    more while there is not too much to choose from. Of equal costs the padding that comes first is taken,
    and if nothing fits, the first one.
    """
    trials: list[Trial[T]] = [Trial(padding=padding) for padding in paddings]
    work: list[int] = []
    for number in reversed(range(len(trials))):  # the longest is often best, and may end the others
        is_enough = sum(work) > _MOST_WORK and len(work) > 1
        if work and (is_enough or ways.is_late()):
            break
        trials[number] = _begun(trials[number], ways)
        work.append(ways.work(trials[number].begun))
    plans = not ways.adds_up or max(work) <= _LITTLE_WORK
    while True:
        least = min(range(len(trials)), key=lambda number: (trials[number].cost, number))
        if trials[least].known is not Known.BOUND:
            return (trials[least], *trials[:least], *trials[least + 1 :])
        trials[least] = _closer(trials[least], ways, plans=plans)


def _begun[T](trial: Trial[T], ways: Ways[T]) -> Trial[T]:
    """Return a trial with a bound."""
    model = ways.saturate(trial.padding)
    try:
        draft = ways.draft(model)
    except InfeasibleError:
        return replace(trial, model=model, known=Known.INFEASIBLE)
    except TimeLimitError:
        return replace(trial, model=model)
    bound = draft.bound if ways.adds_up else 0.0
    return replace(trial, model=model, draft=draft, known=Known.BOUND, cost=bound)


def _closer[T](trial: Trial[T], ways: Ways[T], *, plans: bool) -> Trial[T]:
    """Return a trial with a first choice in place of its bound, or with a plan."""
    draft = trial.draft
    assert draft is not None, "the trial has a bound"
    estimate = inf if plans else ways.estimate(draft)
    if estimate < inf:
        return replace(trial, known=Known.DRAFT, cost=estimate)
    try:
        plan = ways.plan(trial.begun, draft)
    except InfeasibleError:
        return replace(trial, known=Known.INFEASIBLE, cost=inf)
    except TimeLimitError:
        return replace(trial, known=Known.NOTHING, cost=inf)
    return replace(trial, plan=plan, known=Known.PLAN, cost=plan.cost)
