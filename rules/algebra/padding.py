"""Products padded with zeros, so that the mesh divides them; the compiler pads the weights.

Only the graph's own weights are padded (`leaf`): padding what was padded, sliced or joined would go on.
"""

from __future__ import annotations

from egglog import String, eq, i64

from tilewright.rules.algebra.ruleset import algebra
from tilewright.rules.layout_facts import dtype_of
from tilewright.rules.pad_facts import pads_last, pads_rows
from tilewright.rules.part_facts import takes_all
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import Tensor, constant_of_type, has_type, matmul, pad, slice_


@algebra.rule(numerics=Numerics.REASSOCIATES, source="Glenside (MAPS 2021)")
def padded_columns(
    root: Tensor, a: Tensor, w: Tensor, p: String, r: String, d: String, t: i64, j: i64, n: i64
) -> Rewrite:
    """Let A W = slice(A pad(W)) for constant W whose columns the mesh does not divide (a vocabulary)."""
    return Rewrite(
        matmul(a, w, d),
        to=slice_(matmul(a, pad(w, p, d), d), r, d),
        when=(
            *(constant_of_type(w, j), pads_last(j, p)),
            *(has_type(root, t), takes_all(t, r), dtype_of(j, d)),
        ),
        bounds=(eq(w).to(Tensor.leaf(n)),),
    )


@algebra.rule(numerics=Numerics.REASSOCIATES, source="Glenside (MAPS 2021)")
def padded_sum(
    a: Tensor, w: Tensor, p: String, q: String, d: String, i: i64, j: i64, n: i64
) -> Rewrite:
    """Let A W = pad(A) pad(W) for constant W whose sums the mesh does not divide; zeros add nothing."""
    return Rewrite(
        matmul(a, w, d),
        to=matmul(pad(a, p, d), pad(w, q, d), d),
        when=(
            *(has_type(a, i), pads_last(i, p), dtype_of(i, d)),
            *(constant_of_type(w, j), pads_rows(j, q), dtype_of(j, d)),
        ),
        bounds=(eq(w).to(Tensor.leaf(n)),),
    )
