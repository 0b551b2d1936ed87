"""Files of PSPLIB: both formats say the same, and what is wrong in one is named with its line."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.errors import CompileError, InfeasibleError, ScheduleError
from tilewright.lowering.scheduling.problem import Precedence, Problem
from tilewright.lowering.scheduling.psplib import parse_optima, parse_project

PATTERSON = """\
4 2
5 3
0 0 0 2 2 3
4 2 1 1 4
6 3 0 1 4
0 0 0 0
"""

SECTIONS = """\
************************************************************************
file with basedata            : made.bas
initial value random generator: 1
************************************************************************
projects                      :  1
jobs (incl. supersource/sink ):  4
horizon                       :  10
RESOURCES
  - renewable                 :  2   R
  - nonrenewable              :  0   N
  - doubly constrained        :  0   D
************************************************************************
PROJECT INFORMATION:
pronr.  #jobs rel.date duedate tardcost  MPM-Time
    1      2      0       10        1       10
************************************************************************
PRECEDENCE RELATIONS:
jobnr.    #modes  #successors   successors
   1        1          2           2   3
   2        1          1           4
   3        1          1           4
   4        1          0
************************************************************************
REQUESTS/DURATIONS:
jobnr. mode duration  R 1  R 2
------------------------------------------------------------------------
  1      1     0       0    0
  2      1     4       2    1
  3      1     6       3    0
  4      1     0       0    0
************************************************************************
RESOURCEAVAILABILITIES:
  R 1  R 2
    5    3
************************************************************************
"""

EXPECTED = Problem(
    durations=(0, 4, 6, 0),
    demands=((0, 0), (2, 1), (3, 0), (0, 0)),
    capacities=(5, 3),
    precedences=(Precedence(0, 1), Precedence(0, 2), Precedence(1, 3), Precedence(2, 3)),
    name="made",
)


@pytest.mark.parametrize("text", [PATTERSON, SECTIONS])
def test_both_formats(text: str) -> None:
    assert parse_project(text, name="made") == EXPECTED


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (PATTERSON, "4 2\n5", "x 2\n5", "made, line 1: found 'x', expected the number of activit"),
        (PATTERSON, "0 0 0 0\n", "", "line 5: found the end, expected the duration of activity 4"),
        (PATTERSON, "6 3 0 1 4", "6 3 0 1 9", "line 5: found '9', expected a successor of acti"),
        (PATTERSON, "4 2 1 1 4", "-4 2 1 1 4", "line 4: found '-4', expected the duration"),
        (PATTERSON, "0 0 0 0\n", "0 0 0 0 7\n", "line 6: found '7', expected the end"),
        (PATTERSON, "6 3 0 1 4", "6 3 0 1 1", "in a circle"),
        (SECTIONS, "jobs (incl", "jabs (incl", "made: no line 'jobs"),
        (SECTIONS, ":  2   R", ":  two R", "line 9: found 'two', expected - renewable"),
        (SECTIONS, ":  0   N", ":  1   N", "line 10: 1 nonrenewable resources, expected none"),
        (SECTIONS, "REQUESTS", "REQUEST", "made: no section REQUESTS/DURATIONS"),
        (
            SECTIONS,
            "   3        1          1           4\n",
            "",
            "line 21: found '4', expected job",
        ),
        (SECTIONS, "  3      1     6", "  3      2     6", "line 29: found '2', expected the one"),
        (SECTIONS, "    5    3\n", "    5\n", "line 34: found the end, expected the capacity of"),
    ],
)
def test_what_is_wrong_is_named(text: str, old: str, new: str, message: str) -> None:
    assert old in text
    with pytest.raises(ScheduleError) as caught:
        parse_project(text.replace(old, new, 1), name="made")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_demand_above_the_capacity_is_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="task 2 takes 9 of resource 0, its capacity is 5"):
        parse_project(PATTERSON.replace("6 3 0", "6 9 0"), name="made")


@given(st.text(alphabet="0123456789 -:\nx", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(CompileError):
        assert parse_project(text, name="made").name == "made"


def test_tables_of_optima() -> None:
    table = "Paramter Instance Makespan CPU-Time[sec.]\n----\n1       1         43       0.30\n48 10 54\n"
    assert parse_optima(table, name="t") == {(1, 1): 43, (48, 10): 54}
    with pytest.raises(ScheduleError, match="t: no row 'parameter instance makespan'"):
        parse_optima("nothing\n", name="t")
