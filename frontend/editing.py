"""A graph under edit, for the passes after import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from tilewright.constants import Constants, absent, known
from tilewright.graph import Array, AttrValue, Graph, Op, TensorType, unused_name


@dataclass(slots=True)
class Editor:
    """Mutable view of a graph: passes replace operators and alias tensors.

    Aliases take effect in `finish`, which also drops dead code.
    """

    graph: Graph
    ops: list[Op] = field(init=False)
    types: dict[str, TensorType] = field(init=False)
    constants: dict[str, Array] = field(init=False)
    """Constants that have values."""
    absent: Mapping[str, str] = field(init=False)
    """Constants without: which tensor of which file has them."""
    producer: dict[str, Op] = field(init=False)
    aliases: dict[str, str] = field(default_factory=dict)
    changed: bool = False

    def __post_init__(self) -> None:
        self.ops = list(self.graph.ops)
        self.types = dict(self.graph.types)
        self.constants = dict(known(self.graph.constants))
        self.absent = absent(self.graph.constants)
        self.producer = {name: op for op in self.ops for name in op.outputs}

    def resolve(self, name: str) -> str:
        """Return the tensor that stands for a name."""
        while name in self.aliases:
            name = self.aliases[name]
        return name

    def alias(self, old: str, new: str) -> None:
        """Let every reader of `old` read `new`."""
        self.aliases[old] = self.resolve(new)
        self.changed = True

    def set_op(self, index: int, op: Op) -> None:
        """Replace the operator at an index."""
        self.ops[index] = op
        for name in op.outputs:
            self.producer[name] = op
        self.changed = True

    def remake(self, op: Op, kind: str, inputs: tuple[str, ...], **attrs: AttrValue) -> Op:
        """Return an operator of another kind with the same name and outputs."""
        return replace(op, kind=kind, inputs=inputs, attrs=MappingProxyType(dict(attrs)))

    def fresh(self, stem: str) -> str:
        """Return a tensor name that is not in use."""
        return unused_name(stem, self.types)

    def add_constant(self, stem: str, array: Array) -> str:
        """Add a constant and return its name."""
        name = self.fresh(stem)
        self.constants[name] = array
        self.types[name] = TensorType(array.shape, self.types[stem].dtype)
        return name

    def is_map(self, name: str, fn: str) -> Op | None:
        """Return the operator that makes a tensor if it is a map of this function."""
        op = self.producer.get(name)
        return op if op is not None and op.kind == "map" and op.attrs["fn"] == fn else None

    def scalar(self, name: str) -> float | None:
        """Return a constant's only number."""
        data = self.constants.get(name)
        if data is None or data.size != 1:
            return None
        return float(np.asarray(data).reshape(-1)[0].astype(np.float64))

    def finish(self) -> Graph:
        """Return the edited graph without dead code."""
        ops = tuple(
            replace(op, inputs=tuple(self.resolve(n) for n in op.inputs)) for op in self.ops
        )
        outputs = tuple(replace(p, tensor=self.resolve(p.tensor)) for p in self.graph.outputs)
        return remove_dead(
            replace(self.graph, ops=ops, outputs=outputs),
            self.types,
            Constants(self.constants, self.absent),
        )


def remove_dead(
    graph: Graph, types: Mapping[str, TensorType], constants: Mapping[str, Array]
) -> Graph:
    """Remove operators, constants and types that no output needs; graph inputs stay."""
    needed = {p.tensor for p in graph.outputs}
    ops = []
    for op in reversed(graph.ops):
        if needed.intersection(op.outputs):
            ops.append(op)
            needed.update(op.inputs)
    ops.reverse()
    defined = needed | {p.tensor for p in graph.inputs} | {n for op in ops for n in op.outputs}
    regions = {op.text("region") for op in ops if op.kind == "host"}
    return replace(
        graph,
        ops=tuple(ops),
        constants=Constants(
            {k: v for k, v in known(constants).items() if k in needed},
            {k: v for k, v in absent(constants).items() if k in needed},
        ),
        types=MappingProxyType({k: v for k, v in types.items() if k in defined}),
        host_models=MappingProxyType({k: v for k, v in graph.host_models.items() if k in regions}),
    )
