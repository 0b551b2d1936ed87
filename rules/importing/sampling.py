"""Random shapes on which the left side of a foreign rule has a meaning.

Axes that an operator makes equal are one class and get one size; what remains (sums of concats,
groups of convolutions) is drawn and thrown away where it does not fit. Sizes are small and often 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import prod

import numpy as np

from tilewright.graph import AttrValue
from tilewright.rules.importing.axes import Layout, layout_of, rank_groups
from tilewright.rules.importing.mapping import BINARY, Attrs
from tilewright.rules.importing.pattern import Pattern, Shape, Windows, window_key

_SIZES = (1, 1, 1, 2, 2, 3, 4)
_GROUPS = (1, 1, 2, 3)
_SHRINKS = (0.0, 0.2, 0.4)
_FEW_SIZES = 0.4
"""Share of draws with at most two sizes, so that axes agree by chance."""

_FREE_RANKS = (1, 2, 3, 4)
_TIED = 0.3
"""Share of draws in which some variables have one shape without need: guards ask for that."""

_MOST_MISSES = 400
"""So many draws in a row without a new instance end the search."""


class Domain(Enum):
    """What an instance may be."""

    AUTHORS = "authors"
    """As TASO's axioms are validated: element-wise operands of one shape, odd kernels."""
    BROADCAST = "broadcast"
    """As TASO's runtime and our language allow: element-wise operands may have size 1."""
    LANGUAGE = "language"
    """Every rank, batch dimensions and window that a rule of the e-graph could match."""


@dataclass(frozen=True, slots=True)
class Instance:
    """Shapes of the variables; `windows` are given in the domain LANGUAGE only."""

    shapes: tuple[Shape, ...]
    windows: Windows | None = None

    @property
    def elements(self) -> int:
        """Number of elements of all variables."""
        return sum(prod(shape) for shape in self.shapes)


