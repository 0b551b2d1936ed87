"""A bound for models with repeated blocks at one price of what all repeats keep in the scratchpad.

At a price for a byte, repeats are independent, and the best of one is the best of all, see `spans.py`. Where
no limit of rows helps, because what repeats keep is what fills the scratchpad, a good price is all that
matters. The best choices known say which: they cost the least of a mixture of them at the price at which
those that keep little and those that keep much are even.

Source:
    Kelley, "The cutting-plane method for solving convex programs", J. SIAM 8 (1960).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import floor

from tilewright.extract.account import Account
from tilewright.extract.cases import least_by_cases
from tilewright.extract.certificate import Spans, SpanStep
from tilewright.extract.choice import ChoiceProblem, Costs
from tilewright.extract.elimination import polish
from tilewright.extract.projection import part_of
from tilewright.extract.spans import parts_of

_ROUNDS = 2
"""Of improving the known choices at the price that follows from them."""

_ROUNDING = 1e-9
"""Relative error of sums of costs."""

Choice = tuple[int, ...]


def bound_at_price(
    problem: ChoiceProblem, account: Account, shared: Sequence[Costs], known: Sequence[Choice]
) -> tuple[float, Spans] | None:
    """Return a lower bound of the cost of all repeats together, and its proof; None if that takes too much.

    Args:
        problem: The choice for one repeat of each variable, its costs those of all repeats. Its usages
            are not looked at, the limit is.
        account: What a repeat needs in its rows, in whole bytes.
        shared: What an option keeps in every row in all repeats together, [bytes] by variable and option.
        known: Some choices, to find a price by.
    """
    least = max(float(own.min()) for own in account.own_bytes)
    room = problem.limit - least
    bare = replace(problem, usages=(), rows=0)
    price = _price(bare, shared, known, room)
    priced = _priced(bare, shared, price)
    parts, values = parts_of(priced), []
    for part in parts:
        found = least_by_cases(part_of(priced, part))
        if found is None:
            return None
        values.append(found[1] - _ROUNDING * abs(found[1]))
    proof = Spans(
        price=price,
        steps=(SpanStep(float(floor(problem.limit)), tuple(values)),),
        parts=tuple(map(tuple, parts)),
        splits=tuple(() for _ in parts),
    )
    return sum(values) - price * room, proof


def _price(
    problem: ChoiceProblem, shared: Sequence[Costs], known: Sequence[Choice], room: float
) -> float:
    """Return the price at which the known choices, the best of them improved, prove the most."""
    uses = {choice: _use(problem, shared, choice) for choice in known}
    for _ in range(_ROUNDS):
        price = best_price(list(uses.values()), room)
        priced = _priced(problem, shared, price)
        for is_lean in (True, False):
            alike = [c for c, (_, size) in uses.items() if (size <= room) == is_lean]
            if alike:
                best = polish(priced, priced.costs, min(alike, key=priced.cost))
                uses[best] = _use(problem, shared, best)
    return best_price(list(uses.values()), room)


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
