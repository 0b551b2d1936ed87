"""An operand that arrives in chunks: one multicast a step, a step ahead of the products.

Steps alternate between two buffers. The chunk of step s + 1 is sent in front of the product of step s in
the linear order, so that its queues reach it while that product runs; step s + 2 waits, by its ready
handshake, until the product of step s has let go of its buffer on all tiles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

from tilewright.extract.kernel import Box, Kernel
from tilewright.lowering.collectives import multicast, pieces_view
from tilewright.lowering.emit import Builder, Storage, local_storage
from tilewright.lowering.micro import Buffer
from tilewright.rules.gathered import cut_dim, cut_shape
from tilewright.rules.loopnest import OperandMap


def in_pieces(storage: Storage, tensor: OperandMap, kernel: Kernel) -> Storage:
    """Return a tensor with the dimension along which the kernel gathers cut into pieces.

    Args:
        storage: The tensor, a shard in the scratchpad or the whole in DRAM.
        tensor: Its index map in the planned op's nest.
        kernel: The kernel; if it gathers nothing, the tensor is returned as it is.
    """
    if kernel.gather is None:
        return storage
    loop = kernel.gather.loop
    dim = cut_dim(tensor, loop)
    shape = cut_shape(storage.shape, dim, kernel.nest.dims[loop].extent)
    return replace(storage, shape=shape, coefficients=((),) * len(shape))


class GatheredOperand:
    """The staging of a kernel's gathered operand."""

    def __init__(
        self,
        builder: Builder,
        kernel: Kernel,
        source: Storage,
        copies: tuple[Buffer, ...],
        shape: tuple[int, ...],
        ranges: Iterable[Box],
    ) -> None:
        """Plan the steps.

        Args:
            builder: Takes the micros.
            kernel: The kernel.
            source: The tile's own piece, [..., 1, length, ...].
            copies: The staging buffers.
            shape: Shape of a chunk of all pieces, [..., p, chunk, ...].
            ranges: The part of the operand that each box of the kernel touches, in their order.
        """
        assert kernel.gather is not None, "the kernel gathers an operand"
        self._builder, self._gather, self._source = builder, kernel.gather, source
        self._copies, self._shape = copies, shape
        self._steps = tuple(key for key, _ in groupby(ranges))
        self._current = -1
        self._sent = 0

    def staged(self, ranges: Box) -> tuple[Storage, tuple[int, ...]]:
        """Return the buffer that holds a box, and the operand's index of its first element."""
        if self._current < 0 or self._steps[self._current] != ranges:
            self._current += 1
            assert self._steps[self._current] == ranges, "boxes come in order"
        while self._sent < min(self._current + 2, len(self._steps)):
            self._send(self._sent)
            self._sent += 1
        return self._buffer(self._current), tuple(low for low, _ in ranges)

    def _buffer(self, step: int) -> Storage:
        buffer = self._copies[step % len(self._copies)]
        return local_storage(buffer, self._source.dtype, self._shape)

    def _send(self, step: int) -> None:
        """Send this tile's part of a chunk to its place on every tile of the axis."""
        builder, gather = self._builder, self._gather
        made, ranges = self._buffer(step), self._steps[step]
        lengths = tuple(
            1 if dim == gather.dim else high - low for dim, (low, high) in enumerate(ranges)
        )
        place = pieces_view(builder, made, gather.axis, gather.dim, 1)
        source = self._source.box(tuple(low for low, _ in ranges), builder.mesh.rank)
        multicast(builder, gather.axis, made, lengths, place, source)
