"""The builder that kernel generators and collectives emit micros through.

Generators describe accesses as strided views over a common domain; the builder drops dimensions of
size 1, merges neighbouring dimensions where every operand allows it, and appends the micro.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from tilewright.dtypes import BLOCK_SOURCES, BlockFormat, DType
from tilewright.errors import UnsupportedOpError
from tilewright.hwmodel.mesh import REPLICATED, LogicalMesh, Sharding, offset_coefficients
from tilewright.lowering.isa import MAX_RANK, Engine, Opcode, Space
from tilewright.lowering.micro import Buffer, Micro, Operand


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A strided access: distances in bytes, one stride for each dimension of some domain."""

    buffer: int
    dtype: DType
    offset_bytes: int
    coefficients: tuple[int, ...]
    strides: tuple[int, ...]

    def over(self, strides: tuple[int, ...]) -> Operand:
        """Return the operand with other strides, those of the instruction's domain."""
        return Operand(
            buffer=self.buffer,
            dtype=self.dtype,
            offset_bytes=self.offset_bytes,
            coefficients=self.coefficients,
            strides=strides,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """A dense row-major tensor in a buffer.

    In L1, `shape` is that of the tile's shard (or of a staging box) and there are no coefficients. In DRAM,
    `shape` is global and `coefficients[d][a]` is the start of a tile's shard on dimension d for
    each step along axis a, in elements.
    """

    buffer: int
    space: Space
    dtype: DType
    shape: tuple[int, ...]
    coefficients: tuple[tuple[int, ...], ...]
    offset_bytes: int = 0
    sharding: Sharding = ()

    def element_strides(self) -> tuple[int, ...]:
        """Return the distance of neighbours on each dimension, in elements."""
        return _row_major(self.shape)

    def view(self, index: tuple[int, ...], dims: tuple[tuple[int, int], ...], rank: int) -> View:
        """Return a view that starts at an index.

        Args:
            index: Start on each tensor dimension, relative to the shard.
            dims: For each term: (tensor dimension, distance in elements of that dimension),
                one entry for each dimension of the domain; (-1, 0) broadcasts.
            rank: Number of mesh axes.
        """
        strides, size = self.element_strides(), self.dtype.itemsize_bytes
        offset = sum(i * s for i, s in zip(index, strides, strict=True)) * size
        return View(
            buffer=self.buffer,
            dtype=self.dtype,
            offset_bytes=self.offset_bytes + offset,
            coefficients=self.byte_coefficients(rank),
            strides=tuple(strides[d] * n * size if n else 0 for d, n in dims),
        )

    def byte_coefficients(self, rank: int) -> tuple[int, ...]:
        """Return the bytes by which the shard moves for each step along each mesh axis."""
        return _byte_coefficients(self.coefficients, self.shape, self.dtype.itemsize_bytes, rank)

    def box(self, starts: tuple[int, ...], rank: int) -> View:
        """Return a view over a box of the tensor: the domain is the box's shape."""
        return self.view(starts, tuple((d, 1) for d in range(len(self.shape))), rank)


@lru_cache(maxsize=4096)
def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[d + 1 :]) for d in range(len(shape)))


@lru_cache(maxsize=4096)
def _byte_coefficients(
    rows: tuple[tuple[int, ...], ...], shape: tuple[int, ...], itemsize_bytes: int, rank: int
) -> tuple[int, ...]:
    totals = [0] * rank
    for row, stride in zip(rows, _row_major(shape), strict=True):
        for axis, coefficient in enumerate(row):
            totals[axis] += coefficient * stride * itemsize_bytes
    return tuple(totals)


def local_storage(buffer: Buffer, dtype: DType, shape: tuple[int, ...]) -> Storage:
    """Return the dense tensor that fills a scratchpad buffer."""
    return Storage(
        buffer=buffer.number,
        space=Space.L1,
        dtype=dtype,
        shape=shape,
        coefficients=((),) * len(shape),
    )


