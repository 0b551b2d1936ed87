"""Problems of PSPLIB as text: its own format (.sm) and Patterson's (.rcp), and its tables of optima.

Both formats are rows of whole numbers. Patterson's has none but these: activities and resources, the
capacities, then for each activity duration, demands, number of successors, successors. PSPLIB's has the
same in sections with headings. Activities are numbered from 1 in the files, from 0 here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tilewright.errors import ScheduleError
from tilewright.lowering.scheduling.problem import MAX_TIME, Precedence, Problem

_MAX_ACTIVITIES = 1_000_000
_JOBS = re.compile(r"jobs\s*\(incl\. supersource/sink *\)\s*:\s*(.*)")
_RENEWABLE = re.compile(r"-\s*renewable\s*:\s*(\S*)")
_OTHERS = re.compile(r"-\s*(nonrenewable|doubly constrained)\s*:\s*(\S*)")


class _Numbers:
    """The whole numbers of a text, one after the other, each with its line for errors."""

    def __init__(self, lines: list[tuple[int, str]], name: str) -> None:
        self._tokens = iter([(n, token) for n, line in lines for token in line.split()])
        self._name, self._line = name, lines[-1][0] if lines else 1

    def take(self, what: str, least: int = 0, most: int = MAX_TIME - 1) -> int:
        """Return the next number, which says `what`."""
        line, token = next(self._tokens, (self._line, ""))
        is_number = re.fullmatch(r"\d{1,18}", token, re.ASCII) is not None
        if not is_number or not least <= int(token) <= most:
            found = f"'{token[:40]}'" if token else "the end"
            raise ScheduleError(
                f"{self._name}, line {line}: found {found}, expected {what}, a whole number from {least} to "
                f"{most}; correct the file"
            )
        return int(token)

    def finish(self) -> None:
        """Check that nothing is left."""
        for line, token in self._tokens:
            raise ScheduleError(
                f"{self._name}, line {line}: found '{token[:40]}', expected the end; correct the numbers of "
                "activities, resources and successors before it"
            )


def parse_project(text: str, *, name: str) -> Problem:
    """Return the problem of a file of PSPLIB (.sm) or in Patterson's format (.rcp).

    Args:
        text: The file's content; a heading tells the formats apart.
        name: What the file is called in errors.

    Raises:
        ScheduleError: The text is not as the format says, or the activities wait for each other in a circle.
        InfeasibleError: A demand exceeds its capacity.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if any(":" in line for _, line in lines):
        return _parse_sections(lines, name)
    return _parse_patterson(lines, name)


def parse_optima(text: str, *, name: str) -> dict[tuple[int, int], int]:
    """Return the makespans in a table of PSPLIB, by parameter and instance.

    Raises:
        ScheduleError: There is no row of numbers.
    """
    found: dict[tuple[int, int], int] = {}
    for line in text.splitlines():
        if match := re.match(r"\s*(\d{1,9})\s+(\d{1,9})\s+(\d{1,9})(\s|$)", line, re.ASCII):
            found[int(match[1]), int(match[2])] = int(match[3])
    if not found:
        raise ScheduleError(
            f"{name}: no row 'parameter instance makespan', expected a table like j30opt.sm; "
            "name another file"
        )
    return found


def _parse_patterson(lines: list[tuple[int, str]], name: str) -> Problem:
    numbers = _Numbers(lines, name)
    activities = numbers.take("the number of activities", 1, _MAX_ACTIVITIES)
    resources = numbers.take("the number of resources", 0, 1000)
    capacities = tuple(numbers.take(f"the capacity of resource {r}") for r in range(resources))
    durations, demands, precedences = [], [], []
    for activity in range(activities):
        of = f"of activity {activity + 1}"
        durations.append(numbers.take(f"the duration {of}"))
        demands.append(tuple(numbers.take(f"a demand {of}") for _ in range(resources)))
        for _ in range(numbers.take(f"the number of successors {of}", 0, activities)):
            after = numbers.take(f"a successor {of}", 1, activities)
            precedences.append(Precedence(activity, after - 1))
    numbers.finish()
    return Problem(
        durations=tuple(durations),
        demands=tuple(demands),
        capacities=capacities,
        precedences=tuple(precedences),
        name=name,
    )


def _parse_sections(lines: list[tuple[int, str]], name: str) -> Problem:
    activities = _counted(lines, _JOBS, "jobs (incl. supersource/sink ):", name)
    resources = _counted(lines, _RENEWABLE, "- renewable :", name)
    for number, line in lines:
        if (match := _OTHERS.search(line)) and match[2] not in ("", "0"):
            raise ScheduleError(
                f"{name}, line {number}: {match[2]} {match[1]} resources, expected none; only renewable "
                "ones are scheduled"
            )
    order = _section(lines, "PRECEDENCE RELATIONS", name)
    precedences = []
    for activity in range(activities):
        of = f"of job {activity + 1}"
        order.take(f"job number {activity + 1}", activity + 1, activity + 1)
        order.take(f"the one mode {of}", 1, 1)
        for _ in range(order.take(f"the number of successors {of}", 0, activities)):
            after = order.take(f"a successor {of}", 1, activities)
            precedences.append(Precedence(activity, after - 1))
    order.finish()
    needs = _section(lines, "REQUESTS/DURATIONS", name)
    durations, demands = [], []
    for activity in range(activities):
        of = f"of job {activity + 1}"
        needs.take(f"job number {activity + 1}", activity + 1, activity + 1)
        needs.take(f"the one mode {of}", 1, 1)
        durations.append(needs.take(f"the duration {of}"))
        demands.append(tuple(needs.take(f"a demand {of}") for _ in range(resources)))
    needs.finish()
    limits = _section(lines, "RESOURCEAVAILABILITIES", name)
    capacities = tuple(limits.take(f"the capacity of resource {r + 1}") for r in range(resources))
    limits.finish()
    return Problem(
        durations=tuple(durations),
        demands=tuple(demands),
        capacities=capacities,
        precedences=tuple(precedences),
        name=name,
    )


def _counted(lines: list[tuple[int, str]], pattern: re.Pattern[str], what: str, name: str) -> int:
    """Return the number that follows a heading."""
    for number, line in lines:
        if match := pattern.search(line):
            return _Numbers([(number, match[1])], name).take(what, 0, _MAX_ACTIVITIES)
    raise ScheduleError(f"{name}: no line '{what}', expected a file of PSPLIB; name another file")


def _section(lines: list[tuple[int, str]], heading: str, name: str) -> _Numbers:
    """Return the numbers of a section, behind its heading and column titles."""
    rows: Iterator[tuple[int, str]] = iter(lines)
    for _, line in rows:
        if line.replace(" ", "").startswith(heading.replace(" ", "")):
            break
    else:
        raise ScheduleError(
            f"{name}: no section {heading}, expected a file of PSPLIB; name another file"
        )
    next(rows, None)
    body = []
    for number, line in rows:
        if line.startswith("*"):
            break
        if not re.fullmatch(r"[-\s]+", line):
            body.append((number, line))
    return _Numbers(body, name)
