"""One way to compute a tensor class, with its price."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilewright.extract.overlap import (
    NEVER,
    LateOperand,
)
from tilewright.extract.plan import Placement, Tiling
from tilewright.hwmodel.cost import KernelCost
from tilewright.rules.alternatives import KEEP, Implementation, LogicalNode


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way to compute a class; `node` None means that the class is not computed at all.

    `operands[i]` is the placement that operand i must have, None for constants; `resident[i]` tells that
    operand i is a constant kept in SRAM, in `constant_shardings[i]`.
    """

    node: LogicalNode | None
    implementation: Implementation | None = None
    operands: tuple[Placement | None, ...] = ()
    resident: tuple[bool, ...] = ()
    result: Placement | None = None
    tiling: Tiling | None = None
    cost: KernelCost = field(default_factory=KernelCost)
    units: float = 0.0
    others: tuple[float, ...] = ()
    """What the kernel costs under the further objectives of its pricing."""
    late: LateOperand = NEVER
    """The operand whose delivery a product covers."""
    working_bytes: int = 0
    resident_bytes: int = 0

    @property
    def is_kept(self) -> bool:
        """Whether nothing runs: the value is another one, which stays where it was made."""
        return self.node is not None and self.node.kind == KEEP

    @property
    def is_view(self) -> bool:
        """Whether the result may be the same bytes as its source."""
        return self.is_kept or (self.node is not None and self.node.kind == "reshape")

    @property
    def uses_network(self) -> bool:
        """Whether tiles exchange data while the kernel runs."""
        return self.implementation is not None and any(self.implementation.macros)


ABSENT = Option(node=None)
