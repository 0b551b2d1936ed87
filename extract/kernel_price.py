"""The price of a tiled kernel: its work (`kernel_work`) times the cost model (`hwmodel.cost`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import ceil
from typing import NamedTuple, TypeVar

from tilewright.extract.gathered import gather_price
from tilewright.extract.halo import with_halo_price
from tilewright.extract.kernel import (
    TWO_PRODUCTS,
    Kernel,
    is_staged,
    reduction_boxes,
    result_boxes,
    streams_beside,
    sum_type,
)
from tilewright.extract.kernel_work import (
    RESULT,
    MatrixWork,
    Traffic,
    VectorWork,
    computes_alike,
    local_copies,
    prologue_bytes,
    stream_work,
    streamed_tensors,
    unit_work,
)
from tilewright.extract.plan import Tiling
from tilewright.extract.vector_price import vector_price
from tilewright.graph import dequantises
from tilewright.hwmodel.cost import (
    KernelCost,
    dram_ahead_cycles,
    dram_lead_cycles,
    dram_read_cost,
    dram_write_cost,
    matmul_cost,
)
from tilewright.hwmodel.mesh import REPLICATED, LogicalMesh, Sharding, split_factor
from tilewright.hwmodel.target import Target


class Amounts(NamedTuple):
    """What instructions one after the other occupy, move and burn: `KernelCost` without start-up.

    A tuple, because pricing makes and sums millions.
    """

    matrix_cycles: float
    vector_cycles: float
    dma_in_cycles: float
    dma_out_cycles: float
    sram_cycles: float
    link_cycles: float
    macs: int
    vector_ops: int
    sram_bytes: int
    dram_bytes: int
    noc_bytes: int
    energy_pj: float


UnitCosts = tuple[Amounts, ...]
"""What the matrix and the vector unit do for a kernel, piece by piece."""

Lying = tuple[tuple[int, int], ...]
"""Into how many pieces a tensor in DRAM is cut, by the state of the axes that cut it."""


def lying(mesh: LogicalMesh, sharding: Sharding) -> Lying:
    """Return what the price of a kernel depends on of how a tensor in DRAM is cut."""
    states = sorted({state for state in sharding if state != REPLICATED})
    return tuple((state, split_factor(mesh, sharding, state)) for state in states)


@dataclass(frozen=True, slots=True)
class MovedPieces:
    """Memo of what kernels move; those that share it have equal `Kernel.moved_key`."""

    streams: dict[tuple[int, Lying, bool, bool], dict[Tiling, Traffic]] = field(
        default_factory=dict
    )
    """Accesses of a tensor, by its number, how it lies, whether it is staged and loaded beside another."""
    chunks: dict[Tiling, tuple[Amounts, float]] = field(default_factory=dict)
    """What gathering in chunks costs, and the cycles of the first chunk."""
    boxes: dict[Tiling, tuple[int, int]] = field(default_factory=dict)
    """Numbers of result boxes, and of all boxes; at least 1."""

    def stream(self, kernel: Kernel, number: int) -> dict[Tiling, Traffic]:
        """Return the memo of a streamed tensor of a kernel."""
        if number == RESULT:
            key = number, lying(kernel.mesh, kernel.result_sharding), False, False
        else:
            place = lying(kernel.mesh, kernel.operand_shardings[number])
            key = number, place, is_staged(kernel, number), streams_beside(kernel, number)
        return self.streams.setdefault(key, {})


def price(kernel: Kernel, tiling: Tiling, target: Target) -> KernelCost:
    """Return the predicted cost of a kernel on one tile while all tiles run it; see `Pricer`."""
    return Pricer(kernel, target).price(tiling)


class Pricer:
    """Prices tilings of a kernel.

    The engines overlap. What cannot be hidden is in `startup_cycles`: the first loads or the first chunk
    that is gathered, the last store, and the first (or last) box of the matrix or vector unit, whichever
    has less to do. Loads and stores share the DRAM ports.
    """

    def __init__(
        self,
        kernel: Kernel,
        target: Target,
        units: dict[Tiling, UnitCosts] | None = None,
        moved: MovedPieces | None = None,
    ) -> None:
        """Look up what is known.

        Args:
            kernel: The kernel.
            target: The machine.
            units: Memo of the units' part for kernels that differ only in where their tensors lie.
            moved: Memo of what is moved.
        """
        self._kernel, self._target, self._prices = kernel, target, _prices_on(target)
        self._units = units if units is not None and computes_alike(kernel) else {}
        self._moved = moved or MovedPieces()
        self._streams = [
            (number, self._moved.stream(kernel, number)) for number in streamed_tensors(kernel)
        ]

    def price(self, tiling: Tiling) -> KernelCost:
        """Return the predicted cost on one tile while all tiles run the kernel."""
        kernel, target, prices = self._kernel, self._target, self._prices
        costs = list(self._unit_costs(tiling))
        first_load = first_beside = last_store = stored_cycles = 0.0
        traffics = [self._traffic(number, known, tiling) for number, known in self._streams]
        beside = _beside_bytes(traffics, target)
        for traffic in traffics:
            cost, each_cycles = prices.traffic((traffic, beside[not traffic.is_beside]))
            if traffic.store:
                last_store = max(last_store, each_cycles)
                stored_cycles += cost.dma_out_cycles
            elif traffic.is_beside and target.tile.dma.load_engines > 1:
                first_beside += each_cycles
                cost = cost._replace(dma_in_cycles=0.0, dma_out_cycles=cost.dma_in_cycles)
            else:
                first_load += each_cycles
            costs.append(cost)
        for count, size_bytes in local_copies(kernel, tiling):
            costs.append(_local_copy_price(count, size_bytes, target))
        first_chunk = 0.0
        if kernel.gather is not None:
            gathering, first_chunk = self._chunks(tiling)
            costs.append(gathering)
        total = _sum(costs)
        results, boxes = self._boxes(tiling)
        longer = max(total.matrix_cycles, total.vector_cycles)
        shorter = min(total.matrix_cycles, total.vector_cycles)
        # two products: the next box's is computed while the vector unit is at what is between this one's
        compute = longer + shorter / (boxes if kernel.family in TWO_PRODUCTS else results)
        first = max(first_load, first_beside, first_chunk)
        sent_cycles = total.dma_out_cycles - stored_cycles
        port_cycles = total.dram_bytes * target.tiles / target.dram_bytes_per_cycle
        busy = max(longer, total.dma_in_cycles, total.dma_out_cycles, total.sram_cycles)
        latency = max(
            first + compute + last_store,
            total.dma_in_cycles + compute / boxes + last_store,
            sent_cycles + compute / boxes + last_store,
            first + compute / results + stored_cycles,
            dram_lead_cycles(target) + port_cycles + compute / boxes if port_cycles else 0.0,
            total.dma_out_cycles,
            total.sram_cycles,
        )
        own = KernelCost(**total._asdict(), startup_cycles=latency - busy)
        return with_halo_price(kernel, own, target)

    def _unit_costs(self, tiling: Tiling) -> UnitCosts:
        costs = self._units.get(tiling)
        if costs is None:
            costs = self._units[tiling] = _unit_costs(self._kernel, tiling, self._prices)
        return costs

    def _traffic(self, number: int, known: dict[Tiling, Traffic], tiling: Tiling) -> Traffic:
        traffic = known.get(tiling)
        if traffic is None:
            burst, multicast = self._target.tile.dma.burst_bytes, self._target.dram.read_multicast
            traffic = stream_work(self._kernel, tiling, number, burst, multicast=multicast)
            known[tiling] = traffic
        return traffic

    def _chunks(self, tiling: Tiling) -> tuple[Amounts, float]:
        chunks = self._moved.chunks.get(tiling)
        if chunks is None:
            gathering, first_cycles = gather_price(self._kernel, tiling, self._target)
            chunks = self._moved.chunks[tiling] = _amounts(gathering), first_cycles
        return chunks

    def _boxes(self, tiling: Tiling) -> tuple[int, int]:
        boxes = self._moved.boxes.get(tiling)
        if boxes is None:
            results = max(1, result_boxes(self._kernel, tiling))
            every = max(1, results * reduction_boxes(self._kernel, tiling))
            boxes = self._moved.boxes[tiling] = results, every
        return boxes


def _unit_costs(kernel: Kernel, tiling: Tiling, prices: _Prices) -> UnitCosts:
    matrix, vector = unit_work(kernel, tiling)
    costs = [
        prices.matrix((product, adds))
        for product in matrix
        for adds in (False, True)
        if product.adding or not adds
    ]
    if costs and dequantises(kernel.attrs):
        # a product of floats nearly fills the scratchpad's port, so that it waits while weights pass it
        waits = prologue_bytes(kernel, tiling) / prices.target.tile.sram.bytes_per_cycle
        costs.append(_amounts(KernelCost(matrix_cycles=waits)))
    return (*costs, *map(prices.vector, vector))


_Piece = TypeVar("_Piece")
_Priced = TypeVar("_Priced")


class _Remembered(dict[_Piece, _Priced]):
    """Prices of pieces of work, each worked out when it is asked for first."""

    def __init__(self, price_of: Callable[[_Piece], _Priced]) -> None:
        super().__init__()
        self._price_of = price_of

    def __missing__(self, piece: _Piece) -> _Priced:
        if len(self) >= _MOST_REMEMBERED:
            self.clear()
        found = self[piece] = self._price_of(piece)
        return found


_MOST_REMEMBERED = 1 << 16


class _Prices:
    """The prices of pieces of work on one machine: of the kernels of a model, most pieces are equal."""

    def __init__(self, target: Target) -> None:
        self.target = target
        issue = target.tile.control.issue_cycles
        self.matrix = _Remembered[tuple[MatrixWork, bool], Amounts](
            lambda piece: _matrix_price(*piece, target)
        ).__getitem__
        self.vector = _Remembered[VectorWork, Amounts](
            lambda piece: _times(vector_price(piece, target), piece.times, issue)
        ).__getitem__
        self.traffic = _Remembered[tuple[Traffic, int], tuple[Amounts, float]](
            lambda piece: _traffic_price(*piece, target)
        ).__getitem__


@lru_cache(maxsize=8)
def _prices_on(target: Target) -> _Prices:
    return _Prices(target)


def _sum(costs: Sequence[Amounts]) -> Amounts:
    """Return what the costs are together."""
    return Amounts._make([sum(column) for column in zip(*costs, strict=True)] or _NOTHING)


_NOTHING = (0,) * len(Amounts._fields)


def _times(cost: KernelCost, count: int, issue_cycles: float) -> Amounts:
    """Return the cost of `count` instructions one after the other, each issued; start-up left out."""

    def engine(cycles: float) -> float:
        return (cycles + issue_cycles) * count if cycles else 0.0

    return Amounts(
        matrix_cycles=engine(cost.matrix_cycles),
        vector_cycles=engine(cost.vector_cycles),
        dma_in_cycles=engine(cost.dma_in_cycles),
        dma_out_cycles=engine(cost.dma_out_cycles),
        sram_cycles=cost.sram_cycles * count,
        link_cycles=cost.link_cycles * count,
        macs=cost.macs * count,
        vector_ops=cost.vector_ops * count,
        sram_bytes=cost.sram_bytes * count,
        dram_bytes=cost.dram_bytes * count,
        noc_bytes=cost.noc_bytes * count,
        energy_pj=cost.energy_pj * count,
    )


def _amounts(cost: KernelCost) -> Amounts:
    return Amounts(*(getattr(cost, name) for name in Amounts._fields))


def _matrix_price(work: MatrixWork, accumulates: bool, target: Target) -> Amounts:
    """Return the cost of the products that add to sums, or of those that begin sums."""
    one = matmul_cost(
        target,
        work.dtype,
        batch=work.b,
        m=work.m,
        k=work.k,
        n=work.n,
        out_dtype=sum_type(work.dtype),
        accumulates=accumulates,
    )
    count = work.adding if accumulates else work.times - work.adding
    return _times(one, count, target.tile.control.issue_cycles)


def _beside_bytes(traffics: Sequence[Traffic], target: Target) -> tuple[int, int]:
    """Return the bytes that the ports move for either load engine, none unless both load."""
    bytes_of = [0, 0]
    for work in traffics:
        if not work.store:
            bytes_of[work.is_beside] += work.dram_bytes * work.groups
    if target.tile.dma.load_engines == 1 or not all(bytes_of):
        return 0, 0
    return bytes_of[0], bytes_of[1]


def _traffic_price(work: Traffic, beside_bytes: int, target: Target) -> tuple[Amounts, float]:
    """Return the cost of a stream and the cycles of one of its accesses, which nothing hides.

    Args:
        work: The stream.
        beside_bytes: What the ports move meanwhile for the other engine that loads.
        target: The machine.
    """
    if work.size_bytes == 0:
        return _amounts(KernelCost()), 0.0
    each = ceil(work.size_bytes / work.times)
    issue = target.tile.control.issue_cycles
    if work.store:
        one = dram_write_cost(target, ceil(each * work.groups / target.tiles), work.run_bytes)
        engine = target.tile.dma.startup_cycles + each / target.tile.dma.out_bytes_per_cycle
        # the mean over all tiles is less than what the storing ones move
        one = replace(one, dma_out_cycles=max(one.dma_out_cycles, engine))
    else:
        one = dram_read_cost(
            target, each * work.groups, each, work.run_bytes, beside_bytes / work.times
        )
    first = max(one.dma_in_cycles, one.dma_out_cycles) + issue
    if not work.store:
        # the next one's lead passes while this one's bytes come; the longer of both is what a load takes
        ahead = dram_ahead_cycles(target, each * work.groups, each)
        one = replace(one, dma_in_cycles=max(ahead, one.dma_in_cycles - ahead))
    # the exact share of this tile, not the rounded one of each access
    share = ceil(work.dram_bytes * work.groups / target.tiles)
    return _times(one, work.times, issue)._replace(dram_bytes=share), first


def _local_copy_price(count: int, size_bytes: int, target: Target) -> Amounts:
    """Return the cost of copies within the scratchpad by DMA-in."""
    dma, control = target.tile.dma, target.tile.control
    cycles = (
        count * (dma.startup_cycles + control.issue_cycles) + size_bytes / dma.in_bytes_per_cycle
    )
    moved = 2 * size_bytes
    cost = KernelCost(
        dma_in_cycles=cycles,
        sram_cycles=moved / target.tile.sram.bytes_per_cycle,
        sram_bytes=moved,
        energy_pj=moved * target.energy.sram_pj_per_byte,
    )
    return _amounts(cost)
