# mypy: disable-error-code="empty-body"
"""The term language of the e-graph: sorts, typed constructors and relations.

Every constructor of `Tensor` takes its operands, then its attributes as strings, then the element
type of the result. Strings keep attributes opaque to the engine; facts about them (how permutations
compose, which functions commute) come as tables from `tilewright.rules.facts`.
"""

from __future__ import annotations

from egglog import Expr, StringLike, Unit, function, i64, i64Like, method

NO_ATTRIBUTES = "{}"
"""Text of a `rest` column without attributes."""


class Tensor(Expr, egg_sort="Tensor"):
    """A value in the global view; an e-class is one mathematical value."""

    @method(egg_fn="node", unextractable=True)
    @classmethod
    def node(cls, number: i64Like) -> Tensor:
        """Name tensor `number` of the inserted graph."""

    @method(egg_fn="nothing", unextractable=True)
    @classmethod
    def nothing(cls) -> Tensor:
        """Stand for an absent operand in `origin`."""

    @method(egg_fn="leaf")
    @classmethod
    def leaf(cls, number: i64Like) -> Tensor:
        """Return a boundary input or weight; weights are symbols, never bytes."""


class Items(Expr, egg_sort="Items"):
    """A list of tensors: the operands of a concat or host region."""

    @method(egg_fn="items", unextractable=True)
    @classmethod
    def node(cls, number: i64Like) -> Items:
        """Name list `number` of the inserted graph."""

    @method(egg_fn="empty")
    @classmethod
    def empty(cls) -> Items:
        """Return the list without elements."""

    @method(egg_fn="cons")
    @classmethod
    def cons(cls, head: Tensor, tail: Items) -> Items:
        """Return the list that starts with `head`."""


class Delivered(Expr, egg_sort="Delivered"):
    """A value as it lies on the mesh; an e-class is all ways to produce it in this layout."""

    @method(egg_fn="delivered", unextractable=True)
    @classmethod
    def at(cls, tensor: Tensor, layout: i64Like) -> Delivered:
        """Name the tensor in layout number `layout`."""

    @method(egg_fn="impl1")
    @classmethod
    def impl1(cls, a: Delivered, signature: i64Like, strategy: i64Like) -> Delivered:
        """Run an operator of one operand by a strategy of its signature."""

    @method(egg_fn="impl2")
    @classmethod
    def impl2(cls, a: Delivered, b: Delivered, signature: i64Like, strategy: i64Like) -> Delivered:
        """Run an operator of two operands."""

    @method(egg_fn="impl3")
    @classmethod
    def impl3(
        cls, a: Delivered, b: Delivered, c: Delivered, signature: i64Like, strategy: i64Like
    ) -> Delivered:
        """Run an operator of three operands."""

    @method(egg_fn="impl4")
    @classmethod
    def impl4(
        cls,
        a: Delivered,
        b: Delivered,
        c: Delivered,
        d: Delivered,
        signature: i64Like,
        strategy: i64Like,
    ) -> Delivered:
        """Run an operator of four operands."""

    @method(egg_fn="impl5")
    @classmethod
    def impl5(
        cls,
        a: Delivered,
        b: Delivered,
        c: Delivered,
        d: Delivered,
        e: Delivered,
        signature: i64Like,
        strategy: i64Like,
    ) -> Delivered:
        """Run an operator of five operands."""

    @method(egg_fn="impl_items")
    @classmethod
    def impl_items(
        cls, items: Items, layout: i64Like, signature: i64Like, strategy: i64Like
    ) -> Delivered:
        """Run an operator on a list of operands that all have one layout."""


@function(egg_fn="map1")
def map1(x: Tensor, fn: StringLike, dtype: StringLike) -> Tensor:
    """Apply a pipeline to every element."""


@function(egg_fn="map2")
def map2(x: Tensor, y: Tensor, fn: StringLike, dtype: StringLike) -> Tensor:
    """Apply a pipeline whose first function takes two values; operands broadcast."""


@function(egg_fn="map3")
def map3(x: Tensor, y: Tensor, z: Tensor, fn: StringLike, dtype: StringLike) -> Tensor:
    """Apply a pipeline whose first function takes three values; operands broadcast."""


@function(egg_fn="matmul")
def permuted_matmul(a: Tensor, b: Tensor, rest: StringLike, dtype: StringLike) -> Tensor:
    """Multiply [*batch, m, k] by [*batch, k, n]; operands and result may lie permuted in memory."""


