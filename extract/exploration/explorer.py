"""The explorer: a plan whose tables stay, so that what-if questions are answered from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from math import inf

from tilewright.errors import InfeasibleError
from tilewright.extract.choice import ChoiceProblem
from tilewright.extract.exploration.conflict import explain_conflict, explain_shortage
from tilewright.extract.exploration.demand import Aspect, Demand, check_value, is_of, satisfies
from tilewright.extract.exploration.naming import unknown_tensor, variables_of
from tilewright.extract.exploration.replan import NO_BOUND, best_of, replanned
from tilewright.extract.exploration.restrict import (
    MOST_BRANCHES,
    Placed,
    Restriction,
    restrictions,
    ways_to_restrict,
)
from tilewright.extract.exploration.tables import NoOptionError, OptionMemo, PricedOptions
from tilewright.extract.exploration.warm import (
    Known,
    carried,
    chosen,
    known,
    marginals,
    resolve,
    row_prices,
    with_messages,
)
from tilewright.extract.extraction import ExtractOptions, choose, pricing_of
from tilewright.extract.option import ABSENT, Option
from tilewright.extract.origins import Variable
from tilewright.extract.plan import Plan, Proof
from tilewright.extract.setting import Setting
from tilewright.extract.solution import Solution
from tilewright.extract.solve import floor, lower_bound, solve
from tilewright.graph import Graph
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.roll import Rolled

_IMPROVEMENTS = 12
_PRICE_SHARES = (1.0, 0.5, 0.25)
_WORTH = 1e-3
"""Searches on from the first plan, at shares of the prices of scratchpad, and the gain that is worth it."""

_SMALL = 2000
"""Models with fewer options have all ways to make use of a forced rule tried, others the likeliest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A plan under demands; its cost, bound and gap are the plan's.

    `delta` is its cost above that of the plan without demands, in units of the objective.
    """

    demands: tuple[Demand, ...]
    plan: Plan
    delta: float
    setting: Setting
    solution: Solution


class Explorer:
    """Plans a model once and keeps what that took: alternatives, prices, tables, the solution.

    Demands leave out alternatives, and only what they touch is priced anew. The search starts from the
    known solution, so that an answer may be a little dearer than a compilation under the same demands
    would find; its bound is proven all the same.
    """

    def __init__(
        self,
        graph: Graph,
        rolled: Rolled,
        alternatives: tuple[Alternatives, ...],
        target: Target,
        mesh: LogicalMesh,
        options: ExtractOptions | None = None,
        start: Explorer | None = None,
    ) -> None:
        """Plan the model; the arguments are those of `extract`.

        With a `start`, one of the same alternatives on the same mesh, for another machine or under other
        limits, the search begins at its solution, and what it learnt that still holds stays.

        Raises:
            InfeasibleError: Nothing fits the scratchpad.
        """
        self.alternatives, self.target, self.mesh = alternatives, target, mesh
        self.options = options or ExtractOptions()
        everything = Restriction(alternatives=alternatives, demands={})
        weighing = replace(self.options, objective=self.options.objective.on(graph, target))
        # forms that pruning leaves out may be asked for, with their tilings
        known_pricing = start.setting.pricing if start is not None else None
        pricing = pricing_of(alternatives, target, mesh, weighing, known_pricing)
        priced = PricedOptions()
        setting = OptionMemo(graph, rolled, pricing, priced=priced).setting(everything)
        solver = self.options.solve
        below = floor(setting.tables.relaxed, solver)
        relaxed: list[Solution] = []

        def solved(problem: ChoiceProblem, last: Solution | None) -> Solution:
            if start is None:
                return solve(problem, solver, last=last, below=below)
            choice = carried(setting.tables, start.solved.chosen)
            return resolve(problem, choice, row_prices(setting.tables, start.solved.prices))

        def bound(solution: Solution) -> tuple[float, Proof]:
            cutoff = below.problem.cost(solution.choice) if solution.feasible else inf
            found = lower_bound(
                *(below, cutoff, solution.multipliers, solver),
                repeats_differ=setting.tables.has_repeats,
            )
            relaxed.append(found)
            return found.bound / setting.tables.scale, Proof(method=found.method)

        plan, solution = best_of(setting, lambda: choose(setting, solved, bound))
        self.setting: Setting = setting
        self.solved: Known = known(setting.tables, solution, relaxed[0])
        """The choice of the plan, and prices, without messages."""
        self.memo = OptionMemo(graph, rolled, pricing, setting.tables.scale, priced=priced)
        self._names = variables_of(graph, rolled, alternatives)
        self.base = Answer(
            demands=(), plan=plan, delta=0.0, setting=self.setting, solution=solution
        )
        self._improve(searched=int(start is not None))

    def _improve(self, searched: int) -> None:
        """Search on from the plan found, as answers do, so that they are compared with their like.

        Args:
            searched: How many shares of the prices the plan was searched for at in this way already.
        """
        setting, solved = self.setting, self.solved
        idle = searched
        for step in range(searched, _IMPROVEMENTS if self.base.plan.gap > _WORTH else 0):
            # cheaper room lets in choices that the repair then makes fit
            share = _PRICE_SHARES[step % len(_PRICE_SHARES)]
            prices = {v: p * share for v, p in solved.prices.items()}
            bound = self.base.plan.bound, self.base.plan.proof
            plan, solution = replanned(
                *(setting, replace(self.solved, prices=prices)),
                least=bound,
                is_bounded=False,
                is_closed=False,
            )
            idle += 1
            if plan.cost < self.base.plan.cost * (1 - _WORTH):
                self.base = replace(self.base, plan=plan, solution=solution)
                self.solved = replace(self.solved, chosen=chosen(setting.tables, solution))
                idle = 0
            if idle == len(_PRICE_SHARES) or self.base.plan.gap <= _WORTH:
                break

    @cached_property
    def known(self) -> Known:
        """What answers begin with: choice, prices, and messages, which are found when first asked for."""
        return with_messages(self.solved, self.setting.tables)

    @cached_property
    def marginals(self) -> Mapping[Variable, tuple[tuple[Option, float], ...]]:
        """What a choice with each option costs at least; found when first asked for."""
        tables, known = self.setting.tables, self.known
        return marginals(tables, row_prices(tables, known.prices), known.sent)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that demands may be on: those of the model, and those that rules made."""
        return tuple(self._names)

    def names(self, variable: Variable) -> frozenset[str]:
        """Return what plans may call the tensors of a variable, in all repeats."""
        return frozenset(name for name, own in self._names.items() if own == variable)

    def variable(self, tensor: str) -> Variable:
        """Return the variable that computes a tensor.

        Raises:
            DemandError: Nothing of this name is computed.
        """
        found = self._names.get(tensor)
        if found is None:
            raise unknown_tensor(tensor, self.setting.graph, self._names)
        return found

    def answer(self, *demands: Demand) -> Answer:
        """Return the best plan found under demands, with the bound of all plans under them.

        Raises:
            DemandError: A demand cannot be met by any way, or two contradict each other.
            InfeasibleDemandError: What the demands allow does not fit the scratchpad.
        """
        placed = self.placed(demands)
        if self._is_met(placed):
            return replace(self.base, demands=demands)
        tried, is_all = self._tried(placed)
        if not tried:
            raise explain_conflict(self.alternatives, placed)
        answers = []
        for restriction in tried:
            try:
                setting = self.memo.setting(restriction)
                answers.append(self.planned(setting, demands, is_bounded=is_all))
            except (NoOptionError, InfeasibleError):
                continue
        if not answers:
            raise explain_shortage(self.setting, self.alternatives, placed, self._plan)
        best = min(answers, key=lambda answer: answer.plan.cost)
        bound = min(answer.plan.bound for answer in answers)
        return replace(best, plan=replace(best.plan, bound=bound))

    def _tried(self, placed: Sequence[Placed]) -> tuple[tuple[Restriction, ...], bool]:
        """Return the restrictions that are planned, and whether they allow all that demands allow.

        Of large models one is, the likeliest of those that restrict the same variables being the first.
        """
        if self._is_small:
            return restrictions(self.alternatives, placed), True
        pairs = (
            (first, way)
            for way in ways_to_restrict(self.alternatives, placed)
            if (first := next(way, None)) is not None
        )
        begun = tuple(islice(pairs, MOST_BRANCHES))
        is_all = len(begun) <= 1 and not any(next(way, None) for _, way in begun)
        return self._likely([first for first, _ in begun]) if begun else (), is_all

    @property
    def _is_small(self) -> bool:
        return sum(map(len, self.setting.tables.options)) < _SMALL

    def _likely(self, found: Sequence[Restriction]) -> tuple[Restriction, ...]:
        """Return the restriction whose demanded options are in the cheapest plans, as the prices see it."""

        def least(restriction: Restriction) -> float:
            worst = 0.0
            for variable, demands in restriction.demands.items():
                above = self.marginals.get(variable, ())
                allowed = [
                    value
                    for option, value in above
                    if all(satisfies(demand, option, self.mesh) for demand in demands)
                ]
                worst = max(worst, min(allowed, default=float("inf")))
            return worst

        return (min(found, key=least),)

    def _is_met(self, placed: Sequence[Placed]) -> bool:
        """Whether the plan without demands satisfies these."""
        for demand, variable in placed:
            options = (
                [self.known.chosen[v] for v in sorted(self.known.chosen)]
                if variable is None
                else [self.known.chosen.get(variable, ABSENT)]
            )
            holds = [
                satisfies(demand, option, self.mesh)
                for option in options
                if option.node is not None or variable is not None
            ]
            if not (any(holds) if variable is None and demand.is_forced else all(holds)):
                return False
        return True

    def placed(self, demands: Sequence[Demand]) -> tuple[Placed, ...]:
        """Return demands with their variables.

        Raises:
            DemandError: A tensor is unknown or a value cannot be read.
        """
        for demand in demands:
            check_value(demand, self.mesh)
        return tuple(pair for demand in demands for pair in self._places(demand))

    def _places(self, demand: Demand) -> tuple[Placed, ...]:
        """Return a demand with its variables; to compute a tensor again is up to what readers behind get."""
        if demand.tensor is None:
            return ((demand, None),)
        block, number = self.variable(demand.tensor)
        again = dict.fromkeys(
            node.result
            for node in self.alternatives[block].nodes
            if self.alternatives[block].classes[node.result].again_of == number
            and demand.aspect is Aspect.RULE
            and is_of(node.again, demand.value)
        )
        return tuple((demand, (block, result)) for result in again or (number,))

    def _plan(self, memo: OptionMemo, restriction: Restriction) -> Plan:
        """Return a plan of a restriction, perhaps with more scratchpad than there is."""
        return replanned(memo.setting(restriction), self.known)[0]

    def planned(
        self, setting: Setting, demands: tuple[Demand, ...], *, is_bounded: bool = True
    ) -> Answer:
        """Return the plan of a setting that leaves out alternatives, searched for from the known solution.

        What bounds all plans bounds those of the setting, too, unless demands add ways; unless it
        `is_bounded`, that has to do.

        Raises:
            InfeasibleError: No plan found fits.
        """
        base = self.base.plan
        adds_ways = any(demand.adds_ways for demand in demands)
        least = NO_BOUND if adds_ways else (base.bound, base.proof)
        plan, solution = replanned(setting, self.known, least=least, is_bounded=is_bounded)
        return Answer(
            demands=demands,
            plan=plan,
            delta=plan.cost - base.cost,
            setting=setting,
            solution=solution,
        )
