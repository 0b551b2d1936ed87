"""Extraction: from saturated blocks to a plan with a proven bound."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from types import MappingProxyType

import numpy as np

from tilewright.errors import InfeasibleError, TimeLimitError
from tilewright.extract.at_price import bound_at_price
from tilewright.extract.avoid import NOTHING, Avoid
from tilewright.extract.between import with_links_as_costs
from tilewright.extract.certificate import Certificate, LinkPrices, Spans
from tilewright.extract.choice import ChoiceProblem, Usage
from tilewright.extract.closing import Scales, Within, closed
from tilewright.extract.differing import Written, with_differing_repeats
from tilewright.extract.draft import Draft, begin
from tilewright.extract.elimination import polish
from tilewright.extract.footprint import spare_scratchpad
from tilewright.extract.linear import columns_of
from tilewright.extract.model_tables import ModelTables, build_tables
from tilewright.extract.objective import Metric, Objective
from tilewright.extract.origins import Variable
from tilewright.extract.plan import Plan, Proof
from tilewright.extract.pricing import Pricing
from tilewright.extract.profile import SramProfile
from tilewright.extract.pruning import prune
from tilewright.extract.repeats import account_of, resident_bytes
from tilewright.extract.setting import Setting, narrowed
from tilewright.extract.solution import Solution
from tilewright.extract.solve import Floor, SolveOptions, floor, lower_bound, solve
from tilewright.extract.spans import bound_by_spans
from tilewright.extract.tiling_candidates import tiling_candidates
from tilewright.graph import Graph
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.rules.again import keeping_all
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.collectives.family import collective_rules
from tilewright.rules.collectives.ruleset import CollectiveRule
from tilewright.rules.memory.family import memory_rules
from tilewright.rules.memory.ruleset import MemoryRule
from tilewright.rules.roll import Rolled
from tilewright.rules.tiling.family import tiling_rules
from tilewright.rules.tiling.ruleset import TilingRule

_ATTEMPTS, _LATE_ATTEMPTS = 12, 4
"""To make choices fit: altogether, and once the time is up, when they are quick."""

_WIDE_GAP = 0.15
"""Of a whole model, above which branch and bound, or another search, is worth seconds."""

_PROMISING = 0.97
"""Of a known cost: a choice that does not fit yet and costs more is not worth being made to fit."""

_ROWS_SHARE = 0.5
"""Part of a gap that the whole scratchpad is worth where rows may be what is missing."""

_LINKS_SHARE = 0.25
"""Part of a gap that links between instances would cost what a relaxation without them likes best, from
which on they are worth their time."""

_QUICK_COLUMNS = 60_000
"""Of a relaxation that may be solved, or searched in, some more times."""

_CLOSE_GAP = 0.0195
"""Up to which the bound of a model with repeated blocks is good enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractOptions:
    """What to minimise, how hard to try, and which of their rules run.

    `sram_limit_bytes` overrides the scratchpad of the target (for what lowering found to be too tight).
    """

    objective: Objective = Objective.LATENCY
    beside: tuple[Objective, ...] = ()
    """Objectives whose best options stay, too, for plans that weigh the same options anew."""
    spares_scratchpad: bool = False
    """Whether tilings of little scratchpad stay, too; they do where the objective weighs it."""
    hides: bool = True
    """Whether the sum of costs leaves out what products cover of deliveries."""
    solve: SolveOptions = field(default_factory=lambda: SolveOptions(branching_gap=_WIDE_GAP))
    sram_limit_bytes: int | None = None
    avoid: Avoid = NOTHING
    """What lowering found to be impossible on the target."""
    tiling: tuple[TilingRule, ...] = field(default_factory=tiling_rules)
    memory: tuple[MemoryRule, ...] = field(default_factory=memory_rules)
    collective: tuple[CollectiveRule, ...] = field(default_factory=collective_rules)


