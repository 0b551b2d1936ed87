"""Close the gap of small problems: ask whole plans, which know exactly what scratchpad they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf

from tilewright.errors import InfeasibleError
from tilewright.extract.certificate import Certificate, Footprints
from tilewright.extract.copies import copies
from tilewright.extract.deadline import NO_DEADLINE, Deadline
from tilewright.extract.exact import MOST_VARIABLES, search_exactly
from tilewright.extract.model_tables import ModelTables
from tilewright.extract.plan import Plan, Proof
from tilewright.extract.profile import SramProfile, sram_profile
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.rules.alternatives import Alternatives

_SEARCHED = " + exact search"

_GAP = 1e-9
"""Smaller relative gaps are rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """What a unit of a plan's additive cost costs, and a byte of its fullest moment."""

    sum_price: float = 1.0
    use_price: float = 0.0

    def cost(self, plan: Plan) -> float:
        """Return the cost of a plan that has the additive cost and the fullest moment."""
        return self.sum_price * plan.cost + self.use_price * plan.peak_sram_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """The best plan found within a limit of scratchpad, if there is one, and a bound of all such plans.

    A bound of inf says that there is none; `failed` is the reason why none was found. `choice` is the plan's
    if the exact search found it.
    """

    plan: Plan | None
    bound: float
    failed: InfeasibleError | None = None
    choice: tuple[int, ...] | None = None
    proof: Proof = field(default_factory=lambda: Proof(method="choice"))
    """That of the bound."""


def closed(
    tables: ModelTables,
    target: Target,
    alternatives: tuple[Alternatives, ...],
    mesh: LogicalMesh,
    known: Within,
    write: Callable[[tuple[int, ...]], Plan],
    scales: Scales,
    deadline: Deadline = NO_DEADLINE,
) -> Within:
    """Return the best plan and bound after an exact search, or the known ones if the problem is large.

    Models with repeated blocks are left alone: a choice is for all repeats, the bound for each.

    Args:
        tables: The options, and the limit of scratchpad.
        target: The machine.
        alternatives: Of each block.
        mesh: The logical mesh.
        known: The best plan known, and the bound in units of `scales`.
        write: Writes a choice out.
        scales: What costs are.
        deadline: After which the search gives up.
    """
    cost = inf if known.plan is None else scales.cost(known.plan)
    is_closed = known.plan is not None and cost - known.bound <= _GAP * abs(cost)
    is_large = len(tables.problem.costs) > MOST_VARIABLES
    if is_closed or is_large or tables.has_repeats or deadline.is_past:
        return known
    limit = tables.problem.limit

    def evaluate(choice: tuple[int, ...]) -> float:
        written = counted(write(choice), target)
        return scales.cost(written) if written.peak_sram_bytes <= limit else inf

    pairs = copies(tables, alternatives, mesh, target.tile.sram.alignment_bytes)
    found = search_exactly(
        tables.problem,
        tables.relaxed.usages,
        pairs,
        evaluate,
        cost,
        use_price=scales.use_price,
        sum_price=scales.sum_price / tables.scale,
        deadline=deadline,
    )
    if found is None:
        return known
    plan = known.plan
    if found.choice is not None:
        plan = counted(write(found.choice), target)
    proof = known.proof if plan is None else plan.proof
    bound = known.bound
    if found.is_proven:
        bound = found.cost
        proof = replace(
            proof,
            method=f"{proof.method.removesuffix(_SEARCHED)}{_SEARCHED}",
            certificate=Certificate(is_exhausted=True)
            if scales == Scales()
            else Footprints(is_exhausted=True),
        )
        plan = None if plan is None else replace(plan, proof=proof)
    return Within(plan=plan, bound=bound, failed=known.failed, choice=found.choice, proof=proof)


def counted(plan: Plan, target: Target) -> Plan:
    """Return a plan with its exact account of scratchpad."""
    return with_account(plan, sram_profile(plan, target))


def with_account(plan: Plan, profile: SramProfile) -> Plan:
    """Return a plan with the account of scratchpad that was made of it."""
    return replace(
        plan,
        peak_sram_bytes=max(profile.rows, default=0),
        resident_sram_bytes=profile.resident_bytes,
    )
