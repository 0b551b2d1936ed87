"""A counterexample as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tilewright.dtypes import DType
from tilewright.reference import AnyArray
from tilewright.rules.checks.instance import compute
from tilewright.rules.checks.judging import Class, Failure, Kind, differing
from tilewright.rules.checks.patterns import Condition, Pattern, names_in
from tilewright.rules.registry import Rule

_MOST_ELEMENTS = 48


def counterexample(
    made: Rule, pattern: Pattern, failure: Failure, conditions: Sequence[Condition]
) -> str:
    """Return what a person needs to see the mistake: the rule, an instance, both sides.

    Args:
        made: The rule.
        pattern: The same as data.
        failure: Where it is wrong.
        conditions: Those that hold there.
    """
    what = "types" if failure.kind is Kind.TYPES else "values"
    lines = [
        f"{made.where} is wrong: its sides have different {what}",
        f"  {made.equation}",
        "  for",
    ]
    names = dict.fromkeys(name for term in pattern.present for name in names_in(term))
    leaves, texts = failure.instance.leaves, failure.instance.texts
    lines += [f"    {name} = {shown(leaves[name])}" for name in names if name in leaves]
    lines += [f"    {name} = {texts[name]}" for name in names if name in texts]
    if conditions:
        lines.append(f"  where {', '.join(map(str, conditions))} {_hold(conditions)}")
    lines.append(f"  left:  {pattern.left} is {shown(failure.left)}")
    lines.append(f"  right: {pattern.right} {_is(failure.right)}{shown(failure.right)}")
    place = _first_difference(made, pattern, failure)
    return "\n".join([*lines, *([place] if place else [])])


def _hold(conditions: Sequence[Condition]) -> str:
    return "holds" if len(conditions) == 1 else "hold"


def _is(side: str | AnyArray) -> str:
    return "" if isinstance(side, str) and side.startswith("has no") else "is "


def shown(side: str | AnyArray) -> str:
    """Return a type or array in one line."""
    if isinstance(side, str):
        return side
    shape = ",".join(map(str, side.shape))
    if side.size > _MOST_ELEMENTS:
        numbers = f"of {side.size} numbers"
    else:
        numbers = _numbers(side)
    return f"{DType.from_numpy(side.dtype)}[{shape}] {numbers}"


def _numbers(array: AnyArray) -> str:
    if array.ndim:
        return "[" + ", ".join(map(_numbers, array)) + "]"
    return f"{float(array) + 0.0:.6g}" if array.dtype.kind in "fV" else str(array[()])


def _first_difference(made: Rule, pattern: Pattern, failure: Failure) -> str:
    if isinstance(failure.left, str) or isinstance(failure.right, str):
        return ""
    left = compute(pattern.left, failure.instance, failure.bindings)
    right = compute(pattern.right, failure.instance, failure.bindings)
    where = np.argwhere(differing(left, right, Class(made.numerics, made.tolerance)))
    if not len(where):
        return ""
    index = tuple(int(i) for i in where[0])
    a, b = failure.left[index], failure.right[index]
    if a.dtype.kind in "fV":
        return f"  first difference at {list(index)}: {float(a) + 0.0!r} and {float(b) + 0.0!r}"
    return f"  first difference at {list(index)}: {a} and {b}"
