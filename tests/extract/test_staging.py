"""Demands on stages against the enumeration of all divisions, and the errors of demands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
from extract_cases import Builder
from test_pipeline_plans import alternatives, masked

from tilewright.errors import CompileError, DemandError, InfeasibleError
from tilewright.extract.exploration.demand import Aspect, Demand, parse_demand
from tilewright.extract.exploration.staging import PipelineAnswer, StageExplorer
from tilewright.extract.extraction import ExtractOptions
from tilewright.extract.objective import Objective
from tilewright.extract.pipeline.plan import PipelinePlan
from tilewright.extract.pipeline.planner import StageOptions, plan_pipeline
from tilewright.extract.pipeline.prices import Prices
from tilewright.extract.pipeline.segments import Segments
from tilewright.extract.pipeline.table import Parts
from tilewright.extract.validate import validate_plan
from tilewright.graph import Graph
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.mesh import LogicalMesh, format_sharding
from tilewright.hwmodel.submesh import Submesh, fits_at, submeshes
from tilewright.lowering.link import build_pipeline
from tilewright.reference import evaluate
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.pipeline.family import pipeline_rules
from tilewright.rules.pipeline.legality import Legality
from tilewright.rules.roll import roll, roll_at
from tilewright.simulator.functional import run_program
from tilewright.simulator.timing import simulate

TARGET = mesh_target(2, 2, name="two_by_two", sram_kib=16)
SHAPES = submeshes(TARGET, 1 / 4)
OPTIONS = StageOptions(evaluations=1000)


@cache
def narrowing(layers: int = 3) -> Graph:
    """Products and maps of which no two are alike, in a row."""
    b = Builder(f"narrowing{layers}")
    x = b.input(7, 40)
    for inputs, outputs in pairwise((40, 36, 32, 28)[: layers + 1]):
        x = b.map("relu", b.matmul(x, b.weight(inputs, outputs)))
    return b.graph(x)


@cache
def explorer(objective: Objective = Objective.THROUGHPUT, layers: int = 3) -> StageExplorer:
    graph, options = narrowing(layers), ExtractOptions(objective=objective)
    return StageExplorer(graph, roll(graph), TARGET, alternatives, options, OPTIONS, enough=1000)


@dataclass(frozen=True)
class OneStage:
    """Items `first <= i < last` on tiles from `tile` on."""

    first: int
    last: int
    shape: Submesh
    tile: int


def divisions(
    items: int, tile: int = 0, first: int = 0, most: int = 4
) -> Iterator[tuple[OneStage, ...]]:
    """Yield every division of items on the tiles from one on."""
    if first == items:
        yield ()
        return
    if not most:
        return
    for last in range(first + 1, items + 1):
        for shape in SHAPES:
            size = int(np.prod(shape))
            for at in range(tile, TARGET.tiles - size + 1):
                if fits_at(TARGET, shape, at):
                    one = OneStage(first, last, shape, at)
                    for rest in divisions(items, at + size, last, most - 1):
                        yield (one, *rest)


PRICES: dict[tuple[int, int, int, Submesh], float] = {}


def value(division: tuple[OneStage, ...], objective: Objective, layers: int) -> float:
    """The value of a division, from plans of its stages and what they exchange."""
    session = explorer(objective, layers)
    parts, prices = session._table.parts, session._table.prices
    paid = []
    for one in division:
        key = layers, one.first, one.last, one.shape
        if key not in PRICES:
            PRICES[key] = prices.stage(parts.segments.segment(one.first, one.last), one.shape).cost
        paid.append(PRICES[key] + parts.exchange_cycles(one.first, one.last))
    return max(paid) if objective == Objective.THROUGHPUT else sum(paid)


def holds(demand: Demand, division: tuple[OneStage, ...], graph: Graph) -> bool:
    """Whether a division does what a demand asks; item n is operator n."""
    if demand.aspect is Aspect.STAGES:
        return (len(division) == int(demand.value)) == demand.is_forced
    (place,) = (n for n, op in enumerate(graph.ops) if op.output == demand.tensor)
    (number,) = (n for n, one in enumerate(division) if one.first <= place < one.last)
    match demand.aspect:
        case Aspect.STAGE:
            found = number + 1 == int(demand.value)
        case Aspect.CUT:
            found = any(one.last == place + 1 for one in division[:-1])
        case _:
            found = "x".join(map(str, division[number].shape)) == demand.value
    return found == demand.is_forced


def every_demand(graph: Graph) -> list[Demand]:
    texts = [f"stages={number}" for number in range(1, 5)]
    for op in graph.ops:
        texts += [f"stage={number}@{op.output}" for number in range(1, 5)]
        texts += [f"cut@{op.output}", *(f"part={s[0]}x{s[1]}@{op.output}" for s in SHAPES)]
    return [
        parse_demand(text, is_forced=is_forced) for text in texts for is_forced in (True, False)
    ]


def check_against_all(demands: tuple[Demand, ...], objective: Objective, layers: int) -> bool:
    """Hold an answer to the best of all divisions; whether there is one."""
    session, graph = explorer(objective, layers), narrowing(layers)
    allowed = [
        value(division, objective, layers)
        for division in divisions(len(graph.ops))
        if all(holds(demand, division, graph) for demand in demands)
    ]
    if not allowed:
        with pytest.raises(DemandError):
            session.answer(*demands)
        return False
    answer = session.answer(*demands)
    assert answer.pipeline.cost == pytest.approx(min(allowed), rel=1e-9)
    assert answer.pipeline.bound <= min(allowed) * (1 + 1e-9)
    assert answer.delta == pytest.approx(answer.pipeline.cost - session.base.cost)
    return True


@pytest.mark.parametrize(
    ("objective", "layers"),
    [
        (Objective.THROUGHPUT, 2),
        (Objective.LATENCY, 2),
        pytest.param(Objective.THROUGHPUT, 3, marks=pytest.mark.slow),
        pytest.param(Objective.LATENCY, 3, marks=pytest.mark.slow),
    ],
)
def test_each_demand_gives_the_best_of_all_divisions(objective: Objective, layers: int) -> None:
    every = every_demand(narrowing(layers))
    found = [check_against_all((one,), objective, layers) for one in every]
    assert any(found)
    assert not all(found)


@pytest.mark.parametrize(
    ("layers", "count"), [(2, 20), pytest.param(3, 90, marks=pytest.mark.slow)]
)
def test_demands_together_give_the_best_of_all_divisions(layers: int, count: int) -> None:
    draw, every = np.random.default_rng(0), every_demand(narrowing(layers))
    found = []
    for number in range(count):
        some = tuple(every[n] for n in draw.choice(len(every), 2 + number % 2, replace=False))
        found.append(check_against_all(some, Objective.THROUGHPUT, layers))
    assert any(found)
    assert not all(found)


def only_sharded(tensor: str, sharding: str) -> Callable[[Graph, LogicalMesh], Alternatives]:
    """Return alternatives without any other sharding of a tensor than this one."""

    def found(graph: Graph, mesh: LogicalMesh) -> Alternatives:
        every = alternatives(graph, mesh)
        classes = {c.number for c in every.classes if tensor in c.names}
        makers = {n.number for n in every.nodes if n.result in classes}
        kept = tuple(
            i
            for i in every.implementations
            if i.node not in makers or format_sharding(mesh, i.result) == sharding
        )
        usable = {i.node for i in kept}
        nodes = tuple(n for n in every.nodes if n.number not in makers or n.number in usable)
        if makers and not any(n.result in classes for n in nodes):
            raise InfeasibleError("nothing is left")
        return replace(every, nodes=nodes, implementations=kept)

    return found


def test_a_sharding_and_a_stage_together() -> None:
    """A demand on an op holds in the stage that computes it, on parts whose mesh has such a sharding."""
    graph = narrowing(2)
    tensor, sharding = graph.ops[2].output, "x:S1"
    session = explorer(Objective.LATENCY, 2)
    parts = session._table.parts
    priced = Prices(TARGET, only_sharded(tensor, sharding), ExtractOptions(), 16)

    def cost(one: OneStage) -> float:
        if not one.first <= 2 < one.last:
            return value((one,), Objective.LATENCY, 2)
        try:
            price = priced.stage(parts.segments.segment(one.first, one.last), one.shape).cost
        except InfeasibleError:
            return np.inf
        return price + parts.exchange_cycles(one.first, one.last)

    for text, count in ((f"stage=2@{tensor}", 0), ("stages=2", 0), (f"part=1x1@{tensor}", 1)):
        staged = parse_demand(text)
        allowed = [
            sum(map(cost, division))
            for division in divisions(len(graph.ops))
            if holds(staged, division, graph)
        ]
        forced = Demand(aspect=Aspect.SHARDING, value=sharding, tensor=tensor)
        if count:
            assert min(allowed) == np.inf
            with pytest.raises(DemandError, match="contradict each other"):
                session.answer(staged, forced)
            continue
        answer = session.answer(staged, forced)
        assert answer.pipeline.cost == pytest.approx(min(allowed), rel=1e-9)
        assert answer.pipeline.bound <= min(allowed) * (1 + 1e-9)
        (made,) = (
            format_sharding(stage.plan.mesh, planned.result.sharding)
            for stage in answer.pipeline.stages
            for planned in stage.plan.ops
            if planned.op.output == tensor
        )
        assert made == sharding


def runs(pipeline: PipelinePlan) -> None:
    """Check plans, lower them, run the program against the reference, and simulate it."""
    graph, draw = pipeline.graph, np.random.default_rng(0)
    for stage in pipeline.stages:
        validate_plan(stage.plan, stage.target)
    program = build_pipeline(pipeline, TARGET)
    values = {p.name: draw.normal(size=p.shape).astype(np.float32) for p in graph.inputs}
    outputs = run_program(program, values, check=True).outputs
    for name, array in evaluate(graph, values).items():
        np.testing.assert_allclose(outputs[name], array, rtol=1e-4, atol=1e-4)
    assert simulate(program).run.cycles > 0


def test_answers_lower_and_run() -> None:
    session, ops = explorer(Objective.THROUGHPUT, 2), narrowing(2).ops
    for texts in ((f"cut@{ops[0].output}", "stages=3"), (f"part=1x1@{ops[1].output}", "stages=2")):
        answer = session.answer(*map(parse_demand, texts))
        assert len(answer.pipeline.stages) == int(texts[1][-1])
        runs(answer.pipeline)


def test_a_tile_that_no_plan_considers_is_that_of_its_stage() -> None:
    session, tensor = explorer(Objective.LATENCY, 2), narrowing(2).ops[0].output
    answer = session.answer(parse_demand("stages=2"), parse_demand(f"tile=m=3,n=5@{tensor}"))
    (made,) = (
        planned
        for stage in answer.pipeline.stages
        for planned in stage.plan.ops
        if planned.op.output == tensor
    )
    assert made.tiling is not None
    assert made.tiling.sizes[:2] == (3, 5)
    assert answer.pipeline.bound <= answer.pipeline.cost
    runs(answer.pipeline)


def test_what_is_computed_again_is_in_several_stages() -> None:
    graph = masked()
    far, ends = graph.ops[0].output, [op.output for op in graph.ops if op.kind == "map"][1:]
    session = StageExplorer(
        *(graph, roll(graph), TARGET, alternatives, ExtractOptions(objective=Objective.THROUGHPUT)),
        StageOptions(items=3),
    )
    answer = session.answer(parse_demand(f"stage=2@{far}"), parse_demand(f"cut@{ends[0]}"))
    made = [{p.op.output for p in stage.plan.ops} for stage in answer.pipeline.stages]
    assert far in made[0]
    assert far in made[1]
    without = session.answer(parse_demand(f"stage=2@{far}", is_forced=False))
    assert all(far not in {p.op.output for p in s.plan.ops} for s in without.pipeline.stages[1:2])
    with pytest.raises(DemandError, match="contradict each other"):
        session.answer(
            parse_demand(f"cut@{ends[0]}"), parse_demand(f"stage=2@{far}", is_forced=False)
        )


@cache
def repeating() -> Graph:
    """Three equal layers of five operators, which stay whole unless a demand cuts them."""
    b = Builder("repeating")
    x = b.input(7, 24)
    for _ in range(3):
        y = b.map("relu", b.matmul(x, b.weight(24, 24)))
        x = b.map("exp", b.map("relu", b.matmul(y, b.weight(24, 24))))
    return b.graph(x)


def test_a_block_that_repeats_is_cut_where_a_demand_asks_it() -> None:
    graph = repeating()
    rolled = roll(graph)
    assert len(rolled.blocks) == 1
    session = StageExplorer(
        *(graph, rolled, TARGET, alternatives, ExtractOptions(objective=Objective.THROUGHPUT)),
        StageOptions(items=3, evaluations=1000),
        enough=1000,
    )
    inner = graph.ops[6].output
    assert session._table.parts.items == 3
    answer = session.answer(parse_demand(f"cut@{inner}"), parse_demand("stages=2"))
    first = answer.pipeline.stages[0]
    assert first.plan.graph.outputs[0].tensor == inner
    runs(answer.pipeline)
    # the same division, priced from what the model is when it is cut there
    items = roll_at(graph, (0, 5, 7, 10, 15))
    segments = Segments(graph, items, Legality(rules=pipeline_rules()))
    parts = Parts(graph=graph, rolled=items, segments=segments, target=TARGET, shapes=SHAPES)
    prices = Prices(TARGET, alternatives, ExtractOptions(), 16)
    both = [
        [prices.stage(segments.segment(*run), s).cost + parts.exchange_cycles(*run) for s in SHAPES]
        for run in ((0, 2), (2, 4))
    ]
    values = [
        max(both[0][one], both[1][other])
        for one, other in product(range(len(SHAPES)), repeat=2)
        if np.prod(SHAPES[one]) + np.prod(SHAPES[other]) <= 4
    ]
    assert answer.pipeline.cost == pytest.approx(min(values), rel=1e-9)
    assert answer.pipeline.bound <= min(values) * (1 + 1e-9)
    # two tensors of one block in different stages need a cut between them
    apart = session.answer(
        parse_demand(f"stage=1@{graph.ops[5].output}"),
        parse_demand(f"stage=2@{graph.ops[8].output}"),
    )
    made = [{p.op.output for p in stage.plan.ops} for stage in apart.pipeline.stages]
    assert graph.ops[5].output in made[0]
    assert graph.ops[8].output in made[1]


def test_answers_do_not_depend_on_what_was_asked_before() -> None:
    graph, options = narrowing(2), ExtractOptions(objective=Objective.THROUGHPUT)
    texts = (f"cut@{graph.ops[0].output}", "stages=3", f"part=1x1@{graph.ops[3].output}")

    def asked(order: tuple[int, ...]) -> dict[int, tuple[PipelinePlan, float]]:
        few = StageOptions(evaluations=4)
        session = StageExplorer(graph, roll(graph), TARGET, alternatives, options, few, enough=1)
        found = {n: session.answer(parse_demand(texts[n])) for n in order}
        return {n: (found[n].pipeline, found[n].delta) for n in order}

    first, second = asked((0, 1, 2)), asked((2, 1, 0))
    for number, (pipeline, delta) in first.items():
        other, other_delta = second[number]
        assert (pipeline.cost, pipeline.bound, delta) == (other.cost, other.bound, other_delta)
        assert [s.plan.ops for s in pipeline.stages] == [s.plan.ops for s in other.stages]
        # few stages are priced: no better than the best, and the bound holds
        best = explorer(Objective.THROUGHPUT, 2).answer(parse_demand(texts[number])).pipeline.cost
        assert pipeline.bound <= best * (1 + 1e-9) <= pipeline.cost * (1 + 1e-9)


@pytest.mark.parametrize(("layers", "stages"), [(2, 1), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_reasons_for_cuts_are_the_best_without_them(layers: int, stages: int) -> None:
    session, graph = explorer(Objective.THROUGHPUT, layers), narrowing(layers)
    assert len(session.base.stages) == stages
    ends = {stage.plan.graph.ops[-1].output for stage in session.base.stages[:-1]}
    for op in graph.ops[:-1]:
        reason = session.explain(op.output)
        assert reason.is_cut == (op.output in ends)
        contrary = parse_demand(f"cut@{op.output}", is_forced=not reason.is_cut)
        assert isinstance(reason.other, PipelineAnswer)
        assert reason.other.demands == (contrary,)
        assert reason.other.pipeline.cost >= reason.chosen.cost
    last = session.explain(graph.ops[-1].output)
    assert last.other is None
    assert "the end of the model" in last.why


def test_what_cannot_be_is_said_with_what_can() -> None:
    session, graph = explorer(Objective.THROUGHPUT, 2), narrowing(2)
    first, last = graph.ops[0].output, graph.ops[-1].output

    def refused(*texts: str, forbidding: str = "") -> str:
        demands = [parse_demand(text) for text in texts]
        demands += [parse_demand(text, is_forced=False) for text in forbidding.split()]
        with pytest.raises(DemandError) as raised:
            session.answer(*demands)
        return str(raised.value)

    assert "expected one of: 1" in refused(f"stage=2@{first}", "stages=3")
    order = refused(f"stage=3@{graph.ops[2].output}", f"stage=2@{last}", f"part=1x1@{first}")
    assert f"in which '{graph.ops[2].output}' comes before '{last}'" in order
    assert "part" not in order
    assert "all that is possible here is: 1" in refused(forbidding=f"stage=1@{first}")
    assert "expected at most 4, so many tiles" in refused(f"stage=5@{last}")
    assert "expected a number from 1" in refused(f"stage=two@{last}")
    assert "expected units of row x column, one of: 2x2, 1x2, 1x1" in refused(f"part=3x1@{last}")
    assert "the end of the model" in refused(f"cut@{last}")
    assert "did you mean" in refused("cut@matmul")
    both = refused(f"part=1x2@{first}", f"part=1x1@{last}", "stages=1")
    assert "contradict each other" in both
    assert "stages=1" in both
    assert "expected one of: x:P, x:R, x:S1" in refused(f"sharding=y:S7@{first}", "stages=2")
    assert "write rule=fusion@TENSOR" in refused("rule=fusion", "stages=2")


def test_a_cut_that_no_rule_allows_names_those_near_it() -> None:
    b = Builder("two_values")
    x = b.input(7, 24)
    y = b.map("relu", b.matmul(x, b.weight(24, 24)))
    z = b.matmul(y, b.weight(24, 24))
    graph = b.graph(b.map("add", b.matmul(z, b.weight(24, 24)), y))
    session = StageExplorer(graph, roll(graph), TARGET, alternatives, ExtractOptions())
    with pytest.raises(DemandError, match="found 2 values made before it") as raised:
        session.answer(parse_demand(f"cut@{z}"))
    assert f"the nearest are cut@{graph.ops[0].output} or cut@{y}" in str(raised.value)
    free = session.answer(parse_demand(f"cut@{z}", is_forced=False))
    assert free.delta == pytest.approx(0)


def test_models_that_stages_cannot_run_are_refused() -> None:
    graph = narrowing(2)
    with pytest.raises(CompileError, match="energy"):
        StageExplorer(
            *(graph, roll(graph), TARGET, alternatives, ExtractOptions(objective=Objective.ENERGY))
        )
    b = Builder("passed")
    x = b.input(7, 34)
    graph = b.graph(b.map("relu", b.matmul(b.map("exp", x), b.weight(34, 34))), x)
    with pytest.raises(CompileError, match="an output that nothing computes"):
        StageExplorer(graph, roll(graph), TARGET, alternatives, ExtractOptions())


def test_without_demands_stages_are_those_of_a_compilation() -> None:
    graph, options = narrowing(2), ExtractOptions(objective=Objective.THROUGHPUT)
    session = StageExplorer(graph, roll(graph), TARGET, alternatives, options)
    compiled = plan_pipeline(graph, roll(graph), TARGET, alternatives, options)
    assert (session.base.cost, session.base.bound) == (compiled.cost, compiled.bound)
    assert [s.plan.ops for s in session.base.stages] == [s.plan.ops for s in compiled.stages]
