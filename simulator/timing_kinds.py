"""How long an instruction takes and what it moves: from the target's units and the domain alone.

The conventions, for one instruction of one tile:

* Every instruction takes the control unit's issue cycles first; then latency, then its *payload* moves
  at a rate that its engine limits and that shared resources may lower.
* MM: the array makes b * ceil(K / rows) * ceil(N / columns) passes. A pass streams M rows; the load
  of its weights hides behind the pass before it if the array holds two sets, and the first load never
  hides, not even behind the instruction before; if it does not hide, each pass fills and drains the array.
  The payload is its SRAM traffic: A once per pass over N, B once, C written on each pass over K and read
  back on all but the first (on all if it accumulates). Arrays that hold inputs exchange M and N; those that
  hold outputs make b * ceil(M / rows) * ceil(N / columns) passes of K steps and load nothing. Registers for
  the sums of some rows make that many rows stream at a time: B is read for each such block, C written once
  (and read once before if it accumulates). Operands come no faster than the unit takes them.
* VEC and RED: ceil(elements / lanes) vectors (half the lanes if any operand has 8-byte elements),
  each the function's cycles. An operand that the innermost dimensions of the domain lack is read once for
  all of them; other repeats are read again.
* LD, ST, GTH: startup, then the latency of memory and network, then the bytes. In DRAM each run of
  contiguous bytes shorter than a burst costs a burst. A source that is broadcast leaves DRAM once; where a
  tile relays it, that tile reads all of it, then casts it. An engine that asks ahead requests a load as
  soon as its waits hold and the bytes of the load before come; one that relays does not.
* SND, MCS: startup, then the bytes; remote posts land after the last byte plus the latency of the route.
* HOST: starts when all tiles of the group have come to it; its tensors cross the host link once.
  What the host computes takes no time here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Dataflow, Target
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Space, dimension_roles
from tilewright.lowering.program import HostRegion
from tilewright.simulator.timing_banks import BankUse, Traffic, bank_limit, bank_use

RouteKey = tuple[str, int, int]
"""Way of a payload: ("read" | "write" | "send" | "cast" | "post", axes, shift).

