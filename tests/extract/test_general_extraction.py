"""The general extractor against brute force, its parts one by one, on random small e-graphs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import InfeasibleError, ModelError
from tilewright.extract.general import bounding, program
from tilewright.extract.general.anneal import Annealing
from tilewright.extract.general.egraph import EGraph, Extraction, Proof, needed_cost
from tilewright.extract.general.extractor import Progress, extract
from tilewright.extract.general.greedy import greedy_choice
from tilewright.extract.general.path_bound import drop_dear
from tilewright.extract.general.program import Program
from tilewright.extract.general.snapshot import take_snapshot
from tilewright.extract.general.workspace import Workspace, recover

COSTS = (0.0, 0.0, 1.0, 2.0, 3.0, 5.0, 1.5)


def egraph(*classes: list[tuple[float, list[int]]], roots: tuple[int, ...] = (0,)) -> EGraph:
    """An e-graph from the (cost, needed classes) of the e-nodes of each class."""
    nodes = [(group, *node) for group, members in enumerate(classes) for node in members]
    return EGraph(
        owner=tuple(group for group, _, _ in nodes),
        cost=tuple(cost for _, cost, _ in nodes),
        children=tuple(tuple(needs) for _, _, needs in nodes),
        roots=roots,
        class_count=len(classes),
    )


@st.composite
def egraphs(draw: st.DrawFn, *, negative: bool = True) -> EGraph:
    """Small e-graphs, with cycles, self loops, several roots, empty classes and negative costs."""
    count = draw(st.integers(1, 6))
    costs = st.sampled_from((*COSTS, -1.0, -2.0, -3.0) if negative else COSTS)
    needs = st.lists(st.integers(0, count - 1), max_size=3, unique=True)
    node = st.tuples(costs, needs)
    sizes = st.sampled_from((1, 1, 2, 2, 3, 3, 0))
    classes = [draw(st.lists(node, min_size=(n := draw(sizes)), max_size=n)) for _ in range(count)]
    roots = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=3, unique=True))
    return egraph(*classes, roots=tuple(sorted(roots)))


def choice_cost(graph: EGraph, choice: tuple[int | None, ...]) -> float:
    """The cost of one e-node for each class; infinite if it is cyclic or a class has none."""
    done: set[int] = set()

    def visit(group: int, above: frozenset[int]) -> float:
        node = choice[group]
        if group in above or node is None:
            return math.inf
        if group in done:
            return 0.0
        below = sum(visit(child, above | {group}) for child in graph.children[node])
        done.add(group)
        return graph.cost[node] + below

    return sum(visit(root, frozenset()) for root in graph.roots)


def cheapest(graph: EGraph) -> float:
    """The cost of the best extraction, by trying all; infinite if there is none."""
    nodes: list[list[int | None]] = [[] for _ in range(graph.class_count)]
    for node, group in enumerate(graph.owner):
        nodes[group].append(node)
    return min(
        choice_cost(graph, choice)
        for choice in itertools.product(*(members or [None] for members in nodes))
    )


def check(graph: EGraph, extraction: Extraction) -> None:
    """Hold a proven extraction to brute force."""
    choice = tuple(extraction.chosen.get(group) for group in range(graph.class_count))
    assert choice_cost(graph, choice) == pytest.approx(extraction.cost, abs=1e-9)
    assert extraction.cost == pytest.approx(cheapest(graph), abs=1e-6)
    assert extraction.bound == extraction.cost
    assert extraction.is_optimal
    assert extraction.gap == 0


def by_solver(graph: EGraph) -> Extraction:
    """Extract without reductions before the integer program."""
    work = Workspace(graph)
    work.refresh()
    progress = Progress(graph=graph, time_limit=20)
    return progress.result(bounding.decide(work, progress))


@settings(max_examples=200, deadline=None)
@given(egraphs())
def test_reductions_agree_with_brute_force(graph: EGraph) -> None:
    try:
        extraction = extract(graph)
    except InfeasibleError:
        assert cheapest(graph) == math.inf
        return
    check(graph, extraction)


@pytest.mark.parametrize("with_subsets", [True, False], ids=["all-subsets", "lazy-cycles"])
def test_the_program_agrees_with_brute_force(
    with_subsets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without elimination, cycles are left to the loop formulas."""
    monkeypatch.setattr(bounding, "MOVES", 200)
    monkeypatch.setattr(bounding, "MORE_FOR_CYCLES", -1000)
    monkeypatch.setattr(bounding, "MORE_FOR_TIGHTNESS", -1000)
    monkeypatch.setattr(program, "SUBSET_CLASSES", 12 if with_subsets else 0)

    @settings(max_examples=60, deadline=None)
    @given(egraphs())
    def run(graph: EGraph) -> None:
        if cheapest(graph) < math.inf:
            check(graph, by_solver(graph))

    run()


@settings(max_examples=100, deadline=None)
@given(egraphs())
def test_without_time_there_is_still_an_honest_answer(graph: EGraph) -> None:
    best = cheapest(graph)
    if best == math.inf:
        return
    extraction = extract(graph, time_limit=0)
    choice = tuple(extraction.chosen.get(group) for group in range(graph.class_count))
    assert choice_cost(graph, choice) == pytest.approx(extraction.cost, abs=1e-9)
    assert extraction.bound <= best + 1e-9
    assert best <= extraction.cost + 1e-9
    assert extraction.is_optimal == (extraction.gap == 0)


