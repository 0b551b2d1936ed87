"""The price of a tiled kernel: its work (`kernel_work`) times the cost model (`hwmodel.cost`)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import ceil
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

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
from tilewright.extract.kernel_price_core import (
    DMA_IN,
    DMA_OUT,
    DRAM_BYTES,
    ENERGY,
    GATHERED,
    LINK,
    LOADED,
    LOADED_BESIDE,
    MACS,
    MATRIX,
    NOC_BYTES,
    OPS,
    SCATTERED,
    SRAM,
    SRAM_BYTES,
    STARTUP,
    STORED,
    UNIT,
    VECTOR,
    add_up,
)
from tilewright.extract.kernel_traffic import (
    RESULT,
    Traffic,
    local_copies,
    stream_work,
    streamed_tensors,
)
from tilewright.extract.kernel_work import (
    MatrixWork,
    VectorWork,
    computes_alike,
    prologue_bytes,
    unit_work,
)
from tilewright.extract.plan import Memory, Tiling
from tilewright.extract.scattered import scatter_price
from tilewright.extract.vector_price import vector_price
from tilewright.graph import dequantises
from tilewright.hwmodel.cost import KernelCost, matmul_cost
from tilewright.hwmodel.dram_cost import (
    dram_ahead_cycles,
    dram_lead_cycles,
    dram_read_cost,
    dram_readers,
    dram_write_cost,
)
from tilewright.hwmodel.mesh import REPLICATED, LogicalMesh, Sharding, split_factor
from tilewright.hwmodel.port_sharing import Readers
from tilewright.hwmodel.target import Target


class Amounts(NamedTuple):
    """What instructions one after the other occupy, move and burn: `KernelCost` without start-up.

    In the order of the columns of `kernel_price_core`.
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


Lying = tuple[tuple[int, int], ...]
"""Into how many pieces a tensor in DRAM is cut, by the state of the axes that cut it."""


@lru_cache(maxsize=1 << 12)
def lying(mesh: LogicalMesh, sharding: Sharding) -> Lying:
    """Return what the price of a kernel depends on of how a tensor in DRAM is cut."""
    states = sorted({state for state in sharding if state != REPLICATED})
    return tuple([(state, split_factor(mesh, sharding, state)) for state in states])


Place = tuple[Lying | None, ...]
"""How the operands and the result of a kernel lie; None in SRAM."""


def place_of(kernel: Kernel, operands: Sequence[Memory], result: Memory) -> Place:
    """Return how the tensors of a kernel lie if they are in some memories."""
    shardings = (*kernel.operand_shardings, kernel.result_sharding)
    return tuple(
        [
            lying(kernel.mesh, sharding) if memory is Memory.DRAM else None
            for memory, sharding in zip((*operands, result), shardings, strict=True)
        ]
    )


UnitPieces = tuple[int, ...]
"""What the matrix and the vector unit do for a tiled kernel: numbers of `Pieces`."""

Likely = tuple[tuple[tuple[Tiling, int], ...], ...]
"""Tilings with the scratchpad that they take, [bytes], for each of several budgets."""


@dataclass(frozen=True, slots=True)
class MovedPieces:
    """Memo of what kernels move; those that share it have equal `Kernel.moved_key`."""

    traffics: dict[tuple[int, Lying | None, bool, bool], dict[Tiling, Traffic]] = field(
        default_factory=dict
    )
    """Accesses of a tensor, by its number, how it lies, whether it is staged and loaded beside another."""
    streams: dict[Place, dict[Tiling, tuple[int, ...]]] = field(default_factory=dict)
    """All that moves: numbers of `Pieces`."""
    chunks: dict[Tiling, int] = field(default_factory=dict)
    """Gathering in chunks or scattering in boxes, likewise."""
    boxes: dict[Tiling, tuple[int, int]] = field(default_factory=dict)
    """Numbers of result boxes, and of all boxes; at least 1."""
    likely: dict[Hashable, Likely] = field(default_factory=dict)
    """What may be the cheapest tilings, by how tensors lie and by what is held on the way."""


