"""Collective rules: each leaves every tile the same; wrong ones are refused for the right reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tilewright.errors import RuleError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.collectives.checking import check_collective_rule
from tilewright.rules.collectives.family import collective_rules
from tilewright.rules.collectives.ruleset import (
    CollectiveRule,
    CollectiveRules,
    Step,
    StepKind,
    collective,
)
from tilewright.rules.collectives.steps import after_step, run_step, steps
from tilewright.rules.partition.spmd import assemble, distribute

RULES = {rule.name: rule for rule in collective_rules()}
Fuses = Callable[[Step, Step], tuple[Step, ...] | None]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_sound(name: str) -> None:
    assert check_collective_rule(RULES[name]) >= 10
    assert "=" in RULES[name].equation
    assert RULES[name].source


def made(function: Fuses) -> CollectiveRule:
    family = CollectiveRules("bad")
    family.rule(source="test")(function)
    return family.rules[0]


def slices_commute(first: Step, second: Step) -> tuple[Step, ...] | None:
    """slice(slice(x, a), b) = slice(slice(x, b), a), also on one dimension."""
    if (first.kind, second.kind) == (StepKind.SLICE, StepKind.SLICE):
        return (second, first)
    return None


def wrong_dimension(first: Step, second: Step) -> tuple[Step, ...] | None:
    """slice(all_gather(x, d), e) = all_to_all(x, e, d), the wrong way round."""
    if (first.kind, second.kind) != (StepKind.ALL_GATHER, StepKind.SLICE):
        return None
    if first.axis != second.axis or first.dim == second.dim:
        return None
    return (Step(kind=StepKind.ALL_TO_ALL, axis=first.axis, dim=second.dim, to_dim=first.dim),)


def other_axis(first: Step, second: Step) -> tuple[Step, ...] | None:
    """slice(all_reduce(x, a), b, d) = reduce_scatter(x, a, d), whatever axis is cut."""
    if (first.kind, second.kind) != (StepKind.ALL_REDUCE, StepKind.SLICE):
        return None
    return (Step(kind=StepKind.REDUCE_SCATTER, axis=first.axis, dim=second.dim),)


def forgotten_sum(first: Step, second: Step) -> tuple[Step, ...] | None:
    """slice(all_reduce(x), d) = slice(x, d), without any sum."""
    if (first.kind, second.kind) == (StepKind.ALL_REDUCE, StepKind.SLICE):
        return (second,)
    return None


def no_shorter(first: Step, second: Step) -> tuple[Step, ...] | None:
    """slice(slice(x, a, d), b, e) = slice(slice(x, b, e), a, d) for other dimensions."""
    if (first.kind, second.kind) != (StepKind.SLICE, StepKind.SLICE):
        return None
    return (second, first) if first.dim != second.dim else None


def dearer(first: Step, second: Step) -> tuple[Step, ...] | None:
    """slice(x, d) after nothing but itself = all_gather and all of it again."""
    if (first.kind, second.kind) != (StepKind.SLICE, StepKind.ALL_GATHER):
        return None
    if (first.axis, first.dim) != (second.axis, second.dim):
        return None
    return (Step(kind=StepKind.ALL_REDUCE, axis=first.axis),)


def never(first: Step, second: Step) -> tuple[Step, ...] | None:
    """nothing = nothing."""
    return None


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (slices_commute, r"tile \(0, 1\) holds .*, after both steps it holds"),
        (wrong_dimension, "cannot run|tile .* holds"),
        (other_axis, "cannot run|tile .* holds"),
        (forgotten_sum, r"tile .* holds .*, after both steps it holds"),
        (no_shorter, "the chain gets no shorter"),
        (dearer, "tile .* holds"),
        (never, "applies to no chain of two steps"),
    ],
)
def test_wrong_rules_are_refused(function: Fuses, reason: str) -> None:
    with pytest.raises(
        RuleError, match=rf"(?s)test_rules_collectives\.py:\d+: rule 'bad\..*({reason})"
    ):
        check_collective_rule(made(function))


def test_registration_refuses_what_is_incomplete() -> None:
    family = CollectiveRules("family")

    def no_docstring(first: Step, second: Step) -> None:
        return None

    def one_step(first: Step) -> None:
        """x = x."""

    with pytest.raises(RuleError, match="has no docstring"):
        family.rule(source="test")(no_docstring)
    with pytest.raises(RuleError, match=r"takes \(first, second\)"):
        family.rule(source="test")(one_step)  # type: ignore[arg-type]
    with pytest.raises(RuleError, match="belongs to tilewright"):
        collective.rule(source="test")(never)


@pytest.mark.parametrize("sizes", [(2,), (2, 3), (2, 2)])
def test_steps_mean_what_shardings_say(sizes: tuple[int, ...]) -> None:
    """Assembling what tiles hold after a step gives the value that they held before it."""
    mesh = LogicalMesh(tuple("xy"[: len(sizes)]), sizes)
    array = np.arange(12.0 * 12).reshape(12, 12)
    for sharding in [(0, 1), (1, 0), (-1, -2), (-2, 0), (0, 0), (-2, -2), (-1, 1)]:
        start = sharding[: mesh.rank]
        held = distribute(mesh, start, array, seed=3)
        local = next(iter(held.values())).shape
        for axis in range(mesh.rank):
            for step in steps(mesh, start, local, axis, collective_rules()):
                after = run_step(mesh, held, step, is_max=False)
                np.testing.assert_array_equal(
                    assemble(mesh, after_step(start, step), after, array.shape), array
                )


def test_without_its_rule_a_step_does_not_exist() -> None:
    mesh = LogicalMesh(("x",), (2,))
    everything = {s.kind for s in steps(mesh, (-2,), (4, 4), 0, collective_rules())}
    assert everything == {StepKind.ALL_REDUCE, StepKind.REDUCE_SCATTER}
    assert {s.kind for s in steps(mesh, (-2,), (4, 4), 0, ())} == {StepKind.ALL_REDUCE}