def matmul(a: Tensor, b: Tensor, dtype: StringLike) -> Tensor:
    """Multiply [*batch, m, k] by [*batch, k, n] without permutations."""
    return permuted_matmul(a, b, NO_ATTRIBUTES, dtype)


@function(egg_fn="matmul_unary")
def matmul_unary(
    a: Tensor,
    b: Tensor,
    rest: StringLike,
    epilogue: StringLike,
    product_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Apply a pipeline to the product."""


@function(egg_fn="matmul_binary")
def matmul_binary(
    a: Tensor,
    b: Tensor,
    third: Tensor,
    rest: StringLike,
    epilogue: StringLike,
    product_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Apply a pipeline whose first function takes the product and a third operand."""


@function(egg_fn="matmul_quantised")
def matmul_quantised(
    a: Tensor, b: Tensor, scale: Tensor, rest: StringLike, dtype: StringLike
) -> Tensor:
    """Multiply a by integers b times their scale, which is applied on their way into the product."""


@function(egg_fn="matmul_quantised_unary")
def matmul_quantised_unary(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    rest: StringLike,
    epilogue: StringLike,
    product_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Apply a pipeline to the product of a and integers b times their scale."""


@function(egg_fn="matmul_quantised_binary")
def matmul_quantised_binary(
    a: Tensor,
    b: Tensor,
    third: Tensor,
    scale: Tensor,
    rest: StringLike,
    epilogue: StringLike,
    product_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Apply a pipeline whose first function takes that product and a third operand."""


@function(egg_fn="conv")
def conv(x: Tensor, w: Tensor, rest: StringLike, dtype: StringLike) -> Tensor:
    """Convolve x [n, c, h, w] with w [o, c / groups, r, s]."""


@function(egg_fn="conv_unary")
def conv_unary(
    x: Tensor,
    w: Tensor,
    rest: StringLike,
    epilogue: StringLike,
    product_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Apply a pipeline to the convolution."""


@function(egg_fn="conv_binary")
def conv_binary(
    x: Tensor,
    w: Tensor,
    third: Tensor,
    rest: StringLike,
    epilogue: StringLike,
    product_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Apply a pipeline whose first function takes the convolution and a third operand."""


@function(egg_fn="conv_quantised")
def conv_quantised(
    x: Tensor, w: Tensor, scale: Tensor, rest: StringLike, dtype: StringLike
) -> Tensor:
    """Convolve x with integers w times their scale, which is applied on their way into the product."""


@function(egg_fn="conv_quantised_unary")
def conv_quantised_unary(
    x: Tensor,
    w: Tensor,
    scale: Tensor,
    rest: StringLike,
    epilogue: StringLike,
    product_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Apply a pipeline to the convolution of x with integers w times their scale."""


@function(egg_fn="conv_quantised_binary")
def conv_quantised_binary(
    x: Tensor,
    w: Tensor,
    third: Tensor,
    scale: Tensor,
    rest: StringLike,
    epilogue: StringLike,
    product_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Apply a pipeline whose first function takes that convolution and a third operand."""


@function(egg_fn="pool")
def pool(x: Tensor, rest: StringLike, dtype: StringLike) -> Tensor:
    """Reduce sliding windows."""


@function(egg_fn="reduce")
def reduce(x: Tensor, fn: StringLike, axes: StringLike, dtype: StringLike) -> Tensor:
    """Reduce axes, keeping them as 1."""


@function(egg_fn="softmax")
def softmax(x: Tensor, dtype: StringLike) -> Tensor:
    """Normalise exponentials over the last axis."""


@function(egg_fn="layernorm")
def layernorm(x: Tensor, epsilon: StringLike, dtype: StringLike) -> Tensor:
    """Centre and scale over the last axis."""


@function(egg_fn="rmsnorm")
def rmsnorm(x: Tensor, epsilon: StringLike, dtype: StringLike) -> Tensor:
    """Scale by the root mean square over the last axis."""


@function(egg_fn="attention")
def attention(q: Tensor, k: Tensor, v: Tensor, scale: StringLike, dtype: StringLike) -> Tensor:
    """Return softmax(scale * q k) v; k is [*batch, d, n], transposed."""


@function(egg_fn="attention_masked")
def attention_masked(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: StringLike, dtype: StringLike
) -> Tensor:
    """Return softmax(scale * q k + mask) v."""


@function(egg_fn="chain")
def chain(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    between: StringLike,
    inner_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Return between(a b) c."""


@function(egg_fn="chain_unary")
def chain_unary(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    between: StringLike,
    inner_dtype: StringLike,
    epilogue: StringLike,
    product_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Apply a pipeline to between(a b) c."""


@function(egg_fn="chain_binary")
def chain_binary(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    last: Tensor,
    between: StringLike,
    inner_dtype: StringLike,
    epilogue: StringLike,
    product_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Apply a pipeline whose first function takes between(a b) c and one more operand."""


@function(egg_fn="chain_with")
def chain_with(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    t: Tensor,
    between: StringLike,
    inner_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Return between(a b, t) c."""


@function(egg_fn="chain_with_unary")
def chain_with_unary(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    t: Tensor,
    between: StringLike,
    inner_dtype: StringLike,
    epilogue: StringLike,
    product_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Apply a pipeline to between(a b, t) c."""


@function(egg_fn="chain_with_binary")
def chain_with_binary(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    t: Tensor,
    last: Tensor,
    between: StringLike,
    inner_dtype: StringLike,
    epilogue: StringLike,
    product_dtype: StringLike,
    dtype: StringLike,
) -> Tensor:
    """Apply a pipeline whose first function takes between(a b, t) c and one more operand."""


@function(egg_fn="layernorm_of_sum")
def layernorm_of_sum(x: Tensor, y: Tensor, epsilon: StringLike, dtype: StringLike) -> Tensor:
    """Centre and scale x + y over the last axis."""


@function(egg_fn="rmsnorm_of_sum")
def rmsnorm_of_sum(x: Tensor, y: Tensor, epsilon: StringLike, dtype: StringLike) -> Tensor:
    """Scale x + y by its root mean square over the last axis."""


@function(egg_fn="reshape")
def reshape(x: Tensor, shape: StringLike, dtype: StringLike) -> Tensor:
    """Give the elements another shape."""


@function(egg_fn="transpose")
def transpose(x: Tensor, perm: StringLike, dtype: StringLike) -> Tensor:
    """Permute dimensions."""


@function(egg_fn="slice")
def slice_(x: Tensor, rest: StringLike, dtype: StringLike) -> Tensor:
    """Take a strided part."""


@function(egg_fn="pad")
def pad(x: Tensor, rest: StringLike, dtype: StringLike) -> Tensor:
    """Surround with a value."""


@function(egg_fn="expand")
def expand(x: Tensor, shape: StringLike, dtype: StringLike) -> Tensor:
    """Repeat dimensions of size 1."""


@function(egg_fn="gather")
def gather(table: Tensor, indices: Tensor, axis: StringLike, dtype: StringLike) -> Tensor:
    """Pick slices of a table."""


@function(egg_fn="concat2")
def concat2(x: Tensor, y: Tensor, axis: StringLike, dtype: StringLike) -> Tensor:
    """Join two tensors along an axis."""


@function(egg_fn="concat3")
def concat3(x: Tensor, y: Tensor, z: Tensor, axis: StringLike, dtype: StringLike) -> Tensor:
    """Join three tensors along an axis."""


@function(egg_fn="concat")
def concat(items: Items, axis: StringLike, dtype: StringLike) -> Tensor:
    """Join one tensor, or more than three, along an axis; rules make the other forms."""


@function(egg_fn="opaque")
def opaque(items: Items, rest: StringLike, output: StringLike, dtype: StringLike) -> Tensor:
    """Return one output of a host region."""


MOST_OPERANDS = 5
"""Operands that a constructor may have; `origin` and the implementations have columns for them."""


@function(egg_fn="has_type")
def has_type(tensor: Tensor, number: i64Like) -> Unit:
    """Tensor has the type of this number; two types for one e-class are a wrong rule."""


@function(egg_fn="is_constant")
def is_constant(tensor: Tensor) -> Unit:
    """Tensor is known at compile time."""


@function(egg_fn="constant_of_type")
def constant_of_type(tensor: Tensor, number: i64Like) -> Unit:
    """Tensor is known at compile time and has this type; saves rules an atom."""


@function(egg_fn="all_constant")
def all_constant(items: Items) -> Unit:
    """Every tensor of the list is known at compile time."""


_MORE_THAN_RULES = 1_000_000


def _first_maker(old: i64, new: i64) -> i64:
    """Return `old`, but 0 if either is: an e-node of the inserted graph stays one."""
    return old.min(new * _MORE_THAN_RULES)


@function(egg_fn="origin", merge=_first_maker)
def origin(
    constructor: StringLike, a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, text: StringLike
) -> i64:
    """Return which rule made an e-node first; 0 means the inserted graph."""
