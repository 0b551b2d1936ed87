"""Exploring alternatives of a plan: the session that `tilewright.explore` returns.

session = tilewright.explore("model.onnx", "corsair")
for way in session.alternatives("fc1"): ...
answer = session.force("sharding=y:S0,x:R@fc1")
print(answer.delta, session.diff(session.base.plan, answer.plan))
divided = session.divide("cut@fc1", "part=2x4@fc1")
print(divided.delta, [stage.tiles for stage in divided.pipeline.stages])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tilewright.compiler import (
    Compilation,
    Progress,
    Stage,
    available_rules,
    compile_graph,
    extract_options,
    saturation_of,
    saturation_options,
)
from tilewright.errors import CompileError, DemandError
from tilewright.extract.exploration.demand import Aspect, Demand, parse_demand
from tilewright.extract.exploration.explain import Explanation, explain
from tilewright.extract.exploration.explorer import Answer, Explorer
from tilewright.extract.exploration.resources import Change, Resource, diff, resources
from tilewright.extract.exploration.staging import CutReason, PipelineAnswer, StageExplorer
from tilewright.extract.exploration.ways import Way, alternatives
from tilewright.extract.objective import Metric, Objective
from tilewright.extract.pipeline.planner import StageOptions
from tilewright.extract.plan import Plan
from tilewright.hwmodel.change import changed_target
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.target import Target
from tilewright.lowering.link import build_pipeline
from tilewright.lowering.lower import build_program
from tilewright.lowering.program import Program
from tilewright.padding_choice import PaddingCost
from tilewright.realising import realised
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.options import AnyRule, SaturationOptions, suggestion

DemandLike = str | Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """A plan for a changed target, beside the one for the target as it is.

    `before` and `after` are what the plans take of each resource, in the same order.
    """

    change: str
    target: Target
    plan: Plan
    delta: float
    before: tuple[Resource, ...]
    after: tuple[Resource, ...]


class Session:
    """A planned model whose alternatives, prices and solution stay for questions.

    `base` is the plan without demands. Nothing that is asked changes the session, so that the order of
    questions does not matter.
    """

    def __init__(self, saturated: Compilation, progress: Progress | None = None) -> None:
        """Plan a model that is saturated.

        Raises:
            CompileError: The objective weighs the footprint.
            InfeasibleError: Nothing fits the scratchpad.
        """
        check_added_up(saturated.options.objective)
        self._tell = progress or (lambda text: None)
        self._done = _weighing(saturated)
        self._tell("extracting a plan")
        self.explorer = _explorer(self._done, self.target, None, None)
        self.explorer.marginals  # noqa: B018  # which the first question would wait for
        self._stages: dict[tuple[tuple[str, ...], int | None], StageExplorer] = {}
        """Divisions into stages by the rules left out and the limit of scratchpad, once asked for."""

    @property
    def base(self) -> Answer:
        """The plan without demands."""
        return self.explorer.base

    @property
    def target(self) -> Target:
        """The machine."""
        return self._done.target

    @property
    def paddings(self) -> tuple[PaddingCost, ...]:
        """Paddings that were considered, if there was a choice; first the one that all answers have."""
        return self._done.paddings

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all tensors that can be asked about."""
        return self.explorer.tensors

    def alternatives(self, tensor: str, top: int = 5) -> tuple[Way, ...]:
        """Return the ways to compute a tensor; the likeliest `top` of them with a plan each.

        Raises:
            DemandError: Nothing of this name is computed.
        """
        return alternatives(self.explorer, tensor, top)

    def explain(self, tensor: str) -> Explanation:
        """Return why the plan computes a tensor as it does: against the next best way, term by term.

        Raises:
            DemandError: The plan does not compute the tensor on its own, or it is unknown.
        """
        return explain(self.explorer, tensor)

    def force(self, *demands: DemandLike, forbidding: Sequence[DemandLike] = ()) -> Answer:
        """Return the best plan found that does what is demanded.

        Args:
            demands: Each `ASPECT=VALUE@TENSOR`, see `tilewright.extract.exploration.demand`.
            forbidding: Demands on what the plan must not do.

        Raises:
            DemandError: A demand cannot be read or met, or two contradict each other.
            InfeasibleDemandError: Says demand, limit, gap and unit, and what would satisfy it.
        """
        return self._answered((*_demands(demands, True), *_demands(forbidding, False)), None)

    def forbid(self, *demands: DemandLike, forcing: Sequence[DemandLike] = ()) -> Answer:
        """Return the best plan found that does not do what is named; see `force`."""
        return self._answered((*_demands(demands, False), *_demands(forcing, True)), None)

    @property
    def divided(self) -> PipelineAnswer:
        """The best stages without demands, which the first question about stages finds."""
        return PipelineAnswer(demands=(), pipeline=self._stages_without((), None).base, delta=0.0)

    def divide(self, *demands: DemandLike, forbidding: Sequence[DemandLike] = ()) -> PipelineAnswer:
        """Return the best stages found that do what is demanded.

        Args:
            demands: On stages, as `stage=2@fc1`, `cut@fc1`, `part=2x4@fc1` or `stages=3`; others hold for the
                stage that computes their tensor.
            forbidding: Demands on what the stages must not be.

        Raises:
            DemandError: A demand cannot be read or met, or some contradict each other.
            InfeasibleError: No division found under the demands fits.
            CompileError: The objective is not a time, or stages cannot run the model.
        """
        return self._divided((*_demands(demands, True), *_demands(forbidding, False)), None)

    def explain_cut(self, tensor: str) -> CutReason:
        """Return why stages are cut behind a tensor, or why not: against the best that differs there.

        Raises:
            DemandError: The tensor is unknown.
        """
        return self._stages_without((), None).explain(tensor)

    def _divided(self, demands: tuple[Demand, ...], limit_bytes: int | None) -> PipelineAnswer:
        rules = available_rules(self._done.options.user_rules)
        left_out = self._left_out(demands, (*_pricing(rules), *rules.pipeline))
        rest = [demand for demand in demands if demand.value not in left_out]
        found = self._stages_without(left_out, limit_bytes).answer(*rest)
        delta = found.pipeline.cost - self.divided.pipeline.cost
        return replace(found, demands=demands, delta=delta)

    def _stages_without(self, left_out: tuple[str, ...], limit_bytes: int | None) -> StageExplorer:
        """Return the divided model, with some rules left out."""
        key = left_out, limit_bytes
        if key not in self._stages:
            done, choice = self._done, extract_options(self._done.options, left_out)
            chosen = available_rules(done.options.user_rules).chosen(
                (*done.options.without_rules, *left_out)
            )
            assert done.rolled is not None, "the model is saturated"
            self._tell("dividing the model into stages")
            is_known = key == ((), None) and choice.objective == Objective.LATENCY
            self._stages[key] = StageExplorer(
                done.graph,
                done.rolled,
                self.target,
                saturation_of(done, done.options),
                replace(choice, sram_limit_bytes=limit_bytes or choice.sram_limit_bytes),
                StageOptions(rules=chosen.pipeline),
                self.base.plan if is_known else None,
            )
        return self._stages[key]

    def _answered(self, demands: tuple[Demand, ...], limit_bytes: int | None) -> Answer:
        """Answer demands; tiling, memory and collective rules are forbidden by pricing without them."""
        staged = next((demand for demand in demands if demand.is_on_stages), None)
        if staged is not None:
            raise DemandError(
                f"demand '{staged}': found one on stages, expected those on one plan; ask `Session.divide`"
            )
        rules = available_rules(self._done.options.user_rules)
        left_out = self._left_out(demands, _pricing(rules))
        explorer = self.explorer
        if left_out or limit_bytes is not None:
            explorer = _explorer(self._done, self.target, self.explorer, limit_bytes, left_out)
        rest = [demand for demand in demands if demand.value not in left_out]
        found = explorer.answer(*rest)
        delta = found.plan.cost - self.base.plan.cost
        return replace(found, demands=demands, delta=delta)

    def _left_out(
        self, demands: tuple[Demand, ...], general: tuple[AnyRule, ...]
    ) -> tuple[str, ...]:
        """Return the rules that demands forbid among those that are not of single tensors.

        Raises:
            DemandError: A rule is unknown, or such a rule is forced or forbidden on one tensor.
        """
        rules = available_rules(self._done.options.user_rules)
        pricing = {name for rule in general for name in (rule.name, rule.ruleset)}
        known = {name for rule in rules.everything for name in (rule.name, rule.ruleset)}
        asked = [demand for demand in demands if demand.aspect is Aspect.RULE]
        for demand in asked:
            if demand.value not in known:
                hint = suggestion(demand.value, known)
                raise DemandError(f"demand '{demand}': there is no such rule; {hint}")
            if demand.value in pricing and (demand.is_forced or demand.tensor is not None):
                raise DemandError(
                    f"demand '{demand}': the rule treats all tensors alike, expected to forbid it for "
                    "the whole plan; for one tensor demand a tile, a memory or a cut"
                )
        return tuple(demand.value for demand in asked if demand.value in pricing)

    def diff(self, first: Plan, second: Plan) -> tuple[Change, ...]:
        """Return how two plans differ, op by op; the deltas add up to the difference of cost."""
        return diff(first, second)

    def what_if(self, change: str) -> WhatIf:
        """Return the plan for a target with one figure changed, and what each resource has of it.

        The padding is used again unless the logical mesh changes, and so is what saturation found unless the
        scratchpad changes so that other rules match; then ways, boxes and tile sizes are, and prices alone
        are worked out anew.

        Args:
            change: Such as `sram=x2`, `dram_bandwidth=x0.5`, `mesh=8x8`, `tile.matrix.rows=32`.

        Raises:
            TargetError: There is no such figure, or the target is wrong with it.
            InfeasibleError: Nothing fits the scratchpad of the changed target.
        """
        target = changed_target(self.target, change)
        found = self.explorer
        if target.model_copy(update={"name": self.target.name}) != self.target:
            done = self._saturated_for(target)
            is_same = done.alternatives is self._done.alternatives
            self._tell(f"extracting a plan for {change}")
            found = _explorer(done, target, self.explorer if is_same else None, None)
        return WhatIf(
            change=change,
            target=target,
            plan=found.base.plan,
            delta=found.base.plan.cost - self.base.plan.cost,
            before=resources(self.base.plan, self.target),
            after=resources(found.base.plan, target),
        )

    def _saturated_for(self, target: Target) -> Compilation:
        """Return the model saturated for a changed target, again only if rules look at what changes."""
        done = replace(self._done, target=target)
        if logical_mesh(target) != done.mesh:
            options = replace(done.options, stop_after=Stage.SATURATE)
            return compile_graph(done.source, target, options, self._tell)
        wanted, known = (
            saturation_options(done.graph, one, done.options) for one in (target, self.target)
        )
        if wanted == known:
            return done
        assert done.rolled is not None, "the model is saturated"
        saturated = saturation_of(done, done.options)
        found = tuple(saturated(block.graph, done.mesh) for block in done.rolled.blocks)
        is_same = all(map(_are_same, found, done.alternatives))
        return done if is_same else replace(done, alternatives=found)

    def lower(self, answer: Answer | PipelineAnswer) -> Program:
        """Return the program of an answer.

        A plan that cannot be allocated is made again with less scratchpad to plan with.

        Raises:
            InfeasibleError: No plan under the demands that was found can be lowered.
        """
        if isinstance(answer, PipelineAnswer):
            return self._linked(answer)
        found = realised(
            answer,
            lambda answer: build_program(answer.plan, self.target),
            lambda answer, limit_bytes, _: self._answered(answer.demands, limit_bytes),
            what=f"model '{answer.plan.graph.name}'",
            target=self.target,
            limit_bytes=answer.setting.pricing.limit_bytes,
            can_avoid=False,
        )
        return found.program

    def _linked(self, answer: PipelineAnswer) -> Program:
        found = realised(
            answer,
            lambda answer: build_pipeline(answer.pipeline, self.target),
            lambda answer, limit_bytes, _: self._divided(answer.demands, limit_bytes),
            what=f"model '{answer.pipeline.graph.name}' in stages",
            target=self.target,
            limit_bytes=self.base.setting.pricing.limit_bytes,
            can_avoid=False,
        )
        return found.program


