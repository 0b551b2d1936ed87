"""The rule files that TENSAT and TASO published, against an evaluator that shares nothing.

``TILEWRIGHT_RULE_DATA`` names a folder with `converted.txt` and `graph_subst.pb`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tilewright.rules.importing import Assumed, ImportReport, Verdict, import_rules
from tilewright.rules.importing.foreign import Call, ForeignRule, Term, Variable, term_text
from tilewright.rules.importing.taso import read_taso
from tilewright.rules.importing.tensat import read_tensat

Values = dict[str, NDArray[np.float64]]
TRIES = 3000
ENOUGH = 25

pytestmark = pytest.mark.slow


class MisfitError(Exception):
    """Operands that an operator does not take."""


@cache
def read(file: str) -> tuple[ImportReport, Mapping[str, ForeignRule]]:
    folder = os.environ.get("TILEWRIGHT_RULE_DATA")
    if not folder:
        pytest.skip("TILEWRIGHT_RULE_DATA does not name a folder of published rules")
    path = Path(folder) / file
    if not path.is_file():
        pytest.skip(f"{file} is not in the folder of published rules")
    rules = (
        read_taso(file, path.read_bytes())
        if path.suffix == ".pb"
        else read_tensat(file, path.read_text(encoding="utf-8"))
    )
    return import_rules(path), {rule.name: rule for rule in rules}


def convolve(x: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stride 1 and SAME padding, as in every rule of both files; the sum as it is written."""
    if x.ndim != 4 or w.ndim != 4 or x.shape[1] % w.shape[1]:
        raise MisfitError
    groups, per_group = x.shape[1] // w.shape[1], w.shape[1]
    if w.shape[0] % groups:
        raise MisfitError
    low = [(k - 1) // 2 for k in w.shape[2:]]
    out = np.zeros((x.shape[0], w.shape[0], *x.shape[2:]))
    for n, o, i, j in np.ndindex(*out.shape):
        first = o // (w.shape[0] // groups) * per_group
        for c, r, s in np.ndindex(*w.shape[1:]):
            row, column = i + r - low[0], j + s - low[1]
            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                out[n, o, i, j] += x[n, first + c, row, column] * w[o, c, r, s]
    return out


def add_or_multiply(
    call: Call, a: NDArray[np.float64], b: NDArray[np.float64]
) -> NDArray[np.float64]:
    if a.ndim != b.ndim:
        raise MisfitError
    try:
        return a + b if call.operator == "ewadd" else a * b
    except ValueError as error:
        raise MisfitError from error


def split(call: Call, x: NDArray[np.float64], sizes: tuple[int, ...]) -> NDArray[np.float64]:
    """Where the concat below a split has joined is known from its first part."""
    parts = np.split(x, [sizes[0]], axis=call.number("axis"))
    return parts[call.output]


def first_part(term: Term, axis: int, values: Values) -> int:
    """Size of the first operand of the concat that decides a split, along its axis."""
    while isinstance(term, Call) and term.operator != "concat":
        # the axis of the result that a convolution has from its weights is their first one
        is_output = term.operator == "conv2d" and axis == 1
        is_column = term.operator == "matmul" and axis == 1
        term = term.operands[1 if is_output or is_column else 0]
        axis = 0 if is_output else axis
    assert isinstance(term, Call), "splits go back to concats"
    return values[term_text(term.operands[0])].shape[axis]


def evaluate(term: Term, values: Values) -> NDArray[np.float64]:
    """Value of a term; also put into `values` by its text, as those of its operands."""
    text = term_text(term)
    if text not in values:
        assert isinstance(term, Call), "variables have values"
        values[text] = apply(term, [evaluate(operand, values) for operand in term.operands], values)
    return values[text]


def apply(call: Call, operands: list[NDArray[np.float64]], values: Values) -> NDArray[np.float64]:
    x = operands[0]
    match call.operator:
        case "ewadd" | "ewmul":
            return add_or_multiply(call, x, operands[1])
        case "relu":
            return np.maximum(x, 0)
        case "matmul":
            if x.ndim != 2 or operands[1].ndim != 2 or x.shape[1] != operands[1].shape[0]:
                raise MisfitError
            return x @ operands[1]
        case "conv2d":
            assert call.number("stride_h") == call.number("stride_w") == 1 + call.number("pad")
            out = convolve(x, operands[1])
            return np.maximum(out, 0) if call.number("acti") else out
        case "concat":
            if x.ndim != call.number("ndim"):
                raise MisfitError
            try:
                return np.concatenate(operands, axis=call.number("axis"))
            except ValueError as error:
                raise MisfitError from error
        case _:
            assert call.operator == "split"
            axis = call.number("axis")
            return split(call, x, (first_part(call.operands[0], axis, values),))


def holds(condition: str, values: Values) -> bool:
    """Whether a condition in words holds for terms of the left side."""
    if match := re.fullmatch(r"(.+) and (.+) have the same shape", condition):
        return values[match[1]].shape == values[match[2]].shape
    if match := re.fullmatch(r"(.+) and (.+) have the same size on axis (\d)", condition):
        axis = int(match[3])
        return values[match[1]].shape[axis] == values[match[2]].shape[axis]
    match = re.fullmatch(r"conv2d\((\w+), (\w+)(; relu)?\) has one group", condition)
    assert match, f"unknown condition: {condition}"
    return values[match[1]].shape[1] == values[match[2]].shape[1]


def random_values(rule: ForeignRule, rank: int, random: np.random.Generator) -> Values:
    """Values of one rank; sizes from two numbers, so that they often fit."""
    names = sorted({name for term in rule.left for name in leaf_names(term)})
    pool = random.integers(1, 4, 2)
    columns = random.choice(pool, rank)
    values: Values = {}
    for name in names:
        shape = np.where(random.random(rank) < 0.5, columns, random.choice(pool, rank))
        if values and random.random() < 0.4:
            shape = np.asarray(values[sorted(values)[0]].shape)
        values[name] = random.integers(-4, 5, tuple(shape)).astype(np.float64)
    return values


def leaf_names(term: Term) -> list[str]:
    if isinstance(term, Variable):
        return [term.name]
    return [name for operand in term.operands for name in leaf_names(operand)]


@pytest.mark.parametrize("file", ["converted.txt", "graph_subst.pb"])
def test_no_accepted_rule_disagrees_with_another_evaluator(file: str):
    report, rules = read(file)
    random = np.random.default_rng(2024)
    for entry in report.entries:
        if entry.verdict not in (Verdict.ACCEPTED, Verdict.GUARDED):
            continue
        rule, compared = rules[entry.name], 0
        ranks = sorted({ndim(term) for term in (*rule.left, *rule.right)} - {0}) or [2]
        for _ in range(TRIES):
            values = random_values(rule, ranks[0], random)
            try:
                left = [evaluate(term, values) for term in rule.left]
            except MisfitError:
                continue
            if not all(holds(condition, values) for condition in entry.conditions):
                continue
            right = [evaluate(term, values) for term in rule.right]
            assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True)), (
                f"{entry.name} {entry.equations} {entry.conditions}"
            )
            compared += 1
            if compared == ENOUGH:
                break
        assert compared >= 5, f"{entry.name}: only {compared} instances fitted"


