"""What saturation found, as plain data: the only thing that extraction sees of the e-graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tilewright.graph import AttrValue, Op, TensorType
from tilewright.hwmodel.mesh import LogicalMesh, Sharding
from tilewright.rules.loopnest import LoopNest

KEEP = "keep"
"""Kind of the nodes that run nothing: their value is the one that they read, kept where it was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorClass:
    """An e-class of logical tensors: one mathematical value.

    `names` are the tensors of the inserted graph that it stands for (empty for values that only rules made).
    """

    number: int
    type: TensorType
    names: tuple[str, ...]
    is_input: bool
    """A boundary input of the block (a model input or another block's result)."""
    is_constant: bool
    """Known at compile time: a weight, or computed from weights alone."""
    again_of: int | None = None
    """The class whose value it is once more, for readers far behind: kept, or computed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalNode:
    """An e-node: one way to compute the class `result` from the classes `args`.

    Kinds are `KEEP` and those of `tilewright.graph`, where matmul and conv may have an attribute
    `epilogue` (a map pipeline applied to the product; with a third input its first function takes both).
    `origin` is the rule that made it, "" for nodes of the inserted graph; `op_name` names the
    inserted op, if any.
    """

    number: int
    kind: str
    attrs: Mapping[str, AttrValue] = field(default_factory=lambda: MappingProxyType({}))
    args: tuple[int, ...]
    result: int
    results: tuple[int, ...] = ()
    """All result classes; more than one only for host regions."""
    nest: LoopNest | None
    """The annotation; None for host regions and constants' leaves."""
    origin: str = ""
    op_name: str = ""
    again: str = ""
    """The rule by which it computes a value again, "" where it makes one for the first time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """A way to run a node on the mesh: which loop dimension each mesh axis splits (-1: none).

    `operands` and `result` are the shardings that follow. `rules` names the partition rule of each axis
    ("" where it does nothing), `macros` the way by which tiles get what their pieces do not hold ("":
    they hold everything).
    """

    node: int
    split_dims: tuple[int, ...]
    operands: tuple[Sharding, ...]
    result: Sharding
    rules: tuple[str, ...] = ()
    macros: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleStats:
    """What one rule did; a partition rule matches once for each implementation that follows it."""

    rule: str
    ruleset: str
    matches: int
    e_nodes: int
    """E-nodes that it was the first to make."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesetStats:
    """What one ruleset did in a saturation."""

    ruleset: str
    iterations: int
    matches: int
    e_nodes: int
    """E-nodes of the whole e-graph afterwards."""
    e_classes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternatives:
    """A saturated block.

    Nodes are in an order in which every node follows some node of each of its argument classes, and the
    nodes kept are acyclic: no choice of one node a class can form a cycle.
    """

    mesh: LogicalMesh
    classes: tuple[TensorClass, ...]
    nodes: tuple[LogicalNode, ...]
    implementations: tuple[Implementation, ...]
    outputs: tuple[int, ...]
    """Classes of the block's outputs, in the block graph's order."""
    ruleset_stats: tuple[RulesetStats, ...] = ()
    rule_stats: tuple[RuleStats, ...] = ()
    inserted: Mapping[str, Op] = field(default_factory=lambda: MappingProxyType({}))
    """The inserted ops by name."""
    notes: tuple[str, ...] = ()
    """Limits that saturation hit, one sentence each."""
