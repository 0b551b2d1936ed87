"""Matrix products: MatMul, Gemm, Einsum, and onnxruntime's fused forms."""

from __future__ import annotations

from tilewright.errors import ModelError, ShapeError
from tilewright.frontend.builder import Builder
from tilewright.frontend.registry import NodeContext, importer
from tilewright.frontend.values import FallbackError, Value


def numpy_matmul(b: Builder, x: Value, y: Value) -> Value:
    """Multiply with numpy's rules for vectors and batches."""
    if not x.rank or not y.rank:
        raise ShapeError(f"{b.label}: matrix product of a scalar")
    left = b.reshape(x, (1, *x.dims)) if x.rank == 1 else x
    right = b.reshape(y, (*y.dims, 1)) if y.rank == 1 else y
    result = b.matmul(left, right)
    shape = list(result.dims)
    if y.rank == 1:
        del shape[-1]
    if x.rank == 1:
        del shape[-1 if y.rank == 1 else -2]
    return b.reshape(result, shape)


@importer("MatMul")
def import_matmul(c: NodeContext) -> Value:
    """Matrix product with numpy semantics."""
    return numpy_matmul(c.b, c.x, c.inp(1))


def swap_last(b: Builder, x: Value) -> Value:
    """Transpose the last two axes."""
    return b.transpose(x, (*range(x.rank - 2), x.rank - 1, x.rank - 2))


@importer("Gemm")
def import_gemm(c: NodeContext) -> Value:
    """alpha a' b' + beta c, with a' and b' optionally transposed."""
    b, x, y, bias = c.b, c.x, c.inp(1), c.opt(2)
    if x.rank != 2 or y.rank != 2:
        raise ShapeError(f"{b.label}: Gemm of ranks {x.rank} and {y.rank}, expected 2 and 2")
    left = swap_last(b, x) if c.integer("transA", 0) else x
    right = swap_last(b, y) if c.integer("transB", 0) else y
    result = b.matmul(left, right)
    alpha, beta = c.number("alpha", 1.0), c.number("beta", 1.0)
    if alpha != 1.0:
        result = b.mul_const(result, alpha)
    if bias is None or beta == 0.0:
        return result
    scaled = bias if beta == 1.0 else b.mul_const(bias, beta)
    total = b.map("add", result, scaled)
    if total.dims != result.dims:
        raise ShapeError(f"{b.label}: bias {bias.dims} does not broadcast to {result.dims}")
    return total


@importer("FusedMatMul", "TransposeMatMul", domain="com.microsoft")
def import_fused_matmul(c: NodeContext) -> Value:
    """alpha a' b' with the last axes optionally transposed."""
    if c.integer("transBatchA", 0) or c.integer("transBatchB", 0):
        raise FallbackError("transposed batches are not supported")
    left = swap_last(c.b, c.x) if c.integer("transA", 0) else c.x
    right = swap_last(c.b, c.inp(1)) if c.integer("transB", 0) else c.inp(1)
    alpha = c.number("alpha", 1.0)
    result = numpy_matmul(c.b, left, right)
    return result if alpha == 1.0 else c.b.mul_const(result, alpha)


@importer("Einsum")
def import_einsum(c: NodeContext) -> Value:
    """Einsum without repeated letters inside an operand, contracted from left to right."""
    equation = c.text("equation", "").replace(" ", "")
    if "." in equation:
        raise FallbackError("Einsum with an ellipsis")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(c.values):
        raise ModelError(
            f"{c.b.label}: equation '{equation}' has {len(terms)} operands, {len(c.values)} are given"
        )
    if not arrow:
        letters = sorted(set(left) - {","})
        right = "".join(x for x in letters if left.count(x) == 1)
    for term, value in zip(terms, c.values, strict=True):
        if len(term) != value.rank:
            raise ShapeError(
                f"{c.b.label}: term '{term}' does not fit a tensor of rank {value.rank}"
            )
        if len(set(term)) != len(term):
            raise FallbackError("Einsum with a diagonal")
    if len(set(right)) != len(right) or not set(right) <= set("".join(terms)):
        raise ModelError(f"{c.b.label}: output term '{right}' is invalid")
    value, term = c.values[0], terms[0]
    for index in range(1, len(terms)):
        later = right + "".join(terms[index + 1 :])
        value, term = _contract(c.b, value, term, c.values[index], terms[index], later)
    value, term = _sum_out(c.b, value, term, right)
    return c.b.transpose(value, [term.index(x) for x in right])


def _sum_out(b: Builder, value: Value, term: str, kept: str) -> tuple[Value, str]:
    axes = [i for i, x in enumerate(term) if x not in kept]
    return b.reduce("sum", value, axes, keepdims=False), "".join(x for x in term if x in kept)


def _contract(b: Builder, x: Value, tx: str, y: Value, ty: str, later: str) -> tuple[Value, str]:
    """Contract two operands; letters in `later` survive."""
    x, tx = _sum_out(b, x, tx, ty + later)
    y, ty = _sum_out(b, y, ty, tx + later)
    batch = [i for i in tx if i in ty and i in later]
    inner = [i for i in tx if i in ty and i not in later]
    rows = [i for i in tx if i not in ty]
    columns = [i for i in ty if i not in tx]
    sizes = dict(zip(ty, y.dims, strict=True)) | dict(zip(tx, x.dims, strict=True))
    for letter in (*batch, *inner):
        if y.dims[ty.index(letter)] != sizes[letter]:
            raise ShapeError(
                f"{b.label}: axis '{letter}' has sizes {sizes[letter]} and {y.dims[ty.index(letter)]}"
            )

    def size(letters: list[str]) -> int:
        result = 1
        for letter in letters:
            result *= sizes[letter]
        return result

    lead = [sizes[i] for i in batch]
    left = b.transpose(x, [tx.index(i) for i in (*batch, *rows, *inner)])
    right = b.transpose(y, [ty.index(i) for i in (*batch, *inner, *columns)])
    product = b.matmul(
        b.reshape(left, (*lead, size(rows), size(inner))),
        b.reshape(right, (*lead, size(inner), size(columns))),
    )
    letters = (*batch, *rows, *columns)
    return b.reshape(product, [sizes[i] for i in letters]), "".join(letters)
