"""Products whose parts of sums leave box by box to the tiles that add them up.

While the matrix unit is at a box, the one before is on its way along the first axis that scatters, the one
before that along the second, and so on. Each axis has one set of slots: what has arrived is added up when the
matrix unit is done with a box, and then the next exchange of the axis begins. So one buffer of each kind will
do.
"""

from __future__ import annotations

from tilewright.dtypes import DType
from tilewright.extract.kernel import PARTS, accumulator_type, product_shape
from tilewright.lowering.collectives import (
    arrive,
    begin_exchange,
    pieces_view,
    reduce_slots,
    slot_view,
)
from tilewright.lowering.emit import Storage, View
from tilewright.lowering.kernels.context import KernelContext, LoopBox
from tilewright.rules.scattered import Scatter


def scatter_sums(context: KernelContext, scatter: Scatter) -> None:
    """Emit one MM for each box; exchange and add up finished boxes of sums while the next ones are made."""
    scattering = _Scattering(context, scatter)
    for box in context.boxes():
        scattering.multiply(box)
        if box.is_last:
            scattering.round(box)
            scattering.advance(box)
    for _ in scatter.axes:
        scattering.advance(None)


class _Scattering:
    """The boxes that are under way, one for each axis at most."""

    def __init__(self, context: KernelContext, scatter: Scatter) -> None:
        self._context, self._builder, self._scatter = context, context.builder, scatter
        self._dtype = context.result.dtype
        self._sent: list[LoopBox | None] = [None] * len(scatter.axes)

    def multiply(self, box: LoopBox) -> None:
        """Emit the product of one box into its sums."""
        context = self._context
        if box.is_first and self._sums_type is self._dtype:
            context.turn(PARTS)
        context.multiply(
            box.sizes,
            self._made(box, self._sums_type),
            context.operand(0, box),
            context.operand(1, box),
            on_matrix_unit=context.kernel.on_matrix_unit,
            accumulate=not box.is_first,
        )

    def round(self, box: LoopBox) -> None:
        """Give a box of finished sums the type that they are sent in."""
        if self._sums_type is not self._dtype:
            domain, own = self._context.parallel(box)
            source = self._made(own, self._sums_type)
            self._builder.vector("cast", domain, self._made(own, self._dtype), (source,))

    def advance(self, made: LoopBox | None) -> None:
        """Let every box that is under way go one axis further, and send one that is made, if there is one."""
        stages = range(len(self._sent))
        for stage in reversed(stages):
            self._add_up(stage)
        arrived = [made, *self._sent]
        for stage in stages:
            self._send(stage, arrived[stage])
        done = arrived[-1]
        if done is not None:
            self._context.store_result(done)
        self._sent = arrived[:-1]

    def _send(self, stage: int, box: LoopBox | None) -> None:
        """Send the parts of a box of sums to the tiles of an axis, each what it adds up."""
        if box is None:
            return
        scatter, builder = self._scatter, self._builder
        axis, size, dim = scatter.axes[stage], scatter.sizes[stage], scatter.dim
        slots, held = self._slots(stage), self._sums(stage)
        parts = scatter.pieces(stage) // size
        begin_exchange(
            builder,
            axis,
            slots,
            self._lengths(box, parts),
            slot_view(builder, slots, axis),
            pieces_view(builder, held, axis, dim, parts),
        )

    def _add_up(self, stage: int) -> None:
        """Wait for the parts of the box that is under way on an axis, and add them up."""
        box = self._sent[stage]
        if box is None:
            return
        scatter, builder = self._scatter, self._builder
        axis, size = scatter.axes[stage], scatter.sizes[stage]
        slots = self._slots(stage)
        arrive(builder, axis, slots, size - 1)
        if stage + 1 < len(scatter.axes):
            sums = self._sums(stage + 1)
            made = sums.box((0,) * len(sums.shape), builder.mesh.rank)
        else:
            self._context.begin_result()
            made = self._context.finished(box)
        lengths = self._lengths(box, scatter.pieces(stage) // size)
        reduce_slots(builder, "sum", slots, made, lengths)

    def _sums(self, stage: int) -> Storage:
        """Return what an axis exchanges: parts of the sums of so many pieces."""
        name = f"sums{stage}" if stage else PARTS
        shape = self._shape(self._scatter.pieces(stage))
        return self._context.pool(name, self._dtype, shape)

    def _slots(self, stage: int) -> Storage:
        """Return the slots of an axis, one for what each of its tiles sends."""
        size = self._scatter.sizes[stage]
        shape = (size, *self._shape(self._scatter.pieces(stage) // size))
        return self._context.pool(f"slots{stage}", self._dtype, shape)

    def _shape(self, pieces: int) -> tuple[int, ...]:
        """Return the shape of the largest box of sums of so many pieces."""
        shape = list(product_shape(self._context.kernel, self._context.tiling))
        shape[self._scatter.dim] = pieces
        return tuple(shape)

    @property
    def _sums_type(self) -> DType:
        return accumulator_type(self._context.kernel)

    def _made(self, box: LoopBox, dtype: DType) -> View:
        """Return where the sums of a box lie while they have a type, over its loops."""
        name = PARTS if dtype is self._dtype else f"value_{dtype}"
        return self._context.boxed(name, dtype, self._context.kernel.nest.result, box)

    def _lengths(self, box: LoopBox, pieces: int) -> tuple[int, ...]:
        """Return the shape of a box of sums of so many pieces."""
        nest, dim = self._context.kernel.nest, self._scatter.dim
        ranges = nest.box(nest.result, box.starts, box.sizes)
        lengths = [high - low for low, high in ranges]
        lengths[dim] = pieces
        return tuple(lengths)
