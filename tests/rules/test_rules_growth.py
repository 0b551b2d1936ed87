"""Growth: linear in depth, within the budgets, and bounded whatever rules are added; order-independent."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rule_cases import EXPLOSIVE, arithmetic, check_structure, random_rule

from tilewright.graph import Graph
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.alternatives import Alternatives, RulesetStats, RuleStats
from tilewright.rules.checking import check_rule
from tilewright.rules.engine import saturate
from tilewright.rules.evaluation import disagreements
from tilewright.rules.limits import slow_rules
from tilewright.rules.options import SaturationOptions, builtin_rules
from tilewright.rules.partition.family import partition_rules

TWO_AXES = LogicalMesh(("x", "y"), (4, 4))
THREE_AXES = LogicalMesh(("x", "y", "z"), (2, 2, 2))
BUDGETS = [(TWO_AXES, 80), (THREE_AXES, 300)]
"""E-nodes for each op that a mesh may cost on average."""

MODELS = ["transformer", "encoder", "resnet"]
LARGE: dict[str, dict[str, int]] = {
    "transformer": {"tokens": 64, "width": 128, "heads": 16},
    "encoder": {"tokens": 64, "width": 128, "heads": 16},
    "resnet": {"channels": 32, "size": 32},
}
"""Dimensions that all axes divide, so that no strategy drops out."""


def e_nodes(found: Alternatives) -> int:
    """E-nodes at the end, logical and delivered."""
    return found.ruleset_stats[-1].e_nodes


def logical_e_nodes(found: Alternatives) -> int:
    """E-nodes before the partition."""
    return max(s.e_nodes for s in found.ruleset_stats if s.ruleset != "partition")


@pytest.mark.parametrize("model", MODELS)
def test_growth_is_linear_in_depth(models: dict[str, Callable[..., Graph]], model: str) -> None:
    """Each further block, unrolled, adds the same number of e-nodes."""
    counts = [e_nodes(saturate(models[model](n, **LARGE[model]), TWO_AXES)) for n in (2, 3, 8)]
    step = counts[1] - counts[0]
    assert step > 0
    assert counts[2] == counts[0] + 6 * step


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("mesh", "budget"), BUDGETS, ids=["two axes", "three axes"])
def test_budgets_hold(
    models: dict[str, Callable[..., Graph]], model: str, mesh: LogicalMesh, budget: int
) -> None:
    graph = models[model](1, **LARGE[model])
    found = saturate(graph, mesh)
    assert found.notes == ()
    assert e_nodes(found) <= budget * len(graph.ops)


# -- rules drawn at random


def check_bounded(graph: Graph, options: SaturationOptions, seed: int) -> Alternatives:
    """Saturate, and check limits, structure and values; integers make every sum exact."""
    found = saturate(graph, TWO_AXES, options=options)
    inserted = len(graph.ops) + len(graph.inputs) + len(graph.constants)
    assert logical_e_nodes(found) <= options.nodes_per_op * max(inserted, 64)
    check_structure(graph, found)
    own = Counter(n.result for n in found.nodes if n.op_name)
    for number, count in Counter(n.result for n in found.nodes).items():
        assert count <= max(options.nodes_per_class, own[number])
    random = np.random.default_rng(seed)
    names = [port.tensor for port in graph.inputs] + list(graph.constants)
    leaves = {n: random.integers(-2, 3, graph.types[n].shape).astype(np.float64) for n in names}
    assert disagreements(graph, found, leaves, 0.0) == ()
    return found


@pytest.mark.parametrize("seed", range(8))
def test_random_accepted_rules_end_within_the_limits(
    make_builder: Callable[..., Any], seed: int
) -> None:
    random = np.random.default_rng(seed)
    rules = [random_rule(random, f"rule_{n}") for n in range(1 + seed % 4)]
    for made in rules:
        check_rule(made, count=8)
    options = SaturationOptions(rules=(*builtin_rules(), *rules))
    check_bounded(arithmetic(make_builder, random, 30), options, seed)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_rules_that_explode_are_left_out_by_name(
    make_builder: Callable[..., Any], count: int
) -> None:
    graph = arithmetic(make_builder, np.random.default_rng(1), 40)
    options = SaturationOptions(rules=(*builtin_rules(), *EXPLOSIVE[:count]), nodes_per_op=2)
    found = check_bounded(graph, options, 1)
    names = [made.name for made in EXPLOSIVE[:count]]
    if count > 1:
        assert found.notes
        assert any(name in found.notes[0] for name in names)
        assert "the limit is" in found.notes[0]


def test_what_an_explosive_rule_adds_does_not_take_others_away(
    make_builder: Callable[..., Any],
) -> None:
    """A rule left out leaves no trace: the alternatives are those without it."""
    graph = arithmetic(make_builder, np.random.default_rng(1), 40)
    limits = {"nodes_per_op": 2, "nodes_per_class": 64}
    with_it = saturate(
        graph, TWO_AXES, options=SaturationOptions(rules=(*builtin_rules(), EXPLOSIVE[3]), **limits)
    )
    without = saturate(graph, TWO_AXES, options=SaturationOptions(**limits))
    assert with_it.notes == (
        "rule 'random.negate_twice' is left out: the block grew to "
        f"{with_it.notes[0].split()[-6]} e-nodes, the limit is 128",
    )
    assert with_it.nodes == without.nodes
    assert with_it.implementations == without.implementations


def test_a_full_class_is_named_with_the_rules_that_filled_it(
    make_builder: Callable[..., Any],
) -> None:
    b = make_builder()
    x = b.input("i0", 2, 3)
    for n in range(1, 6):
        x = b.op("map", x, b.input(f"i{n}", 2, 3), fn="add")
    found = saturate(b.graph(x), TWO_AXES, options=SaturationOptions(rules=EXPLOSIVE[:2]))
    stopped, *left_out = found.notes
    pattern = f"tensor '{x}' has"
    assert stopped.startswith("rewriting stopped after round")
    assert pattern in stopped
    assert "made by random.commute_add (" in stopped or "made by random.associate_add (" in stopped
    assert any(note.startswith(pattern) and note.endswith("16 stay") for note in left_out)
    assert all("made by random." in note or "more e-classes" in note for note in left_out)


# -- order and hash seeds


def comparable(found: Alternatives) -> Alternatives:
    return replace(found, ruleset_stats=(), rule_stats=())


@pytest.mark.parametrize("model", MODELS)
def test_the_order_of_rules_does_not_matter(
    models: dict[str, Callable[..., Graph]], model: str
) -> None:
    graph = models[model](1)
    rules, partition = list(builtin_rules()), list(partition_rules())
    expected = comparable(saturate(graph, TWO_AXES))
    for seed in range(3):
        for shuffled in (rules, partition):
            np.random.default_rng(seed).shuffle(shuffled)  # type: ignore[arg-type]
        options = SaturationOptions(rules=tuple(rules), partition=tuple(partition))
        assert comparable(saturate(graph, TWO_AXES, options=options)) == expected


PROGRAM = """
import random, sys
sys.path[:0] = sys.argv[1:]
import hashlib
import numpy as np
from conftest import GraphBuilder
from rule_cases import EXPLOSIVE, GRID, arithmetic, digest
from tilewright.rules.engine import saturate
from tilewright.rules.options import SaturationOptions, builtin_rules
rules = [*builtin_rules(), *EXPLOSIVE]
random.shuffle(rules)
graph = arithmetic(GraphBuilder, np.random.default_rng(1), 20)
print(digest(saturate(graph, GRID, options=SaturationOptions(rules=tuple(rules)))))
"""


def test_limits_do_not_depend_on_hash_seeds() -> None:
    """Nor on the order of rules, where both limits are hit."""
    folder = Path(__file__).parent
    outputs = set()
    for seed in ("1", "77"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder)],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


# -- slow rules


def test_slow_rules_are_those_over_half_the_time() -> None:
    def block(seconds: dict[str, float], total: float) -> Alternatives:
        return Alternatives(
            mesh=TWO_AXES,
            classes=(),
            nodes=(),
            implementations=(),
            outputs=(),
            ruleset_stats=(
                RulesetStats(
                    ruleset="a", iterations=1, matches=1, e_nodes=1, e_classes=1, seconds=total
                ),
            ),
            rule_stats=tuple(
                RuleStats(rule=rule, ruleset="a", matches=1, e_nodes=1, seconds=spent)
                for rule, spent in seconds.items()
            ),
        )

    blocks = [block({"a.one": 1.0, "a.two": 0.1}, 1.2), block({"a.one": 0.5}, 0.8)]
    (slow,) = slow_rules(blocks)
    assert (slow.rule, slow.seconds, slow.total_seconds) == ("a.one", 1.5, 2.0)
    assert str(slow).startswith("rule 'a.one' took 75% of the 2.0 s that saturation took")
    assert slow_rules(blocks, least_seconds=3.0) == ()
    assert slow_rules([block({"a.one": 0.9, "a.two": 0.9}, 2.0)]) == ()