def dram_storage(
    buffer: int,
    dtype: DType,
    shape: tuple[int, ...],
    mesh: LogicalMesh,
    sharding: Sharding,
    offset_bytes: int = 0,
) -> Storage:
    """Return a global tensor in DRAM as a consumer (or producer) with a sharding addresses it."""
    return Storage(
        buffer=buffer,
        space=Space.DRAM,
        dtype=dtype,
        shape=shape,
        coefficients=offset_coefficients(mesh, sharding, shape),
        offset_bytes=offset_bytes,
        sharding=sharding,
    )


class Builder:
    """Collects buffers and the micros of one phase at a time."""

    def __init__(
        self,
        mesh: LogicalMesh,
        *,
        read_multicast: bool,
        load_engines: int = 1,
        block_format: BlockFormat | None = None,
    ) -> None:
        self.mesh = mesh
        self.read_multicast = read_multicast
        self.load_engines = load_engines
        self.block_format = block_format
        self.buffers: list[Buffer] = []
        self.micros: list[Micro] = []
        self.tag = 0

    # ------------------------------------------------------------------ buffers

    def buffer(self, name: str, space: Space, size_bytes: int, *, pinned: bool = False) -> Buffer:
        """Make a buffer."""
        made = Buffer(
            number=len(self.buffers), name=name, space=space, size_bytes=size_bytes, pinned=pinned
        )
        self.buffers.append(made)
        return made

    def pin(self, number: int) -> None:
        """Let a buffer live for the whole program."""
        self.buffers[number] = replace(self.buffers[number], pinned=True)

    # ------------------------------------------------------------------ masks

    def replica_axes(self, sharding: Sharding) -> int:
        """Return the mask of the axes along which all tiles hold the same shard."""
        states = zip(self.mesh.sizes, sharding, strict=True)
        return sum(1 << a for a, (n, state) in enumerate(states) if state == REPLICATED and n > 1)

    # ------------------------------------------------------------------ micros

    def emit(self, micro: Micro) -> None:
        """Append a micro with the current tag."""
        self.micros.append(replace(micro, tag=self.tag))

    def vector(
        self,
        fn: str,
        domain: tuple[int, ...],
        dst: View,
        sources: tuple[View, ...] = (),
        immediates: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Emit an elementwise VEC."""
        self._strided(Opcode.VEC, Engine.VE, domain, dst, sources, fn=fn, immediates=immediates)

    def copy(self, domain: tuple[int, ...], dst: View, source: View) -> None:
        """Emit a copy within the scratchpad."""
        self.vector("identity", domain, dst, (source,))

    def reduce(
        self, fn: str, domain: tuple[int, ...], dst: View, source: View, *, accumulate: bool
    ) -> None:
        """Emit a RED over the dimensions that `dst` lacks."""
        self._strided(Opcode.RED, Engine.VE, domain, dst, (source,), fn=fn, accumulate=accumulate)

    def matrix(
        self, domain: tuple[int, ...], dst: View, left: View, right: View, *, accumulate: bool
    ) -> None:
        """Emit an MM; the roles of dimensions follow from the strides."""
        narrow = all(view.dtype in BLOCK_SOURCES for view in (left, right))
        fn = self.block_format if narrow and dst.dtype is DType.F32 else None
        sources = (left, right)
        self._strided(
            Opcode.MM, Engine.ME, domain, dst, sources, fn=fn or "", accumulate=accumulate
        )

    def load(
        self,
        domain: tuple[int, ...],
        dst: View,
        source: View,
        sharding: Sharding,
        *,
        is_beside: bool = False,
    ) -> None:
        """Emit an LD; tiles that read the same bytes share the read if the memory can.

        One beside other loads goes to the second engine that loads, if there is one.
        """
        axes = self.replica_axes(sharding) if self.read_multicast else 0
        order = _by_distance(source)
        self._strided(
            Opcode.LD,
            Engine.DO if is_beside and self.load_engines > 1 else Engine.DI,
            _pick(domain, order),
            _reorder(dst, order),
            (_reorder(source, order),),
            axes=axes,
        )

    def store(self, domain: tuple[int, ...], dst: View, source: View, sharding: Sharding) -> None:
        """Emit an ST by one tile of each group that holds the same shard."""
        axes = self.replica_axes(sharding)
        order = _by_distance(dst)
        self._strided(
            Opcode.ST,
            Engine.DO,
            _pick(domain, order),
            _reorder(dst, order),
            (_reorder(source, order),),
            axes=axes,
        )

    def gather(
        self, domain: tuple[int, ...], dst: View, table: View, indices: View, rows: int
    ) -> None:
        """Emit a GTH; domain dimension 0 runs over the (two or more) indices."""
        head, tail = (slice(0, 1), slice(1, None))
        views = (dst, table, indices)
        merged, parts = merge_dims(domain[tail], [v.strides[tail] for v in views])
        operands = [
            v.over(v.strides[head] + strides) for v, strides in zip(views, parts, strict=True)
        ]
        self.emit(
            Micro(
                opcode=Opcode.GTH,
                engine=Engine.DI,
                domain=domain[head] + merged,
                dst=operands[0],
                sources=(operands[1], operands[2]),
                count=rows,
            )
        )

    def send(
        self,
        opcode: Opcode,
        domain: tuple[int, ...],
        dst: View,
        source: View,
        *,
        axes: int,
        shift: int,
        role: str,
    ) -> None:
        """Emit an SND or MCS."""
        self._strided(opcode, Engine.DO, domain, dst, (source,), axes=axes, shift=shift, role=role)

    def _strided(
        self,
        opcode: Opcode,
        engine: Engine,
        domain: tuple[int, ...],
        dst: View,
        sources: tuple[View, ...],
        *,
        fn: str = "",
        immediates: tuple[float, float] = (0.0, 0.0),
        accumulate: bool = False,
        axes: int = 0,
        shift: int = 0,
        role: str = "",
    ) -> None:
        if 0 in domain:
            return
        merged, strides = merge_dims(domain, [v.strides for v in (dst, *sources)])
        if len(merged) > MAX_RANK:
            raise UnsupportedOpError(
                f"plan step {self.tag}: {opcode.name} needs {len(merged)} dimensions, "
                f"an instruction has {MAX_RANK}; split the operator in the model"
            )
        operands = [view.over(s) for view, s in zip((dst, *sources), strides, strict=True)]
        self.micros.append(
            Micro(
                opcode=opcode,
                engine=engine,
                domain=merged,
                dst=operands[0],
                sources=tuple(operands[1:]),
                fn=fn,
                immediates=immediates,
                accumulate=accumulate,
                axes=axes,
                shift=shift,
                role=role,
                tag=self.tag,
            )
        )


def _by_distance(view: View) -> tuple[int, ...]:
    """Return the domain dimensions by falling distance, so that contiguous runs are innermost."""
    return tuple(sorted(range(len(view.strides)), key=lambda d: -abs(view.strides[d])))


def _pick(values: tuple[int, ...], order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(values[d] for d in order)


def _reorder(view: View, order: tuple[int, ...]) -> View:
    return replace(view, strides=_pick(view.strides, order))


def merge_dims(
    domain: tuple[int, ...], strides: list[tuple[int, ...]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Drop dimensions of size 1 and merge neighbours that every operand walks as one.

    >>> merge_dims((2, 1, 3), [(12, 99, 4), (0, 0, 0)])
    ((6,), [(4,), (0,)])
    """
    sizes: list[int] = []
    columns: list[tuple[int, ...]] = []
    for size, column in zip(domain, zip(*strides, strict=True), strict=True):
        if size == 1:
            continue
        if sizes and columns[-1] == tuple([step * size for step in column]):
            sizes[-1] *= size
            columns[-1] = column
        else:
            sizes.append(size)
            columns.append(column)
    if not columns:
        return (), [()] * len(strides)
    return tuple(sizes), list(zip(*columns, strict=True))
