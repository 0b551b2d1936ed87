"""The loop nest of two products that run as one kernel: attention, chains."""

from __future__ import annotations

from tilewright.errors import ShapeError
from tilewright.graph import Op, TensorType
from tilewright.rules.index_maps import along, broadcast, identity
from tilewright.rules.loopnest import DimMap, LoopDim, LoopNest, OperandMap, Role


def two_products_nest(
    op: Op, inputs: tuple[TensorType, ...], result: TensorType, *, inner: str, combine: str
) -> LoopNest:
    """Return [*b m e d | n] of f(a b) c, where f may read one more operand.

    a: *b, m, d   b: *b, d, n   c: *b, n, e   third: *b, m, n (or 1)   -> *b, m, e. What is between the
    products needs all of d; e is whole because tiles with parts of it would all compute the same of it.

    Args:
        op: The operator, for messages.
        inputs: Types of its operands.
        result: Type of its result.
        inner: Name of the loop n, "n", or another that demands tell from a product's columns.
        combine: How its parts combine, see `LoopNest.combine`.

    Raises:
        ShapeError: The types do not fit.
    """
    where = f"{op.kind} '{op.name}'"
    a, b, c, *others = (t.shape for t in inputs)
    batch = result.rank - 2
    if {len(s) for s in (a, b, c, *others)} != {result.rank} or (a[-1], b[-1]) != (b[-2], c[-2]):
        raise ShapeError(
            f"{where}: {list(a)}, {list(b)}, {list(c)} are not [*batch, m, d], [*batch, d, n] and "
            "[*batch, n, e]"
        )
    m, e, d, n = batch, batch + 1, batch + 2, batch + 3
    loops = (
        *(LoopDim(f"b{i}", size, Role.PARALLEL) for i, size in enumerate(result.shape[:-2])),
        LoopDim("m", a[-2], Role.PARALLEL),
        LoopDim("e", c[-1], Role.WHOLE),
        LoopDim("d", a[-1], Role.WHOLE),
        LoopDim(inner, b[-1], Role.REDUCTION),
    )

    def operand(shape: tuple[int, ...], first: int, second: int) -> OperandMap:
        outer = broadcast(shape[:-2], loops[:batch], where)
        return (*outer, along(shape[-2], first), along(shape[-1], second))

    own = identity(result.shape)
    operands = [operand(a, m, d), operand(b, d, n), operand(c, n, e)]
    for other in others:
        if other[-2] not in (1, a[-2]) or other[-1] not in (1, b[-1]):
            raise ShapeError(
                f"{where}: the last operand is {list(other)}, expected 1 or {[a[-2], b[-1]]} at its end"
            )
        whole = operand(other, m, n)
        outer, last = whole[:-2], zip(whole[-2:], (a[-2], b[-1]), strict=True)
        operands.append((*outer, *(dim if dim.size == size else DimMap(1) for dim, size in last)))
    return LoopNest(loops, tuple(operands), own, combine=combine)