def price(kernel: Kernel, tiling: Tiling, target: Target) -> KernelCost:
    """Return the predicted cost of a kernel on one tile while all tiles run it; see `Pricer`."""
    return price_all([(Pricer(kernel, Pieces(target)), tiling)])[0]


def first_load_cycles(kernel: Kernel, tiling: Tiling, target: Target) -> float:
    """Return the cycles in which the first box of every streamed operand is loaded, one after the other."""
    burst, multicast = target.tile.dma.burst_bytes, target.dram.read_multicast
    loads = [
        stream_work(kernel, tiling, number, burst, multicast=multicast)
        for number in streamed_tensors(kernel)
        if number != RESULT
    ]
    return sum(_prices_on(target).traffic((load, None))[1] for load in loads)


class Pricer:
    """Prices tilings of a kernel.

    The engines overlap. What cannot be hidden is in `startup_cycles`: the first loads or the first chunk
    that is gathered, the last box that is scattered, the last store, and the first (or last) box of the
    matrix or vector unit, whichever has less to do. Loads and stores share the DRAM ports.
    """

    def __init__(
        self,
        kernel: Kernel,
        pieces: Pieces,
        units: dict[Tiling, UnitPieces] | None = None,
        moved: MovedPieces | None = None,
    ) -> None:
        """Look up what is known.

        Args:
            kernel: The kernel.
            pieces: Where what is found is kept.
            units: Memo of the units' part for kernels that differ only in where their tensors lie.
            moved: Memo of what is moved.
        """
        self.kernel, self.pieces = kernel, pieces
        self._units = units if units is not None and computes_alike(kernel) else {}
        self._moved = moved or MovedPieces()
        self._place = place_of(kernel, kernel.operand_memory, kernel.result_memory)
        self._streams = self._moved.streams.setdefault(self._place, {})

    def pieces_of(self, tiling: Tiling) -> tuple[int, ...]:
        """Return what the kernel does and moves, piece by piece."""
        units = self._units.get(tiling)
        if units is None:
            units = self._units[tiling] = self.pieces.of_units(self.kernel, tiling)
        streams = self._streams.get(tiling)
        if streams is None:
            streams = self._streams[tiling] = tuple(self._moving(tiling))
        return units + streams

    def _moving(self, tiling: Tiling) -> Iterator[int]:
        """Yield what moves: streams from and to DRAM, copies within the scratchpad, chunks."""
        kernel, pieces = self.kernel, self.pieces
        traffics = [self._traffic(number, tiling) for number in streamed_tensors(kernel)]
        readers = _readers(traffics, pieces.target)
        for traffic in traffics:
            yield pieces.stream((traffic, readers[not traffic.is_beside]))
        yield from map(pieces.local_copy, local_copies(kernel, tiling))
        if kernel.loop_in_pieces is not None:
            chunks = self._moved.chunks.get(tiling)
            if chunks is None:
                chunks = self._moved.chunks[tiling] = self._exchanged(tiling)
            yield chunks

    def _exchanged(self, tiling: Tiling) -> int:
        """Return what gathering or scattering box by box takes."""
        target = self.pieces.target
        if self.kernel.scatter is not None:
            cost, last_cycles = scatter_price(self.kernel, tiling, target)
            return self.pieces.add(_amounts(cost), SCATTERED, last_cycles)
        cost, first_cycles = gather_price(self.kernel, tiling, target)
        return self.pieces.add(_amounts(cost), GATHERED, first_cycles)

    def boxes(self, tiling: Tiling) -> tuple[int, int]:
        """Return the number of result boxes, and that of all boxes; at least 1."""
        boxes = self._moved.boxes.get(tiling)
        if boxes is None:
            results = max(1, result_boxes(self.kernel, tiling))
            every = max(1, results * reduction_boxes(self.kernel, tiling))
            boxes = self._moved.boxes[tiling] = results, every
        return boxes

    def _traffic(self, number: int, tiling: Tiling) -> Traffic:
        kernel, target, place = self.kernel, self.pieces.target, self._place[number]
        is_operand = number != RESULT
        key = (
            number,
            place,
            is_operand and is_staged(kernel, number),
            is_operand and streams_beside(kernel, number),
        )
        known = self._moved.traffics.setdefault(key, {})
        traffic = known.get(tiling)
        if traffic is None:
            burst, multicast = target.tile.dma.burst_bytes, target.dram.read_multicast
            traffic = stream_work(kernel, tiling, number, burst, multicast=multicast)
            known[tiling] = traffic
        return traffic


