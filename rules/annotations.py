"""Loop nests of every operator kind: one documented function for each.

Indices in the docstrings are those of the tensor dimensions, loops stand in brackets with
reductions after the bar. Loop dimensions of extent 1 keep their place in the nest; in mixed-radix
index sums (`C g + c`) their terms are left out, so that the other term is the major one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from math import prod

from tilewright.errors import ShapeError, UnsupportedOpError
from tilewright.graph import Op, TensorType, dequantises, third_operands
from tilewright.rules.index_maps import along, broadcast, identity, mixed_radix, window
from tilewright.rules.inference import broadcast_shapes
from tilewright.rules.loopnest import DimMap, LoopDim, LoopNest, OperandMap, Role, Term
from tilewright.rules.refinement import reshape_nest
from tilewright.rules.two_products import two_products_nest

Annotation = Callable[[Op, tuple[TensorType, ...], TensorType], LoopNest]

_ANNOTATIONS: dict[str, Annotation] = {}


def annotation(kind: str) -> Callable[[Annotation], Annotation]:
    """Register a function as the annotation of an operator kind."""

    def register(function: Annotation) -> Annotation:
        assert kind not in _ANNOTATIONS, f"{kind} is annotated twice"
        assert function.__doc__, f"the annotation of {kind} has no docstring"
        _ANNOTATIONS[kind] = function
        return function

    return register


def annotated_kinds() -> tuple[str, ...]:
    """Return the operator kinds that have an annotation, sorted."""
    return tuple(sorted(_ANNOTATIONS))


def annotate(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest | None:
    """Return the loop nest of an operator; None for host regions.

    Args:
        op: The operator; only its kind and attributes matter. A matmul or conv may be fused: it has
            the attribute `epilogue`, and perhaps a third input that broadcasts to the result.
        inputs: Types of its inputs.
        result: Type of its output.

    Raises:
        UnsupportedOpError: The kind has no annotation.
        ShapeError: The types do not fit the operator.
    """
    if op.kind == "host":
        return None
    if op.kind not in _ANNOTATIONS:
        raise UnsupportedOpError(
            f"{op.kind} '{op.name}' has no annotation; add one to rules/annotations.py"
        )
    return _ANNOTATIONS[op.kind](op, inputs, result)


def _dims(result: TensorType) -> tuple[LoopDim, ...]:
    """Return one parallel loop for each dimension of a tensor."""
    return tuple(LoopDim(f"d{i}", size, Role.PARALLEL) for i, size in enumerate(result.shape))


def _with_others(
    op: Op,
    inputs: tuple[TensorType, ...],
    operands: tuple[OperandMap, ...],
    own: OperandMap,
) -> tuple[OperandMap, ...]:
    """Append the third operand of a fused product and the scale of weights that it dequantises."""
    where = f"{op.kind} '{op.name}'"
    third = tuple(
        _onto(type_, own, f"{where}: the third operand")
        for type_ in third_operands(op.attrs, inputs)
    )
    if not dequantises(op.attrs):
        return (*operands, *third)
    return (*operands, *third, _onto(inputs[-1], operands[1], f"{where}: the scale"))


def _onto(tensor: TensorType, own: OperandMap, what: str) -> OperandMap:
    """Return the map of a tensor that broadcasts to another one."""
    if tensor.rank != len(own):
        raise ShapeError(f"{what} has rank {tensor.rank}, expected {len(own)}")
    maps = []
    for i, (size, target) in enumerate(zip(tensor.shape, own, strict=True)):
        if size not in (1, target.size):
            raise ShapeError(f"{what} has size {size} on axis {i}, expected 1 or {target.size}")
        maps.append(target if size == target.size else DimMap(1))
    return tuple(maps)


@annotation("matmul")
def _matmul(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[*b m n | k]   a: *b, m, k   b: *b, k, n   third: *b, m, n   scale: as b   -> *b, m, n.

    With permutations, the dimensions of a tensor come in another order.
    """
    a, b = op.permuted("perm_a", inputs[0].shape), op.permuted("perm_b", inputs[1].shape)
    if len(a) != len(b) or len(a) < 2:
        raise ShapeError(
            f"matmul '{op.name}': ranks are {len(a)} and {len(b)}, expected equal ranks >= 2"
        )
    if a[-1] != b[-2]:
        raise ShapeError(f"matmul '{op.name}': K is {a[-1]} on the left, {b[-2]} on the right")
    batch = len(a) - 2
    m, n, k = batch, batch + 1, batch + 2
    where = f"matmul '{op.name}'"
    batches = broadcast_shapes((a[:-2], b[:-2]), where)
    loops = (
        *(LoopDim(f"b{i}", size, Role.PARALLEL) for i, size in enumerate(batches)),
        LoopDim("m", a[-2], Role.PARALLEL),
        LoopDim("n", b[-1], Role.PARALLEL),
        LoopDim("k", a[-1], Role.REDUCTION),
    )
    left = (*broadcast(a[:-2], loops[:batch], where), along(a[-2], m), along(a[-1], k))
    right = (*broadcast(b[:-2], loops[:batch], where), along(b[-2], k), along(b[-1], n))
    product = identity((*batches, a[-2], b[-1]))
    own = _in_order(op, "perm_out", product)
    operands = (_undone(op, "perm_a", left), _undone(op, "perm_b", right))
    return LoopNest(loops, _with_others(op, inputs, operands, own), own)


