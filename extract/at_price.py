"""A bound for models with repeated blocks at one price of what all repeats keep in the scratchpad.

At a price for a byte, repeats are independent, and the best of one is the best of all, see `spans.py`. Where
no limit of rows helps, because what repeats keep is what fills the scratchpad, a good price is all that
matters. The best choices known say which: they cost the least of a mixture of them at the price at which
those that keep little and those that keep much are even. The best choice at that price is one more.

Source:
    Kelley, "The cutting-plane method for solving convex programs", J. SIAM 8 (1960).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import floor, inf

import numpy as np

from tilewright.extract.account import Account, consistent
from tilewright.extract.cases import least_by_cases
from tilewright.extract.certificate import Spans, SpanStep
from tilewright.extract.choice import ChoiceProblem, Costs
from tilewright.extract.elimination import polish
from tilewright.extract.projection import part_of
from tilewright.extract.spans import parts_of

_ROUNDS = 2
"""Of improving the known choices at the price that follows from them."""

_PRICES = 4
"""At which the best choice is found."""

_ENOUGH = 0.005
"""What other prices may add to a bound, relative to it, for it to be good enough."""

_ROUNDING = 1e-9
"""Relative error of sums of costs."""

Choice = tuple[int, ...]

Part = tuple[int, ...]
"""Variables that no edge joins to others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtPrices:
    """The best bound found, its proof, and the best choices at each price that was tried."""

    bound: float
    proof: Spans
    choices: tuple[Choice, ...]


def bound_at_price(
    problem: ChoiceProblem, account: Account, shared: Sequence[Costs], known: Sequence[Choice]
) -> AtPrices | None:
    """Return a lower bound of the cost of all repeats together; None if that takes too much.

    Args:
        problem: The choice for one repeat of each variable, its costs those of all repeats. Its usages
            are not looked at, the limit is.
        account: What a repeat needs in its rows, in whole bytes.
        shared: What an option keeps in every row in all repeats together, [bytes] by variable and option.
        known: Some choices, to find a price by.
    """
    bare = replace(problem, usages=(), rows=0)
    least, full = _least_rows(bare, account)
    room = problem.limit - least
    uses = _improved(bare, shared, known, room)
    found: AtPrices | None = None
    for _ in range(_PRICES):
        price = best_price(list(uses.values()), room)
        most = min(cost + price * (size - room) for cost, size in uses.values())
        if found is not None and found.bound >= (1 - _ENOUGH) * most:
            break
        solved = _at_price(_priced(bare, shared, price))
        if solved is None:
            break
        choice, values = solved
        uses[choice] = _use(bare, shared, choice)
        bound = sum(values.values()) - price * room
        proof = _proof(price, values, problem.limit, least, full)
        choices = tuple(dict.fromkeys((choice, *(found.choices if found is not None else ()))))
        if found is None or bound > found.bound:
            found = AtPrices(bound=bound, proof=proof, choices=choices)
        else:
            found = replace(found, choices=choices)
    return found


def _least_rows(problem: ChoiceProblem, account: Account) -> tuple[int, Part]:
    """Return the fewest bytes of rows within which each part may fit, and the part that needs so many."""
    found = []
    for part in map(tuple, parts_of(problem)):
        fits = partial(_may_fit, part_of(problem, part), account.part(part))
        found.append((bisect_left(range(floor(problem.limit)), True, key=fits), part))
    return max(found)


def _may_fit(problem: ChoiceProblem, account: Account, limit_bytes: int) -> bool:
    """Whether some choice may fit rows of a limit."""
    whole = tuple(np.arange(len(costs)) for costs in problem.costs)
    left = account.fitting(whole, limit_bytes)
    return left is not None and consistent(problem, left) is not None


def _at_price(problem: ChoiceProblem) -> tuple[Choice, Mapping[Part, float]] | None:
    """Return the best choice whatever rows it needs, and what each part costs at least."""
    chosen, values = [0] * len(problem.costs), dict[Part, float]()
    for part in map(tuple, parts_of(problem)):
        found = least_by_cases(part_of(problem, part))
        if found is None:
            return None
        for variable, option in zip(part, found[0], strict=True):
            chosen[variable] = option
        values[part] = found[1] - _ROUNDING * abs(found[1])
    return tuple(chosen), values


def _proof(
    price: float, values: Mapping[Part, float], limit: float, least_bytes: int, full: Part
) -> Spans:
    """Return the proof of a bound: what parts cost in all rows, and that one fits in none of fewer bytes."""
    none = (inf if part == full else value for part, value in values.items())
    return Spans(
        price=price,
        steps=(
            SpanStep(float(floor(limit)), tuple(values.values())),
            SpanStep(float(least_bytes - 1), tuple(none)),
        ),
        parts=tuple(values),
        splits=tuple(() for _ in values),
    )


def _improved(
    problem: ChoiceProblem, shared: Sequence[Costs], known: Sequence[Choice], room: float
) -> dict[Choice, tuple[float, float]]:
    """Return choices with cost and bytes: known ones, and the best of them improved where they are even."""
    uses = {choice: _use(problem, shared, choice) for choice in known}
    for _ in range(_ROUNDS):
        price = best_price(list(uses.values()), room)
        priced = _priced(problem, shared, price)
        for is_lean in (True, False):
            alike = [c for c, (_, size) in uses.items() if (size <= room) == is_lean]
            if alike:
                best = polish(priced, priced.costs, min(alike, key=priced.cost))
                uses[best] = _use(problem, shared, best)
    return uses


def best_price(uses: Sequence[tuple[float, float]], room: float) -> float:
    """Return the price p at least 0 at which the least of cost + p x bytes, less p x room, is largest.

    Args:
        uses: Cost and bytes of each choice.
        room: Bytes that there are.
    """
    even = [
        (cost - other) / (more - size)
        for cost, size in uses
        for other, more in uses
        if more > size and cost > other
    ]
    return max([0.0, *even], key=lambda price: min(c + price * (s - room) for c, s in uses))


def _priced(problem: ChoiceProblem, shared: Sequence[Costs], price: float) -> ChoiceProblem:
    costs = (own + price * kept for own, kept in zip(problem.costs, shared, strict=True))
    return replace(problem, costs=tuple(costs))


def _use(problem: ChoiceProblem, shared: Sequence[Costs], choice: Choice) -> tuple[float, float]:
    """Return what a choice costs, and the bytes that it keeps."""
    kept = sum(float(own[option]) for own, option in zip(shared, choice, strict=True))
    return problem.cost(choice), kept
