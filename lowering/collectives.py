"""Moves of a plan as micros: loads, stores, slices and the collectives along one mesh axis.

A collective tells its peers that its destination is free (`ready`), sends, and waits for the
arrivals. What differs between tiles is in the coefficients of the accesses: destinations are
addressed with the sender's coordinates, sources of SND with the receiver's.

Partial values are reduced in the order of the coordinates, so that every tile that ends up with
a copy has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from tilewright.dtypes import DType
from tilewright.extract.plan import Memory, Move, MoveKind, Placement
from tilewright.graph import TensorType
from tilewright.hwmodel.mesh import PARTIAL_MAX, is_partial, local_shape
from tilewright.lowering.emit import Builder, Storage, View, dram_storage, local_storage
from tilewright.lowering.isa import Engine, Opcode, Space
from tilewright.lowering.micro import Micro, Operand


def emit_move(
    builder: Builder, move: Move, source: Storage, type_: TensorType, name: str
) -> Storage:
    """Emit one move and return where the tensor lies afterwards.

    Args:
        builder: Takes the micros and new buffers.
        move: What to do.
        source: Where the tensor lies, as `move.before` says.
        type_: The global type of the tensor.
        name: Prefix of the names of buffers.
    """
    if type_.elements == 0 or (move.axis >= 0 and builder.mesh.sizes[move.axis] == 1):
        return replace(
            source, shape=shape_at(builder, move.after, type_), sharding=move.after.sharding
        )
    return _EXPANSIONS[move.kind](builder, move, source, type_, name)


def shape_at(builder: Builder, placement: Placement, type_: TensorType) -> tuple[int, ...]:
    """Return the shape of what lies in one memory: a shard in the scratchpad, the whole in DRAM."""
    if placement.memory is Memory.DRAM:
        return type_.shape
    return local_shape(builder.mesh, placement.sharding, type_.shape)


def new_storage(
    builder: Builder, placement: Placement, type_: TensorType, name: str, *, pinned: bool = False
) -> Storage:
    """Make a buffer for a tensor at a placement."""
    shape = shape_at(builder, placement, type_)
    size = TensorType(shape, type_.dtype).size_bytes
    if placement.memory is Memory.DRAM:
        assert not is_partial(placement.sharding), f"partial tensor '{name}' cannot lie in DRAM"
        buffer = builder.buffer(name, Space.DRAM, size, pinned=pinned)
        return dram_storage(buffer.number, type_.dtype, shape, builder.mesh, placement.sharding)
    buffer = builder.buffer(name, Space.L1, size, pinned=pinned)
    return replace(local_storage(buffer, type_.dtype, shape), sharding=placement.sharding)


def _load(builder: Builder, move: Move, source: Storage, type_: TensorType, name: str) -> Storage:
    """Every tile loads its shard."""
    made = new_storage(builder, move.after, type_, name)
    seen = dram_storage(
        source.buffer,
        type_.dtype,
        type_.shape,
        builder.mesh,
        move.after.sharding,
        source.offset_bytes,
    )
    start, rank = (0,) * type_.rank, builder.mesh.rank
    builder.load(made.shape, made.box(start, rank), seen.box(start, rank), move.after.sharding)
    return made


def _store(builder: Builder, move: Move, source: Storage, type_: TensorType, name: str) -> Storage:
    """Every distinct shard is stored once."""
    sharding = move.before.sharding
    made = new_storage(builder, Placement(Memory.DRAM, sharding), type_, name)
    start, rank = (0,) * type_.rank, builder.mesh.rank
    builder.store(source.shape, made.box(start, rank), source.box(start, rank), sharding)
    return dram_storage(made.buffer, type_.dtype, type_.shape, builder.mesh, move.after.sharding)


def _slice(builder: Builder, move: Move, source: Storage, type_: TensorType, name: str) -> Storage:
    """Every tile copies its piece of what it has."""
    _check_least_significant(move, move.after, move.dim)
    made = new_storage(builder, move.after, type_, name)
    start, rank = (0,) * type_.rank, builder.mesh.rank
    piece = pieces_view(builder, source, move.axis, move.dim, made.shape[move.dim])
    builder.copy(made.shape, made.box(start, rank), piece)
    return made


def _all_gather(
    builder: Builder, move: Move, source: Storage, type_: TensorType, name: str
) -> Storage:
    """Every tile multicasts its shard to its place in all copies."""
    _check_least_significant(move, move.before, move.dim)
    made = new_storage(builder, move.after, type_, name)
    place = pieces_view(builder, made, move.axis, move.dim, source.shape[move.dim])
    multicast(builder, move.axis, made, source.shape, place, _start(builder, source))
    return made


def _all_to_all(
    builder: Builder, move: Move, source: Storage, type_: TensorType, name: str
) -> Storage:
    """Every tile sends to each peer the piece along `to_dim` that the peer keeps."""
    _check_least_significant(move, move.before, move.dim)
    _check_least_significant(move, move.after, move.to_dim)
    made = new_storage(builder, move.after, type_, name)
    shape = tuple(
        made.shape[d] if d == move.to_dim else size for d, size in enumerate(source.shape)
    )
    piece = pieces_view(builder, source, move.axis, move.to_dim, made.shape[move.to_dim])
    place = pieces_view(builder, made, move.axis, move.dim, source.shape[move.dim])
    _exchange(builder, move.axis, made, shape, place, piece)
    return made


def _reduce_scatter(
    builder: Builder, move: Move, source: Storage, type_: TensorType, name: str
) -> Storage:
    """Every tile gathers its piece of all partial values in slots and sums them."""
    _check_least_significant(move, move.after, move.dim)
    made = new_storage(builder, move.after, type_, name)
    piece = pieces_view(builder, source, move.axis, move.dim, made.shape[move.dim])
    slots = _slots(builder, move.axis, made.shape, type_.dtype, name)
    _exchange(builder, move.axis, slots, made.shape, slot_view(builder, slots, move.axis), piece)
    _combine(builder, move, slots, _start(builder, made), made.shape)
    return made


def _all_reduce(
    builder: Builder, move: Move, source: Storage, type_: TensorType, name: str
) -> Storage:
    """Reduce pieces of the flattened value and gather them; whole values if they do not divide."""
    size, rank = builder.mesh.sizes[move.axis], builder.mesh.rank
    made = new_storage(builder, move.after, type_, name)
    elements = TensorType(source.shape, type_.dtype).elements
    flat_source, flat_made = replace_shape(source, (elements,)), replace_shape(made, (elements,))
    if elements % size:
        slots = _slots(builder, move.axis, (elements,), type_.dtype, name)
        multicast(
            builder,
            move.axis,
            slots,
            (elements,),
            slot_view(builder, slots, move.axis),
            _start(builder, flat_source),
        )
        _combine(builder, move, slots, _start(builder, flat_made), (elements,))
        return made
    shape = (elements // size,)
    slots = _slots(builder, move.axis, shape, type_.dtype, name)
    piece = pieces_view(builder, flat_source, move.axis, 0, shape[0])
    _exchange(builder, move.axis, slots, shape, slot_view(builder, slots, move.axis), piece)
    bytes_ = shape[0] * type_.dtype.itemsize_bytes
    own = local_storage(builder.buffer(f"{name}.piece", Space.L1, bytes_), type_.dtype, shape)
    _combine(builder, move, slots, own.box((0,), rank), shape)
    place = pieces_view(builder, flat_made, move.axis, 0, shape[0])
    multicast(builder, move.axis, flat_made, shape, place, own.box((0,), rank))
    return made


Expansion = Callable[[Builder, Move, Storage, TensorType, str], Storage]

_EXPANSIONS: Mapping[MoveKind, Expansion] = MappingProxyType(
    {
        MoveKind.LOAD: _load,
        MoveKind.STORE: _store,
        MoveKind.SLICE: _slice,
        MoveKind.ALL_GATHER: _all_gather,
        MoveKind.ALL_TO_ALL: _all_to_all,
        MoveKind.REDUCE_SCATTER: _reduce_scatter,
        MoveKind.ALL_REDUCE: _all_reduce,
    }
)


def _check_least_significant(move: Move, placement: Placement, dim: int) -> None:
    """Check that no later axis cuts the dimension further: its pieces would not be contiguous."""
    later = placement.sharding[move.axis + 1 :]
    assert dim not in later, (
        f"{move.kind} on axis {move.axis}: a later axis splits dimension {dim} too"
    )


def _start(builder: Builder, storage: Storage) -> View:
    return storage.box((0,) * len(storage.shape), builder.mesh.rank)


def pieces_view(builder: Builder, storage: Storage, axis: int, dim: int, length: int) -> View:
    """Return the access of piece `coordinate` on the axis, pieces being `length` long on a dimension."""
    view = _start(builder, storage)
    step = length * storage.element_strides()[dim] * storage.dtype.itemsize_bytes
    return replace(view, coefficients=_with(view.coefficients, axis, step))


def _with(coefficients: tuple[int, ...], axis: int, value: int) -> tuple[int, ...]:
    return (*coefficients[:axis], value, *coefficients[axis + 1 :])


def replace_shape(storage: Storage, shape: tuple[int, ...]) -> Storage:
    """Return the same scratchpad bytes with another shape."""
    assert storage.space is Space.L1, "only dense shards can be reinterpreted"
    return replace(storage, shape=shape, coefficients=((),) * len(shape))


def _slots(builder: Builder, axis: int, shape: tuple[int, ...], dtype: DType, name: str) -> Storage:
    """Make a buffer with a slot of the given shape for every tile of the group."""
    whole = (builder.mesh.sizes[axis], *shape)
    buffer = builder.buffer(f"{name}.slots", Space.L1, TensorType(whole, dtype).size_bytes)
    return local_storage(buffer, dtype, whole)


def slot_view(builder: Builder, slots: Storage, axis: int) -> View:
    """Return the access of the slot of the addressing tile, over one slot's shape."""
    view = pieces_view(builder, slots, axis, 0, 1)
    return replace(view, strides=view.strides[1:])