def extract(
    graph: Graph,
    rolled: Rolled,
    alternatives: tuple[Alternatives, ...],
    target: Target,
    mesh: LogicalMesh,
    options: ExtractOptions | None = None,
    draft: Draft | None = None,
) -> Plan:
    """Choose one way to compute everything: least predicted cost within every tile's scratchpad.

    Args:
        graph: The whole model.
        rolled: Its unique blocks and their instances.
        alternatives: What saturation found for each unique block.
        target: The machine.
        mesh: The logical mesh that the alternatives were made for.
        options: Objective and limits.
        draft: What `drafted` made of the same arguments, to go on from.

    Returns:
        The plan with cost, bound and proof. The bound holds for the options considered (the
        alternatives in the e-graph, their implementations, memory levels and tiling candidates),
        also for plans in
        which instances of a repeated block differ.

    Raises:
        InfeasibleError: Nothing fits the scratchpad.
    """
    options = _of_one_plan(options or ExtractOptions())
    if draft is None:
        setting = prepare(graph, rolled, alternatives, target, mesh, options)
    else:
        setting = draft.setting
    kept = tuple(map(keeping_all, alternatives))
    if kept == alternatives:
        return plan_setting(setting, options, draft)

    def plan_keeping_all() -> Plan:
        fewer = prepare(graph, rolled, kept, target, mesh, options)
        return plan_setting(fewer, options)

    return _best_of(partial(plan_setting, setting, options, draft), plan_keeping_all)


def _of_one_plan(options: ExtractOptions) -> ExtractOptions:
    """Return options for one plan, of which the bound is worth seconds."""
    if Metric.SRAM in options.objective.metrics:
        return options
    return replace(options, solve=replace(options.solve, closes_parts=True))


def drafted(
    graph: Graph,
    rolled: Rolled,
    alternatives: tuple[Alternatives, ...],
    target: Target,
    mesh: LogicalMesh,
    options: ExtractOptions,
) -> Draft:
    """Price all options and bound what plans cost; the arguments are those of `extract`.

    Raises:
        InfeasibleError: Some tensor cannot be computed within the scratchpad.
    """
    options = _of_one_plan(options)
    setting = prepare(graph, rolled, alternatives, target, mesh, options)
    return begin(setting, options.solve)


def _best_of(with_again: Callable[[], Plan], keeping_all: Callable[[], Plan]) -> Plan:
    """Return the better of two plans: values may be computed again, or all are kept.

    With more to choose from, a search may end in a worse plan, unless it proves that its own is about as good
    as any. It also bounds those that keep everything.
    """
    try:
        plan = with_again()
    except InfeasibleError:
        return keeping_all()
    if plan.gap <= _CLOSE_GAP:
        return plan
    with suppress(InfeasibleError, TimeLimitError):
        other = keeping_all()
        if other.cost < plan.cost:
            return replace(other, bound=plan.bound, proof=plan.proof)
    return plan


