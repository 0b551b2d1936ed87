"""The halo exchange in front of a kernel whose windows reach over the borders of its piece.

All tiles run the same stream, so the tiles at the ends of an axis send to each other too; what arrives there
is replaced by the neutral element. `where` picks it by a flag whose address is the tile's coordinate:
the flags are 0 for the first tile and 1 for the others, read backwards for the other end.
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.dtypes import DType
from tilewright.extract.halo import section_shape
from tilewright.hwmodel.halo import reaches_all_peers
from tilewright.lowering.collectives import arrive, ready
from tilewright.lowering.emit import Storage, View
from tilewright.lowering.isa import Engine, Opcode
from tilewright.lowering.kernels.context import KernelContext, padding_value
from tilewright.lowering.micro import Micro
from tilewright.rules.halo import NO_AXIS


def exchange_halo(context: KernelContext) -> Storage:
    """Emit the exchange and return operand 0 with its surroundings.

    One dimension after the other; later ones send what came with the earlier ones, so that corners
    travel in two steps.
    """
    kernel, builder = context.kernel, context.builder
    shape = kernel.operand_types[0].shape
    buffer = context.pool("halo", kernel.operand_types[0].dtype, shape)
    neutral = context.pool("neutral", buffer.dtype, ())
    value = padding_value(kernel, buffer.dtype)
    builder.vector("fill", (), neutral.box((), context.rank), (), (value, 0.0))
    flags = _fill_flags(context)
    _fill_padding(context, buffer, value)
    source = context.operands[0]
    origin = tuple(item.low for item in kernel.halo)
    is_copied = False
    for dim, item in enumerate(kernel.halo):
        if item.axis == NO_AXIS:
            continue
        ready(builder, item.axis, buffer)
        # the piece itself can leave before it is copied; corners are only in the buffer
        _send(context, dim, buffer if is_copied else source, buffer)
        if not is_copied:
            sizes = tuple(item.size for item in kernel.halo)
            start = source.box((0,) * len(sizes), context.rank)
            builder.copy(sizes, buffer.box(origin, context.rank), start)
            is_copied = True
        sends = (item.low > 0) + (item.high > 0)
        posts = 0 if reaches_all_peers(builder.mesh.sizes[item.axis], item.low, item.high) else 1
        peers = builder.mesh.sizes[item.axis] - 1
        arrive(builder, item.axis, buffer, sends + posts * peers)
        _mask(context, dim, buffer, neutral, flags[dim])
    return buffer


def _fill_flags(context: KernelContext) -> dict[int, Storage]:
    """Fill the flags of each axis; return them by dimension."""
    kernel, builder = context.kernel, context.builder
    found, start = {}, 0
    sizes = {d: builder.mesh.sizes[i.axis] for d, i in enumerate(kernel.halo) if i.axis != NO_AXIS}
    everything = context.pool("flags", DType.BOOL, (sum(sizes.values()),))
    for dim, size in sizes.items():
        flags = replace(everything, shape=(size,), offset_bytes=start)
        builder.vector("fill", (size,), flags.box((0,), context.rank), (), (1.0, 0.0))
        builder.vector("fill", (1,), flags.box((0,), context.rank), (), (0.0, 0.0))
        found[dim] = flags
        start += size * DType.BOOL.itemsize_bytes
    return found


def _fill_padding(context: KernelContext, buffer: Storage, value: float) -> None:
    """Fill what lies around the image on dimensions that no axis splits."""
    for dim, item in enumerate(context.kernel.halo):
        if item.axis != NO_AXIS:
            continue
        for first, length in ((0, item.low), (item.low + item.size, item.high)):
            start = tuple(first if d == dim else 0 for d in range(len(buffer.shape)))
            domain = tuple(length if d == dim else n for d, n in enumerate(buffer.shape))
            context.builder.vector(
                "fill", domain, buffer.box(start, context.rank), (), (value, 0.0)
            )


def _section(
    context: KernelContext, dim: int, storage: Storage, first: int, length: int
) -> tuple[tuple[int, ...], View]:
    """Return the domain and the view of some rows of the exchange on a dimension.

    Args:
        context: The kernel.
        dim: The dimension.
        storage: The buffer with its surroundings, or the piece alone.
        first: First index on the dimension, relative to the piece.
        length: Rows.
    """
    halo = context.kernel.halo
    domain = tuple(
        length if d == dim else n for d, n in enumerate(section_shape(context.kernel, dim))
    )
    has_halo = storage.shape == tuple(item.whole for item in halo)
    start = []
    for d, item in enumerate(halo):
        came_before = d < dim and item.axis != NO_AXIS
        base = item.low if has_halo and not came_before else 0
        start.append(base + first if d == dim else base)
    return domain, storage.box(tuple(start), context.rank)


def _send(context: KernelContext, dim: int, source: Storage, buffer: Storage) -> None:
    """Send the last rows to the successor and the first ones to the predecessor.

    Where some peer is no neighbour, the engine says last to all that it has sent: nobody may ask
    for the next exchange before all have made this one.
    """
    item, builder = context.kernel.halo[dim], context.builder
    role = "first_send"
    for shift, taken, placed, length in (
        (1, item.size - item.low, -item.low, item.low),
        (-1, 0, item.size, item.high),
    ):
        if not length:
            continue
        domain, rows = _section(context, dim, source, taken, length)
        _, place = _section(context, dim, buffer, placed, length)
        builder.send(Opcode.SND, domain, place, rows, axes=1 << item.axis, shift=shift, role=role)
        role = "send"
    if not reaches_all_peers(builder.mesh.sizes[item.axis], item.low, item.high):
        builder.emit(Micro(opcode=Opcode.PS, engine=Engine.DO, axes=1 << item.axis, role="send"))


def _mask(
    context: KernelContext, dim: int, buffer: Storage, neutral: Storage, flags: Storage
) -> None:
    """Replace what came around the ends of the axis by the neutral element."""
    item, builder = context.kernel.halo[dim], context.builder
    size = builder.mesh.sizes[item.axis]
    for placed, length, first, step in (
        (-item.low, item.low, 0, 1),
        (item.size, item.high, size - 1, -1),
    ):
        if not length:
            continue
        domain, rows = _section(context, dim, buffer, placed, length)
        flag = flags.view((first,), ((-1, 0),) * len(domain), context.rank)
        coefficients = tuple(step if a == item.axis else 0 for a in range(context.rank))
        element = neutral.view((), ((-1, 0),) * len(domain), context.rank)
        builder.vector(
            "where", domain, rows, (replace(flag, coefficients=coefficients), rows, element)
        )
