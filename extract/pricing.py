"""What options are priced with, and what is remembered on the way."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace

from tilewright.extract.avoid import NOTHING, Avoid
from tilewright.extract.deadline import NO_DEADLINE, Deadline
from tilewright.extract.kernel import (
    Kernel,
)
from tilewright.extract.kernel_price import (
    MovedPieces,
    Pieces,
    Place,
    UnitPieces,
)
from tilewright.extract.objective import Objective
from tilewright.extract.option import Option
from tilewright.extract.plan import Memory, Tiling
from tilewright.extract.reshard import Crossing, ReshardTable
from tilewright.extract.tiling_choice import (
    Candidates,
)
from tilewright.graph import TensorType
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.mesh import (
    LogicalMesh,
    Sharding,
)
from tilewright.hwmodel.target import Target
from tilewright.rules.collectives.family import collective_rules
from tilewright.rules.collectives.ruleset import CollectiveRule
from tilewright.rules.memory.family import memory_rules
from tilewright.rules.memory.ruleset import MemoryRule
from tilewright.rules.tiling.family import tiling_rules
from tilewright.rules.tiling.ruleset import TilingRule

PricedTilings = tuple[tuple[Tiling, KernelCost, int], ...]
"""Tilings with what a kernel costs and the scratchpad that it takes with them, [bytes]."""

Memories = tuple[tuple[Memory, ...], Memory]
"""Where the operands and the result of a kernel lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedShape:
    """What is known of kernels that differ only in where their tensors lie."""

    tilings: dict[Place, PricedTilings] = field(default_factory=dict)
    """The tilings worth keeping."""
    units: dict[Tiling, UnitPieces] = field(default_factory=dict)
    """The part of the matrix and the vector unit."""
    moved: MovedPieces
    """What is moved, shared with kernels that compute something else on the way."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A way to run a node, whatever it computes on the way."""

    kernel: Kernel
    """That of the first such node, with all tensors in SRAM."""
    places: Mapping[Memories, Place]
    """Where its tensors may lie."""
    moved: MovedPieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """What options are priced with: the machine, the objective, and the tilings to choose from.

    `tilings` maps a local nest's extents and tileable dims to candidates, `tiling` are the rules that make
    them, `memory` those of where tensors may lie, `collective` those of fused steps of resharding.
    """

    target: Target
    mesh: LogicalMesh
    objective: Objective
    limit_bytes: int
    deadline: Deadline = NO_DEADLINE
    """After which no more options are priced."""
    tilings: Mapping[tuple[object, ...], Candidates]
    tiling: tuple[TilingRule, ...] = field(default_factory=tiling_rules)
    always_cuts: bool = False
    """Whether kernels without buffers of their own, which gain nothing by it, are cut like others."""
    memory: tuple[MemoryRule, ...] = field(default_factory=memory_rules)
    collective: tuple[CollectiveRule, ...] = field(default_factory=collective_rules)
    priced: dict[tuple[object, ...], PricedShape] = field(default_factory=dict, init=False)
    """Memo of the tilings worth keeping, by `Kernel.shape_key`; another pricing has another one."""
    moved: dict[tuple[object, ...], MovedPieces] = field(default_factory=dict, init=False)
    """Memo of what is moved, by `Kernel.moved_key`."""
    pieces: Pieces = field(init=False)
    """Memo of the pieces of work that kernels consist of."""
    outlines: dict[Hashable, dict[Hashable, Outline | None]] = field(
        default_factory=dict, init=False
    )
    """Memo of ways, by what is alike of their nodes and of them; None if tensors may lie nowhere."""
    alike: dict[Hashable, tuple[tuple[int, Option], ...]] = field(default_factory=dict, init=False)
    """Memo of the options of nodes, each with the number of its implementation, by `priced_alike`."""
    reshards: dict[tuple[TensorType, frozenset[Sharding], Crossing, bool], ReshardTable] = field(
        default_factory=dict
    )
    """Memo of the chains of moves of each tensor type, by the partial shardings that are made of it."""

    beside: tuple[Objective, ...] = ()
    """Further objectives: an option stays unless another one is as good under each of them, too."""
    spares_scratchpad: bool = False
    """Whether tilings of little scratchpad are of use even where there is plenty."""
    hides: bool = True
    """Whether products may cover deliveries."""
    avoid: Avoid = NOTHING
    """Moves and results that are left out; the alternatives go without what is avoided already."""

    def __post_init__(self) -> None:
        """Know no pieces of work yet."""
        object.__setattr__(self, "pieces", Pieces(self.target))

    def learn(self, known: Pricing) -> None:
        """Take over what another pricing found of the same mesh and does not depend on what differs.

        Ways and where their tensors may lie depend on the scratchpad and the rules of memory, accesses on
        the length of bursts, boxes on neither; no price is taken over.
        """
        ours, theirs = self.target, known.target
        is_alike = (
            ours.tile.dma.burst_bytes == theirs.tile.dma.burst_bytes
            and ours.dram.read_multicast == theirs.dram.read_multicast
        )
        here = dict[int, MovedPieces]()
        for key, moved in known.moved.items():
            here[id(moved)] = self.moved[key] = MovedPieces(
                traffics=moved.traffics if is_alike else {}, boxes=moved.boxes
            )
        if (self.limit_bytes, self.memory) == (known.limit_bytes, known.memory):
            for alike, ways in known.outlines.items():
                self.outlines[alike] = {
                    way: found and replace(found, moved=here[id(found.moved)])
                    for way, found in ways.items()
                }

    def priced_shape(self, kernel: Kernel, moved: MovedPieces) -> PricedShape:
        """Return what is known of a kernel wherever its tensors lie."""
        key = kernel.shape_key
        found = self.priced.get(key)
        if found is None:
            found = self.priced[key] = PricedShape(moved=moved)
        return found

    @property
    def counts_late(self) -> bool:
        """Whether deliveries that a product covers cost less."""
        return self.hides and self.counts_time

    @property
    def counts_time(self) -> bool:
        """Whether cycles cost something, so that what runs beside something else is free."""
        return self.objective.counts_time

    def others(self, cost: KernelCost) -> tuple[float, ...]:
        """Return what a kernel costs under the further objectives."""
        return tuple([objective.kernel_units(cost, self.target) for objective in self.beside])

    def cycles(self, cost: KernelCost) -> float:
        """Return the cycles of a kernel that the objective means."""
        timed = self.objective if self.objective.is_time else Objective.LATENCY
        return timed.kernel_units(cost, self.target)