def plan_setting(setting: Setting, options: ExtractOptions, draft: Draft | None = None) -> Plan:
    """Return the best plan of a setting found; a draft of it saves work.

    Raises:
        InfeasibleError: Nothing fits the scratchpad.
    """
    objective = options.objective.on(setting.graph, setting.pricing.target)
    limit_bytes = options.sram_limit_bytes or setting.pricing.limit_bytes
    if Metric.SRAM in objective.metrics:
        return spare_scratchpad(_Planner(setting, options, draft), objective, limit_bytes)
    return plan_with_start(setting, options, draft)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a search began with: a solution of the problem, and of the one that bounds."""

    first: Solution
    relaxed: Solution


def plan_with_start(
    setting: Setting, options: ExtractOptions, draft: Draft | None = None
) -> tuple[Plan, Start | None]:
    """Return the best plan of a setting found, for an objective of costs that add up, and what led to it.

    Raises:
        InfeasibleError: Nothing fits the scratchpad.
    """
    planner = _Planner(setting, options, draft)
    limit_bytes = options.sram_limit_bytes or setting.pricing.limit_bytes
    found = planner.within(limit_bytes, is_thorough=True)
    if found.plan is None:
        assert found.failed is not None, "nothing is found for a reason"
        raise found.failed
    return replace(found.plan, bound=found.bound), planner.start


class _Planner:
    """Plans of one setting with any limit of scratchpad."""

    def __init__(
        self, setting: Setting, options: ExtractOptions, draft: Draft | None = None
    ) -> None:
        self.setting, self._options, self._draft = setting, options, draft
        self.start: Start | None = None
        """Of the last search."""

    def within(self, limit_bytes: int, *, is_thorough: bool = False) -> Within:
        """Return the best plan of least additive cost with a limit of scratchpad.

        A search that asks for many limits is not thorough: it leaves out the slowest way to close wide gaps.
        """
        setting = narrowed(self.setting, limit_bytes)
        tables, options = setting.tables, self._options.solve
        draft = self._draft
        if draft is None or limit_bytes != draft.limit_bytes:
            draft = begin(setting, options)
        bounder = _Bounder(tables, options, draft.below)
        below, first = draft.below, draft.first
        bound = bounder.bound(first)
        self.start = Start(first=first, relaxed=bounder.relaxed)
        try:
            plan = _chosen(setting, options, below, first, bound)
        except InfeasibleError as error:
            known = Within(plan=None, bound=bound[0], failed=error, proof=bound[1])
        else:
            plan = _with_repeats_bounded(setting, plan, bounder.below)
            if is_thorough:
                plan = _with_best_at_prices(setting, plan, bounder.below, first)
            known = Within(plan=plan, bound=plan.bound, proof=plan.proof)
        return self.search(known, Scales(), limit_bytes)

    def search(self, known: Within, scales: Scales, limit_bytes: int) -> Within:
        """Look exactly for what is better than a known plan, if the problem is small."""
        return close(narrowed(self.setting, limit_bytes), known, scales)


def close(setting: Setting, known: Within, scales: Scales) -> Within:
    """Return the best plan of a setting after an exact search, if it is small; see `closed`."""

    def write(choice: tuple[int, ...]) -> Plan:
        return setting.writer(choice).write((known.bound, known.proof))

    own = setting.pricing
    return closed(
        setting.tables,
        own.target,
        setting.alternatives,
        own.mesh,
        known,
        write,
        scales,
        own.deadline,
    )


def prepare(
    graph: Graph,
    rolled: Rolled,
    alternatives: tuple[Alternatives, ...],
    target: Target,
    mesh: LogicalMesh,
    options: ExtractOptions,
    pricing: Pricing | None = None,
) -> Setting:
    """Price all options; the arguments are those of `extract`.

    Settings of models that have blocks in common may share their pricing, which remembers what it priced.

    Raises:
        InfeasibleError: Some tensor cannot be computed within the scratchpad.
    """
    alternatives = tuple(prune(options.avoid.left(found)) for found in alternatives)
    options = replace(options, objective=options.objective.on(graph, target))
    pricing = pricing or pricing_of(alternatives, target, mesh, options)
    tables = build_tables(graph, rolled, alternatives, pricing)
    return Setting(
        graph=graph, rolled=rolled, alternatives=alternatives, pricing=pricing, tables=tables
    )


def _is_worth_more(below: Floor, cost: float) -> bool:
    """Whether a gap may be narrowed soon: the problem is small, and `spans` is not the way to do it."""
    relaxation = below.relaxation
    if relaxation is None or columns_of(below.fewer) > _QUICK_COLUMNS:
        return False
    worth = float(relaxation.prices.sum()) * below.problem.limit
    return worth < _ROWS_SHARE * (cost - relaxation.bound)


def _chosen(
    setting: Setting,
    options: SolveOptions,
    below: Floor,
    first: Solution,
    bound: tuple[float, Proof],
) -> Plan:
    """Return the best plan found, given the solution of the setting's problem and a bound.

    Rows of that problem count more than plans need: a value and what its reader makes of it, even where they
    are the same bytes. Where the gap is wide, choices within rows that count less are tried, too.
    """

    def best_within(usages: tuple[Usage, ...], start: Solution | None) -> Plan:
        problem = replace(setting.tables.problem, usages=usages)

        def solved(problem: ChoiceProblem, last: Solution | None) -> Solution:
            if last is None and start is None:
                return first
            found = solve(problem, options, last=last or start, below=below)
            is_worth = start is None or found.cost <= _PROMISING * first.cost
            return found if is_worth else replace(found, feasible=False)

        own = replace(setting, tables=replace(setting.tables, problem=problem))
        return choose(own, solved, lambda _: bound)[0]

    tables, cost = setting.tables, first.cost / setting.tables.scale
    other: Plan | None = None
    is_wide = first.feasible and cost - bound[0] > _WIDE_GAP * cost
    if is_wide and _is_worth_more(below, first.cost) and not options.deadline.is_past:
        with suppress(InfeasibleError, TimeLimitError):
            other = best_within(tables.relaxed.usages, replace(first, bound=0.0))
    if other is not None and other.cost <= cost:
        return other
    try:
        plan = best_within(tables.problem.usages, None)
    except InfeasibleError:
        if other is None:
            raise
        return other
    return plan if other is None else min(plan, other, key=lambda one: one.cost)


def choose(
    setting: Setting,
    solver: Callable[[ChoiceProblem, Solution | None], Solution],
    bounder: Callable[[Solution], tuple[float, Proof]],
) -> tuple[Plan, Solution]:
    """Solve, write the plan out, and charge what its exact account of scratchpad shows to be too much.

    Args:
        setting: What to choose from.
        solver: Solves a choice problem; given a solution, one in which options use more than there.
        bounder: Returns the lower bound with its proof; called once, with the first solution.

    Returns:
        The plan that fits, and the solution that it writes out.

    Raises:
        InfeasibleError: Nothing fits the scratchpad.
    """
    graph, target, tables = setting.graph, setting.pricing.target, setting.tables
    capacity = setting.pricing.limit_bytes
    bound: tuple[float, Proof] | None = None
    solution: Solution | None = None
    problem, shortage, where = tables.problem, 0, ""
    deadline, late = setting.pricing.deadline, 0
    for attempt in range(_ATTEMPTS):
        is_late = deadline.is_past
        late += is_late
        if late > _LATE_ATTEMPTS:
            deadline.check(f"{attempt} choices do not fit the scratchpad")
        last, solution = solution, solver(problem, solution)
        if bound is None:
            bound = bounder(solution)
        if not solution.feasible:
            break
        written = Written(setting, solution.choice, bound)
        shortage = max(written.profile.rows, default=0) - capacity
        if shortage <= 0:
            return with_differing_repeats(setting, solution, written), solution
        where = _name_of_fullest(written.plan, written.profile)
        is_again = last is not None and last.choice == solution.choice
        problem = _surcharged(
            problem,
            tables,
            solution,
            written.op_variables,
            written.profile,
            capacity,
            is_final=attempt >= _ATTEMPTS // 3 or is_again or is_late,
        )
    else:
        raise InfeasibleError(
            f"model '{graph.name}' on '{target.name}': the last of {_ATTEMPTS} plans needs "
            f"{shortage + capacity} bytes "
            f"of scratchpad in a tile at '{where}', {capacity} are there ({shortage} short); "
            "use more tiles, a target with more SRAM or a smaller batch"
        )
    raise InfeasibleError(
        f"model '{graph.name}' on '{target.name}': no plan found fits the {capacity} bytes of "
        f"scratchpad of a tile; "
        "use more tiles, a target with more SRAM or a smaller batch"
    )


def pricing_of(
    alternatives: tuple[Alternatives, ...],
    target: Target,
    mesh: LogicalMesh,
    options: ExtractOptions,
    known: Pricing | None = None,
) -> Pricing:
    """Return what the options of alternatives are priced with.

    What is `known` of the same alternatives on the same mesh, for another machine or under other limits, is
    used again as far as it does not depend on what differs.
    """
    tilings = None
    if known is not None and known.tiling == options.tiling:
        tilings = known.tilings if known.target.tile.matrix == target.tile.matrix else None
    found = Pricing(
        target=target,
        mesh=mesh,
        objective=options.objective.additive,
        beside=options.beside,
        spares_scratchpad=options.spares_scratchpad or Metric.SRAM in options.objective.metrics,
        hides=options.hides,
        limit_bytes=options.sram_limit_bytes or target.tile.sram.size_bytes,
        deadline=options.solve.deadline,
        tilings=tilings or tiling_candidates(alternatives, mesh, target, options.tiling),
        tiling=options.tiling,
        memory=options.memory,
        collective=options.collective,
        avoid=options.avoid,
    )
    if known is not None:
        found.learn(known)
    return found


def _name_of_fullest(plan: Plan, profile: SramProfile) -> str:
    return plan.ops[profile.rows.index(max(profile.rows))].op.name


def _surcharged(
    problem: ChoiceProblem,
    tables: ModelTables,
    solution: Solution,
    op_variables: list[Variable],
    profile: SramProfile,
    capacity: int,
    *,
    is_final: bool,
) -> ChoiceProblem:
    """Make the choices behind rows that turned out too full use what they were short of.

    The rows of the problem do not see what a chain of moves needs on its way; the exact profile does.
    With `is_final` they use all that the profile has and the rows do not, so that the same choice does
    not come back however much room the rows see.
    """
    used = problem.use(solution.choice)
    short: dict[int, int] = {}
    for variable, row in zip(op_variables, profile.rows, strict=True):
        if row > capacity:
            number = tables.number[variable]
            unseen = max(0, capacity - int(used[number])) if is_final else 0
            short[number] = max(short.get(number, 0), row - capacity + unseen)
    extra = []
    for number, amount in sorted(short.items()):
        chosen = tables.options[number][solution.choice[number]]
        amounts = np.array(
            [
                float(amount) if option.operands == chosen.operands else 0.0
                for option in tables.options[number]
            ]
        )
        extra.append(Usage(number, number, number + 1, amounts))
    return replace(problem, usages=(*problem.usages, *extra))


def _with_repeats_bounded(setting: Setting, plan: Plan, below: Floor) -> Plan:
    """Return a plan of a model with repeated blocks with a better bound, if that is worth its time.

    `below` is the problem that bounds.
    """
    tables, deadline = setting.tables, setting.pricing.deadline
    if not tables.has_repeats or plan.gap <= _CLOSE_GAP or deadline.is_past:
        return plan
    # At the prices of the relaxation, all rows may be worth little, since none of its mixtures of options
    # is too full. What the whole scratchpad is worth is then what there is to gain.
    price, limit_bytes = plan.proof.details["capacity_price"], setting.pricing.limit_bytes
    missing = plan.cost - plan.bound
    if price * limit_bytes < _ROWS_SHARE * missing and not below.elimination.is_small:
        return plan
    price = max(price, missing / limit_bytes)
    alignment = setting.pricing.target.tile.sram.alignment_bytes
    bound, spans = bound_by_spans(
        below.problem,
        account_of(tables, setting.alternatives, setting.pricing.mesh, alignment),
        resident_bytes(tables),
        price * tables.scale,
        aim=(1 - _CLOSE_GAP) * plan.cost * tables.scale,
        known=plan.bound * tables.scale,
        deadline=deadline,
    )
    return _with_spans(plan, tables, bound, spans)


def _with_best_at_prices(setting: Setting, plan: Plan, below: Floor, first: Solution) -> Plan:
    """Return a plan whose gap is wide with a bound at a good price of what repeats keep, or a better plan.

    `below` is the problem that bounds, `first` what the search found.
    """
    tables, shared = setting.tables, resident_bytes(setting.tables)
    is_wide = tables.has_repeats and plan.gap > _WIDE_GAP
    if not is_wide or setting.pricing.deadline.is_past or not any(own.any() for own in shared):
        return plan
    alignment = setting.pricing.target.tile.sram.alignment_bytes
    account = account_of(tables, setting.alternatives, setting.pricing.mesh, alignment)
    found = bound_at_price(below.problem, account, shared, (first.choice, *first.tried))
    if found is None:
        return plan
    plan = _with_spans(plan, tables, found.bound, found.proof)
    # Instances may take the best choices in turn, once values get from one to the next.
    bare = replace(tables.problem, usages=(), rows=0)
    costs = tuple(
        own + found.proof.price * kept for own, kept in zip(bare.costs, shared, strict=True)
    )
    joined = (polish(bare, costs, choice) for choice in found.choices)
    solution = replace(first, tried=(*first.tried, *joined))
    written = Written(setting, first.choice, (plan.bound, plan.proof))
    better = with_differing_repeats(setting, solution, written)
    return better if better.cost < plan.cost else plan


def _with_spans(plan: Plan, tables: ModelTables, bound: float, spans: Spans) -> Plan:
    """Return a plan with a bound of its tables, if that is better than its own."""
    if bound / tables.scale <= plan.bound:
        return plan
    certificate = plan.proof.certificate
    assert isinstance(certificate, Certificate), "bounds of whole models have one"
    price = spans.price / tables.scale
    proof = Proof(
        method="rows by spans + capacity prices",
        details=MappingProxyType(
            {**plan.proof.details, "capacity_price": price, "scaled_bound": bound}
        ),
        certificate=replace(certificate, spans=spans),
    )
    return replace(plan, bound=bound / tables.scale, proof=proof)


class _Bounder:
    """Bounds plans of a setting by a problem `below` all of them."""

    def __init__(self, tables: ModelTables, options: SolveOptions, below: Floor) -> None:
        self.below = below
        self._tables, self._options = tables, options
        self._relaxed: Solution | None = None

    @property
    def relaxed(self) -> Solution:
        """The last solution of the problem below, without what links between instances cost."""
        assert self._relaxed is not None, "a choice is bounded first"
        return self._relaxed

    def bound(self, solution: Solution) -> tuple[float, Proof]:
        """Return the lower bound in units of the objective, with its proof, given a choice."""
        misses_links = self._misses_links(solution)
        found = self._bound_by(self.below, solution, is_last=not misses_links)
        if self._options.deadline.is_past or not misses_links:
            return found
        tables = self._tables
        relaxed, links = with_links_as_costs(tables.relaxed, tables.between, tables.instances)
        below = floor(relaxed, self._options)
        with_links = self._bound_by(below, solution, links)
        if with_links[0] <= found[0]:
            return found
        self.below = below
        return with_links

    def _bound_by(
        self,
        below: Floor,
        solution: Solution,
        links: LinkPrices | None = None,
        *,
        is_last: bool = True,
    ) -> tuple[float, Proof]:
        """Return the bound by a problem; if it `is_last`, no other problem will give a better one."""
        tables, options = self._tables, self._options
        options = replace(options, closes_parts=options.closes_parts and is_last)
        cutoff = below.problem.cost(solution.choice) if solution.feasible else inf
        if tables.has_repeats and any(own.any() for own in resident_bytes(tables)):
            options = replace(options, branching_gap=inf)  # rows by spans say more
        found = lower_bound(
            *(below, cutoff, solution.multipliers, options),
            repeats_differ=tables.has_repeats,
        )
        self._relaxed = self._relaxed or found
        details = {
            "capacity_price": float(found.multipliers.sum()) / tables.scale,
            "scaled_bound": found.bound,
            "scale": tables.scale,
        }
        certificate = None if found.proof is None else Certificate(priced=found.proof, links=links)
        proof = Proof(
            method=found.method, details=MappingProxyType(details), certificate=certificate
        )
        return found.bound / tables.scale, proof

    def _misses_links(self, solution: Solution) -> bool:
        """Whether links between instances may make up much of what is between a choice and its bound."""
        relaxation = self.below.relaxation
        if not self._tables.between or not solution.feasible:
            return False
        if relaxation is None:
            return True  # it is small
        gap = solution.cost - relaxation.bound
        if not _is_worth_more(self.below, solution.cost):
            return False
        likely = [own[o] for own, o in zip(self.below.kept, relaxation.likely, strict=True)]
        missed = sum(link.cost(likely) for link in self._tables.between)
        return gap > _CLOSE_GAP * solution.cost and missed >= _LINKS_SHARE * gap
