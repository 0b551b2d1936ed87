"""Ring attention: keys and values pass all tiles in chunks, a running softmax joins them.

Every tile keeps the queries of its part of the sequence, and the keys and values of its part. In each
step all tiles of the axis multicast a chunk of both, while the chunks of the step before are scored, weighed
and mixed. What a tile has made of the keys so far is a maximum, a total and a mixture for each query; so
neither all keys nor a row of scores is ever in one scratchpad.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tilewright.graph import Op
from tilewright.reference import AnyArray
from tilewright.rules.gathered import GATHERED, cut_dim
from tilewright.rules.loopnest import UNCUT, LoopNest, OperandMap
from tilewright.rules.partition.ruleset import AxisUse, partition
from tilewright.rules.partition.spmd import Coordinates, Pieces


@partition.macro(source="Liu, Zaharia & Abbeel, Ring Attention (arXiv 2310.01889)")
def ring_attention(op: Op, nest: LoopNest, size: int) -> Iterable[AxisUse]:
    """attention(Q[h, m/p], K[h, n/p], V[h, n/p], M[h, m/p, n]) = Y[h, m/p]: keys and values in chunks.

    The axis divides queries and keys. A mask lies with the queries, whole in its other direction: each
    chunk of keys takes its columns.
    """
    if op.kind != "attention":
        return
    names = [loop.name for loop in nest.dims]
    queries, keys = names.index("m"), names.index("n")
    if size < 2 or nest.dims[queries].extent % size or nest.dims[keys].extent % size:
        return
    q, k, v, *masks = nest.operands
    yield AxisUse(
        rule=f"{partition.name}.{ring_attention.__name__}",
        split_dim=queries,
        operands=(
            _along(q, queries),
            _along(k, keys),
            _along(v, keys),
            *(_along(mask, queries) for mask in masks),
        ),
        result=_along(nest.result, queries),
        macro=GATHERED,
    )


def _along(tensor: OperandMap, loop: int) -> int:
    dim = cut_dim(tensor, loop)
    return UNCUT if dim is None else dim


def attend_in_chunks(
    op: Op, tile: Coordinates, line: Sequence[Coordinates], held: Sequence[Pieces]
) -> AnyArray:
    """Return what a tile makes of its queries and of the keys and values of all tiles of its line.

    Pieces are cut into two chunks here, the second the shorter one.

    Args:
        op: The attention.
        tile: The tile.
        line: The tiles of the axis that passes keys and values on, in order.
        held: What each tile holds of queries, keys [..., d, n/p], values [..., n/p, e], and a mask.
    """
    queries, keys, values, *masks = held
    scaled = op.attrs["scale"] * queries[tile]
    length = keys[tile].shape[-1]
    half = -(-length // 2)
    state = _Running()
    for first, last in ((0, half), (half, length)):
        if first == last:
            continue
        scores = scaled @ np.concatenate([keys[peer][..., first:last] for peer in line], -1)
        for mask in masks:
            pieces = np.arange(len(line))[:, None] * length + np.arange(first, last)
            is_one = mask[tile].shape[-1] == 1
            scores = scores + (mask[tile] if is_one else mask[tile][..., pieces.ravel()])
        state.join(scores, np.concatenate([values[peer][..., first:last, :] for peer in line], -2))
    return state.result()


class _Running:
    """The softmax of all scores so far, and the values that it weighs."""

    def __init__(self) -> None:
        self._maximum: AnyArray = np.array(np.finfo(np.float64).min)
        self._total: AnyArray = np.array(0.0)
        self._mixed: AnyArray = np.array(0.0)

    def join(self, scores: AnyArray, values: AnyArray) -> None:
        """Take in the scores [..., m, c] of some keys and their values [..., c, e]."""
        maximum = np.maximum(self._maximum, scores.max(-1, keepdims=True))
        weights, rescale = np.exp(scores - maximum), np.exp(self._maximum - maximum)
        self._total = self._total * rescale + weights.sum(-1, keepdims=True)
        self._mixed = self._mixed * rescale + weights @ values
        self._maximum = maximum

    def result(self) -> AnyArray:
        """Return the mixture [..., m, e] of all values."""
        return np.asarray(self._mixed / self._total)
