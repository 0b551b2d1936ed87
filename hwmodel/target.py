"""The hardware description: what a target file says, as frozen typed data.

A machine is a hierarchy of physical mesh axes, outermost first; a tile is a coordinate on all of
them and has a linear id (row-major over the axes). Every tile has the same engines and scratchpad.
Rates are per clock cycle of the one clock of the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from math import prod
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tilewright.dtypes import BlockFormat, DType
from tilewright.hwmodel.working import Coordinates, coordinates, working_units

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Frozen(BaseModel):
    """Immutable record that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Basis(StrEnum):
    """Where a figure comes from."""

    PUBLISHED = "published"
    DERIVED = "derived"
    ASSUMED = "assumed"


class Evidence(Frozen):
    """Basis of a figure and the source or the reasoning, in a few words."""

    basis: Basis
    source: str


class MeshAxis(Frozen):
    """A physical axis of the machine."""

    name: str
    size: PositiveInt


class Topology(StrEnum):
    """How the units along the axes of one level are joined."""

    CROSSBAR = "crossbar"  # every unit has one egress and one ingress port into an ideal switch
    MESH = "mesh"  # 1-D or 2-D grid, dimension-order (last axis first) routing
    TORUS = "torus"  # the same with wrap-around links, the shorter way round, ties to increasing coordinates


class Interconnect(Frozen):
    """The network that joins the units of one level of the hierarchy.

    `axes` are one or two neighbouring physical axes; a unit is everything below them. Each unit
    has one injection (egress) and one ejection (ingress) port with `port_bytes_per_cycle`; in a mesh
    or torus, each directed link between neighbours carries `link_bytes_per_cycle`.
    """

    axes: tuple[str, ...] = Field(min_length=1, max_length=2)
    topology: Topology
    port_bytes_per_cycle: PositiveFloat
    link_bytes_per_cycle: PositiveFloat | None = None
    hop_cycles: NonNegativeFloat
    """Latency of one hop: of each mesh link, or of the whole crossbar traversal."""
    either_order: bool = False
    """Whether equal reads of a group of tiles may take the axes in either order, whichever has fewer links.

    There are then two networks, one for each order; other transfers keep to the last axis first.
    """


class Router(Frozen):
    """How links carry transfers in packets, and the buffers behind them; for packet simulation alone.

    Routers cut through: a packet goes on before it has arrived whole.
    """

    flit_bytes: PositiveInt
    """What is sent or held up as one."""
    packet_bytes: PositiveInt
    """The most data of a packet."""
    lane_bytes: PositiveInt
    """Buffer of one virtual channel behind a link."""
    credit_cycles: PositiveFloat
    """From a flit's leaving a buffer until the sender may use its place."""


class Dataflow(StrEnum):
    """What the array of a matrix unit holds while the rest of [m, k] x [k, n] -> [m, n] streams through."""

    WEIGHT_STATIONARY = "weight_stationary"  # rows x columns of [k, n]; m rows stream
    INPUT_STATIONARY = "input_stationary"  # rows x columns of [k, m], transposed; n columns stream
    OUTPUT_STATIONARY = (
        "output_stationary"  # rows x columns of [m, n]; k steps stream, nothing is loaded
    )


class MatrixUnit(Frozen):
    """An array of `rows` x `columns`: of the contracting x the output dimension if weight-stationary."""

    dataflow: Dataflow = Dataflow.WEIGHT_STATIONARY
    rows: PositiveInt
    columns: Mapping[DType, PositiveInt]
    """Columns by element type of the stationary operand."""
    cycles_per_row: Mapping[DType, PositiveFloat]
    """Cycles to push one activation row through the array, by element type."""
    weight_load_cycles: Mapping[DType, PositiveFloat]
    """Cycles to fill the array with stationary weights."""
    weight_slots: PositiveInt
    """Weight tiles held at once; 2 or more lets the next load overlap with use."""
    overlap_weight_load: bool
    fill_cycles: NonNegativeFloat
    """Pipeline fill and drain of one instruction."""
    accumulator_rows: PositiveInt | None = None
    """Streamed rows whose sums registers hold while all of K passes; the next rows load the array anew.

    None: the array has no such registers, and each pass over K writes its sums and reads those before.
    """
    operand_bytes_per_cycle: PositiveFloat | None = None
    """Rate at which the array takes its operands from the scratchpad; None: as fast as it computes."""
    block_format: BlockFormat | None = None
    """Block format to which the array rounds float operands as it takes them; None: it does not."""


