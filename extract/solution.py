"""What searches of a choice problem return: a choice, a bound, and what proves it."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.extract.certificate import Dual, Priced
from tilewright.extract.choice import Costs


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """A choice with its cost, a proven lower bound of any choice's cost, and the method that proves it.

    `multipliers` are the capacity prices of the bound, `tried` the choices that were best at some prices,
    whether they fit or not.
    """

    choice: tuple[int, ...]
    cost: float
    bound: float
    method: str
    multipliers: Costs
    feasible: bool
    tried: tuple[tuple[int, ...], ...] = ()
    proof: Priced | None = None
    """With which the bound can be computed again."""


@dataclass(frozen=True, slots=True, eq=False)
class Relaxation:
    """A proven lower bound of every choice that fits, and what it says about the options."""

    bound: float
    prices: Costs
    """Of a unit of each row, in the bound."""
    above: tuple[Costs, ...]
    """By how much a choice with this option costs more than the bound at least, for each variable."""
    method: str
    likely: tuple[int, ...]
    """The option of each variable that the relaxation has most of."""
    edges_above: tuple[Costs, ...] = ()
    """By how much more a choice with a pair of ports costs, for each edge; inf where nothing is known."""
    dual: Dual | None = None
    """The multipliers that prove the bound."""