def price_all(asked: Sequence[tuple[Pricer, Tiling]]) -> list[KernelCost]:
    """Return the predicted costs of tilings of a kernel, wherever its tensors lie.

    Args:
        asked: Tilings; their kernels differ only in where tensors lie, and share `Pieces`.
    """
    if not asked:
        return []
    starts, numbers, results, boxes = [0], list[int](), list[int](), list[int]()
    for pricer, tiling in asked:
        numbers += pricer.pieces_of(tiling)
        starts.append(len(numbers))
        mine, every = pricer.boxes(tiling)
        results.append(mine)
        boxes.append(every)
    kernel, pieces = asked[0][0].kernel, asked[0][0].pieces
    target = pieces.target
    found = np.empty((len(asked), STARTUP + 1))
    add_up(
        *pieces.arrays,
        np.array(starts),
        np.array(numbers, dtype=np.int64),
        np.array(results),
        np.array(boxes),
        kernel.family in TWO_PRODUCTS,
        target.tiles,
        target.dram_bytes_per_cycle,
        dram_lead_cycles(target),
        found,
    )
    costs = [_kernel_cost(row) for row in found.tolist()]
    return [with_halo_price(kernel, cost, target) for cost in costs] if kernel.halo else costs


def _kernel_cost(row: list[float]) -> KernelCost:
    return KernelCost(
        matrix_cycles=row[MATRIX],
        vector_cycles=row[VECTOR],
        dma_in_cycles=row[DMA_IN],
        dma_out_cycles=row[DMA_OUT],
        sram_cycles=row[SRAM],
        link_cycles=row[LINK],
        startup_cycles=row[STARTUP],
        macs=int(row[MACS]),
        vector_ops=int(row[OPS]),
        sram_bytes=int(row[SRAM_BYTES]),
        dram_bytes=int(row[DRAM_BYTES]),
        noc_bytes=int(row[NOC_BYTES]),
        energy_pj=row[ENERGY],
    )


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
        self.traffic = _Remembered[tuple[Traffic, Readers | None], tuple[Amounts, float]](
            lambda piece: _traffic_price(*piece, target)
        ).__getitem__


@lru_cache(maxsize=8)
def _prices_on(target: Target) -> _Prices:
    return _Prices(target)


