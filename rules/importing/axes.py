"""Which axes of a foreign rule's left side have one size, and which tensors one rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from networkx.utils import UnionFind

from tilewright.rules.importing.foreign import Call
from tilewright.rules.importing.mapping import BINARY, SAME
from tilewright.rules.importing.pattern import Pattern


class RankConflictError(Exception):
    """Operators ask for different ranks of one tensor."""


@dataclass(slots=True)
class _Axes:
    """Classes of the axes of the left side for given ranks of the variables."""

    equal: UnionFind[int] = field(default_factory=UnionFind)
    """Axes of one size when nothing is broadcast."""
    forced: UnionFind[int] = field(default_factory=UnionFind)
    """Axes of one size in any case."""
    count: int = 0
    of: list[list[int | None]] = field(default_factory=list)
    """Item of each axis of each node; None where the size is computed."""
    ones: set[int] = field(default_factory=set)
    kernels: set[int] = field(default_factory=set)
    channels: list[tuple[int, int, int]] = field(default_factory=list)
    """Items of input channels, weight channels, output channels of each convolution."""

    @property
    def items(self) -> list[int]:
        """Every axis of every node whose size is not computed."""
        return [item for node in self.of for item in node if item is not None]

    def new(self) -> int:
        """Return a new axis."""
        self.count += 1
        return self.count - 1

    def same(self, a: int | None, b: int | None) -> int | None:
        if a is None or b is None:
            return b if a is None else a
        self.equal.union(a, b)
        self.forced.union(a, b)
        return a

    def broadcast(self, a: int | None, b: int | None) -> int | None:
        if a is None and b is None:
            return None
        result = self.new()
        for item in (a, b):
            if item is not None:
                self.equal.union(result, item)
        return result


@dataclass(frozen=True, slots=True)
class Layout:
    """Classes of axes by the number of one of their axes."""

    equal: tuple[tuple[int, bool], ...]
    """Classes of equal sizes, and whether they are sizes of kernels."""
    forced: tuple[int, ...]
    ones: frozenset[int]
    channels: tuple[tuple[int, int, int], ...]
    variables: tuple[tuple[tuple[int, int], ...], ...]
    """Class of equal sizes and class of forced sizes of each axis of each variable."""


def layout_of(pattern: Pattern, ranks: tuple[int, ...]) -> Layout:
    """Return the classes of the axes of the left side for given ranks of the variables."""
    axes = _axes(pattern, ranks)
    kernels = {axes.equal[item] for item in axes.kernels}
    equal = dict.fromkeys(axes.equal[item] for item in axes.items)
    return Layout(
        equal=tuple((root, root in kernels) for root in equal),
        forced=tuple(dict.fromkeys(axes.forced[item] for item in axes.items)),
        ones=frozenset(axes.forced[item] for item in axes.ones),
        channels=tuple(
            (axes.equal[x], axes.equal[w], axes.equal[out]) for x, w, out in axes.channels
        ),
        variables=tuple(
            tuple((axes.equal[i], axes.forced[i]) for i in axes.of[n] if i is not None)
            for n in range(len(ranks))
        ),
    )


def rank_groups(pattern: Pattern) -> tuple[UnionFind[int], dict[int, int], frozenset[int]]:
    """Return nodes of one rank, the rank of each group, and the groups in which it cannot differ.

    Raises:
        RankConflictError: Two operators ask for different ranks.
    """
    groups: UnionFind[int] = UnionFind(range(len(pattern.nodes)))
    asked: list[tuple[int, int, bool]] = []
    for number, node in enumerate(pattern.nodes):  # the right side says too what is meant
        if node.call is None:
            continue
        asked += [
            (n, rank, hard) for n, rank, hard in _asked_ranks(node.call, number, node.operands)
        ]
        if node.call.operator != "reshape":
            for operand in node.operands:
                groups.union(operand, number)
    ranks: dict[int, int] = {}
    for number, rank, _ in asked:
        if ranks.setdefault(groups[number], rank) != rank:
            raise RankConflictError(
                f"operators ask for ranks {ranks[groups[number]]} and {rank} of one tensor"
            )
    return groups, ranks, frozenset(groups[number] for number, _, hard in asked if hard)


def _asked_ranks(
    call: Call, number: int, operands: tuple[int, ...]
) -> Iterator[tuple[int, int, bool]]:
    """Yield (node, rank, whether no other rank would do) that an operator asks for."""
    match call.operator:
        case "matmul":
            yield number, 2, False
        case "concat" if call.number("ndim"):
            yield number, call.number("ndim"), False
        case "conv2d" | "poolmax" | "poolavg" | "enlarge":
            yield number, 4, True
        case "transpose":
            yield number, len(call.numbers("perm")), True
        case "reshape":
            yield number, len(call.numbers("shape")), True


def _axes(pattern: Pattern, ranks: tuple[int, ...]) -> _Axes:
    """Return which axes have equal sizes."""
    axes = _Axes()
    for number, node in enumerate(pattern.nodes[: pattern.left_count]):
        if node.call is None:
            axes.of.append([axes.new() for _ in range(ranks[number])])
        else:
            axes.of.append(_result_axes(axes, node.call, [axes.of[i] for i in node.operands]))
    return axes


def _result_axes(axes: _Axes, call: Call, operands: list[list[int | None]]) -> list[int | None]:
    x = operands[0]
    rank = len(x)
    match call.operator:
        case "smul":
            axes.ones |= {item for item in operands[1] if item is not None}
            return x
        case operator if operator in BINARY:
            return [axes.broadcast(a, b) for a, b in zip(x, operands[1], strict=True)]
        case "matmul" if rank >= 2:
            y = operands[1]
            axes.same(x[-1], y[-2])
            batch = [axes.broadcast(a, b) for a, b in zip(x[:-2], y[:-2], strict=True)]
            return [*batch, x[-2], y[-1]]
        case "conv2d":
            w = operands[1]
            axes.kernels |= {item for item in w[2:] if item is not None}
            if x[1] is not None and w[0] is not None and w[1] is not None:
                axes.channels.append((x[1], w[1], w[0]))
            return [x[0], w[0], *_window_axes(call, x)]
        case "poolmax" | "poolavg":
            return [*x[:2], *_window_axes(call, x)]
        case "concat":
            axis = call.number("axis")
            for other in operands[1:]:
                for i, (a, b) in enumerate(zip(x, other, strict=True)):
                    if i != axis:
                        axes.same(a, b)
            return [None if i == axis else item for i, item in enumerate(x)]
        case "split":
            return [None if i == call.number("axis") else item for i, item in enumerate(x)]
        case "transpose" if sorted(call.numbers("perm")) == list(range(rank)):
            return [x[i] for i in call.numbers("perm")]
        case "enlarge":
            return [x[0], x[1], *operands[1][2:]]
        case "reshape":
            return [None] * len(call.numbers("shape"))
        case "relu" | "sigmoid" | "tanh":
            return x
        case _:  # does not fit; every draw is thrown away
            return [None] * rank


def _window_axes(call: Call, x: list[int | None]) -> list[int | None]:
    """Return the spatial axes of a result: those of the operand where every place has a window."""
    is_kept = call.number("pad") == SAME
    strides = call.number("stride_h"), call.number("stride_w")
    return [x[2 + i] if is_kept and strides[i] == 1 else None for i in (0, 1)]