class VectorUnit(Frozen):
    """A SIMD unit: an elementary function of n elements takes ceil(n / lanes) * cost cycles."""

    lanes: PositiveInt
    """Elements per cycle of a 32-bit (or narrower) type; 64-bit types go at half rate."""
    function_cycles: Mapping[str, PositiveFloat]
    """Cycles per vector for functions that cost more than one; others cost 1."""
    startup_cycles: NonNegativeFloat


class BankLayout(StrEnum):
    """Which bank of a scratchpad holds an address."""

    INTERLEAVED = (
        "interleaved"  # neighbouring words lie in different banks: every access uses all alike
    )
    BLOCKS = "blocks"  # bank i holds the i-th of equal parts, one after the other


class Scratchpad(Frozen):
    """The local SRAM of a tile: equal banks, each of which serves its part of the rate."""

    size_bytes: PositiveInt
    banks: PositiveInt
    bytes_per_cycle: PositiveFloat
    """All engines together, reads and writes."""
    alignment_bytes: PositiveInt = 64
    bank_layout: BankLayout = BankLayout.INTERLEAVED
    """The evidence of `banks` says why it is blocks; where nothing is known, no bank is in the way."""

    @property
    def has_blocks(self) -> bool:
        """Whether an address decides which bank is used."""
        return self.bank_layout is BankLayout.BLOCKS and self.banks > 1

    @property
    def bank_bytes(self) -> int:
        """Bytes of one bank."""
        return self.size_bytes // self.banks

    @property
    def bank_bytes_per_cycle(self) -> float:
        """What one bank serves, reads and writes together."""
        return self.bytes_per_cycle / self.banks


class Dma(Frozen):
    """The two data movers of a tile: in (DRAM to SRAM) and out (SRAM to DRAM and to other tiles).

    With two `load_engines`, both load: where both operands of a product stream, out takes the second one.
    """

    in_bytes_per_cycle: PositiveFloat
    out_bytes_per_cycle: PositiveFloat
    startup_cycles: NonNegativeFloat
    burst_bytes: PositiveInt = 64
    """Shorter contiguous runs are padded to this many bytes on the DRAM side."""
    asks_ahead: bool = False
    """Whether a load is asked for while the one before still comes, which hides the memory's latency."""
    load_engines: Literal[1, 2] = 1


class Control(Frozen):
    """Semaphores and their cost."""

    semaphores: PositiveInt = 64
    issue_cycles: NonNegativeFloat = 1.0
    """Decode and issue of one instruction in its engine queue."""


class Tile(Frozen):
    """One compute tile."""

    matrix: MatrixUnit
    vector: VectorUnit
    sram: Scratchpad
    dma: Dma
    control: Control


class Relay(Frozen):
    """Software that reads for a group of tiles: one tile reads all the bytes, then casts them to the group.

    It asks for nothing else before the bytes that it casts have left.
    """

    read_bytes_per_cycle: PositiveFloat
    """Rate at which one tile alone reads from all ports."""
    line_bytes_per_cycle: PositiveFloat
    """Rate at which it casts to tiles along one axis."""
    grid_bytes_per_cycle: PositiveFloat
    """Rate at which it casts to tiles along several axes."""

    def cast_cycles(self, size_bytes: float, axes: int) -> float:
        """Return the cycles of a cast along so many axes."""
        rate = self.grid_bytes_per_cycle if axes > 1 else self.line_bytes_per_cycle
        return size_bytes / rate


class Dram(Frozen):
    """External memory: `ports` equal ports; addresses are interleaved over all of them.

    Ports are spread evenly over the units of `attach_axis` and all units outside it (a port per such unit
    or several); with `attach_axis` null, they sit evenly on the edge tiles of the first level.
    """

    size_bytes: PositiveInt
    ports: PositiveInt
    port_bytes_per_cycle: PositiveFloat
    efficiency: Annotated[float, Field(gt=0, le=1)]
    latency_cycles: NonNegativeFloat
    read_multicast: bool
    """Whether equal reads of a group of tiles are served once and multicast."""
    relay: Relay | None = None
    """None: the memory itself casts."""
    attach_axis: str | None = None


class HostLink(Frozen):
    """The way to the host processor, which runs what the target cannot."""

    bytes_per_cycle: PositiveFloat
    latency_cycles: NonNegativeFloat


class Energy(Frozen):
    """Energy in picojoules."""

    mac_pj: Mapping[DType, PositiveFloat]
    vector_op_pj: PositiveFloat
    sram_pj_per_byte: PositiveFloat
    noc_pj_per_byte_hop: PositiveFloat
    dram_pj_per_byte: PositiveFloat
    static_watt: NonNegativeFloat = 0.0


