"""A foreign rule as a list of operators in which equal terms are computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tilewright.dtypes import DType
from tilewright.errors import ShapeError
from tilewright.graph import Array, TensorType
from tilewright.reference import evaluate_op
from tilewright.rules.importing.foreign import (
    Call,
    ForeignRule,
    Term,
    Variable,
    calls,
    term_text,
    variables,
)
from tilewright.rules.importing.mapping import (
    CLIPPING,
    INEXACT,
    Attrs,
    Cuts,
    Lowered,
    Value,
    leaf,
    lower,
)

Shape = tuple[int, ...]
Windows = Mapping[tuple[int, ...], Attrs]


@dataclass(frozen=True, slots=True)
class Node:
    """A variable (`call` is None) or an operator on earlier nodes."""

    term: Term
    call: Call | None
    operands: tuple[int, ...]

    @property
    def text(self) -> str:
        """The term as text."""
        return term_text(self.term)


@dataclass(frozen=True, slots=True)
class Typing:
    """Types of the first nodes of a pattern, and the core operators that compute them."""

    values: tuple[Value, ...]
    chains: tuple[Lowered, ...]
    """Of the nodes that are no variables."""
    failed: int | None = None
    """The first node without a type."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Nodes of both sides, operands first; those of the left side come before the others."""

    nodes: tuple[Node, ...]
    names: tuple[str, ...]
    """Variables; they are the first nodes."""
    left: tuple[int, ...]
    right: tuple[int, ...]
    left_count: int
    """The first so many nodes are what the left side consists of."""
    _lowered: dict[tuple[int, tuple[Value, ...], object], Lowered | str] = field(
        default_factory=dict, compare=False, repr=False
    )
    _leaves: dict[Shape, Value] = field(default_factory=dict, compare=False, repr=False)
    _values: dict[tuple[TensorType, Cuts], Value] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def is_exact(self) -> bool:
        """Whether results on small integers are not rounded."""
        return not any(node.call and node.call.operator in INEXACT for node in self.nodes)

    @property
    def draws(self) -> int:
        """How often to draw values of an instance: clipped sums hide differences."""
        clips = any(
            node.call.operator in CLIPPING or dict(node.call.parameters).get("acti")
            for node in self.nodes
            if node.call
        )
        return 4 if clips else 1

    def convolutions(self, *, left_only: bool) -> tuple[int, ...]:
        """Return the nodes that are convolutions."""
        stop = self.left_count if left_only else len(self.nodes)
        return tuple(
            n for n in range(stop) if (call := self.nodes[n].call) and call.operator == "conv2d"
        )

    def infer(
        self, shapes: Sequence[Shape], windows: Windows | None = None, *, left_only: bool = False
    ) -> Typing:
        """Return the types of nodes up to the first that has none.

        Args:
            shapes: Of the variables, in the order of `names`.
            windows: Attributes of convolutions by `window_key`, instead of those of the rule.
            left_only: Stop after the left side.
        """
        values = [self._leaf(shape) for shape in shapes]
        chains: list[Lowered] = []
        stop = self.left_count if left_only else len(self.nodes)
        for number in range(len(shapes), stop):
            lowered = self._lower(number, values, windows)
            if isinstance(lowered, str):
                return Typing(tuple(values), tuple(chains), number, lowered)
            values.append(lowered.value)
            chains.append(lowered)
        return Typing(tuple(values), tuple(chains))

    def _leaf(self, shape: Shape) -> Value:
        if shape not in self._leaves:
            self._leaves[shape] = self._only(leaf(TensorType(shape, DType.F64)))
        return self._leaves[shape]

    def _only(self, value: Value) -> Value:
        """Return the one object of this pattern for a value."""
        return self._values.setdefault((value.type, value.cuts), value)

    def _lower(
        self, number: int, values: Sequence[Value], windows: Windows | None
    ) -> Lowered | str:
        node = self.nodes[number]
        assert node.call is not None, "variables have values before"
        operands = tuple(values[i] for i in node.operands)
        window = None
        if windows is not None and node.call.operator == "conv2d":
            window = windows.get(window_key(node.call))
        key = (number, operands, None if window is None else tuple(sorted(window.items())))
        if key not in self._lowered:
            try:
                lowered = lower(node.call, operands, window)
                self._lowered[key] = replace(lowered, value=self._only(lowered.value))
            except ShapeError as error:  # operators have no names here
                self._lowered[key] = str(error).replace(" ''", "")
        return self._lowered[key]

    def evaluate(self, leaves: Sequence[Array], typing: Typing) -> list[Array]:
        """Return the value of every node that has a type.

        Args:
            leaves: Values of the variables.
            typing: What `infer` found for their shapes.
        """
        arrays = list(leaves)
        for node, lowered in zip(self.nodes[len(leaves) :], typing.chains, strict=False):
            inputs = [arrays[node.operands[i]] for i in lowered.uses]
            for op, result in lowered.ops:
                inputs = list(evaluate_op(op, inputs, {"y": result}))
            arrays.append(np.asarray(inputs[0]))
        return arrays


def window_key(call: Call) -> tuple[int, ...]:
    """Return the parameters that decide the window of a convolution, besides shapes."""
    return tuple(call.number(name) for name in ("stride_h", "stride_w", "pad"))


def compile_rule(rule: ForeignRule) -> Pattern:
    """Return a rule's pattern; each variable of the right side occurs on the left."""
    names = tuple(dict.fromkeys(name for term in rule.left for name in variables(term)))
    numbers: dict[Term, int] = {Variable(name): i for i, name in enumerate(names)}
    nodes = [Node(Variable(name), None, ()) for name in names]
    counts = []
    for side in (rule.left, rule.right):
        for term in side:
            for call in calls(term):
                if call not in numbers:
                    operands = tuple(numbers[operand] for operand in call.operands)
                    numbers[call] = len(nodes)
                    nodes.append(Node(call, call, operands))
        counts.append(len(nodes))
    return Pattern(
        nodes=tuple(nodes),
        names=names,
        left=tuple(numbers[term] for term in rule.left),
        right=tuple(numbers[term] for term in rule.right),
        left_count=counts[0],
    )
