"""Check the bound of a plan: compute again, from its certificate, what every plan costs at least.

What is taken for granted are the priced options of the problem that bounds and the account of what they
need; tests hold both to enumerations. Of the search nothing is used, neither code nor results: a certificate
has the multipliers at which it ended, and any others in their place prove less, nothing wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tilewright.extract.certificate import Certificate, Priced
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, restricted
from tilewright.extract.copies import copies
from tilewright.extract.plan import Plan, Proof
from tilewright.extract.plan_error import PlanError
from tilewright.extract.recheck.dual import left_over, proven_by, with_costs, with_prices
from tilewright.extract.recheck.exclusive import check_cuts
from tilewright.extract.recheck.exhausted import choices_below
from tilewright.extract.recheck.links import with_links
from tilewright.extract.recheck.min_sum import least_cost
from tilewright.extract.recheck.spans import spans_bound
from tilewright.extract.repeats import account_of, resident_bytes
from tilewright.extract.setting import Setting
from tilewright.extract.validate import moments

_RELATIVE = 1e-8
"""By so much a bound may be above what is proven: more than rounding."""


def validate_bound(plan: Plan, setting: Setting) -> None:
    """Raise PlanError unless the bound of a plan follows from its certificate.

    Args:
        plan: With a bound for plans of the setting.
        setting: What `extraction.prepare` makes of the model with the options that the plan was made with.
    """
    certificate = plan.proof.certificate
    if not isinstance(certificate, Certificate):
        raise no_certificate(plan.proof)
    check_certificate(certificate, plan.bound, setting, plan.proof.method)


def no_certificate(proof: Proof) -> PlanError:
    """Return the error of a bound that nothing can be said of."""
    return PlanError(
        f"the bound's proof '{proof.method}' has no certificate from which it can be checked"
    )


def check_certificate(
    certificate: Certificate, bound: float, setting: Setting, method: str
) -> None:
    """Raise PlanError unless a certificate proves a bound, in units of the objective, of a setting's plans.

    Args:
        certificate: What is left of the search.
        bound: What all plans are said to cost at least.
        setting: What plans are chosen from.
        method: How the search proved it.
    """
    tables = setting.tables
    claimed = bound * tables.scale
    if certificate.is_exhausted:
        _check_exhausted(bound, setting)
        return
    problem = tables.relaxed
    if certificate.links is not None:
        problem = with_links(problem, tables.between, tables.instances, certificate.links)
    proven = _proven(problem, setting, certificate, claimed)
    if claimed > proven + _RELATIVE * max(1.0, abs(proven)):
        raise PlanError(
            f"the bound {bound:.9g} is not proven by '{method}': "
            f"its certificate is good for {proven / tables.scale:.9g}"
        )


def _proven(
    problem: ChoiceProblem, setting: Setting, certificate: Certificate, aim: float
) -> float:
    tables = setting.tables
    if certificate.spans is None:
        if certificate.priced is None:
            raise PlanError("a certificate says nothing")
        return priced_bound(problem, certificate.priced, aim, repeats_differ=tables.has_repeats)
    alignment = setting.pricing.target.tile.sram.alignment_bytes
    account = account_of(tables, setting.alternatives, setting.pricing.mesh, alignment)
    return spans_bound(problem, account, resident_bytes(tables), certificate.spans)


def _check_exhausted(bound: float, setting: Setting) -> None:
    """Raise PlanError if a choice that costs less than a bound makes a plan that fits."""
    scale = setting.tables.scale
    enough = min(bound * scale * (1 - _RELATIVE), FORBIDDEN / 2)
    for plan, peak_bytes in plans_below(setting, setting.tables.problem, enough):
        if peak_bytes <= setting.pricing.limit_bytes:
            raise PlanError(f"the bound {bound:.9g} is above a plan that costs {plan.cost:.9g}")


def plans_below(
    setting: Setting, problem: ChoiceProblem, cost: float, row_price: float = 0.0
) -> Iterator[tuple[Plan, int]]:
    """Yield the plans of choices that cost less and may fit, with the bytes of their fullest moment.

    Args:
        setting: What plans are chosen from.
        problem: What choices cost, and the limit of rows.
        cost: What choices must be below.
        row_price: Of a byte of the fullest row.

    Raises:
        PlanError: There are too many to look at.
    """
    tables, own = setting.tables, setting.pricing
    if tables.has_repeats:
        raise PlanError("repeats that differ are no choice that can be searched for")
    alignment = own.target.tile.sram.alignment_bytes
    pairs = copies(tables, setting.alternatives, own.mesh, alignment)
    for choice in choices_below(problem, tables.relaxed.usages, pairs, cost, row_price):
        plan = setting.writer(choice).write((0.0, Proof(method="choice")))
        yield plan, max(needed for _, needed in moments(plan, own.target))


def priced_bound(
    problem: ChoiceProblem, proof: Priced, aim: float, *, repeats_differ: bool = False
) -> float:
    """Return what prices of rows prove of a problem, as far as it is up to an aim.

    Choices with an option that the relaxation has further above its bound than the aim cost more than
    that. Of the others, the cheapest at the prices bounds all that keep the rows.

    Args:
        problem: What is chosen.
        proof: The multipliers.
        aim: Nothing above it is looked for.
        repeats_differ: Whether variables stand for the average of several repeats, see `solve.lower_bound`.

    Raises:
        PlanError: The proof is none, or takes too much memory to check.
    """
    kept, slack = left_over(problem, proof.dropped)
    few = restricted(problem, kept)
    near = tuple(np.arange(len(own)) for own in few.costs)
    highest = np.inf
    if proof.dual is not None:
        check_cuts(few, proof.dual.cuts, proof.dual.idle)
        relaxed = proven_by(few, proof.dual)
        if relaxed.bound >= aim:
            return relaxed.bound - slack
        _check_prices(few, proof, repeats_differ)
        highest = aim
        near = tuple(np.flatnonzero(above <= aim - relaxed.bound) for above in relaxed.above)
        if not all(map(len, near)):
            return aim - slack
    costs = with_prices(few, proof.prices)
    least = least_cost(with_costs(few, costs), near)
    proven = min(least - float(proof.prices.sum()) * few.limit, highest)
    if proven < aim and proof.solver:
        _check_solver(few, aim, proof.solver, repeats_differ and _is_shared(few))
        proven = aim
    return proven - slack


def _check_solver(problem: ChoiceProblem, aim: float, solver: str, is_shared: bool) -> None:
    """Raise PlanError unless no choice that fits costs less than a solver says, by looking at all that do."""
    if is_shared:
        raise PlanError(f"the bound rests on {solver}, for repeats that share rows")
    cheaper = next(choices_below(problem, problem.usages, (), aim), None)
    if cheaper is not None:
        raise PlanError(f"{solver} is wrong: a choice of cost {problem.cost(cheaper):.9g} fits")


def _is_shared(problem: ChoiceProblem) -> bool:
    """Whether something is used in all rows, as constants of all repeats are."""
    return any(usage.low == 0 and usage.high == problem.rows for usage in problem.usages)


def _check_prices(problem: ChoiceProblem, proof: Priced, repeats_differ: bool) -> None:
    """Refuse other prices than the relaxation's where repeats that differ share what the rows count.

    An option that is too dear for all repeats together need not be for one of them; at one price for
    all it is.
    """
    assert proof.dual is not None, "there are prices to compare with"
    is_shared = repeats_differ and _is_shared(problem)
    if is_shared and not np.array_equal(proof.prices, proof.dual.prices):
        raise PlanError(
            "repeats that differ are bounded at other prices than options are left out at"
        )