class Sampler:
    """Draws instances of a pattern's left side."""

    def __init__(self, pattern: Pattern, domain: Domain) -> None:
        self._pattern, self._domain = pattern, domain
        self._groups, self._ranks, self._is_hard = rank_groups(pattern)
        self._layouts: dict[tuple[int, ...], Layout] = {}
        self._fitting: dict[tuple[Shape, ...], Instance | None] = {}
        names = range(len(pattern.names))
        self._root_of = tuple(self._groups[n] for n in names)
        self._roots = tuple(dict.fromkeys(self._root_of))

    @property
    def natural_rank(self) -> int | None:
        """Rank that the operators ask for; None when any will do or ranks differ."""
        found = set(self._ranks.values())
        return found.pop() if len(found) == 1 and len(self._roots) == 1 else None

    def instances(self, random: np.random.Generator, count: int) -> Iterator[Instance]:
        """Yield up to `count` instances of different shapes."""
        seen: set[tuple[Shape, ...]] = set()
        misses = 0
        while len(seen) < count and misses < _MOST_MISSES:
            misses += 1
            found = self.draw(random)
            if found is not None and found.shapes not in seen:
                seen.add(found.shapes)
                misses = 0
                yield found

    def draw(self, random: np.random.Generator, *, small: bool = False) -> Instance | None:
        """Return an instance, or None if the random choices do not fit.

        Args:
            random: Source of randomness.
            small: Sizes are 1 and 2 only, kernels 1.
        """
        ranks = self._draw_ranks(random)
        if ranks not in self._layouts:
            self._layouts[ranks] = layout_of(self._pattern, ranks)
        shapes = self._draw_shapes(self._layouts[ranks], random, small)
        return self.fitted(shapes, random)

    def fitted(self, shapes: tuple[Shape, ...], random: np.random.Generator) -> Instance | None:
        """Return the instance of these shapes if the left side has a meaning on them."""
        if self._domain is Domain.LANGUAGE:
            return self._windowed(shapes, random)
        if shapes not in self._fitting:  # small shapes are drawn again and again
            self._fitting[shapes] = self._plain(shapes)
        return self._fitting[shapes]

    def _plain(self, shapes: tuple[Shape, ...]) -> Instance | None:
        """Return the instance of these shapes with the windows of the rule."""
        typing = self._pattern.infer(shapes, left_only=True)
        if typing.failed is not None:
            return None
        if self._domain is Domain.AUTHORS and not self._is_uniform(
            [value.shape for value in typing.values]
        ):
            return None
        return Instance(shapes)

    def _windowed(self, shapes: tuple[Shape, ...], random: np.random.Generator) -> Instance | None:
        """Return an instance of these shapes with random windows."""
        typing = self._pattern.infer(shapes, left_only=True)
        if typing.failed is not None:
            return None
        values = typing.values
        windows: dict[tuple[int, ...], Attrs] = {}
        for number in self._pattern.convolutions(left_only=True):
            call = self._pattern.nodes[number].call
            assert call is not None, "convolutions are calls"
            x, w = (values[i].shape for i in self._pattern.nodes[number].operands)
            windows.setdefault(window_key(call), _random_window(x[1] // w[1], random))
        if windows and self._pattern.infer(shapes, windows, left_only=True).failed is not None:
            return None
        return Instance(shapes, windows)

    def _is_uniform(self, shapes: list[Shape]) -> bool:
        """Whether element-wise operands have equal shapes and kernels odd sizes."""
        for node in self._pattern.nodes[: self._pattern.left_count]:
            if node.call is None:
                continue
            if node.call.operator in BINARY and node.call.operator != "smul":
                if shapes[node.operands[0]] != shapes[node.operands[1]]:
                    return False
            if node.call.operator == "conv2d":
                if not all(size % 2 for size in shapes[node.operands[1]][2:]):
                    return False
        return True

    def _draw_ranks(self, random: np.random.Generator) -> tuple[int, ...]:
        drawn: dict[int, int] = {}
        for root in self._roots:
            rank = self._ranks.get(root)
            if rank is None:
                rank = _FREE_RANKS[random.integers(len(_FREE_RANKS))]
            elif self._domain is Domain.LANGUAGE and root not in self._is_hard:
                rank = max(1, rank + int(random.integers(-1, 3)))
            drawn[root] = rank
        return tuple(drawn[root] for root in self._root_of)

    def _draw_shapes(
        self, axes: Layout, random: np.random.Generator, small: bool
    ) -> tuple[Shape, ...]:
        sizes = self._draw_sizes(axes, random, small)
        shrink = 0.0
        if self._domain is not Domain.AUTHORS:
            shrink = _SHRINKS[random.integers(len(_SHRINKS))]
        shrunk = random.random(len(axes.forced)).tolist()
        ones = {item for item, value in zip(axes.forced, shrunk, strict=True) if value < shrink}
        ones |= axes.ones
        return tuple(
            tuple(1 if forced in ones else sizes[equal] for equal, forced in variable)
            for variable in axes.variables
        )

    def _draw_sizes(self, axes: Layout, random: np.random.Generator, small: bool) -> dict[int, int]:
        """Return a size for each class of axes that are equal when nothing is broadcast."""
        pool: tuple[int, ...] = _SIZES
        if random.random() < _FEW_SIZES:
            pool = tuple(_SIZES[i] for i in random.integers(len(_SIZES), size=2))
        kernel_pool: tuple[int, ...] = (1, 3) if self._domain is Domain.AUTHORS else (1, 2, 3)
        if small:
            pool, kernel_pool = (1, 1, 2), (1,)
        drawn = random.random(len(axes.equal)).tolist()
        sizes: dict[int, int] = {}
        for (root, is_kernel), value in zip(axes.equal, drawn, strict=True):
            choices = kernel_pool if is_kernel else pool
            sizes[root] = choices[int(value * len(choices))]
        for x, w, out in axes.channels:
            groups = _GROUPS[random.integers(len(_GROUPS))]
            sizes[x] = sizes[w] * groups
            sizes[out] = groups * int(random.integers(1, 4))
        if random.random() < _TIED and len(axes.variables) > 1:
            _tie(axes, sizes, random)
        return sizes


def _tie(axes: Layout, sizes: dict[int, int], random: np.random.Generator) -> None:
    """Give variables one shape that need not have one."""
    count = len(axes.variables)
    for _ in range(int(random.integers(1, 3))):
        first = int(random.integers(count))
        second = (first + int(random.integers(1, count))) % count
        for (a, _), (b, _) in zip(axes.variables[first], axes.variables[second], strict=False):
            sizes[b] = sizes[a]


def _random_window(groups: int, random: np.random.Generator) -> Attrs:
    def two(low: int, high: int) -> AttrValue:
        return tuple(int(v) for v in random.integers(low, high, 2))

    pads = tuple(int(p) for p in random.integers(0, 3, 4))
    return {"dilations": two(1, 3), "groups": groups, "pads": pads, "strides": two(1, 3)}