A read with axes is shared by the tiles of that sub-mesh.
"""

ALL_AXES = -1
"""Gang of a host region: all tiles of the group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """All that the timing of an instruction depends on; equal instructions share one."""

    opcode: Opcode
    engine: Engine
    tag: int
    waits: tuple[tuple[int, int], ...]
    posts: tuple[tuple[int, int, bool], ...]
    issue_cycles: float
    lead_cycles: float = 0.0
    lead_route: bool = False
    """Whether the latency of the route comes before the payload."""
    asks_ahead: bool = False
    """Whether the latency may pass while the engine's payload before still moves."""
    cast_cycles: float = 0.0
    """Time behind the payload in which the group's first tile casts it to the others."""
    work_bytes: float = 0.0
    rate_bytes_per_cycle: float = 1.0
    own_factor: float = 0.0
    """Bytes of the tile's own SRAM port for each payload byte."""
    factors: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Bytes of other SRAM ports, of links and of DRAM for each payload byte."""
    route: RouteKey | None = None
    banks: BankUse | None = None
    """What it takes of single banks, where these are blocks of addresses."""
    gang: int = 0
    """Mask of axes whose tiles act as one; 0 for none."""
    skip: int = 0
    """Mask of axes; tiles with a coordinate other than 0 on one of them do nothing."""
    macs: int = 0
    mac_dtype: DType | None = None
    vector_operations: int = 0


@dataclass(frozen=True, slots=True)
class _Cost:
    """The part of a kind that operands and domain decide."""

    lead_cycles: float = 0.0
    work_bytes: float = 0.0
    rate_bytes_per_cycle: float = 1.0
    own_factor: float = 0.0
    factors: tuple[float, float, float] = (1.0, 1.0, 1.0)
    macs: int = 0
    mac_dtype: DType | None = None
    vector_operations: int = 0
    cast_cycles: float = 0.0
    traffic: tuple[Traffic, ...] = ()


def kind_of(
    target: Target, mesh: LogicalMesh, regions: tuple[HostRegion, ...], instruction: Instruction
) -> Kind:
    """Return the kind of an instruction.

    Raises:
        ProgramError: The target has no figures for it, or it posts remotely where the machine cannot.
    """
    opcode, axes = instruction.opcode, instruction.axes
    sizes = [n for axis, n in enumerate(mesh.sizes) if axes >> axis & 1 and n > 1]
    tiles = prod(sizes)
    is_shared = opcode is Opcode.LD and target.dram.read_multicast and tiles > 1
    cost = _cost(target, regions, instruction, len(sizes) if is_shared else 0)
    posts = tuple((p.semaphore, p.count, p.remote) for p in instruction.posts if p.count > 0)
    is_remote = any(remote for _, _, remote in posts)
    if is_remote and opcode not in (Opcode.PS, Opcode.SND, Opcode.MCS, Opcode.SIG):
        raise ProgramError(
            f"{opcode.name} of plan step {instruction.tag}: has a remote post, "
            "expected only on PS, SND, MCS or SIG"
        )
    gang = 0
    if is_shared:
        gang = axes
    elif opcode is Opcode.HOST and mesh.tiles > 1:
        gang = ALL_AXES
    route = _route(instruction, gang, tiles, is_remote=is_remote)
    banks, rate = None, cost.rate_bytes_per_cycle
    if target.tile.sram.has_blocks and cost.work_bytes:
        banks = bank_use(
            target, mesh, instruction, cost.traffic, cost.work_bytes, is_shared=is_shared
        )
        rate = min(rate, bank_limit(target.tile.sram, cost.traffic, cost.work_bytes))
    return Kind(
        opcode=opcode,
        engine=instruction.engine,
        tag=instruction.tag,
        waits=_merged_waits(instruction),
        posts=posts,
        issue_cycles=target.tile.control.issue_cycles,
        lead_cycles=cost.lead_cycles,
        lead_route=route is not None and route[0] in ("read", "write"),
        asks_ahead=opcode is Opcode.LD and target.tile.dma.asks_ahead and not cost.cast_cycles,
        cast_cycles=cost.cast_cycles,
        work_bytes=cost.work_bytes,
        rate_bytes_per_cycle=rate,
        own_factor=cost.own_factor if gang == 0 else 0.0,
        factors=cost.factors,
        route=route,
        banks=banks,
        gang=gang,
        skip=axes if opcode is Opcode.ST and tiles > 1 else 0,
        macs=cost.macs,
        mac_dtype=cost.mac_dtype,
        vector_operations=cost.vector_operations,
    )


def _route(instruction: Instruction, gang: int, tiles: int, *, is_remote: bool) -> RouteKey | None:
    """Return what crosses the network, and how far.

    Args:
        instruction: Any one.
        gang: Mask of axes whose tiles read as one.
        tiles: Number of tiles that the instruction's axes span.
        is_remote: Whether it posts to other tiles of its group.
    """
    axes = instruction.axes
    match instruction.opcode:
        case Opcode.LD:
            return ("read", gang, 0)
        case Opcode.GTH if instruction.sources[0].space is Space.DRAM:
            return ("read", 0, 0)
        case Opcode.ST:
            return ("write", 0, 0)
        case Opcode.SND:
            return ("send", axes, instruction.shift)
        case Opcode.MCS if tiles > 1:
            return ("cast", axes, 0)
        case Opcode.PS if tiles > 1 and is_remote:
            return ("post", axes, 0)
        case Opcode.SIG if any(post.count for post in instruction.posts):
            return ("signal", instruction.count, 0)
        case _:
            return None


def _merged_waits(instruction: Instruction) -> tuple[tuple[int, int], ...]:
    counts: dict[int, int] = {}
    for wait in instruction.waits:
        if wait.count > 0:
            counts[wait.semaphore] = counts.get(wait.semaphore, 0) + wait.count
    return tuple(counts.items())


def _cost(
    target: Target, regions: tuple[HostRegion, ...], instruction: Instruction, shared_axes: int
) -> _Cost:
    match instruction.opcode:
        case Opcode.MM:
            return _matrix(target, instruction)
        case Opcode.VEC | Opcode.RED:
            return _vector(target, instruction)
        case Opcode.LD | Opcode.ST | Opcode.GTH:
            return _memory(target, instruction, shared_axes)
        case Opcode.SND | Opcode.MCS:
            return _send(target, instruction)
        case Opcode.HOST:
            return _host(target, regions, instruction)
        case _:
            return _Cost()


def _figure[V](table: Mapping[DType, V], dtype: DType, what: str) -> V:
    if dtype not in table:
        known = ", ".join(table) or "none"
        raise ProgramError(
            f"the target's matrix unit has no {what} for {dtype}, expected one of {known}"
        )
    return table[dtype]


def _matrix(target: Target, instruction: Instruction) -> _Cost:
    unit = target.tile.matrix
    dst, (a, b) = instruction.dst, instruction.sources
    assert dst is not None
    sizes = dict.fromkeys("bmnk", 1)
    for role, size in zip(dimension_roles(instruction), instruction.domain, strict=True):
        sizes[role] *= size
    batch, m, n, k = sizes["b"], sizes["m"], sizes["n"], sizes["k"]
    columns = _figure(unit.columns, b.dtype, "columns")
    load = _figure(unit.weight_load_cycles, b.dtype, "weight load cycles")
    m_passes = n_passes = k_passes = 1
    match unit.dataflow:
        case Dataflow.WEIGHT_STATIONARY:
            k_passes, n_passes, streamed = ceil(k / unit.rows), ceil(n / columns), m
        case Dataflow.INPUT_STATIONARY:
            k_passes, m_passes, streamed = ceil(k / unit.rows), ceil(m / columns), n
        case Dataflow.OUTPUT_STATIONARY:
            m_passes, n_passes, streamed = ceil(m / unit.rows), ceil(n / columns), k
            load = 0.0
    blocks = [streamed]
    if unit.accumulator_rows is not None and unit.dataflow is not Dataflow.OUTPUT_STATIONARY:
        whole, rest = divmod(streamed, unit.accumulator_rows)
        blocks = [unit.accumulator_rows] * whole + [rest] * (rest > 0)
    passes = batch * m_passes * n_passes * k_passes
    row = _figure(unit.cycles_per_row, b.dtype, "cycles per row")
    if unit.overlap_weight_load and unit.weight_slots >= 2:
        cycles = load + passes * sum(max(size * row, load) for size in blocks)
        cycles -= max(0.0, load - blocks[-1] * row)  # nothing is loaded during the last pass
    else:
        # What is held is exchanged in an empty array: each pass fills and drains it anew.
        cycles = passes * (len(blocks) * load + streamed * row)
        cycles += (passes * len(blocks) - 1) * unit.fill_cycles
    if unit.dataflow is Dataflow.INPUT_STATIONARY:
        n_reads, m_reads = len(blocks), m_passes
    else:
        n_reads, m_reads = n_passes, max(m_passes, len(blocks))
    a_bytes = batch * m * k * n_reads * a.dtype.itemsize_bytes
    b_bytes = batch * k * n * m_reads * b.dtype.itemsize_bytes
    operands = a_bytes + b_bytes
    if unit.operand_bytes_per_cycle is not None:
        cycles = max(cycles, operands / unit.operand_bytes_per_cycle)
    sums = 2 * k_passes - 1 if unit.accumulator_rows is None else 1
    c_bytes = batch * m * n * (sums + instruction.accumulate) * dst.dtype.itemsize_bytes
    work = operands + c_bytes
    return _Cost(
        unit.fill_cycles,
        work,
        work / cycles,
        1.0,
        macs=batch * m * n * k,
        mac_dtype=b.dtype,
        traffic=(
            Traffic(a, instruction.domain, a_bytes),
            Traffic(b, instruction.domain, b_bytes),
            Traffic(dst, instruction.domain, c_bytes, is_result=True),
        ),
    )


def _reads(access: Access, domain: tuple[int, ...]) -> int:
    """Return how many elements an operand delivers when the innermost dims that it lacks are free."""
    last = max((d + 1 for d, stride in enumerate(access.strides) if stride != 0), default=0)
    return prod(domain[:last])


def _footprint(access: Access, domain: tuple[int, ...]) -> int:
    """Return the number of elements over the dims that an operand has."""
    return prod(size for size, stride in zip(domain, access.strides, strict=True) if stride != 0)


def _vector(target: Target, instruction: Instruction) -> _Cost:
    unit, domain, dst = target.tile.vector, instruction.domain, instruction.dst
    assert dst is not None
    elements = prod(domain)
    wide = any(access.dtype.itemsize_bytes > 4 for access in (dst, *instruction.sources))
    vectors = ceil(elements * (2 if wide else 1) / unit.lanes)
    cycles = vectors * unit.function_cycles.get(instruction.fn, 1.0)
    written = (
        _footprint(dst, domain) * dst.dtype.itemsize_bytes * (2 if instruction.accumulate else 1)
    )
    reads = [
        Traffic(source, domain, _reads(source, domain) * source.dtype.itemsize_bytes)
        for source in instruction.sources
    ]
    work = written + sum(read.size_bytes for read in reads)
    return _Cost(
        unit.startup_cycles,
        work,
        work / cycles,
        1.0,
        vector_operations=elements,
        traffic=(*reads, Traffic(dst, domain, written, is_result=True)),
    )


def dram_bytes(access: Access, domain: tuple[int, ...], burst_bytes: int) -> int:
    """Return the bytes that DRAM moves for an access; short contiguous runs cost a burst.

    >>> row = Access(Space.DRAM, DType.F32, 0, (), (1024, 4))
    >>> dram_bytes(row, (3, 8), burst_bytes=64), dram_bytes(row, (3, 256), burst_bytes=64)
    (192, 3072)
    """
    item = access.dtype.itemsize_bytes
    run, runs = item, 1
    for stride, size in sorted(
        (abs(s), n) for s, n in zip(access.strides, domain, strict=True) if s != 0
    ):
        if stride == run and runs == 1:
            run *= size
        else:
            runs *= size
    return runs * max(run, burst_bytes)


def _memory(target: Target, instruction: Instruction, shared_axes: int) -> _Cost:
    dma, domain, dst = target.tile.dma, instruction.domain, instruction.dst
    assert dst is not None
    source = instruction.sources[0]
    is_store = instruction.opcode is Opcode.ST
    far = dst if is_store else source
    payload = prod(domain) * dst.dtype.itemsize_bytes
    rate = dma.out_bytes_per_cycle if is_store else dma.in_bytes_per_cycle
    own = 1.0
    traffic = [Traffic(source, domain, payload), Traffic(dst, domain, payload, is_result=True)]
    moved = _footprint(far, domain) * far.dtype.itemsize_bytes
    if instruction.opcode is Opcode.GTH:
        index = instruction.sources[1]
        traffic[0] = Traffic(source, (instruction.count, *domain[1:]), payload)
        traffic.append(
            Traffic(index, domain, _footprint(index, domain) * index.dtype.itemsize_bytes)
        )
        own += traffic[-1].size_bytes / payload
        if source.space is Space.L1:
            return _Cost(dma.startup_cycles, payload, rate, own + 1.0, traffic=tuple(traffic))
        rows = prod(size for d, size in enumerate(domain) if index.strides[d] != 0)
        table = Access(
            far.space,
            far.dtype,
            far.base,
            (),
            tuple(0 if index.strides[d] else s for d, s in enumerate(far.strides)),
        )
        padded, moved = rows * dram_bytes(table, domain, dma.burst_bytes), payload
    else:
        padded = dram_bytes(far, domain, dma.burst_bytes)
    lead = dma.startup_cycles + target.dram.latency_cycles
    relay, cast_cycles = target.dram.relay, 0.0
    if relay is not None and shared_axes:
        rate = min(rate, relay.read_bytes_per_cycle)
        cast_cycles = relay.cast_cycles(payload, shared_axes)
    factors = (1.0, moved / payload, padded / payload)
    return _Cost(lead, payload, rate, own, factors, cast_cycles=cast_cycles, traffic=tuple(traffic))


def _send(target: Target, instruction: Instruction) -> _Cost:
    dma, domain, source, dst = (
        target.tile.dma,
        instruction.domain,
        instruction.sources[0],
        instruction.dst,
    )
    assert dst is not None
    payload = prod(domain) * dst.dtype.itemsize_bytes
    read = Traffic(source, domain, _reads(source, domain) * source.dtype.itemsize_bytes)
    own = read.size_bytes / payload
    if instruction.opcode is Opcode.MCS:
        own += 1.0  # the sender is among the receivers
    traffic = (read, Traffic(dst, domain, payload, is_result=True))
    return _Cost(dma.startup_cycles, payload, dma.out_bytes_per_cycle, own, traffic=traffic)


def _host(target: Target, regions: tuple[HostRegion, ...], instruction: Instruction) -> _Cost:
    if not 0 <= instruction.count < len(regions):
        raise ProgramError(
            f"host region {instruction.count} is not one of the program's {len(regions)}"
        )
    region = regions[instruction.count]
    size = sum(tensor.size_bytes for tensor in (*region.inputs, *region.outputs))
    return _Cost(target.host.latency_cycles + size / target.host.bytes_per_cycle)


class KindTable:
    """Numbers kinds in order of first use; addresses matter only to banks, so a program has few."""

    def __init__(self, target: Target, mesh: LogicalMesh, regions: tuple[HostRegion, ...]) -> None:
        self._target, self._mesh, self._regions = target, mesh, regions
        self.minds_addresses = target.tile.sram.has_blocks
        self._by_key: dict[object, int] = {}
        self._by_kind: dict[Kind, int] = {}

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Return the kinds by number."""
        return tuple(self._by_kind)

    def number(self, instruction: Instruction) -> int:
        """Return the number of the instruction's kind."""
        i = instruction
        operands = (*i.sources, i.dst) if i.dst is not None else i.sources
        layouts: tuple[object, ...] = tuple([(o.space, o.dtype, o.strides) for o in operands])
        if self.minds_addresses:
            layouts += tuple((o.base, o.coefficients) for o in operands)
        key = (
            i.opcode,
            i.engine,
            i.domain,
            layouts,
            i.fn,
            i.accumulate,
            i.axes,
            i.shift,
            i.count,
            i.waits,
            i.posts,
            i.tag,
        )
        found = self._by_key.get(key)
        if found is None:
            kind = kind_of(self._target, self._mesh, self._regions, i)
            found = self._by_kind.setdefault(kind, len(self._by_kind))
            self._by_key[key] = found
        return found