def _combine(
    builder: Builder, move: Move, slots: Storage, dst: View, shape: tuple[int, ...]
) -> None:
    fn = "max" if move.before.sharding[move.axis] == PARTIAL_MAX else "sum"
    reduce_slots(builder, fn, slots, dst, shape)


def reduce_slots(
    builder: Builder, fn: str, slots: Storage, dst: View, shape: tuple[int, ...]
) -> None:
    """Reduce the slots in the order of the coordinates.

    Args:
        builder: Takes the micro.
        fn: What combines them.
        slots: One for each tile of the line.
        dst: Where the result goes, over `shape`.
        shape: Of what lies in each slot, or a box of it.
    """
    source = _start(builder, slots)
    spread = replace(dst, strides=(0, *dst.strides))
    builder.reduce(fn, (slots.shape[0], *shape), spread, source, accumulate=False)


def _whole(builder: Builder, storage: Storage) -> Operand:
    """Return an access of all bytes of a buffer, for ordering only."""
    size = TensorType(storage.shape, storage.dtype).size_bytes
    return Operand(
        buffer=storage.buffer,
        dtype=DType.U8,
        offset_bytes=storage.offset_bytes,
        coefficients=(0,) * builder.mesh.rank,
        strides=(1,) if size > 1 else (),
    )