class LogicalAxis(Frozen):
    """An axis of the mesh that plans shard over: one or more physical axes, merged row-major."""

    name: str
    axes: tuple[str, ...] = Field(min_length=1)


class PublishedPeak(Frozen):
    """A peak rate that the maker publishes, for one number format.

    `dtype` is the element type whose matrix figures must reproduce the rate; null when the format
    has no element type here (4-bit block formats, reduced-fidelity modes).
    """

    ops_per_s: PositiveFloat
    """Multiply and add counted as two operations."""
    dtype: DType | None = None
    source: str


class Target(Frozen):
    """A spatial accelerator."""

    schema_version: Literal[1] = 1
    name: str
    description: str
    clock_ghz: PositiveFloat
    axes: tuple[MeshAxis, ...] = Field(min_length=1)
    disabled_tiles: tuple[NonNegativeInt | tuple[NonNegativeInt, ...], ...] = ()
    """Tiles that do not work, by linear id or by coordinates on `axes`; their routers still forward.

    Whole units of the axes are left out, see `working_units`; plans, programs and reports number the tiles
    that are used.
    """
    interconnects: tuple[Interconnect, ...] = Field(min_length=1)
    logical_axes: tuple[LogicalAxis, ...] = Field(max_length=3)
    tile: Tile
    dram: Dram
    host: HostLink
    energy: Energy
    router: Router | None = None
    """Null: packet simulation assumes one, and says so."""
    evidence: Mapping[str, Evidence]
    """Dotted path of each figure (or of the section that holds it) to its evidence.

    Items of `axes` are called by their name (`axes.core.size`), items of `interconnects` by their
    axes joined with a hyphen (`interconnects.quad-slice.hop_cycles`).
    """
    published_peaks: Mapping[str, PublishedPeak] = Field(default_factory=dict)
    """Peak rates by format, for the tests and for people; no stage computes with them."""

    def __eq__(self, other: object) -> bool:
        """Compare by content; the common case, the same object, at once (targets are keys of memos)."""
        return self is other or super().__eq__(other)

    def __hash__(self) -> int:
        """Hash by name, so that results can be memoised by target; equality still compares all."""
        return hash(self.name)

    @property
    def units(self) -> tuple[tuple[int, ...], ...]:
        """Units of each axis that are used: all of them where no tile is disabled."""
        sizes = tuple(axis.size for axis in self.axes)
        return working_units(sizes, self.disabled_coordinates)

    @property
    def disabled_coordinates(self) -> tuple[Coordinates, ...]:
        """Coordinates of the disabled tiles, in file order."""
        sizes = [axis.size for axis in self.axes]
        return tuple(
            tile if isinstance(tile, tuple) else coordinates(tile, sizes)
            for tile in self.disabled_tiles
        )

    @property
    def built_tiles(self) -> int:
        """Number of compute tiles that there are, used or not."""
        return prod(axis.size for axis in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of units of each axis that are used."""
        if not self.disabled_tiles:
            return tuple(axis.size for axis in self.axes)
        return tuple(map(len, self.units))

    @property
    def tiles(self) -> int:
        """Number of compute tiles that are used."""
        return prod(self.shape)

    @property
    def sram_bytes(self) -> int:
        """Scratchpad bytes of all tiles."""
        return self.tiles * self.tile.sram.size_bytes

    def peak_ops_per_s(self, dtype: DType) -> float:
        """Return the peak rate of all matrix units, multiply and add counted as two."""
        matrix = self.tile.matrix
        macs_per_cycle = matrix.rows * matrix.columns[dtype] / matrix.cycles_per_row[dtype]
        return 2 * self.tiles * macs_per_cycle * self.clock_ghz * 1e9

    @property
    def sram_bytes_per_s(self) -> float:
        """Bandwidth of all scratchpads."""
        return self.tiles * self.tile.sram.bytes_per_cycle * self.clock_ghz * 1e9

    @property
    def dram_bytes_per_cycle(self) -> float:
        """Bandwidth of all DRAM ports at their efficiency."""
        return self.dram.ports * self.dram.port_bytes_per_cycle * self.dram.efficiency

    def seconds(self, cycles: float) -> float:
        """Convert cycles to seconds."""
        return cycles / (self.clock_ghz * 1e9)


@lru_cache(maxsize=256)
def interned(target: Target) -> Target:
    """Return the first target equal to this one, so that memos of targets need not compare all figures."""
    return target