def _in_order(op: Op, key: str, tensor: OperandMap) -> OperandMap:
    """Return the map of a tensor after the transposition that an optional attribute names."""
    return tuple(tensor[i] for i in op.ints(key)) if key in op.attrs else tensor


def _undone(op: Op, key: str, tensor: OperandMap) -> OperandMap:
    """Return the map of a tensor before the transposition that an optional attribute names."""
    if key not in op.attrs:
        return tensor
    perm = op.ints(key)
    return tuple(tensor[perm.index(i)] for i in range(len(perm)))


@annotation("conv")
def _conv(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """Slide a kernel over an image; C and O are channels of one group.

    [n g o h w | c r s]   x: n, C g + c, sh h + dh r - top, sw w + dw s - left   w: O g + o, c, r, s
    third: as the result   -> n, O g + o, h, w
    """
    x, w = inputs[0].shape, inputs[1].shape
    groups = op.integer("groups")
    if x[1] != w[1] * groups or w[0] % groups:
        raise ShapeError(
            f"conv '{op.name}': input has {x[1]} channels, weights take {w[1]} in each of "
            f"{groups} groups and make {w[0]}"
        )
    stride, dilation, pads = op.ints("strides"), op.ints("dilations"), op.ints("pads")
    _, _, oh, ow = result.shape
    extents = (x[0], groups, w[0] // groups, oh, ow, w[1], w[2], w[3])
    loops = tuple(
        LoopDim(name, extent, Role.PARALLEL if i < 5 else Role.REDUCTION)
        for i, (name, extent) in enumerate(zip("ngohwcrs", extents, strict=True))
    )
    own = (along(x[0], 0), mixed_radix(w[0], loops, (1, 2)), along(oh, 3), along(ow, 4))
    operands = (
        (
            along(x[0], 0),
            mixed_radix(x[1], loops, (1, 5)),
            window(x[2], 3, stride[0], 6, dilation[0], pads[0]),
            window(x[3], 4, stride[1], 7, dilation[1], pads[1]),
        ),
        (mixed_radix(w[0], loops, (1, 2)), along(w[1], 5), along(w[2], 6), along(w[3], 7)),
    )
    return LoopNest(loops, _with_others(op, inputs, operands, own), own)


@annotation("pool")
def _pool(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[n c h w | r s]   x: n, c, sh h + dh r - top, sw w + dw s - left   -> n, c, h, w."""
    x = inputs[0].shape
    kernel, stride = op.ints("kernel"), op.ints("strides")
    dilation, pads = op.ints("dilations"), op.ints("pads")
    loops = tuple(
        LoopDim(name, extent, Role.PARALLEL if i < 4 else Role.REDUCTION)
        for i, (name, extent) in enumerate(zip("nchwrs", (*result.shape, *kernel), strict=True))
    )
    operand = (
        along(x[0], 0),
        along(x[1], 1),
        window(x[2], 2, stride[0], 4, dilation[0], pads[0]),
        window(x[3], 3, stride[1], 5, dilation[1], pads[1]),
    )
    return LoopNest(loops, (operand,), identity(result.shape), combine=op.text("fn"))


@annotation("map")
def _map(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[d0 d1 ...]   each operand: d0, d1, ... (size-1 dimensions broadcast)   -> d0, d1, ... ."""
    loops = _dims(result)
    operands = tuple(broadcast(t.shape, loops, f"map '{op.name}'") for t in inputs)
    return LoopNest(loops, operands, identity(result.shape))


@annotation("reduce")
def _reduce(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[d0 | d1]   x: d0, d1   -> d0, 1   for the reduced axes (1,)."""
    shape, axes = inputs[0].shape, op.ints("axes")
    loops = tuple(
        LoopDim(f"d{i}", size, Role.REDUCTION if i in axes else Role.PARALLEL)
        for i, size in enumerate(shape)
    )
    own = tuple(DimMap(1) if i in axes else along(size, i) for i, size in enumerate(shape))
    return LoopNest(loops, (identity(shape),), own, combine=op.text("fn"))


def _row_wise(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[d0 ... dn], dn whole   each operand: d0, ..., dn   -> d0, ..., dn."""
    *outer, last = _dims(result)
    loops = (*outer, LoopDim(last.name, last.extent, Role.WHOLE))
    own = identity(result.shape)
    return LoopNest(loops, (own,) * len(inputs), own)


@annotation("softmax")
def _softmax(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[d0 ... dn], dn whole   x: d0, ..., dn   -> d0, ..., dn."""
    return _row_wise(op, inputs, result)


@annotation("layernorm")
def _layernorm(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[d0 ... dn], dn whole   x: d0, ..., dn   y (may be there): d0, ..., dn   -> d0, ..., dn."""
    return _row_wise(op, inputs, result)


@annotation("rmsnorm")
def _rmsnorm(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[d0 ... dn], dn whole   x: d0, ..., dn   y (may be there): d0, ..., dn   -> d0, ..., dn."""
    return _row_wise(op, inputs, result)


@annotation("attention")
def _attention(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[*b m e d | n], e d whole   q: *b, m, d   k: *b, d, n   v: *b, n, e   mask: *b, m, n   -> *b, m, e."""
    return two_products_nest(op, inputs, result, inner="n", combine="softmax")


@annotation("chain")
def _chain(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[*b m e d | h], e d whole   a: *b, m, d   b: *b, d, h   c: *b, h, e   t: *b, m, h   -> *b, m, e.

    An operand of the epilogue is the last one: *b, m, e.
    """
    count = len(inputs) - len(third_operands(op.attrs, inputs))
    nest = two_products_nest(op, inputs[:count], result, inner="h", combine="sum")
    return replace(nest, operands=_with_others(op, inputs, nest.operands, nest.result))


@annotation("reshape")
def _reshape(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """Walk along the common refinement of both shapes, most significant digit first.

    [128, 384] -> [128, 12, 32]   [a h d]   x: a, 32 h + d   -> a, h, d
    """
    before, after = inputs[0].shape, result.shape
    if prod(before) != prod(after):
        raise ShapeError(
            f"reshape '{op.name}': {list(before)} and {list(after)} differ in elements"
        )
    return reshape_nest(before, after)


@annotation("transpose")
def _transpose(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[d0 d1]   x: d1, d0   -> d0, d1   for the permutation (1, 0)."""
    perm = op.ints("perm")
    shape = inputs[0].shape
    operand = tuple(along(size, perm.index(i)) for i, size in enumerate(shape))
    return LoopNest(_dims(result), (operand,), identity(result.shape))


@annotation("slice")
def _slice(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[d0 d1]   x: step0 d0 + start0, step1 d1 + start1   -> d0, d1."""
    starts, steps = op.ints("starts"), op.ints("steps")
    operand = tuple(
        DimMap(size, (Term(i, steps[i]),), offset=starts[i])
        for i, size in enumerate(inputs[0].shape)
    )
    return LoopNest(_dims(result), (operand,), identity(result.shape))


@annotation("concat")
def _concat(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[d0 d1]   operand i: d0, d1 - (sizes of operands before it)   -> d0, d1   for axis 1.

    Each operand covers its own range of the axis; indices outside of it belong to the others.
    """
    axis = op.integer("axis")
    starts = accumulate((t.shape[axis] for t in inputs), initial=0)
    operands = tuple(_at(t.shape, axis, start) for t, start in zip(inputs, starts, strict=False))
    return LoopNest(_dims(result), operands, identity(result.shape))


def _at(shape: tuple[int, ...], axis: int, start: int) -> OperandMap:
    """Return the map of a tensor that begins at index `start` of loop `axis`."""
    return tuple(
        DimMap(size, (Term(i, 1),), offset=-start) if i == axis else along(size, i)
        for i, size in enumerate(shape)
    )


@annotation("pad")
def _pad(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[d0 d1]   x: d0, d1 - begin1   -> d0, d1   when only dimension 1 is padded."""
    begins = op.ints("begins")
    operand = tuple(
        DimMap(size, (Term(i, 1),), offset=-begins[i]) for i, size in enumerate(inputs[0].shape)
    )
    return LoopNest(_dims(result), (operand,), identity(result.shape))


@annotation("expand")
def _expand(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[d0 d1]   x: d0, 0   -> d0, d1   when dimension 1 is broadcast."""
    loops = _dims(result)
    operand = broadcast(inputs[0].shape, loops, f"expand '{op.name}'")
    return LoopNest(loops, (operand,), identity(result.shape))


@annotation("gather")
def _gather(op: Op, inputs: tuple[TensorType, ...], result: TensorType) -> LoopNest:
    """[d0 i d2]   table: d0, all, d2   indices: i   -> d0, i, d2   for axis 1."""
    axis = op.integer("axis")
    table, indices = inputs[0].shape, inputs[1].shape
    operand = tuple(
        DimMap(size, whole=True) if i == axis else along(size, i) for i, size in enumerate(table)
    )
    return LoopNest(_dims(result), (operand, (along(indices[0], axis),)), identity(result.shape))
