"""What tests of rules in plans share: a rule is worth something where leaving it out costs cycles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright import api
from tilewright.compiler import Compilation
from tilewright.extract.validate import validate_plan
from tilewright.graph import Graph
from tilewright.inputs import example_inputs
from tilewright.reference import evaluate

Builder = Any
"""The `GraphBuilder` of conftest, in f32."""

Model = Callable[[Builder], Graph]

ONE = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1}
"""Attributes of a convolution without padding."""

TILE = "mesh_1x1"
SMALL = "mesh_1x1?sram_kib=32"
"""A tile whose scratchpad is too small for the tensors of a model, which are streamed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Rules and a model that they make cheaper on a target."""

    rules: tuple[str, ...]
    model: Model
    target: str = TILE

    def name(self) -> str:
        """Return what tests are called by."""
        return f"{self.rules[0]}-{self.model.__name__}"


def compiled(graph: Graph, without: tuple[str, ...] = (), target: str = "toy") -> Compilation:
    """Return a compilation whose plan is valid."""
    done = api.compile(graph, target, without_rules=without)
    assert done.plan is not None
    validate_plan(done.plan, done.target)
    return done


def check_outputs(done: Compilation, graph: Graph) -> None:
    """Fail unless the instructions compute what the graph does."""
    assert done.program is not None
    given = example_inputs(graph)
    expected = evaluate(graph, given)
    for name, found in api.run(done.program, given).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-4)


def check_plan_worth(graph: Graph, rules: tuple[str, ...], target: str) -> None:
    """Fail unless rules save predicted cycles."""
    best, poorer = (
        api.compile(graph, target, without_rules=without, stop_after="extract")
        for without in ((), rules)
    )
    assert cost_of(best) < cost_of(poorer)


def check_worth(graph: Graph, rules: tuple[str, ...], target: str) -> Compilation:
    """Fail unless rules save cycles, predicted and simulated, and outputs are right."""
    best, poorer = compiled(graph, target=target), compiled(graph, rules, target)
    assert cost_of(best) < cost_of(poorer)
    assert simulated_cycles(best) < simulated_cycles(poorer)
    check_outputs(best, graph)
    return best


def cost_of(done: Compilation) -> float:
    """Return the predicted cost of a plan."""
    assert done.plan is not None
    return done.plan.cost


def simulated_cycles(done: Compilation) -> float:
    """Return the simulated cycles of one inference."""
    assert done.program is not None
    return api.simulate(done.program).run.cycles
