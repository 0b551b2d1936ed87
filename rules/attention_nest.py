"""The loop nest of fused attention."""

from __future__ import annotations

from tilewright.errors import ShapeError
from tilewright.graph import Op, TensorType
from tilewright.rules.index_maps import along, broadcast, identity
from tilewright.rules.loopnest import DimMap, LoopDim, LoopNest, OperandMap, Role


def attention_nest(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """Return [*b m e d | n]: n reduced by a running softmax, which no mesh axis may split.

    q: *b, m, d   k: *b, d, n   v: *b, n, e   mask: *b, m, n (or 1)   -> *b, m, e. Scores need all of
    d; e is whole because tiles with parts of it would all compute the same scores.

    Raises:
        ShapeError: The types do not fit.
    """
    where = f"attention '{op.name}'"
    q, k, v, *masks = (t.shape for t in inputs)
    batch = result.rank - 2
    if {len(s) for s in (q, k, v, *masks)} != {result.rank} or (q[-1], k[-1]) != (k[-2], v[-2]):
        raise ShapeError(
            f"{where}: {list(q)}, {list(k)}, {list(v)} are no queries [*batch, m, d], transposed keys "
            "[*batch, d, n] and values [*batch, n, e]"
        )
    m, e, d, n = batch, batch + 1, batch + 2, batch + 3
    loops = (
        *(LoopDim(f"b{i}", size, Role.PARALLEL) for i, size in enumerate(result.shape[:-2])),
        LoopDim("m", q[-2], Role.PARALLEL),
        LoopDim("e", v[-1], Role.WHOLE),
        LoopDim("d", q[-1], Role.WHOLE),
        LoopDim("n", k[-1], Role.REDUCTION),
    )

    def operand(shape: tuple[int, ...], first: int, second: int) -> OperandMap:
        outer = broadcast(shape[:-2], loops[:batch], where)
        return (*outer, along(shape[-2], first), along(shape[-1], second))

    own = identity(result.shape)
    operands = [operand(q, m, d), operand(k, d, n), operand(v, n, e)]
    for mask in masks:
        if mask[-2] not in (1, q[-2]) or mask[-1] not in (1, k[-1]):
            raise ShapeError(
                f"{where}: the mask is {list(mask)}, expected 1 or {[q[-2], k[-1]]} at its end"
            )
        whole = operand(mask, m, n)
        outer, last = whole[:-2], zip(whole[-2:], (q[-2], k[-1]), strict=True)
        operands.append((*outer, *(dim if dim.size == size else DimMap(1) for dim, size in last)))
    return LoopNest(loops, tuple(operands), own, combine="softmax")
