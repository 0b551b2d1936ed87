"""Conditions under which a foreign rule is right: a fixed vocabulary, and the smallest choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import combinations

from tilewright.rules.importing.mapping import Value
from tilewright.rules.importing.pattern import Pattern
from tilewright.rules.importing.trial import Trial

_MOST_CONDITIONS = 3
_MANY_MASKS = 80
"""With more different conditions only pairs are tried."""
_LEAST_KEPT = 8
_LEAST_KEPT_SHARE = 0.02
_MOST_AXES = 4


class Kind(Enum):
    """What a condition says of nodes of the left side."""

    SAME_SHAPE = "{0} and {1} have the same shape"
    ONE_GROUP = "{0} has one group"
    SAME_SIZE = "{0} and {1} have the same size on axis {axis}"
    SAME_KERNEL = "the kernels {0} and {1} have the same sizes"
    ODD_KERNEL = "the kernel {0} has odd sizes"
    NOT_ONE = "the size of {0} on axis {axis} is not 1"
    RANK = "the rank is {axis}"


HAS_FACT = frozenset({Kind.SAME_SHAPE, Kind.ONE_GROUP, Kind.RANK})
"""Conditions that a fact table can tell the engine; see `offering`."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on nodes of the left side; `axis` is the rank for RANK."""

    kind: Kind
    nodes: tuple[int, ...]
    axis: int = 0

    def holds(self, pattern: Pattern, values: Sequence[Value]) -> bool:
        """Whether the condition holds for these types of the left side's nodes."""
        shapes = [values[n].shape for n in self.nodes]
        match self.kind:
            case Kind.SAME_SHAPE:
                return shapes[0] == shapes[1]
            case Kind.ONE_GROUP:
                x, w = (values[i].shape for i in pattern.nodes[self.nodes[0]].operands)
                return x[1] == w[1]
            case Kind.SAME_SIZE:
                return shapes[0][self.axis : self.axis + 1] == shapes[1][self.axis : self.axis + 1]
            case Kind.SAME_KERNEL:
                return shapes[0][2:] == shapes[1][2:]
            case Kind.ODD_KERNEL:
                return all(size % 2 for size in shapes[0][2:])
            case Kind.NOT_ONE:
                return self.axis < len(shapes[0]) and shapes[0][self.axis] != 1
            case Kind.RANK:
                return len(shapes[0]) == self.axis

    def text(self, pattern: Pattern) -> str:
        """Return the condition in words."""
        terms = [pattern.nodes[n].text for n in self.nodes]
        return self.kind.value.format(*terms, axis=self.axis)


Guard = tuple[Condition, ...]


def holds(pattern: Pattern, guard: Guard, values: Sequence[Value]) -> bool:
    """Whether every condition holds."""
    return all(condition.holds(pattern, values) for condition in guard)


def vocabulary(pattern: Pattern) -> tuple[Condition, ...]:
    """Return the conditions that may guard a pattern, those to prefer first."""
    names = len(pattern.names)
    pairs = dict.fromkeys(combinations(range(names), 2))
    for node in pattern.nodes[names : pattern.left_count]:
        pairs.update(dict.fromkeys(combinations(sorted({*node.operands}), 2)))
    convolutions = pattern.convolutions(left_only=True)
    kernels = sorted({pattern.nodes[n].operands[1] for n in convolutions})
    axes = range(_MOST_AXES)
    return (
        *(Condition(Kind.SAME_SHAPE, pair) for pair in pairs),
        *(Condition(Kind.ONE_GROUP, (n,)) for n in convolutions),
        *(Condition(Kind.SAME_KERNEL, pair) for pair in combinations(kernels, 2)),
        *(Condition(Kind.SAME_SIZE, pair, axis) for pair in pairs for axis in axes),
        *(Condition(Kind.ODD_KERNEL, (n,)) for n in kernels),
        *(Condition(Kind.NOT_ONE, (n,), axis) for n in range(names) for axis in axes),
    )


def smallest_guard(pattern: Pattern, trials: Sequence[Trial]) -> Guard | None:
    """Return the fewest conditions under which every trial agrees and enough of them remain.

    Of guards of one size, those that the engine has facts for come first, then those that keep
    more instances, then the order of the vocabulary.
    """
    good = sum(1 << i for i, trial in enumerate(trials) if trial.agrees)
    bad = sum(1 << i for i, trial in enumerate(trials) if not trial.agrees)
    enough = max(_LEAST_KEPT, int(_LEAST_KEPT_SHARE * good.bit_count()))
    masks: dict[int, Condition] = {}
    for condition in vocabulary(pattern):
        mask = sum(
            1 << i for i, trial in enumerate(trials) if condition.holds(pattern, trial.values)
        )
        if bad & ~mask and (good & mask).bit_count() >= enough:
            masks.setdefault(mask, condition)
    most = _MOST_CONDITIONS if len(masks) <= _MANY_MASKS else 2
    for size in range(1, most + 1):
        best: tuple[int, int] | None = None
        found: Guard | None = None
        for chosen in combinations(masks.items(), size):
            mask = good | bad
            for own, _ in chosen:
                mask &= own
            kept = (good & mask).bit_count()
            if bad & mask or kept < enough:
                continue
            guard = tuple(condition for _, condition in chosen)
            rank = (sum(c.kind not in HAS_FACT for c in guard), -kept)
            if best is None or rank < best:
                best, found = rank, guard
        if found is not None:
            return found
    return None