def ready(builder: Builder, axis: int, storage: Storage) -> None:
    """Tell the peers of an axis that a buffer may be written."""
    size = TensorType(storage.shape, storage.dtype).size_bytes
    builder.emit(
        Micro(
            opcode=Opcode.PS,
            engine=Engine.CT,
            domain=(size,) if size > 1 else (),
            dst=_whole(builder, storage),
            axes=1 << axis,
            role="ready",
        )
    )


def arrive(builder: Builder, axis: int, storage: Storage, arrivals: int) -> None:
    """Wait until so many arrivals have been posted for a buffer."""
    size = TensorType(storage.shape, storage.dtype).size_bytes
    builder.emit(
        Micro(
            opcode=Opcode.WT,
            engine=Engine.CT,
            domain=(size,) if size > 1 else (),
            dst=_whole(builder, storage),
            axes=1 << axis,
            role="arrive",
            arrivals=arrivals,
        )
    )


def multicast(
    builder: Builder, axis: int, made: Storage, shape: tuple[int, ...], place: View, source: View
) -> None:
    """Emit one multicast of every tile's `source` to `place` in all copies of `made`."""
    ready(builder, axis, made)
    builder.send(Opcode.MCS, shape, place, source, axes=1 << axis, shift=0, role="first_send")
    arrive(builder, axis, made, builder.mesh.sizes[axis] - 1)


def _exchange(
    builder: Builder, axis: int, made: Storage, shape: tuple[int, ...], place: View, piece: View
) -> None:
    """Emit an exchange with all peers, to its end."""
    begin_exchange(builder, axis, made, shape, place, piece)
    arrive(builder, axis, made, builder.mesh.sizes[axis] - 1)


def begin_exchange(
    builder: Builder, axis: int, made: Storage, shape: tuple[int, ...], place: View, piece: View
) -> None:
    """Emit sends to all peers: the piece that the receiver's coordinate names, to the sender's place.

    The own piece is copied by the vector unit. The arrivals are still to be waited for.
    """
    ready(builder, axis, made)
    for shift in range(1, builder.mesh.sizes[axis]):
        role = "first_send" if shift == 1 else "send"
        builder.send(Opcode.SND, shape, place, piece, axes=1 << axis, shift=shift, role=role)
    builder.copy(shape, place, piece)
