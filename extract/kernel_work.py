"""How much work a tiled kernel is: instructions, elements and bytes, without prices.

The counts are those of the instructions that code generation emits; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from types import MappingProxyType
from typing import NamedTuple

from tilewright.dtypes import DType
from tilewright.extract.kernel import (
    STATISTIC_STEPS,
    Family,
    Kernel,
    attention_of,
    chain_of,
    covers_part,
    epilogue_operands,
    is_padded,
    is_staged,
    last_read,
    reduces_wide,
    reduction_boxes,
    row_type,
    stationary_type,
    value_types,
)
from tilewright.extract.kernel_traffic import RESULT, Traffic, box_totals, is_nothing, transfer_work
from tilewright.extract.plan import Memory, Tiling
from tilewright.graph import STATISTIC_FUNCTIONS, dequantises, parse_pipeline
from tilewright.rules.loopnest import LoopNest, Role
from tilewright.rules.scattered import Scatter


class MatrixWork(NamedTuple):
    """`times` equal products [b, m, k] x [b, k, n], of which `adding` add to sums that are there."""

    times: int
    b: int
    m: int
    n: int
    k: int
    dtype: DType
    adding: int = 0


class VectorWork(NamedTuple):
    """`times` equal vector instructions on `elements` elements (of the source, when they reduce)."""

    times: int
    fn: str
    elements: int
    dtype: DType
    operands: int
    """Operands read and written for each element."""


@dataclass(frozen=True, slots=True)
class KernelWork:
    """All work of a kernel on one tile of the machine."""

    matrix: tuple[MatrixWork, ...]
    vector: tuple[VectorWork, ...]
    traffic: tuple[Traffic, ...]
    local_copies: tuple[tuple[int, int], ...]
    """Copies within the scratchpad by DMA-in (gathers): instructions and bytes."""


def matrix_roles(nest: LoopNest) -> tuple[str, ...]:
    """Return the role of each loop of a contraction: "b", "m", "n", "k", or "" when in one operand only."""
    left, right, *_ = nest.operand_loops
    own = nest.result_loops
    roles = {
        (True, True, True): "b",
        (True, False, True): "m",
        (False, True, True): "n",
        (True, True, False): "k",
    }
    return tuple(roles.get((d in left, d in right, d in own), "") for d in range(len(nest.dims)))


def _size_classes(nest: LoopNest, sizes: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
    """Return (number of boxes, box sizes) for each distinct size of box."""
    return [(count, box) for count, _, box in _adding_classes(nest, sizes)]


@lru_cache(maxsize=1 << 14)  # kernels that compute something else on the way have the same boxes
def _adding_classes(
    nest: LoopNest, tile_sizes: tuple[int, ...]
) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    """Return (number of boxes, how many of them are not their result's first, box sizes)."""
    classes: list[tuple[int, int, tuple[int, ...]]] = [(1, 1, ())]
    for dim, size in zip(nest.dims, tile_sizes, strict=True):
        full, rest = divmod(dim.extent, size)
        sizes = [(n, s) for n, s in ((full, size), (1, rest)) if n and s]
        is_sum = dim.role is Role.REDUCTION
        choices = [(n, int(i == 0) if is_sum else n, s) for i, (n, s) in enumerate(sizes)]
        classes = [
            (count * n, first * m, (*box, s))
            for count, first, box in classes
            for n, m, s in choices
        ]
    return tuple([(count, count - first, box) for count, first, box in classes])


def _result_classes(
    kernel: Kernel, tiling: Tiling, operand: int = RESULT
) -> tuple[tuple[int, int], ...]:
    """Return (number of result boxes, elements) for each distinct size of result box.

    Elements are those of the result, or of an operand that the result's loops walk.
    """
    return _walked_classes(kernel.nest, tiling.sizes, operand)


@lru_cache(maxsize=1 << 14)  # as above
def _walked_classes(
    nest: LoopNest, tile_sizes: tuple[int, ...], operand: int
) -> tuple[tuple[int, int], ...]:
    own = nest.result_loops if operand == RESULT else nest.operand_loops[operand]
    sizes = tuple(
        [
            s if d.role is not Role.REDUCTION else d.extent
            for s, d in zip(tile_sizes, nest.dims, strict=True)
        ]
    )
    return tuple(
        [
            (count, prod([s for d, s in enumerate(box) if d in own]))
            for count, box in _size_classes(nest, sizes)
        ]
    )


def kernel_work(kernel: Kernel, tiling: Tiling, burst_bytes: int, *, multicast: bool) -> KernelWork:
    """Count the work of a kernel.

    Args:
        kernel: The kernel.
        tiling: How it is tiled.
        burst_bytes: Smallest access of the memory.
        multicast: Whether equal reads of several tiles are served once.
    """
    if is_nothing(kernel):
        return KernelWork((), (), (), ())
    matrix, vector = unit_work(kernel, tiling)
    traffic, copies = transfer_work(kernel, tiling, burst_bytes, multicast=multicast)
    return KernelWork(matrix, vector, traffic, copies)


def unit_work(
    kernel: Kernel, tiling: Tiling
) -> tuple[tuple[MatrixWork, ...], tuple[VectorWork, ...]]:
    """Count the work of the matrix and the vector unit."""
    matrix: list[MatrixWork] = []
    vector: list[VectorWork] = []
    if is_nothing(kernel):
        return (), ()
    for operand in range(len(kernel.operand_types)):
        vector += _staging_work(kernel, tiling, operand)
    match kernel.family:
        case Family.CONTRACT:
            _contract_work(kernel, tiling, matrix, vector)
        case Family.MAP:
            vector += _pipeline_work(
                kernel, tiling, str(kernel.attrs["fn"]), len(kernel.operand_types)
            )
        case Family.REDUCE:
            vector += _reduce_work(kernel, tiling)
        case Family.ROWS:
            vector += _row_work(kernel, tiling)
        case Family.ATTENTION:
            _attention_work(kernel, tiling, matrix, vector)
        case Family.CHAIN:
            _chain_work(kernel, tiling, matrix, vector)
        case Family.COPY:
            vector += _copy_work(kernel, tiling)
        case Family.GATHER if kernel.vocabulary:
            vector += _vocabulary_work(kernel, tiling)
        case _:
            pass
    return tuple(matrix), tuple(vector)


def computes_alike(kernel: Kernel) -> bool:
    """Whether the units have the same work wherever the kernel's tensors lie."""
    if kernel.family is Family.COPY:
        return False
    return not any(is_padded(kernel, operand) for operand in range(len(kernel.operand_types)))


def _contract_work(
    kernel: Kernel, tiling: Tiling, matrix: list[MatrixWork], vector: list[VectorWork]
) -> None:
    dtype = kernel.operand_types[0].dtype
    if dequantises(kernel.attrs):
        vector += _prologue_work(kernel, tiling)
    if kernel.on_matrix_unit:
        matrix += _products(kernel.nest, tiling.sizes, dtype)
    else:
        for count, box in _size_classes(kernel.nest, tiling.sizes):
            vector.append(VectorWork(count, "mul", prod(box), dtype, 3))
            vector.append(VectorWork(count, "sum", prod(box), dtype, 1))
    vector += _finishing_work(kernel, tiling)
    if kernel.scatter is not None:
        vector += _scatter_work(kernel, tiling, kernel.scatter)


@lru_cache(maxsize=1 << 14)  # as above
def _products(nest: LoopNest, tile_sizes: tuple[int, ...], dtype: DType) -> tuple[MatrixWork, ...]:
    """Return the products of a contraction's boxes."""
    roles, found = matrix_roles(nest), []
    loops = [[d for d, role in enumerate(roles) if role == r] for r in "bmnk"]
    for count, adding, box in _adding_classes(nest, tile_sizes):
        b, m, n, k = (prod([box[d] for d in own]) for own in loops)
        found.append(MatrixWork(count, b, m, n, k, dtype, adding))
    return tuple(found)


def _finishing_work(kernel: Kernel, tiling: Tiling) -> list[VectorWork]:
    """Return what happens to each finished box of sums: rounding, epilogue."""
    accumulator, value, *_ = value_types(kernel)
    found = []
    if accumulator is not value:
        found = [
            VectorWork(n, "cast", e, accumulator, 2) for n, e in _result_classes(kernel, tiling)
        ]
    if kernel.attrs.get("epilogue"):
        operands = 1 + len(epilogue_operands(kernel))
        found += _pipeline_work(kernel, tiling, str(kernel.attrs["epilogue"]), operands)
    return found


def _scatter_work(kernel: Kernel, tiling: Tiling, scatter: Scatter) -> list[VectorWork]:
    """Return what scattering boxes of sums takes: of each axis, a copy of the own part and additions."""
    dtype, found = kernel.result_type.dtype, []
    for stage, size in enumerate(scatter.sizes):
        for count, all_elements in _result_classes(kernel, tiling):
            elements = all_elements * scatter.pieces(stage) // scatter.size
            found.append(VectorWork(count, "identity", elements // size, dtype, 2))
            found.append(VectorWork(count, "sum", elements, dtype, 1))
    return found


def _prologue_work(kernel: Kernel, tiling: Tiling) -> list[VectorWork]:
    """Return the products with the scale that make each box of weights floats.

    The scale broadcasts along the innermost dimensions, so that it hardly counts as an operand.
    """
    totals = box_totals(kernel, tiling, 1)
    return _spread(totals.loads, "mul", totals.valid_elements, stationary_type(kernel), 2)


def prologue_bytes(kernel: Kernel, tiling: Tiling) -> int:
    """Return the bytes that the scratchpad reads and writes to make weights floats."""
    quantised, floats = kernel.operand_types[1].dtype, stationary_type(kernel)
    elements = box_totals(kernel, tiling, 1).valid_elements
    return elements * (quantised.itemsize_bytes + floats.itemsize_bytes)


def _attention_work(
    kernel: Kernel, tiling: Tiling, matrix: list[MatrixWork], vector: list[VectorWork]
) -> None:
    attention = attention_of(kernel)
    keys = attention.inner_loops
    sizes = tuple(1 if i in keys else size for i, size in enumerate(tiling.sizes))
    dims = tuple(replace(d, extent=1) if i in keys else d for i, d in enumerate(kernel.nest.dims))
    queries = _size_classes(replace(kernel.nest, dims=dims), sizes)
    boxes = tuple(_size_classes(kernel.nest, tiling.sizes))
    steps = attention.steps(queries, boxes, reduction_boxes(kernel, tiling))
    vector += [VectorWork(*step) for step in steps]
    for count, adding, box in _adding_classes(kernel.nest, tiling.sizes):
        products = attention.products(((count, box),))  # scores, then mixtures; none on vectors
        for found, adds in zip(products, (0, adding), strict=False):
            matrix.append(MatrixWork(*found, attention.dtype, adds))


def _chain_work(
    kernel: Kernel, tiling: Tiling, matrix: list[MatrixWork], vector: list[VectorWork]
) -> None:
    chain = chain_of(kernel)
    for count, adding, box in _adding_classes(kernel.nest, tiling.sizes):
        both = (chain.first_product(count, box), chain.second_product(count, box))
        for work, on_matrix, dtype, adds in zip(
            both, chain.on_matrix_unit, chain.multiplied, (0, adding), strict=True
        ):
            if on_matrix:
                matrix.append(MatrixWork(*work, dtype, adds))
                continue
            elements = work.b * work.m * work.n * work.k
            vector.append(VectorWork(count, "mul", elements, dtype, 3))
            vector.append(VectorWork(count, "sum", elements, dtype, 1))
    boxes = tuple(_size_classes(kernel.nest, tiling.sizes))
    slices = tuple([(count, chain.elements(box, chain.between_map)) for count, box in boxes])
    accumulator, product_type, *types = chain.types
    if accumulator is not product_type:
        vector += [
            VectorWork(count, "cast", elements, accumulator, 2) for count, elements in slices
        ]
    if chain.pipeline:
        third = kernel.nest.operands[3 if chain.third is not None else 0]
        statistics = tuple([(count, chain.elements(box, third)) for count, box in boxes])
        before, operands = chain.third or product_type, 1 + (chain.third is not None)
        vector += _steps_work(chain.pipeline, (before, *types), operands, slices, statistics)
    vector += _finishing_work(kernel, tiling)


def _pipeline_work(
    kernel: Kernel, tiling: Tiling, fn: str, operands: int
) -> tuple[VectorWork, ...]:
    """Return the work of a map pipeline whose first step takes `operands` values."""
    last = last_read(kernel)
    types = value_types(kernel)[-len(parse_pipeline(fn)) :]
    results = _result_classes(kernel, tiling)
    statistics = _result_classes(kernel, tiling, last)
    types = (kernel.operand_types[last].dtype, *types)
    return _steps_work(fn, types, operands, results, statistics)


@lru_cache(maxsize=1 << 14)  # tilings that differ in loops of sums have equal boxes of results
def _steps_work(
    fn: str,
    types: tuple[DType, ...],
    operands: int,
    boxes: tuple[tuple[int, int], ...],
    statistics: tuple[tuple[int, int], ...],
) -> tuple[VectorWork, ...]:
    """Return the work of a pipeline.

    Args:
        fn: The pipeline.
        types: Type of the last operand of its first step, then of the value after each step.
        operands: Of the first step.
        boxes: (number, elements) of boxes of the value, by size.
        statistics: (number, elements) of boxes of the last operand, should it be a statistic of rows.
    """
    steps, before, types = parse_pipeline(fn), types[:-1], types[1:]
    statistic = []
    if steps[0][0] in STATISTIC_FUNCTIONS:
        statistic = [
            VectorWork(count, step, elements, before[0], 2)
            for count, elements in statistics
            for step in STATISTIC_STEPS
        ]
        steps = (("div", ()), *steps[1:])
    names = [name for name, _ in steps]
    wider = [max(pair, key=_width) for pair in zip(before, types, strict=True)]
    touched = [operands + 1, *[2] * (len(names) - 1)]
    works = [
        VectorWork(count, name, elements, dtype, operands_touched)
        for count, elements in boxes
        for name, dtype, operands_touched in zip(names, wider, touched, strict=True)
    ]
    return (*statistic, *works)


def _width(dtype: DType) -> int:
    return dtype.itemsize_bytes


def _reduce_work(kernel: Kernel, tiling: Tiling) -> list[VectorWork]:
    dtype, fn = kernel.operand_types[0].dtype, kernel.nest.combine
    wide = reduces_wide(kernel, tiling)
    found = []
    for count, box in _size_classes(kernel.nest, tiling.sizes):
        if wide:
            elements = prod([dim.span(box) for dim in kernel.nest.operands[0]])
            found.append(VectorWork(count, "cast", elements, DType.F32, 2))
        found.append(VectorWork(count, fn, prod(box), DType.F32 if wide else dtype, 1))
    if wide:
        found += [
            VectorWork(n, "cast", e, DType.F32, 2) for n, e in _result_classes(kernel, tiling)
        ]
    return found


ROW_STEPS: Mapping[str, str] = MappingProxyType(
    {
        "softmax": "max sub exp sum div",
        "layernorm": "sum mul_const* sub square sum mul_const* add_const* rsqrt* mul",
        "rmsnorm": "square sum mul_const* add_const* rsqrt* mul",
    }
)
"""Vector instructions of the row kernels; those with a star take one value a row."""


def _row_work(kernel: Kernel, tiling: Tiling) -> list[VectorWork]:
    length, dtype = kernel.result_type.shape[-1], row_type(kernel)
    casts = 2 if dtype is not kernel.operand_types[0].dtype else 0
    found = []
    for count, elements in _result_classes(kernel, tiling):
        found += [VectorWork(count, "cast", elements, dtype, 2)] * casts
        if len(kernel.operand_types) == 2:
            found.append(VectorWork(count, "add", elements, dtype, 3))
        for step in ROW_STEPS[kernel.kind].split():
            size = elements // length if step.endswith("*") else elements
            found.append(VectorWork(count, step.removesuffix("*"), size, dtype, 3))
    return found


def _copy_work(kernel: Kernel, tiling: Tiling) -> list[VectorWork]:
    """Return the copies within the scratchpad and the fills of a copy kernel."""
    dtype, found = kernel.result_type.dtype, []
    for operand, memory in enumerate(kernel.operand_memory):
        in_place = memory is Memory.SRAM or is_staged(kernel, operand)
        if not in_place or kernel.result_memory is Memory.DRAM:
            continue
        if covers_part(kernel):
            totals = box_totals(kernel, tiling, operand)
            found += _spread(totals.loads, "identity", totals.valid_elements, dtype, 2)
        else:
            classes = _result_classes(kernel, tiling)
            found += [VectorWork(n, "identity", elements, dtype, 2) for n, elements in classes]
    if kernel.kind == "pad" and kernel.result_memory is Memory.SRAM:
        totals = box_totals(kernel, tiling, 0)
        padding = totals.elements - totals.valid_elements
        found += _spread(totals.slabs, "fill", padding, dtype, 1)
    elif kernel.kind == "pad":
        found.append(VectorWork(1, "fill", 1, dtype, 1))
    return found


def _vocabulary_work(kernel: Kernel, tiling: Tiling) -> list[VectorWork]:
    """Return the work on indices, once, and on each result box of a look-up in a part of a table."""
    index, count = kernel.operand_types[1].dtype, kernel.operand_types[1].elements
    parts = prod(kernel.mesh.sizes[axis] for axis in kernel.vocabulary)
    doublings = (parts - 1).bit_length()
    found = [
        VectorWork(1, "fill", 1, index, 1),
        *(
            VectorWork(1, "add_const", min(1 << n, parts - (1 << n)), index, 2)
            for n in range(doublings)
        ),
        VectorWork(1, "fill", 1, kernel.result_type.dtype, 1),
        VectorWork(1, "sub", count, index, 3),
        VectorWork(1, "clip_min", count, index, 2),
        VectorWork(1, "clip_max", count, index, 2),
        VectorWork(1, "eq", count, index, 3),
    ]
    dtype = kernel.result_type.dtype
    classes = _result_classes(kernel, tiling)
    return found + [VectorWork(n, "where", elements, dtype, 2) for n, elements in classes]


def _spread(count: int, fn: str, elements: int, dtype: DType, operands: int) -> list[VectorWork]:
    """Return the work of `count` vector instructions on `elements` elements together."""
    return [VectorWork(count, fn, -(-elements // count), dtype, operands)] if count else []


def _staging_work(kernel: Kernel, tiling: Tiling, operand: int) -> list[VectorWork]:
    """Return the vector work of staging a padded operand: fills, and a copy if it is resident."""
    if not is_padded(kernel, operand):
        return []
    dtype = kernel.operand_types[operand].dtype
    totals = box_totals(kernel, tiling, operand)
    padding = totals.elements - totals.valid_elements
    found = _spread(totals.slabs, "fill", padding, dtype, 1)
    if kernel.operand_memory[operand] is Memory.SRAM:
        found += _spread(totals.loads, "identity", totals.valid_elements, dtype, 2)
    return found
