"""A plan: what runs where, from which memory, with which collectives between, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from tilewright.extract.certificate import AnyCertificate
from tilewright.extract.objective import Objective
from tilewright.graph import Graph, Op, TensorType
from tilewright.hwmodel.cost import KernelCost, Occupancy
from tilewright.hwmodel.mesh import LogicalMesh, Sharding


class Memory(StrEnum):
    """Where a tensor lies."""

    SRAM = "sram"
    DRAM = "dram"


@dataclass(frozen=True, slots=True)
class Placement:
    """A tensor on the machine.

    In SRAM: every tile holds its shard (dense, row-major). In DRAM: one dense row-major copy of the
    global tensor that every tile can reach; `sharding` is then the part of it that a consumer
    reads (or a producer writes) and never partial.
    """

    memory: Memory
    sharding: Sharding


class MoveKind(StrEnum):
    """One step of a delivery."""

    LOAD = (
        "load"  # DRAM -> SRAM, each tile its shard (equal shards are multicast if the target can)
    )
    STORE = "store"  # SRAM -> DRAM, each distinct shard once
    ALL_GATHER = "all_gather"  # split on `dim` -> replicated, on `axis`
    SLICE = "slice"  # replicated -> split on `dim`, on `axis`; local
    ALL_TO_ALL = "all_to_all"  # split on `dim` -> split on `to_dim`, on `axis`
    REDUCE_SCATTER = "reduce_scatter"  # partial -> split on `dim`, on `axis`
    ALL_REDUCE = "all_reduce"  # partial -> replicated, on `axis`


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One collective or copy that turns `before` into `after`. `axis` is -1 for load and store.

    Of a load or store, `lead_cycles` pass before bytes move; `cycles` has the share of them that the plan
    counts (`hwmodel.exposure`). `energy_pj` is that of all tiles.
    """

    kind: MoveKind
    axis: int = -1
    dim: int = -1
    to_dim: int = -1
    before: Placement
    after: Placement
    cycles: float
    lead_cycles: float = 0.0
    energy_pj: float = 0.0
    occupancy: Occupancy = field(default_factory=Occupancy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How an operand reaches an op: the chain of moves from where its producer left it.

    An operand that is needed only after a matrix product, and does not come from it, travels while the
    product runs: the third operand of a fused product, and what a map reads beside a product.
    """

    tensor: str
    before: Placement
    moves: tuple[Move, ...]
    after: Placement
    hidden_cycles: float = 0.0
    """Cycles of the moves that a matrix product covers and the plan's cost leaves out."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """Tile size of each loop dimension of the local nest, and the loop order, outermost first."""

    sizes: tuple[int, ...]
    order: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """That an op makes the value of `tensor` for readers far behind, which a rule lets it do."""

    rule: str
    tensor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedOp:
    """An operator on the machine.

    `op` is the chosen logical op (perhaps fused: attribute `epilogue`) over tensor names of the
    plan; `split_dims` says
    which loop dimension of its nest each mesh axis splits (-1: none), `split_rules` which partition rule
    each axis follows and `macros` by which way tiles get what their pieces do not hold ("": they
    hold everything). Host ops have no tiling. `rule` made the e-node, "" for those of the model.
    `resident[i]` tells that operand i is a constant loaded once before the first inference.
    """

    op: Op
    split_dims: tuple[int, ...]
    deliveries: tuple[Delivery, ...]
    resident: tuple[bool, ...]
    result: Placement
    tiling: Tiling | None
    buffer_bytes: int
    """Scratchpad of a tile for the kernel's own buffers, [bytes]."""
    cost: KernelCost
    cost_units: float
    """This op's share of the objective, deliveries included."""
    block: str = ""
    instance: int = 0
    """Instance of the rolled graph that it is of."""
    rule: str = ""
    split_rules: tuple[str, ...] = ()
    macros: tuple[str, ...] = ()
    again: Again | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Why the bound holds, in a form that can be checked again."""

    method: str
    """E.g. "elimination" (exact), "lagrangian" (dual bound), "relaxed links"."""
    details: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    certificate: AnyCertificate | None = field(default=None, compare=False, repr=False)
    """What `recheck` computes the bound from again; None where it cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A complete plan with its predicted cost and how far from optimal it can be.

    `ops` run in order; a model output goes to DRAM (`output_deliveries`) right after the op that
    makes it. Constant subexpressions
    that rules made are `folded` ops, evaluated at compile time. `cost` and `bound` are in cycles
    (latency, throughput) or pJ (energy).
    """

    graph: Graph
    target_name: str
    mesh: LogicalMesh
    objective: Objective
    types: Mapping[str, TensorType]
    ops: tuple[PlannedOp, ...]
    folded: tuple[Op, ...]
    output_deliveries: tuple[Delivery, ...]
    cost: float
    bound: float
    proof: Proof
    peak_sram_bytes: int
    resident_sram_bytes: int
    unfilled: Plan | None = None
    """What this plan was before constants took what its scratchpad left free, if they did.

    It is dearer by its additive cost, but leaves room for loads ahead: its program may run faster.
    """

    @property
    def gap(self) -> float:
        """Relative distance of the cost from the proven bound; 0 is optimal."""
        return 0.0 if self.cost == 0 else (self.cost - self.bound) / self.cost
