"""Weights that a product dequantises: a box becomes floats on the vector unit before it is multiplied."""

from __future__ import annotations

from dataclasses import replace

from tilewright.extract.kernel import WEIGHTS, staging_shape, stationary_type
from tilewright.lowering.emit import View
from tilewright.lowering.kernels.context import KernelContext, LoopBox


class Dequantised:
    """The floats of the box of weights that a product reads; integers stay as they are in memory.

    There are two buffers, so that the next box is made while the matrix unit reads this one.
    """

    def __init__(self, context: KernelContext) -> None:
        self._context = context
        self._tensor = context.kernel.nest.operands[1]
        self._shape = staging_shape(context.kernel, context.tiling, 1)
        self._used_dims = sorted(context.kernel.nest.operand_loops[1])
        self._position: tuple[int, ...] | None = None

    def view(self, box: LoopBox) -> View:
        """Return the access of a box's weights; they are made unless they are there."""
        context = self._context
        ranges = context.kernel.nest.box(self._tensor, box.starts, box.sizes)
        position = tuple(box.starts[d] for d in self._used_dims)
        if position != self._position:
            self._position = position
            context.turn(WEIGHTS)
            self._make(box, tuple(high - low for low, high in ranges))
        storage = context.pool(WEIGHTS, stationary_type(context.kernel), self._shape)
        return context.loop_view(storage, self._tensor, box, tuple(low for low, _ in ranges))

    def _make(self, box: LoopBox, lengths: tuple[int, ...]) -> None:
        """Emit one product of integers and scale, along which the scale moves as seldom as it can."""
        context = self._context
        storage = context.pool(WEIGHTS, stationary_type(context.kernel), self._shape)
        made = storage.box((0,) * len(lengths), context.rank)
        integers, scale = context.operand_box(1, box), self._scale(box)
        order = sorted(range(len(lengths)), key=lambda d: scale.strides[d] == 0)

        def ordered(view: View) -> View:
            return replace(view, strides=tuple(view.strides[d] for d in order))

        domain = tuple(lengths[d] for d in order)
        context.builder.vector("mul", domain, ordered(made), (ordered(integers), ordered(scale)))

    def _scale(self, box: LoopBox) -> View:
        """Return the access of the scale over a box of weights; it stands still where it broadcasts."""
        number = len(self._context.operands) - 1
        view = self._context.operand_box(number, box)
        own = self._context.kernel.nest.operands[number]
        # a kernel that gathers may have cut a dimension of the weights in two
        steps = {dim: step for dim, step in zip(own, view.strides, strict=True) if dim.terms}
        return replace(view, strides=tuple(steps.get(dim, 0) for dim in self._tensor))