def _are_same(one: Alternatives, other: Alternatives) -> bool:
    """Whether saturation found the same; its statistics may differ."""
    ours, theirs = (
        (found.mesh, found.classes, found.nodes, found.implementations, found.outputs)
        for found in (one, other)
    )
    return ours == theirs


def _pricing(rules: SaturationOptions) -> tuple[AnyRule, ...]:
    """Return the rules by which options are priced."""
    return (*rules.tiling, *rules.memory, *rules.collective)


def _weighing(done: Compilation) -> Compilation:
    """Return what was saturated with rates of a mix that stay, so that costs on changed targets compare."""
    objective = done.options.objective.on(done.graph, done.target)
    return replace(done, options=replace(done.options, objective=objective))


def check_added_up(objective: Objective) -> None:
    """Refuse an objective that weighs the footprint, which answers do not add up.

    Raises:
        CompileError: It does.
    """
    if Metric.SRAM in objective.metrics:
        raise CompileError(
            f"objective '{objective}': exploring adds up what kernels and moves cost, not the footprint; "
            "choose latency, throughput, energy or a mix of them, or see 'tilewright explore pareto'"
        )


def _demands(given: Sequence[DemandLike], is_forced: bool) -> tuple[Demand, ...]:
    return tuple(
        parse_demand(one, is_forced=is_forced)
        if isinstance(one, str)
        else replace(one, is_forced=is_forced)
        for one in given
    )


def _explorer(
    done: Compilation,
    target: Target,
    start: Explorer | None,
    limit_bytes: int | None,
    without_rules: tuple[str, ...] = (),
) -> Explorer:
    """Plan for a target, with the rules of a compilation; perhaps from a known solution."""
    assert done.rolled is not None, "the model is saturated"
    options = extract_options(done.options, without_rules)
    return Explorer(
        done.graph,
        done.rolled,
        done.alternatives,
        target,
        logical_mesh(target),
        replace(options, sram_limit_bytes=limit_bytes or options.sram_limit_bytes),
        start,
    )