def ndim(term: Term) -> int:
    """Rank that the operators of a term ask for; 0 for any."""
    if isinstance(term, Variable):
        return 0
    own = {"conv2d": 4, "matmul": 2, "concat": dict(term.parameters).get("ndim", 0)}
    found = own.get(term.operator, 0)
    assert isinstance(found, int)
    return max([found, *(ndim(operand) for operand in term.operands)])


def test_what_tensat_published():
    report, _ = read("converted.txt")
    assumed = Counter(entry.assumed for entry in report.entries)
    # prior measurements: 100, 13, 7; lines 91 and 98 need one group and are wrong without, too
    assert assumed == {Assumed.RIGHT: 100, Assumed.UNTYPED: 11, Assumed.WRONG: 9}
    wrong = [e.place.partition(":")[2] for e in report.entries if e.assumed is Assumed.WRONG]
    assert wrong == ["91", "92", "93", "98", "115", "116", "117", "118", "119"]
    assert [report.counts[v] for v in Verdict] == [73, 47, 0, 0, 0]


def test_what_taso_published():
    report, _ = read("graph_subst.pb")
    assert len(report.entries) == 133
    several = [entry for entry in report.entries if len(entry.equations) > 1]
    assert len(several) == 13
    assert report.counts[Verdict.NOT_COVERED] == report.counts[Verdict.VACUOUS] == 0