def relaxed_bound(graph: EGraph) -> float:
    """The bound of the linear relaxation alone, computed from its dual solution."""
    work = Workspace(graph)
    work.refresh()
    found = Program(take_snapshot(work)).relax(math.inf)
    assert found is not None
    return found[0]


def chain_bound(graph: EGraph) -> float:
    """The bound of the dearest chain alone."""
    work = Workspace(graph)
    return drop_dear(work, math.inf)


@pytest.mark.parametrize("bound", [relaxed_bound, chain_bound])
def test_bounds_are_below_the_optimum(bound: Callable[[EGraph], float]) -> None:
    @settings(max_examples=60, deadline=None)
    @given(egraphs())
    def run(graph: EGraph) -> None:
        best = cheapest(graph)
        if best < math.inf:
            assert bound(graph) <= best + 1e-9

    run()


@settings(max_examples=60, deadline=None)
@given(egraphs())
def test_what_is_dropped_as_too_dear_beats_nothing(graph: EGraph) -> None:
    """A choice cheaper than the limit survives, whatever the limit."""
    best = cheapest(graph)
    if best == math.inf:
        return
    work = Workspace(graph)
    work.refresh()
    drop_dear(work, best + 0.25)
    left = {work.origin[a] for group in work.live for a in work.alternatives[group]}
    dropped = [node for node in range(len(graph.owner)) if node not in left]
    rest = [node for node in range(len(graph.owner)) if node not in dropped]
    smaller = EGraph(
        owner=tuple(graph.owner[node] for node in rest),
        cost=tuple(graph.cost[node] for node in rest),
        children=tuple(graph.children[node] for node in rest),
        roots=graph.roots,
        class_count=graph.class_count,
    )
    assert cheapest(smaller) == best


@settings(max_examples=60, deadline=None)
@given(egraphs())
def test_greedy_and_annealing_give_extractions(graph: EGraph) -> None:
    best = cheapest(graph)
    choice = greedy_choice(graph)
    if best == math.inf:
        assert not all(root in choice for root in graph.roots)
        return
    annealed = Annealing(graph, choice, 0).run(300, 0.5, math.inf)
    for found in (choice, annealed):
        nodes = tuple(found.get(group) for group in range(graph.class_count))
        assert best <= choice_cost(graph, nodes) < math.inf
    assert needed_cost(graph, annealed)[0] <= needed_cost(graph, choice)[0]


def test_an_alternative_that_needs_more_may_be_wanted_for_a_negative_cost() -> None:
    graph = egraph([(0.0, [1, 2]), (0.0, [1])], [(1.0, [])], [(-5.0, [])])
    extraction = extract(graph)
    assert (extraction.cost, extraction.proof) == (-4.0, Proof.reductions)
    assert extraction.chosen == {0: 0, 1: 2, 2: 3}


def test_cheap_cycles_are_no_extraction() -> None:
    """Two classes that get each other for nothing have to be built by one of them."""
    graph = egraph([(0.0, [1, 2])], [(0.0, [2]), (7.0, [])], [(0.0, [1]), (4.0, [])])
    extraction = extract(graph)
    assert extraction.cost == 4
    assert set(extraction.chosen.values()) == {0, 1, 4}


def test_shared_classes_are_paid_once() -> None:
    graph = egraph([(1.0, [1, 2])], [(1.0, [3]), (2.0, [])], [(1.0, [3]), (3.0, [])], [(3.0, [])])
    assert extract(graph).cost == 6
    assert extract(egraph([(1.0, [1, 1])], [(2.0, [])])).cost == 3


def test_a_root_that_only_needs_itself_is_refused() -> None:
    with pytest.raises(InfeasibleError, match="class 0 must be extracted"):
        extract(egraph([(1.0, [1])], [(1.0, [0])]))


def test_the_first_candidate_that_can_be_built_is_recovered() -> None:
    """Both e-nodes of class 1 were chosen by different users; one of them would close a cycle."""
    graph = egraph([(0.0, [1, 2])], [(1.0, [2]), (1.0, [])], [(0.0, [1])])
    assert recover(graph, [(0, 1), (2, 3)]) == {0: 0, 1: 2, 2: 3}


def test_long_chains_need_no_recursion_and_little_time() -> None:
    """Each class may be made anew or from the one before; 4000 of them."""
    links = [[(float(i), []), (1.0, [i + 1])] for i in range(3999)]
    extraction = extract(egraph(*links, [(5.0, [])]))
    assert extraction.cost == 0
    shared = [[(1.0, [i + 1, i + 2])] for i in range(3000)]
    assert extract(egraph(*shared, [(1.0, [])], [(1.0, [])])).cost == 3002


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cost": (1.0, 2.0)}, "1 owners, 2 costs"),
        ({"roots": (3,)}, "there is no class 3; classes are 0 to 0"),
        ({"children": ((-1,),)}, "there is no class -1"),
        ({"cost": (math.nan,)}, "e-node 0: cost is nan"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    arrays = {"owner": (0,), "cost": (1.0,), "children": ((),), "roots": (0,), "class_count": 1}
    with pytest.raises(ModelError, match=message):
        EGraph(**{**arrays, **change})  # type: ignore[arg-type]
