"""What a rule alone does to an e-graph: how often it fires, what it adds, whether it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.graph import Array, Graph, Op, Port, TensorType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.checks.errors import LoopingRuleError
from tilewright.rules.checks.instance import Instance, operator_of, type_of
from tilewright.rules.checks.patterns import Pattern, Term, Variable
from tilewright.rules.checks.zoo import united, zoo
from tilewright.rules.engine import saturate
from tilewright.rules.options import SaturationOptions
from tilewright.rules.registry import Numerics, Rule

_MULTIPLES = (4,)
"""Size of the axis that tensors are padded for: there is no mesh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What a rule alone did to the zoo."""

    matches: int
    e_nodes_before: int
    e_nodes_after: int

    @property
    def new_e_nodes(self) -> int:
        """E-nodes that the rule added."""
        return self.e_nodes_after - self.e_nodes_before


def measure_growth(made: Rule) -> Growth:
    """Run a rule alone on the model zoo, within the limits of saturation.

    Raises:
        LoopingRuleError: It does not come to an end.
        RuleError: The engine or the type analysis refuses what it makes.
    """
    return _grown(made, zoo(), "the model zoo")


def fire(made: Rule, pattern: Pattern, instances: Sequence[Instance]) -> int:
    """Run a rule in the engine on instances that it matches; return how often it fired.

    Raises:
        LoopingRuleError: It does not come to an end.
        RuleError: The engine or the type analysis refuses what it makes.
    """
    graph = united("instances", (graph_of(pattern, instance) for instance in instances))
    return _grown(made, graph, f"{len(instances)} instances of its left side").matches


def _grown(made: Rule, graph: Graph, where: str) -> Growth:
    options = SaturationOptions(
        rules=(made,),
        partition=(),
        numerics=frozenset(Numerics),
        multiples=_MULTIPLES,
        least_sliced_bytes=0,
        least_scattered_bytes=0,
    )
    alternatives = saturate(graph, LogicalMesh((), ()), options=options)
    sizes = {stats.ruleset: stats.e_nodes for stats in alternatives.ruleset_stats}
    matches = sum(stats.matches for stats in alternatives.rule_stats if stats.rule == made.name)
    before, after = sizes["load"], sizes["analysis"]
    for note in alternatives.notes:
        if note.startswith(("rewriting stopped", f"rule '{made.name}'")):
            raise LoopingRuleError(
                f"{made.where} alone does not come to an end on {where}: "
                f"{matches} matches grew {before} e-nodes to {after}; {note}; "
                "make its right side smaller than its left, or add a condition to `bounds`"
            )
    return Growth(
        matches=matches,
        e_nodes_before=before,
        e_nodes_after=after,
    )


def graph_of(pattern: Pattern, instance: Instance) -> Graph:
    """Return an instance of a left side as a graph; its tensors are constants, named in order."""
    names: dict[Term, str] = {}
    kinds: dict[Term, TensorType] = {}
    for operator in pattern.present:
        type_of(operator, instance.types, instance.texts, kinds)
    order = {name: f"{number:02d}.{name}" for number, name in enumerate(instance.leaves)}
    ops: list[Op] = []

    def add(term: Term) -> str:
        if term not in names:
            if isinstance(term, Variable):
                names[term] = order[term.name]
            else:
                inputs = tuple(add(operand) for operand in term.operands)
                names[term] = f"result{len(ops)}"
                op, _ = operator_of(term, instance.texts)
                ops.append(
                    Op(
                        name=names[term],
                        kind=op.kind,
                        inputs=inputs,
                        outputs=(names[term],),
                        attrs=op.attrs,
                    )
                )
        return names[term]

    results = {add(operator): kinds[operator] for operator in pattern.present}
    used: dict[str, Array] = {
        order[term.name]: instance.leaves[term.name] for term in names if isinstance(term, Variable)
    }
    return Graph(
        name="instance",
        inputs=(),
        outputs=tuple(
            Port(name=name, tensor=name, shape=kind.shape, dtype=kind.dtype)
            for name, kind in results.items()
        ),
        types={names[term]: kinds[term] for term in names},
        constants=used,
        ops=tuple(ops),
    )
