"""Fused attention: scores of one box of queries and keys at a time."""

from __future__ import annotations

from tilewright.extract.attention import Attention
from tilewright.extract.kernel import Family, attention_of
from tilewright.lowering.emit import View
from tilewright.lowering.kernels.context import KernelContext, LoopBox
from tilewright.lowering.kernels.registry import generates


@generates(Family.ATTENTION)
def attention(context: KernelContext) -> None:
    """Emit the sequence of `tilewright.extract.attention` for each box.

    The scores of the next box are computed before the values of this one are mixed, so that the
    matrix unit has work while the vector unit exponentiates.
    """
    emitter = _Emitter(context)
    for turn, box in context.boxes_ahead(emitter.score):
        emitter.weigh(box, turn)
        emitter.mix(box, turn)
        if box.is_last:
            emitter.finish(box)


class _Emitter:
    """The parts of one attention kernel."""

    def __init__(self, context: KernelContext) -> None:
        self._context, self._builder = context, context.builder
        self._kernel: Attention = attention_of(context.kernel)
        self._nest = context.kernel.nest

    # ------------------------------------------------------------------ views

    def _scores(self, box: LoopBox, turn: int) -> View:
        return self._context.boxed(
            f"scores{turn % 2}", self._kernel.wide, self._kernel.between_map, box
        )

    def _rows(self, name: str, box: LoopBox) -> View:
        return self._context.boxed(name, self._kernel.wide, self._kernel.row_map, box)

    def _mixed(self, box: LoopBox) -> View:
        if self._kernel.is_half:
            return self._context.temporary("mixed", self._kernel.wide, box)
        return self._context.target(box)

    def _queries(self, box: LoopBox) -> View:
        """Return the scaled queries."""
        queries = self._context.operand(0, box)
        if self._kernel.scale == 1.0:
            return queries
        q = self._nest.operands[0]
        scaled = self._context.boxed("scaled", self._kernel.dtype, q, box)
        if box.is_first:
            domain = self._kernel.domain(box.sizes, q)
            factor = (self._kernel.scale, 0.0)
            self._builder.vector("mul_const", domain, scaled, (queries,), factor)
        return scaled

    # ------------------------------------------------------------------ parts

    def score(self, box: LoopBox, turn: int) -> None:
        """Multiply queries and keys."""
        left, right = self._queries(box), self._context.operand(1, box)
        domain = self._kernel.domain(box.sizes, self._kernel.between_map, self._nest.operands[0])
        self._multiply(domain, self._scores(box, turn), left, right, accumulate=False)
        self._context.box_done(1)

    def weigh(self, box: LoopBox, turn: int) -> None:
        """Turn scores into exponentials; follow the maximum and the total of each query."""
        builder, scores = self._builder, self._scores(box, turn)
        domain = self._kernel.domain(box.sizes, self._kernel.between_map)
        per_row = self._kernel.domain(box.sizes, self._kernel.row_map)
        maximum, total = self._rows("maximum", box), self._rows("total", box)
        if self._kernel.is_masked:
            # the type of a sum is that of its second operand
            builder.vector("add", domain, scores, (self._context.operand(3, box), scores))
        if box.is_first:
            builder.vector("fill", per_row, maximum, (), (self._kernel.wide.lowest, 0.0))
            builder.reduce("max", domain, maximum, scores, accumulate=True)
        else:
            rescale = self._rows("rescale", box)
            builder.copy(per_row, rescale, maximum)
            builder.reduce("max", domain, maximum, scores, accumulate=True)
            builder.vector("sub", per_row, rescale, (rescale, maximum))
            builder.vector("exp", per_row, rescale, (rescale,))
            builder.vector("mul", per_row, total, (total, rescale))
        builder.vector("sub", domain, scores, (scores, maximum))
        builder.vector("exp", domain, scores, (scores,))
        builder.reduce("sum", domain, total, scores, accumulate=not box.is_first)

    def mix(self, box: LoopBox, turn: int) -> None:
        """Add the values of a box, weighed by the exponentials, to the mixture."""
        builder, weights = self._builder, self._scores(box, turn)
        if self._kernel.is_half:
            wide, tensor = weights, self._kernel.between_map
            weights = self._context.boxed("weights", self._kernel.dtype, tensor, box)
            builder.vector("cast", self._kernel.domain(box.sizes, tensor), weights, (wide,))
        if box.is_first:
            self._context.begin_result()
        mixed = self._mixed(box)
        own = self._kernel.domain(box.sizes, self._nest.result)
        if not box.is_first:
            builder.vector("mul", own, mixed, (mixed, self._rows("rescale", box)))
        values = self._context.operand(2, box)
        domain = self._kernel.domain(box.sizes, self._kernel.between_map, self._nest.operands[2])
        self._multiply(domain, mixed, weights, values, accumulate=not box.is_first)
        self._context.box_done(2)

    def finish(self, box: LoopBox) -> None:
        """Divide by the totals and store."""
        domain = self._kernel.domain(box.sizes, self._nest.result)
        mixed = self._mixed(box)
        self._builder.vector("div", domain, mixed, (mixed, self._rows("total", box)))
        if self._kernel.is_half:
            self._builder.vector("cast", domain, self._context.target(box), (mixed,))
        self._context.store_result(box)

    def _multiply(
        self, domain: tuple[int, ...], result: View, left: View, right: View, *, accumulate: bool
    ) -> None:
        self._context.multiply(
            *(domain, result, left, right),
            on_matrix_unit=self._kernel.on_matrix_unit,
            accumulate=accumulate,
        )