class Pieces:
    """The pieces of work of kernels, by number, with what each takes; most kernels share most of theirs."""

    def __init__(self, target: Target) -> None:
        """Know none yet."""
        self.target = target
        self._prices = _prices_on(target)
        self._count = 0
        self._amounts = np.empty((_FIRST_ROOM, len(Amounts._fields)))
        self._firsts = np.empty(_FIRST_ROOM)
        self._kinds = np.empty(_FIRST_ROOM, dtype=np.int64)
        self._known: dict[tuple[object, ...], int] = {}

    @property
    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """What the pieces take, the cycles of their first accesses, and what they are."""
        return self._amounts, self._firsts, self._kinds

    def add(self, amounts: Amounts, kind: int = UNIT, first_cycles: float = 0.0) -> int:
        """Add a piece and return its number."""
        number = self._count
        if number == len(self._firsts):
            self._amounts = np.concatenate([self._amounts, np.empty_like(self._amounts)])
            self._firsts = np.concatenate([self._firsts, np.empty_like(self._firsts)])
            self._kinds = np.concatenate([self._kinds, np.empty_like(self._kinds)])
        self._amounts[number], self._firsts[number], self._kinds[number] = (
            amounts,
            first_cycles,
            kind,
        )
        self._count += 1
        return number

    def of_units(self, kernel: Kernel, tiling: Tiling) -> UnitPieces:
        """Return what the matrix and the vector unit do."""
        matrix, vector = unit_work(kernel, tiling)
        found = [
            self._matrix((product, adds))
            for product in matrix
            for adds in (False, True)
            if product.adding or not adds
        ]
        if found and dequantises(kernel.attrs):
            # a product of floats nearly fills the scratchpad's port, so that it waits while weights pass it
            waits = prologue_bytes(kernel, tiling) / self.target.tile.sram.bytes_per_cycle
            found.append(self.add(_amounts(KernelCost(matrix_cycles=waits))))
        return (*found, *map(self._vector, vector))

    def stream(self, piece: tuple[Traffic, Readers | None]) -> int:
        """Return a stream.

        Args:
            piece: The stream, and who reads meanwhile for the other engine that loads.
        """
        number = self._known.get(piece)
        if number is None:
            traffic, (amounts, first_cycles) = piece[0], self._prices.traffic(piece)
            kind = STORED if traffic.store else LOADED
            if traffic.is_beside and self.target.tile.dma.load_engines > 1:
                kind = LOADED_BESIDE
                amounts = amounts._replace(dma_in_cycles=0.0, dma_out_cycles=amounts.dma_in_cycles)
            number = self._known[piece] = self.add(amounts, kind, first_cycles)
        return number

    def local_copy(self, copy: tuple[int, int]) -> int:
        """Return copies within the scratchpad, given by their number and their bytes."""
        return self.add(_local_copy_price(*copy, self.target))

    def _matrix(self, piece: tuple[MatrixWork, bool]) -> int:
        number = self._known.get(piece)
        if number is None:
            number = self._known[piece] = self.add(self._prices.matrix(piece))
        return number

    def _vector(self, piece: VectorWork) -> int:
        number = self._known.get(piece)
        if number is None:
            number = self._known[piece] = self.add(self._prices.vector(piece))
        return number


_FIRST_ROOM = 64


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


def _readers(traffics: Sequence[Traffic], target: Target) -> tuple[Readers | None, Readers | None]:
    """Return who reads for either load engine in the whole kernel; nobody unless both load.

    An engine's streams come one after the other; they count as one, of the readers of its largest.
    """
    streams: tuple[list[Traffic], list[Traffic]] = ([], [])
    for work in traffics:
        if not work.store and work.size_bytes:
            streams[work.is_beside].append(work)
    if target.tile.dma.load_engines == 1 or not all(streams):
        return None, None
    return _together(streams[0], target), _together(streams[1], target)


def _together(streams: Sequence[Traffic], target: Target) -> Readers:
    """Return the readers of the largest stream with the bytes of all."""
    largest = max(streams, key=lambda work: work.dram_bytes * work.groups)
    each = ceil(largest.size_bytes / largest.times)
    readers = dram_readers(target, each * largest.groups, each, largest.run_bytes)
    moved = sum(work.dram_bytes * work.groups for work in streams)
    return readers._replace(size_bytes=moved / readers.port_bytes)


def _traffic_price(work: Traffic, beside: Readers | None, target: Target) -> tuple[Amounts, float]:
    """Return the cost of a stream and the cycles of one of its accesses, which nothing hides.

    Args:
        work: The stream.
        beside: Who reads meanwhile for the other engine that loads, in the whole kernel.
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
        others = beside and beside._replace(size_bytes=beside.size_bytes / work.times)
        one = dram_read_cost(target, each * work.groups, each, work.run_bytes, others)
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
