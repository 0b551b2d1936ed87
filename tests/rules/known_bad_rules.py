"""Wrong rules, and why each must be refused: what the checker of rules is checked with.

Many are rules that somebody published. `KNOWN_BAD` gives the error class and a part of its message.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from egglog import String, eq, i64, join

from tilewright.errors import RuleError
from tilewright.rules.checking import (
    IllTypedRuleError,
    LoopingRuleError,
    NeedlessConditionError,
    RuleWritingError,
    UnsoundRuleError,
    VacuousRuleError,
)
from tilewright.rules.facts import column_scale, commutes, composes, is_cast, scales
from tilewright.rules.registry import Numerics, Rewrite
from tilewright.rules.terms import (
    Items,
    Tensor,
    concat,
    constant_of_type,
    conv,
    expand,
    gather,
    has_type,
    is_constant,
    layernorm,
    map1,
    map2,
    matmul,
    pad,
    pool,
    reduce,
    reshape,
    rmsnorm,
    slice_,
    softmax,
    transpose,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBad:
    """A wrong rule and its refusal."""

    function: Callable[..., Rewrite]
    error: type[RuleError]
    phrase: str
    """A regular expression that the message must contain."""
    numerics: Numerics = Numerics.REASSOCIATES
    tolerance: float | None = None


KNOWN_BAD: dict[str, KnownBad] = {}


def bad(
    error: type[RuleError],
    phrase: str,
    numerics: Numerics = Numerics.REASSOCIATES,
    tolerance: float | None = None,
) -> Callable[[Callable[..., Rewrite]], Callable[..., Rewrite]]:
    """Put a wrong rule into the corpus."""

    def register(function: Callable[..., Rewrite]) -> Callable[..., Rewrite]:
        KNOWN_BAD[function.__name__] = KnownBad(
            function=function, error=error, phrase=phrase, numerics=numerics, tolerance=tolerance
        )
        return function

    return register


def pair(x: Tensor, y: Tensor) -> Items:
    """Return a list of two tensors."""
    return Items.cons(x, Items.cons(y, Items.empty()))


# -- other values


@bad(UnsoundRuleError, "first difference at")
def sum_becomes_product(x: Tensor, y: Tensor, d: String) -> Rewrite:
    """x + y = x y."""
    return Rewrite(map2(x, y, "add", d), to=map2(x, y, "mul", d))


@bad(UnsoundRuleError, r"fn = div|fn = sub|fn = lt", Numerics.EXACT)
def commuted_anything(x: Tensor, y: Tensor, fn: String, d: String) -> Rewrite:
    """fn(x, y) = fn(y, x), whether or not fn commutes (division does not)."""
    return Rewrite(map2(x, y, fn, d), to=map2(y, x, fn, d))


@bad(UnsoundRuleError, "relu")
def relu_over_sum(x: Tensor, y: Tensor, d: String) -> Rewrite:
    """relu(x + y) = relu(x) + relu(y)."""
    return Rewrite(
        map1(map2(x, y, "add", d), "relu", d),
        to=map2(map1(x, "relu", d), map1(y, "relu", d), "add", d),
    )


@bad(UnsoundRuleError, "matmul")
def swapped_gate(x: Tensor, w: Tensor, v: Tensor, d: String) -> Rewrite:
    """silu(X W) (X V) = silu(X V) (X W): gate and up swapped (Luminal)."""
    gate, up = matmul(x, w, d), matmul(x, v, d)
    return Rewrite(
        map2(map1(gate, "silu", d), up, "mul", d), to=map2(map1(up, "silu", d), gate, "mul", d)
    )


@bad(UnsoundRuleError, "softmax", Numerics.APPROXIMATE, 1e-6)
def softmax_over_columns(x: Tensor, d: String) -> Rewrite:
    """softmax(x) = e / sum(e) with e = exp(x - max(x)), but the sum is over another axis."""
    e = map2(x, reduce(x, "max", "[0]", d), "sub|exp", d)
    return Rewrite(softmax(x, d), to=map2(e, reduce(e, "sum", "[0]", d), "div", d))


@bad(UnsoundRuleError, "layernorm", Numerics.APPROXIMATE, 1e-6)
def norm_without_centre(x: Tensor, epsilon: String, d: String) -> Rewrite:
    """layernorm(x) = rmsnorm(x)."""
    return Rewrite(layernorm(x, epsilon, d), to=rmsnorm(x, epsilon, d))


@bad(UnsoundRuleError, "128|255|256|32768|65535|0.5|[.]", Numerics.EXACT)
def narrow_and_back(x: Tensor, f: String, g: String, c: String, d: String) -> Rewrite:
    """cast(cast(x, narrow), d) = cast(x, d) for any narrow type."""
    return Rewrite(map1(map1(x, f, c), g, d), to=map1(x, g, d), when=(is_cast(f), is_cast(g)))


@bad(UnsoundRuleError, "pad")
def pad_before_any_map(x: Tensor, rest: String, fn: String, c: String, d: String) -> Rewrite:
    """f(pad(x)) = pad(f(x)), although f may change what the pad fills in."""
    return Rewrite(map1(pad(x, rest, c), fn, d), to=pad(map1(x, fn, d), rest, d))


@bad(UnsoundRuleError, "first difference", Numerics.EXACT)
def sum_in_any_order(x: Tensor, y: Tensor, z: Tensor, d: String) -> Rewrite:
    """(x + y) + z = x + (y + z), said to be exact."""
    return Rewrite(
        map2(map2(x, y, "add", d), z, "add", d), to=map2(x, map2(y, z, "add", d), "add", d)
    )


@bad(UnsoundRuleError, "reduce")
def max_of_negative(x: Tensor, axes: String, d: String) -> Rewrite:
    """max(-x) = -max(x)."""
    return Rewrite(
        reduce(map1(x, "neg", d), "max", axes, d), to=map1(reduce(x, "max", axes, d), "neg", d)
    )


@bad(UnsoundRuleError, "expand")
def sum_of_expanded(x: Tensor, s: String, axes: String, d: String) -> Rewrite:
    """sum(expand(x)) = sum(x), which forgets how often."""
    return Rewrite(
        reduce(expand(x, s, d), "sum", axes, d),
        to=expand(reduce(x, "sum", axes, d), "[1, 1]", d),
        when=(eq(s).to(String("[1, 2]")), eq(axes).to(String("[1]"))),
    )


@bad(UnsoundRuleError, "gather")
def gather_forgets_its_order(x: Tensor, i: Tensor, axis: String, d: String) -> Rewrite:
    """sum(gather(x, i)) = sum(x): a gather taken for a permutation."""
    picked = gather(x, i, axis, d)
    return Rewrite(
        reduce(picked, "sum", "[0]", d),
        to=reduce(x, "sum", "[0]", d),
        when=(eq(axis).to(String("0")),),
    )


@bad(UnsoundRuleError, "pool")
def pool_of_negative(x: Tensor, rest: String, d: String) -> Rewrite:
    """pool(-x) = -pool(x), true for sums only."""
    return Rewrite(pool(map1(x, "neg", d), rest, d), to=map1(pool(x, rest, d), "neg", d))


@bad(UnsoundRuleError, "scales|column")
def scale_of_rows_into_weight(
    a: Tensor, w: Tensor, s: Tensor, fn: String, d: String, i: i64, j: i64
) -> Rewrite:
    """Let A (W s) = (A s) W, when s scales columns."""
    return Rewrite(
        matmul(a, map2(w, s, fn, d), d),
        to=matmul(map2(a, s, fn, d), w, d),
        when=(
            *(constant_of_type(s, i), constant_of_type(w, j), column_scale(i, j)),
            scales(fn, d),
            has_type(a, j),
        ),
    )


# -- other types, or none


@bad(IllTypedRuleError, "transpose")
def transpose_dropped(x: Tensor, p: String, d: String) -> Rewrite:
    """transpose(x, p) = x."""
    return Rewrite(transpose(x, p, d), to=x)


@bad(IllTypedRuleError, "composes")
def transposes_in_wrong_order(x: Tensor, p: String, q: String, r: String, d: String) -> Rewrite:
    """transpose(transpose(x, p), q) = transpose(x, q o p)."""
    return Rewrite(
        transpose(transpose(x, p, d), q, d), to=transpose(x, r, d), when=(composes(q, p, r),)
    )


@bad(IllTypedRuleError, "slice")
def slice_of_sum_under_broadcasting(x: Tensor, y: Tensor, rest: String, d: String) -> Rewrite:
    """slice(x + y) = slice(x) + slice(y): wrong once one of them broadcasts (TENSAT)."""
    return Rewrite(
        slice_(map2(x, y, "add", d), rest, d),
        to=map2(slice_(x, rest, d), slice_(y, rest, d), "add", d),
    )


@bad(IllTypedRuleError, "concat")
def concat_of_sums_under_broadcasting(
    x: Tensor, y: Tensor, z: Tensor, w: Tensor, axis: String, d: String
) -> Rewrite:
    """concat(x + y, z + w) = concat(x, z) + concat(y, w): wrong under broadcasting (TENSAT)."""
    return Rewrite(
        concat(pair(map2(x, y, "add", d), map2(z, w, "add", d)), axis, d),
        to=map2(concat(pair(x, z), axis, d), concat(pair(y, w), axis, d), "add", d),
    )


@bad(UnsoundRuleError, '"groups": 2')
def joined_convolutions_with_groups(
    x: Tensor, w: Tensor, v: Tensor, rest: String, d: String, i: i64
) -> Rewrite:
    """concat(conv(x, w), conv(x, v)) = conv(x, [w; v]), which needs one group (TENSAT)."""
    return Rewrite(
        concat(pair(conv(x, w, rest, d), conv(x, v, rest, d)), "1", d),
        to=conv(x, concat(pair(w, v), "0", d), rest, d),
        when=(has_type(w, i), has_type(v, i), scales("mul", d)),
    )


@bad(IllTypedRuleError, "reshape")
def rows_split_without_divisor(x: Tensor, s: String, d: String) -> Rewrite:
    """reshape(x, s) = reshape(x, [2, -1]) for a number of elements that 2 may not divide."""
    return Rewrite(reshape(x, s, d), to=reshape(reshape(x, "[2, 2]", d), s, d))


@bad(IllTypedRuleError, "scale|column_scale|broadcast|equal or 1|matmul")
def scale_of_any_shape(a: Tensor, w: Tensor, s: Tensor, fn: String, d: String) -> Rewrite:
    """(A W) s = A (W s), without asking that s is one number a column."""
    return Rewrite(
        map2(matmul(a, w, d), s, fn, d),
        to=matmul(a, map2(w, s, fn, d), d),
        when=(is_constant(w), is_constant(s), scales(fn, d)),
    )


# -- badly written


@bad(RuleWritingError, "right side uses 'y', which neither")
def unbound_variable(x: Tensor, y: Tensor, d: String) -> Rewrite:
    """relu(x) = y for any y."""
    return Rewrite(map1(x, "relu", d), to=y)


@bad(RuleWritingError, "condition 1 is the Python bool False")
def divisible(x: Tensor, s: String, d: String, n: i64, p: i64) -> Rewrite:
    """reshape(x, s) = x when p divides n."""
    return Rewrite(reshape(x, s, d), to=x, when=(n % p == 0,))  # type: ignore[arg-type]


@bad(RuleWritingError, "has a Python 'and'")
def two_facts_with_and(x: Tensor, p: String, q: String, d: String) -> Rewrite:
    """transpose(transpose(x, p), q) = x when p and q are the identity."""
    both = eq(p).to(String("[0, 1]")) and eq(q).to(String("[0, 1]"))
    return Rewrite(transpose(transpose(x, p, d), q, d), to=x, when=(both,))


@bad(RuleWritingError, "no docstring")
def undocumented(x: Tensor, d: String) -> Rewrite:
    return Rewrite(map1(map1(x, "neg", d), "neg", d), to=x)


@bad(RuleWritingError, "parameter 'x' has no sort")
def untyped(x, d: String) -> Rewrite:  # type: ignore[no-untyped-def]
    """neg(neg(x)) = x."""
    return Rewrite(map1(map1(x, "neg", d), "neg", d), to=x)


@bad(RuleWritingError, "raises AttributeError")
def raising(x: Tensor, s: String, d: String) -> Rewrite:
    """reshape(x, s) = x for short s."""
    return Rewrite(reshape(x, s[:3], d), to=x)  # type: ignore[index]


@bad(RuleWritingError, "left side is the bare variable 'x'")
def everything(x: Tensor) -> Rewrite:
    """x = identity(x)."""
    return Rewrite(x, to=map1(x, "identity", "f64"))


@bad(RuleWritingError, "is approximate with tolerance None", Numerics.APPROXIMATE)
def approximate_without_tolerance(x: Tensor, d: String) -> Rewrite:
    """gelu(x) = gelu_tanh(x)."""
    return Rewrite(map1(x, "gelu", d), to=map1(x, "gelu_tanh", d))


@bad(UnsoundRuleError, "gelu", Numerics.APPROXIMATE, 1e-9)
def approximate_beyond_its_tolerance(x: Tensor, d: String) -> Rewrite:
    """gelu(x) = gelu_tanh(x), said to be good to 9 digits."""
    return Rewrite(map1(x, "gelu", d), to=map1(x, "gelu_tanh", d))


# -- says nothing, asks too much, never ends


@bad(VacuousRuleError, "fires on 0 of")
def vacuous(x: Tensor, s: String, d: String, i: i64) -> Rewrite:
    """reshape(x, s) = x when its type has number -1."""
    return Rewrite(reshape(x, s, d), to=x, when=(has_type(x, i), eq(i).to(i64(-1))))


@bad(NeedlessConditionError, "column_scale.* is needed for nothing", Numerics.EXACT)
def needless(a: Tensor, b: Tensor, d: String, i: i64, j: i64) -> Rewrite:
    """a + b = b + a when a scale fits, although nothing needs that."""
    return Rewrite(
        map2(a, b, "add", d),
        to=map2(b, a, "add", d),
        when=(has_type(a, i), has_type(b, j), column_scale(i, j)),
    )


@bad(UnsoundRuleError, "fn", Numerics.EXACT)
def bound_that_values_need(a: Tensor, b: Tensor, fn: String, d: String) -> Rewrite:
    """fn(a, b) = fn(b, a), where the condition is put among the bounds."""
    return Rewrite(map2(a, b, fn, d), to=map2(b, a, fn, d), bounds=(commutes(fn),))


@bad(LoopingRuleError, "does not come to an end on .* matches grew", Numerics.EXACT)
def looping(x: Tensor, fn: String, d: String) -> Rewrite:
    """f(x) = identity(f(x)), written as one longer and longer pipeline."""
    return Rewrite(map1(x, fn, d), to=map1(x, join(fn, "|identity"), d))
