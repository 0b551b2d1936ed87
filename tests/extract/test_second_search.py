"""The search within rows that count less: it finds the best plan where the rows of plans hide it.

The oracle multiplies out all options of all tensors, prices and counts the plans' scratchpad by itself.
Work is limited so that these small models are searched like large ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

import numpy as np
import pytest
from extract_cases import Case, Enumeration, naive_rows, tiny

from tilewright.extract import extraction
from tilewright.extract.choice import FORBIDDEN
from tilewright.extract.extraction import ExtractOptions, plan_setting, prepare
from tilewright.extract.plan import Plan, Proof
from tilewright.extract.plan_writer import PlanWriter
from tilewright.extract.recheck.bound import validate_bound
from tilewright.extract.solve import SolveOptions
from tilewright.extract.validate import validate_plan

LITTLE = SolveOptions(branching_gap=0.15, exact_work=0, closing_work=0)


def by_cost(case: Case, limit: int) -> Iterator[tuple[float, Plan]]:
    """Yield all plans, the cheapest first."""
    alternatives, pricing, tables = case.tables(limit=limit)
    found = Enumeration(case, alternatives, pricing, tables, keep_all=True)
    costs = found.costs()
    flat = costs.reshape(-1)
    for index in np.argsort(flat, kind="stable"):
        if flat[index] == inf:
            return
        place = np.unravel_index(index, costs.shape)
        choice = tuple(int(found.numbers[n][i]) for n, i in enumerate(place))
        writer = PlanWriter(case.graph, case.rolled, alternatives, tables, choice, pricing)
        yield float(flat[index]), writer.write((0.0, Proof(method="none")))


def best_cost(case: Case, limit: int) -> float:
    """Return the cost of the cheapest plan that fits."""
    return next(
        cost for cost, plan in by_cost(case, limit) if max(naive_rows(plan, case.target)) <= limit
    )


@pytest.mark.parametrize(("columns", "limit"), [((1, 2), 3072), ((2, 2), 1536)])
def test_it_finds_the_best_plan_where_the_first_does_not(
    columns: tuple[int, int], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = tiny("residual", *columns)
    options = ExtractOptions(solve=LITTLE, sram_limit_bytes=limit)
    model = (case.graph, case.rolled, case.alternatives, case.target, case.mesh)
    setting = prepare(*model, options)
    # no exact search, which would find it as well
    monkeypatch.setattr(extraction, "closed", lambda *given: given[4])
    best = best_cost(case, limit)

    plan = plan_setting(setting, options)
    validate_plan(replace(plan, peak_sram_bytes=0), case.target)
    validate_bound(plan, setting)
    assert max(naive_rows(plan, case.target)) <= limit
    assert plan.cost == pytest.approx(best, rel=1e-9)
    assert plan.bound <= best

    monkeypatch.setattr(extraction, "_WIDE_GAP", inf)
    first = plan_setting(setting, options)
    assert first.cost > 1.1 * best
    assert first.bound == pytest.approx(plan.bound, rel=1e-9)


def test_its_plan_is_over_the_rows_of_the_first() -> None:
    """The rows that the first search keeps count more than the best plan takes: that is what it misses."""
    case, limit = tiny("residual", 1, 2), 3072
    options = ExtractOptions(solve=LITTLE, sram_limit_bytes=limit)
    model = (case.graph, case.rolled, case.alternatives, case.target, case.mesh)
    tables = prepare(*model, options).tables
    best = best_cost(case, limit) * tables.scale * (1 + 1e-9)
    choices = np.indices([len(own) for own in tables.problem.costs]).reshape(
        len(tables.options), -1
    )
    within = [
        tables.problem.cost(choice)
        for choice in choices.T.tolist()
        if (tables.problem.use(choice) <= limit).all()
    ]
    assert min(within, default=FORBIDDEN) > best
