"""Plans of least energy, or any other objective, that take no longer than a limit.

A price of a cycle, added to the objective, makes plans faster; other metrics may be limited in the same
way. For any price, the cost of the best plan less the price of the whole limit bounds every plan that keeps
it. The price taken is the one at which the best plan known that keeps the limit costs as much as the best
known that does not; if a third one is cheaper then, it takes the place of one of them.
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.errors import CompileError, InfeasibleDemandError
from tilewright.extract.amounts import additive_units
from tilewright.extract.certificate import Certificate, LimitPrice
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.objective import AnyMetric, Metric, Objective, single
from tilewright.extract.plan import Plan, PlannedOp, Proof
from tilewright.extract.reshard import delivery_units
from tilewright.extract.reweigh import Point, Reweigher
from tilewright.graph import Graph
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.roll import Rolled

_PRICES = 12
"""Prices of a cycle that are tried."""

_GAIN = 1e-9

_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


def latency_cycles(given: float | str, target: Target) -> float:
    """Return a limit of latency in cycles: a number of them, or a time such as `50us`.

    Raises:
        CompileError: It cannot be read, or is not positive.
    """
    text = str(given).strip()
    number = text.rstrip("nums")
    try:
        value = float(number)
        seconds = _SECONDS[text[len(number) :]] if number != text else None
    except (KeyError, ValueError):
        value, seconds = 0.0, None
    if not 0 < value < float("inf"):
        raise CompileError(
            f"latency limit '{given}': expected cycles or a time with unit ns, us, ms or s; "
            "write e.g. 20000 or 50us"
        )
    return value if seconds is None else value * seconds * target.clock_ghz * 1e9


def extract_within_latency(
    graph: Graph,
    rolled: Rolled,
    alternatives: tuple[Alternatives, ...],
    target: Target,
    mesh: LogicalMesh,
    options: ExtractOptions,
    limit_cycles: float,
) -> Plan:
    """Return the best plan found that takes at most `limit_cycles`; the rest is as for `extract`.

    Raises:
        InfeasibleDemandError: No plan found is fast enough; with the least latency and what is short.
        CompileError: The objective weighs the footprint, which has no price of cycles.
    """
    objective = options.objective.on(graph, target)
    made = within_latency(graph, rolled, alternatives, target, mesh, options)
    found = least_within(made, objective, Metric.LATENCY, limit_cycles, options.sram_limit_bytes)
    reached = found.amounts[Metric.LATENCY]
    if reached > limit_cycles:
        proven = found.plan.bound > limit_cycles
        raise InfeasibleDemandError(
            f"model '{graph.name}' on '{target.name}': "
            f"{'no plan is' if proven else 'no plan found is'} within the latency limit",
            demand=reached,
            limit=limit_cycles,
            unit="cycles",
            changes=(f"--max-latency {reached:.0f}",),
            levers="use more tiles, a faster target or a smaller batch",
        )
    return found.plan


def within_latency(
    graph: Graph,
    rolled: Rolled,
    alternatives: tuple[Alternatives, ...],
    target: Target,
    mesh: LogicalMesh,
    options: ExtractOptions,
) -> Reweigher:
    """Return what makes plans within limits of latency; the arguments are those of `extract`.

    Raises:
        InfeasibleError: Some tensor cannot be computed within the scratchpad.
        CompileError: The objective weighs the footprint, which has no price of cycles.
    """
    objective = options.objective.on(graph, target)
    if Metric.SRAM in objective.metrics:
        raise CompileError(
            f"objective '{objective}' has no latency limit; see the plans of "
            "'tilewright explore pareto --objectives latency,sram'"
        )
    wanted = (objective, Objective.LATENCY)
    return Reweigher(graph, rolled, alternatives, target, mesh, wanted, options)


def least_within(
    made: Reweigher,
    objective: Objective,
    metric: AnyMetric,
    most: float,
    limit_bytes: int | None = None,
) -> Point:
    """Return the best plan found that takes at most so much of a metric, or the one found that takes least.

    Args:
        made: Makes plans for any weights.
        objective: What to minimise.
        metric: What is limited; it adds up.
        most: The limit.
        limit_bytes: The scratchpad of a tile.

    Raises:
        InfeasibleError: Nothing that was found fits the scratchpad.
    """
    slow = made.plan(objective, limit_bytes)
    if slow.amounts[metric] <= most:
        return slow
    fast = made.plan(single(metric), limit_bytes)
    if fast.amounts[metric] > most:
        return fast
    bound, price_of_bound, bounding = slow.plan.bound, 0.0, slow.plan
    for _ in range(_PRICES):
        dearer = objective.weigh(fast.amounts) - objective.weigh(slow.amounts)
        price = dearer / (slow.amounts[metric] - fast.amounts[metric])
        if price <= 0:
            break
        found = made.plan(with_price(objective, metric, price), limit_bytes)
        if found.plan.bound - price * most > bound:
            bound, price_of_bound = found.plan.bound - price * most, price
            bounding = found.plan
        line = objective.weigh(fast.amounts) + price * fast.amounts[metric]
        if found.plan.cost >= line * (1 - _GAIN):
            break
        if found.amounts[metric] <= most:
            fast = found
        else:
            slow = found
    certificate = bounding.proof.certificate
    proof = Proof(
        method=f"{bounding.proof.method} + price of {metric}",
        certificate=LimitPrice(price=price_of_bound, certificate=certificate)
        if isinstance(certificate, Certificate)
        else None,
    )
    plan = under(fast.plan, objective, bound, proof, made.target)
    return replace(fast, plan=plan, most=(metric, most))


def with_price(objective: Objective, metric: AnyMetric, price: float) -> Objective:
    """Return the objective with a price of a unit of a metric added."""
    rates = dict(zip(objective.metrics, objective.rates, strict=True))
    rates[metric] = rates.get(metric, 0.0) + price
    return Objective(tuple(rates.items()), tuple(rates.values()))


def under(plan: Plan, objective: Objective, bound: float, proof: Proof, target: Target) -> Plan:
    """Return a plan with its cost under another objective, and a bound of that."""

    def units(planned: PlannedOp) -> float:
        moved = sum(delivery_units(delivery, objective) for delivery in planned.deliveries)
        return objective.kernel_units(planned.cost, target) + moved

    cost = additive_units(plan, objective, target)
    return replace(
        plan,
        objective=objective,
        ops=tuple(replace(planned, cost_units=units(planned)) for planned in plan.ops),
        cost=cost,
        bound=min(bound, cost),
        proof=proof,
    )
