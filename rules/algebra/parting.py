"""Products of integers with joined operands, part by part: a cache is read where it lies, beside what is new.

Sums of whole numbers do not depend on their order. Floats are left out: what adds up columns otherwise may
round otherwise.
"""

from __future__ import annotations

from egglog import String, i64

from tilewright.rules.algebra.ruleset import algebra
from tilewright.rules.facts import is_integer
from tilewright.rules.joint_facts import joins_columns, joins_rows, multiplies
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import Tensor, concat2, has_type, map2, matmul


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019), read from right to left")
def product_in_columns(
    root: Tensor,
    a: Tensor,
    x: Tensor,
    y: Tensor,
    axis: String,
    behind: String,
    c: String,
    d: String,
    i: i64,
    j: i64,
    r: i64,
) -> Rewrite:
    """Let A [X Y] = concat(A X, A Y) for whole numbers: new keys beside those of a cache."""
    return Rewrite(
        matmul(a, concat2(x, y, axis, c), d),
        to=concat2(matmul(a, x, d), matmul(a, y, d), behind, d),
        when=(
            *(has_type(x, i), has_type(y, j), joins_columns(i, j, axis)),
            *(has_type(root, r), joins_columns(r, r, behind)),
            is_integer(d),
        ),
    )


@algebra.rule(numerics=Numerics.EXACT, source="TASO (SOSP 2019), read from right to left")
def product_in_terms(
    a: Tensor,
    b: Tensor,
    x: Tensor,
    y: Tensor,
    last: String,
    rows: String,
    c: String,
    e: String,
    d: String,
    i: i64,
    j: i64,
    k: i64,
    m: i64,
) -> Rewrite:
    """Let [A B] [X; Y] = A X + B Y for whole numbers: new values beside those of a cache."""
    return Rewrite(
        matmul(concat2(a, b, last, c), concat2(x, y, rows, e), d),
        to=map2(matmul(a, x, d), matmul(b, y, d), "add", d),
        when=(
            *(has_type(a, i), has_type(b, j), joins_columns(i, j, last)),
            *(has_type(x, k), has_type(y, m), joins_rows(k, m, rows)),
            *(multiplies(i, k), is_integer(d)),
        ),
    )
