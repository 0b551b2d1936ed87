"""Operands that arrive in chunks: one multicast a step, a step ahead of the products.

Steps alternate between two buffers. The first two chunks are sent in front of all products, those of all
operands in turn. The chunk of step s + 2 stands right behind the last product that reads that of step s,
whose buffer it takes: its ready handshake waits until that product is done on all tiles, while the product
of step s + 1 runs. Stores of results come after it, so that they do not hold it up in the sending engine's
queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby

from tilewright.extract.kernel import Box, Kernel
from tilewright.lowering.collectives import multicast, pieces_view
from tilewright.lowering.emit import Builder, Storage, local_storage
from tilewright.lowering.micro import Buffer
from tilewright.rules.gathered import cut_dim, cut_shape
from tilewright.rules.loopnest import OperandMap


def in_pieces(storage: Storage, tensor: OperandMap, kernel: Kernel) -> Storage:
    """Return a tensor with the dimension along which the kernel gathers or scatters cut into pieces.

    Args:
        storage: The tensor, a shard in the scratchpad or the whole in DRAM.
        tensor: Its index map in the planned op's nest.
        kernel: The kernel; if it does neither, the tensor is returned as it is.
    """
    loop = kernel.loop_in_pieces
    if loop is None:
        return storage
    dim = cut_dim(tensor, loop)
    shape = cut_shape(storage.shape, dim, kernel.nest.dims[loop].extent)
    return replace(storage, shape=shape, coefficients=((),) * len(shape))


class GatheredOperands:
    """The staging of all gathered operands of a kernel."""

    def __init__(self, operands: Mapping[int, GatheredOperand]) -> None:
        """Take the staging of each operand, by its number."""
        self._operands = operands
        self._is_begun = False

    def __contains__(self, operand: int) -> bool:
        """Whether an operand is gathered."""
        return operand in self._operands

    def staged(self, operand: int, ranges: Box) -> tuple[Storage, tuple[int, ...]]:
        """Return the buffer that holds a box, and the operand's index of its first element."""
        if not self._is_begun:
            self._is_begun = True
            for step in range(2):
                for gathered in self._operands.values():
                    gathered.send(step)
        return self._operands[operand].staged(ranges)

    def box_done(self, operand: int) -> None:
        """Let go of an operand's box whose last product is emitted; see `GatheredOperand.box_done`."""
        if operand in self._operands:
            self._operands[operand].box_done()


class GatheredOperand:
    """The staging of one gathered operand."""

    def __init__(
        self,
        builder: Builder,
        axis: int,
        dim: int,
        source: Storage,
        copies: tuple[Buffer, ...],
        shape: tuple[int, ...],
        ranges: Iterable[Box],
    ) -> None:
        """Plan the steps.

        Args:
            builder: Takes the micros.
            axis: The mesh axis whose tiles hold the pieces.
            dim: The operand's dimension of pieces.
            source: The tile's own piece, [..., 1, length, ...].
            copies: The staging buffers.
            shape: Shape of a chunk of all pieces, [..., p, chunk, ...].
            ranges: The part of the operand that each box of the kernel touches, in their order.
        """
        self._builder, self._axis, self._dim, self._source = builder, axis, dim, source
        self._copies, self._shape = copies, shape
        self._steps = tuple((key, len(tuple(boxes))) for key, boxes in groupby(ranges))
        self._current = 0
        self._boxes_done = 0

    def staged(self, ranges: Box) -> tuple[Storage, tuple[int, ...]]:
        """Return the buffer that holds a box, and the operand's index of its first element."""
        assert self._steps[self._current][0] == ranges, "boxes come in order"
        return self._buffer(self._current), tuple(low for low, _ in ranges)

    def box_done(self) -> None:
        """Let go of a box whose product is emitted; the last one of a step makes way for another."""
        self._boxes_done += 1
        if self._boxes_done == self._steps[self._current][1]:
            self._boxes_done = 0
            self._current += 1
            self.send(self._current + 1)

    def _buffer(self, step: int) -> Storage:
        buffer = self._copies[step % len(self._copies)]
        return local_storage(buffer, self._source.dtype, self._shape)

    def send(self, step: int) -> None:
        """Send this tile's part of a chunk, if there is one, to its place on every tile of the axis."""
        if step >= len(self._steps):
            return
        builder = self._builder
        made, (ranges, _) = self._buffer(step), self._steps[step]
        lengths = tuple(
            1 if dim == self._dim else high - low for dim, (low, high) in enumerate(ranges)
        )
        place = pieces_view(builder, made, self._axis, self._dim, 1)
        source = self._source.box(tuple(low for low, _ in ranges), builder.mesh.rank)
        multicast(builder, self._axis, made, lengths, place, source)
