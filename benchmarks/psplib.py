"""Project scheduling instances of PSPLIB: the scheduler core against proven optima."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tables import print_table
from tilewright.errors import CompileError
from tilewright.lowering.scheduling.check import find_violations
from tilewright.lowering.scheduling.exact import exact_schedule
from tilewright.lowering.scheduling.list_scheduling import list_schedule
from tilewright.lowering.scheduling.problem import Problem, Solution
from tilewright.lowering.scheduling.psplib import parse_optima, parse_project

MEAN_LIMIT = 0.03
"""List schedules may be longer than the optima by this much in the mean."""

HEADER = (
    "parameter",
    "instances",
    "optimum",
    "bound",
    "list",
    "worst",
    "optimal",
    "CPU ms",
    "exact",
    "proven",
    "CPU s",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What both schedulers did on one instance."""

    name: str
    parameter: int
    optimum: int
    listed: Solution
    list_seconds: float
    exact: Solution | None
    exact_seconds: float
    wrong: tuple[str, ...]
    """What the checker found, and bounds that are above the optimum."""

    @property
    def excess(self) -> float:
        """How much longer the list schedule is than the shortest, relative to that."""
        return self.listed.makespan / self.optimum - 1.0

    @property
    def is_exact(self) -> bool:
        """Whether the exact schedule is as short as the optimum and proven so; true if none was asked for."""
        return self.exact is None or (self.exact.is_optimal and self.exact.makespan == self.optimum)


def main(path: Path, names: Sequence[str], *, is_exact: bool) -> int:
    """Schedule the instances in a folder and its sub-folders; return 1 when a limit is missed.

    Args:
        path: Holds a table of optima, SETopt.sm, and instances *.rcp or *.sm.
        names: Only instances whose names contain one of these.
        is_exact: Whether to schedule exactly, too.
    """
    results: list[Result] = []
    try:
        instances = _instances(path, names)
        if not instances:
            print(f"{path}: no instance {' '.join(names)} (*.rcp, *.sm) with an optimum in *opt.sm")
            return 1
        # the first call compiles the loops or loads them from the cache of an earlier process
        list_schedule(Problem(durations=(1,), demands=((1,),), capacities=(1,)))
        for name, file, parameter, optimum in instances:
            problem = parse_project(file.read_text(encoding="utf-8"), name=file.name)
            results.append(_measure(problem, name, parameter, optimum, is_exact=is_exact))
    except (OSError, UnicodeDecodeError, CompileError) as error:
        print(f"failed: {error}")
        return 1
    groups = sorted({result.parameter for result in results})
    rows = [_row(str(g), [r for r in results if r.parameter == g]) for g in groups]
    print_table("project scheduling", HEADER, [*rows, _row("all", results)], left=1)
    missed = _missed(results)
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


def _instances(path: Path, names: Sequence[str]) -> list[tuple[str, Path, int, int]]:
    """Return name, file, parameter and optimum of each instance, in order of their numbers."""
    found = []
    for table in sorted(path.glob("*opt.sm")):
        label = table.name.removesuffix("opt.sm")
        optima = parse_optima(table.read_text(encoding="utf-8"), name=table.name)
        for file in sorted({*path.rglob("*.rcp"), *path.rglob("*.sm")}):
            # j30_1_2.rcp and j301_2.sm are the same instance
            match = re.fullmatch(re.escape(label) + r"_?(\d+)_(\d+)", file.stem, re.ASCII)
            key = (int(match[1]), int(match[2])) if match else (0, 0)
            if key in optima and (not names or any(name in file.stem for name in names)):
                found.append((key, (file.stem, file, key[0], optima[key])))
    return [instance for _, instance in sorted(found)]


def _measure(
    problem: Problem, name: str, parameter: int, optimum: int, *, is_exact: bool
) -> Result:
    began = time.process_time()
    listed = list_schedule(problem)
    between = time.process_time()
    exact = exact_schedule(problem) if is_exact else None
    after = time.process_time()
    wrong: list[str] = []
    for solution in (listed, *((exact,) if exact else ())):
        wrong += find_violations(problem, solution.starts, solution.makespan)
        if solution.bound > optimum:
            wrong.append(f"the bound is {solution.bound}, the optimum {optimum}")
    return Result(
        name=name,
        parameter=parameter,
        optimum=optimum,
        listed=listed,
        list_seconds=between - began,
        exact=exact,
        exact_seconds=after - between,
        wrong=tuple(wrong),
    )


def _row(what: str, results: Sequence[Result]) -> tuple[str, ...]:
    """Return the cells of some instances: means, and how many are optimal."""
    count = len(results)
    exact = [r.exact for r in results if r.exact is not None]
    return (
        what,
        str(count),
        f"{sum(r.optimum for r in results) / count:.1f}",
        f"{sum(r.listed.bound for r in results) / count:.1f}",
        f"{sum(r.excess for r in results) / count:+.2%}",
        f"{max(r.excess for r in results):+.1%}",
        str(sum(r.excess == 0.0 for r in results)),
        f"{1000 * sum(r.list_seconds for r in results) / count:.1f}",
        f"{sum(s.makespan for s in exact) / count:.1f}" if exact else "-",
        str(sum(s.is_optimal for s in exact)) if exact else "-",
        f"{sum(r.exact_seconds for r in results):.1f}" if exact else "-",
    )


def _missed(results: Sequence[Result]) -> list[str]:
    """Say which limits are missed."""
    lines = [f"{r.name}: {text}" for r in results for text in r.wrong]
    mean = sum(r.excess for r in results) / len(results)
    if mean > MEAN_LIMIT:
        lines.append(f"list schedules are {mean:.2%} above the optima, limit {MEAN_LIMIT:.0%}")
    for r in results:
        if r.exact is not None and not r.is_exact:
            lines.append(
                f"{r.name}: exact schedule {r.exact.makespan}, proven {r.exact.bound}, optimum {r.optimum}"
            )
    return lines
