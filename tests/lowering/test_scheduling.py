"""The scheduler core against brute force, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import CompileError, InfeasibleError, ScheduleError
from tilewright.lowering.scheduling import exact
from tilewright.lowering.scheduling.bounds import critical_path, lower_bound, resource_bound
from tilewright.lowering.scheduling.check import find_violations
from tilewright.lowering.scheduling.exact import ExactLimits, exact_schedule
from tilewright.lowering.scheduling.list_scheduling import Effort, list_schedule
from tilewright.lowering.scheduling.problem import MAX_TIME, Precedence, Problem
from tilewright.lowering.scheduling.tables import make_tables


@st.composite
def problems(draw: st.DrawFn, most: int = 4) -> Problem:
    """Problems with up to two resources, lags, and tasks without duration or demand."""
    tasks = draw(st.integers(1, most))
    capacities = tuple(draw(st.lists(st.integers(0, 4), max_size=2)))
    pairs = [(a, b) for a in range(tasks) for b in range(tasks) if a < b]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=6)) if pairs else []
    names = draw(st.permutations(range(tasks)))
    return Problem(
        durations=tuple(draw(st.integers(0, 4)) for _ in range(tasks)),
        demands=tuple(
            tuple(draw(st.integers(0, capacity)) for capacity in capacities) for _ in range(tasks)
        ),
        capacities=capacities,
        precedences=tuple(
            Precedence(names[a], names[b], draw(st.integers(0, 2))) for a, b in chosen
        ),
    )


def orders(problem: Problem) -> Iterator[tuple[int, ...]]:
    """All orders of the tasks in which each comes behind what it waits for."""
    for order in permutations(range(len(problem.durations))):
        place = {task: position for position, task in enumerate(order)}
        if all(place[p.before] < place[p.after] for p in problem.precedences):
            yield order


def earliest(problem: Problem, order: Sequence[int]) -> int:
    """The makespan when tasks start, one after the other, at the first time that breaks no limit."""
    starts: dict[int, int] = {}
    for task in order:
        start = 0
        while not allowed(problem, starts | {task: start}):
            start += 1
        starts[task] = start
    return max(starts[task] + problem.durations[task] for task in order)


def allowed(problem: Problem, starts: dict[int, int]) -> bool:
    """Whether the tasks that have a start keep all limits, at each time."""
    ends = {task: start + problem.durations[task] for task, start in starts.items()}
    for before, after, lag in problem.precedences:
        if before in starts and after in starts and starts[after] < ends[before] + lag:
            return False
    return all(
        sum(problem.demands[t][r] for t in starts if starts[t] <= time < ends[t]) <= capacity
        for r, capacity in enumerate(problem.capacities)
        for time in range(max(ends.values(), default=0))
    )


def shortest(problem: Problem) -> int:
    """Makespan of the best schedule: some order of earliest starts gives it."""
    return min(earliest(problem, order) for order in orders(problem))


@settings(max_examples=30, deadline=None)
@given(problems())
def test_schedules_against_brute_force(problem: Problem) -> None:
    best = shortest(problem)
    bound, _ = lower_bound(problem)
    listed = list_schedule(problem, Effort(samples=5))
    proven = exact_schedule(problem, known=list_schedule(problem, Effort(samples=0)))
    for solution in (listed, proven):
        assert find_violations(problem, solution.starts, solution.makespan) == ()
        assert solution.bound <= best <= solution.makespan
    assert bound <= best
    assert proven.makespan == proven.bound == best


def test_the_exact_search_is_needed_and_used() -> None:
    """No bound is tight here: three jobs of 2 units and length 2 on 3 units, and one of 1 and 1."""
    problem = Problem(durations=(2, 2, 2, 1), demands=((2,), (2,), (2,), (1,)), capacities=(3,))
    tables = make_tables(problem)
    assert (critical_path(tables), resource_bound(tables)) == (2, 5)
    solution = exact_schedule(problem)
    assert (solution.makespan, solution.bound, solution.proof) == (6, 6, "search")


def test_energy_in_a_window_proves_more_than_work_and_chains() -> None:
    """Two tasks need the machine right after a common start, and both have a long tail."""
    problem = Problem(
        durations=(5, 5, 9, 9),
        demands=((1,), (1,), (0,), (0,)),
        capacities=(1,),
        precedences=(Precedence(0, 2), Precedence(1, 3)),
    )
    assert lower_bound(problem) == (19, "energy")
    assert list_schedule(problem).makespan == 19


def wide_problem(tasks: int) -> Problem:
    """A chain of layers in which neighbours depend on each other, on three resources."""
    return Problem(
        durations=tuple(1 + 7 * i % 5 for i in range(tasks)),
        demands=tuple((i % 3, 1, i * i % 2) for i in range(tasks)),
        capacities=(3, 4, 1),
        precedences=tuple(Precedence(i, i + 6 + i % 3, i % 2) for i in range(tasks - 8)),
    )


def test_a_larger_problem_is_valid_and_the_same_each_time() -> None:
    problem = wide_problem(400)
    first, again = (list_schedule(problem, Effort(samples=20)) for _ in range(2))
    assert first == again
    assert find_violations(problem, first.starts, first.makespan) == ()
    assert first.gap < 0.1


def test_more_samples_are_never_worse() -> None:
    problem = wide_problem(40)
    spans = [list_schedule(problem, Effort(samples=n)).makespan for n in (0, 10, 100)]
    assert spans == sorted(spans, reverse=True)


def test_a_search_that_ends_early_is_honest() -> None:
    problem = Problem(
        durations=tuple(3 + 5 * i % 7 for i in range(12)), demands=((2,),) * 12, capacities=(5,)
    )
    known = list_schedule(problem, Effort(samples=0))
    assert not known.is_optimal
    found = exact_schedule(problem, ExactLimits(work=1e-9), known)
    assert find_violations(problem, found.starts, found.makespan) == ()
    assert known.bound <= found.bound <= found.makespan <= known.makespan


def test_no_tasks_take_no_time() -> None:
    empty = Problem(durations=(), demands=(), capacities=(1,))
    assert list_schedule(empty).makespan == exact_schedule(empty).makespan == 0


def test_without_or_tools_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(exact, "import_module", absent)
    problem = Problem(durations=(2, 2, 2), demands=((2,),) * 3, capacities=(3,))
    # three bodies of work 4 on 3 units: the bound is 4, and no schedule is below 6
    with pytest.raises(CompileError, match=r"need OR-tools, .* pip install 'tilewright\[exact\]'"):
        exact_schedule(problem)


# ---------------------------------------------------------------- the checker

CHECKED = Problem(
    durations=(2, 3, 1),
    demands=((2,), (1,), (1,)),
    capacities=(2,),
    precedences=(Precedence(0, 2, 1),),
)


@pytest.mark.parametrize(
    ("starts", "makespan", "message"),
    [
        ((0, 2), 5, "2 starts of 3 tasks"),
        ((-1, 2, 4), 5, "task 0 starts at -1"),
        ((0, 2, 3), 6, "the makespan is 5, 6 was claimed"),
        ((0, 2, 2), 5, "task 2 starts at 2, task 0 ends at 2 and the lag is 1"),
        ((0, 1, 3), 4, "3 of resource 0 in use at 1, there are 2"),
    ],
)
def test_the_checker_finds(starts: tuple[int, ...], makespan: int, message: str) -> None:
    assert find_violations(CHECKED, (0, 2, 3), 5) == ()
    assert message in find_violations(CHECKED, starts, makespan)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"precedences": (Precedence(0, 1), Precedence(1, 2), Precedence(2, 0))},
            r"wait for each other in a circle, (\d -> ){3}\d; drop one of these precedences",
        ),
        ({"precedences": (Precedence(1, 1),)}, "in a circle, 1 -> 1;"),
        ({"precedences": (Precedence(0, 3),)}, "names task 3, expected 0 to 2; correct"),
        ({"precedences": (Precedence(0, 1, -1),)}, "the lag of precedence 0 -> 1 is -1"),
        ({"durations": (2, -3, 1)}, "the duration of task 1 is -3, expected 0"),
        ({"durations": (2, 3, MAX_TIME)}, "the duration of task 2 is 1099511627776"),
        ({"durations": (2, 3)}, "demands of 3 tasks, durations of 2; give both"),
        ({"demands": ((2,), (1,), (1, 1))}, "task 2 has demands on 2 resources, expected 1"),
        ({"demands": ((2,), (-1,), (1,))}, "the demand of task 1 on resource 0 is -1"),
    ],
)
def test_contradictory_problems_are_refused(fields: dict[str, object], message: str) -> None:
    given_fields = {
        "durations": CHECKED.durations,
        "demands": CHECKED.demands,
        "capacities": CHECKED.capacities,
        "name": "p",
    }
    with pytest.raises(ScheduleError, match=message):
        Problem(**(given_fields | fields))  # type: ignore[arg-type]


def test_a_demand_above_the_capacity_is_infeasible() -> None:
    with pytest.raises(
        InfeasibleError, match=r"p: task 1 takes 5 of resource 0, its capacity is 3; .* by 2"
    ):
        Problem(durations=(1, 1), demands=((1,), (5,)), capacities=(3,), name="p")
