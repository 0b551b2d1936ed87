"""Two products, of which the second uses what is between them a slice at a time."""

from __future__ import annotations

from functools import partial

from tilewright.dtypes import DType
from tilewright.extract.kernel import Family, accumulator_type, chain_of
from tilewright.lowering.emit import View
from tilewright.lowering.kernels.context import KernelContext, LoopBox
from tilewright.lowering.kernels.contract import finish_sums
from tilewright.lowering.kernels.registry import generates
from tilewright.lowering.kernels.steps import run_steps, value_view


@generates(Family.CHAIN)
def chain(context: KernelContext) -> None:
    """Emit the sequence of `tilewright.extract.chain` for each box.

    The slice of the next box is multiplied before this one is used, so that the matrix unit has work while
    the vector unit runs the pipeline.
    """
    emitter = _Emitter(context)
    for turn, box in context.boxes_ahead(emitter.multiply):
        emitter.map(box, turn)
        emitter.add(box, turn)
        if box.is_last:
            finish_sums(context, box)
            context.store_result(box)


class _Emitter:
    """The parts of one chain."""

    def __init__(self, context: KernelContext) -> None:
        self._context, self._builder = context, context.builder
        self._chain = chain_of(context.kernel)
        self._nest = context.kernel.nest

    def _slice(self, box: LoopBox, turn: int, dtype: DType) -> View:
        """Return where a slice lies while it has a type."""
        name = self._chain.slice_name(dtype, turn)
        return self._context.boxed(name, dtype, self._chain.between_map, box)

    def multiply(self, box: LoopBox, turn: int) -> None:
        """Emit the first product."""
        chain, (a, b, *_) = self._chain, self._nest.operands
        self._context.multiply(
            chain.domain(box.sizes, a, b),
            self._slice(box, turn, chain.types[0]),
            self._context.operand(0, box),
            self._context.operand(1, box),
            on_matrix_unit=chain.on_matrix_unit[0],
            accumulate=False,
        )

    def map(self, box: LoopBox, turn: int) -> None:
        """Round the product to its type and emit the pipeline."""
        chain, view = self._chain, partial(self._slice, box, turn)
        domain = chain.domain(box.sizes, chain.between_map)
        accumulator, product, *types = chain.types
        if accumulator is not product:
            self._builder.vector("cast", domain, view(product), (view(accumulator),))
        if chain.pipeline:
            third = () if chain.third is None else (self._context.operand(3, box),)
            run_steps(
                self._context,
                chain.pipeline,
                tuple(types),
                (view(product), *third),
                box,
                domain,
                view=view,
                statistic="root",
            )

    def add(self, box: LoopBox, turn: int) -> None:
        """Emit the second product."""
        if box.is_first:
            self._context.begin_result()
        chain, c = self._chain, self._nest.operands[2]
        self._context.multiply(
            chain.domain(box.sizes, chain.between_map, c),
            value_view(self._context, accumulator_type(self._context.kernel), box),
            self._slice(box, turn, chain.types[-1]),
            self._context.operand(2, box),
            on_matrix_unit=chain.on_matrix_unit[1],
            accumulate=not box.is_first,
        )
