"""Plans of settings that are a little different from one that was solved before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tilewright.errors import InfeasibleError
from tilewright.extract.closing import Scales, Within
from tilewright.extract.exploration.messages import carried_to
from tilewright.extract.exploration.warm import Known, carried, resolve, row_prices, warm_bound
from tilewright.extract.extraction import choose, close
from tilewright.extract.plan import Plan, Proof
from tilewright.extract.setting import Setting
from tilewright.extract.solution import Solution

NO_BOUND = 0.0, Proof(method="nothing costs less than nothing")


def replanned(
    setting: Setting,
    known: Known,
    *,
    least: tuple[float, Proof] = NO_BOUND,
    is_bounded: bool = True,
    is_closed: bool = True,
) -> tuple[Plan, Solution]:
    """Return the plan of a setting, searched for from a known solution, and the solution it writes out.

    Args:
        setting: What to choose from.
        known: The solution of a similar setting.
        least: A bound of all plans of the setting, in units of the objective, with its proof.
        is_bounded: Whether a better bound is looked for.
        is_closed: Whether small problems are solved exactly, as compiling does.

    Raises:
        InfeasibleError: No plan found fits.
    """
    tables = setting.tables

    def bounded(_: Solution) -> tuple[float, Proof]:
        if not is_bounded:
            return least
        prices = row_prices(tables, known.relaxed_prices)
        enough = least[0] * tables.scale
        sent = carried_to(tables, known.relaxed_sent, is_relaxed=True)
        found = warm_bound(tables.relaxed, prices, sent, enough)
        if found.bound <= enough:
            return least
        return found.bound / tables.scale, Proof(method=found.method)

    def search() -> tuple[Plan, Solution]:
        start, prices = carried(tables, known.chosen), row_prices(tables, known.prices)
        sent = carried_to(tables, known.sent, is_relaxed=False)
        return choose(setting, lambda problem, _: resolve(problem, start, prices, sent), bounded)

    return best_of(setting, search) if is_closed else search()


def best_of(setting: Setting, search: Callable[[], tuple[Plan, Solution]]) -> tuple[Plan, Solution]:
    """Return the plan that a search finds; of small problems, the best one, as compiling does.

    Raises:
        InfeasibleError: Nothing that was found fits.
    """
    tables, solution = setting.tables, None
    try:
        plan, solution = search()
        known = Within(plan=plan, bound=plan.bound, proof=plan.proof)
    except InfeasibleError as error:
        known = Within(plan=None, bound=0.0, failed=error)
    found = close(setting, known, Scales())
    if found.plan is None:
        assert found.failed is not None, "nothing is found for a reason"
        raise found.failed
    if found.choice is not None:
        prices = np.zeros(len(tables.problem.costs)) if solution is None else solution.multipliers
        cost = tables.problem.cost(found.choice)
        solution = Solution(found.choice, cost, found.bound, "exact search", prices, True)
    assert solution is not None, "a plan writes a choice out"
    return replace(found.plan, bound=found.bound), solution
