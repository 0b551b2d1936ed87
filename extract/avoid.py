"""What plans leave out because lowering found that the machine cannot realise it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.extract.plan import Memory, Move, MoveKind, Placement
from tilewright.rules.alternatives import Alternatives


@dataclass(frozen=True, slots=True, kw_only=True)
class Avoid:
    """Ways that plans may not take."""

    axes: frozenset[int] = frozenset()
    """Logical axes along which tiles exchange nothing: no collectives, no macros."""
    dram_values: bool = False
    """No values lie in DRAM between ops; inputs, outputs and weights do."""
    dram_values_bytes: frozenset[int] = frozenset()
    """Nor do values of these sizes."""

    def __str__(self) -> str:
        """Return what plans go without, to follow "planned"."""
        parts = [f"exchanges along logical axis {axis}" for axis in sorted(self.axes)]
        if self.dram_values:
            parts.append("values in DRAM between ops")
        elif self.dram_values_bytes:
            sizes = ", ".join(f"{size:_}" for size in sorted(self.dram_values_bytes))
            parts.append(f"values of {sizes} bytes in DRAM between ops")
        return f"without {' and '.join(parts)}"

    def left(self, found: Alternatives) -> Alternatives:
        """Return the alternatives of a block without macros along the axes."""
        if not self.axes:
            return found
        kept = tuple(
            implementation
            for implementation in found.implementations
            if not any(
                macro and axis in self.axes for axis, macro in enumerate(implementation.macros)
            )
        )
        return replace(found, implementations=kept)

    def keeps_out(self, size_bytes: int) -> bool:
        """Whether a value between ops of this size may not lie in DRAM."""
        return self.dram_values or size_bytes in self.dram_values_bytes

    def allows(self, move: Move, *, may_store: bool) -> bool:
        """Whether a tensor may make a move; `may_store`: to DRAM, too."""
        if move.kind is MoveKind.STORE:
            return may_store
        return move.kind is MoveKind.SLICE or move.axis not in self.axes


NOTHING = Avoid()


def is_in_dram(placement: Placement | None) -> bool:
    """Whether a result lies in DRAM."""
    return placement is not None and placement.memory is Memory.DRAM
