"""What a tiled kernel touches: the one place that tiling, memory planning and code generation share.

A kernel is an operator on the local shapes of one tile of the machine. Its loop nest is cut into boxes of
`Tiling.sizes`, visited in `Tiling.order`, parallel loops outside, reductions innermost. How a box is
executed depends on the family:

==========  ================================  ====================================================
family      kinds                             a box
==========  ================================  ====================================================
contract    matmul, conv                      quantised weights made floats on the vector unit, one MM
                                              that accumulates over the reduction boxes, then
                                              the epilogue on the vector unit
map         map                               one VEC for each step of the pipeline
reduce      reduce, pool                      one RED that accumulates over the reduction boxes
rows        softmax, layernorm, rmsnorm       a fixed sequence of VEC and RED on whole rows
attention   attention                         MM, a running softmax on the vector unit, MM; see `attention`
chain       chain                             MM, a pipeline on the vector unit, MM; see `chain`
copy        transpose, slice, expand,         one copy: VEC between scratchpad buffers, LD or ST from or
            concat, pad, identity maps        to DRAM, LD and ST between DRAM tensors
gather      gather                            one GTH
alias       reshape                           nothing: operand and result are the same bytes
==========  ================================  ====================================================

Operands in the scratchpad are read in place (the whole shard is there). Operands in DRAM are staged box by
box, twice buffered; a result in DRAM likewise, and operands that arrive in chunks from other tiles
(`gathered`). A padded operand is staged with its padding. Operands of
concat and pad cover a part of the result: a box takes from each only what both have in common.

`kernel_work` counts a kernel's instructions and bytes, `kernel_price.price` prices them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from math import prod
from types import MappingProxyType

from tilewright.dtypes import DType
from tilewright.extract.attention import Attention
from tilewright.extract.chain import Chain
from tilewright.extract.plan import Memory, Tiling
from tilewright.graph import (
    STATISTIC_FUNCTIONS,
    AttrValue,
    TensorType,
    dequantises,
    parse_pipeline,
    reads_two,
    step_dtype,
    third_operands,
)
from tilewright.hwmodel.mesh import LogicalMesh, Sharding
from tilewright.rules.gathered import Gather
from tilewright.rules.halo import NO_AXIS, HaloDim
from tilewright.rules.loopnest import DimMap, LoopNest, Role
from tilewright.rules.scattered import Scatter

Box = tuple[tuple[int, int], ...]
"""Half-open index range of each tensor dimension."""


class Family(StrEnum):
    """A way to execute a kernel; see the table of this module."""

    CONTRACT = "contract"
    MAP = "map"
    REDUCE = "reduce"
    ROWS = "rows"
    ATTENTION = "attention"
    CHAIN = "chain"
    COPY = "copy"
    GATHER = "gather"
    ALIAS = "alias"


_FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "matmul": Family.CONTRACT,
        "conv": Family.CONTRACT,
        "map": Family.MAP,
        "reduce": Family.REDUCE,
        "pool": Family.REDUCE,
        "softmax": Family.ROWS,
        "layernorm": Family.ROWS,
        "rmsnorm": Family.ROWS,
        "attention": Family.ATTENTION,
        "chain": Family.CHAIN,
        "transpose": Family.COPY,
        "slice": Family.COPY,
        "expand": Family.COPY,
        "concat": Family.COPY,
        "pad": Family.COPY,
        "gather": Family.GATHER,
        "reshape": Family.ALIAS,
    }
)

TWO_PRODUCTS = frozenset({Family.ATTENTION, Family.CHAIN})
"""Families that run two products, a box of what is between them at a time."""

ON_THE_WAY = frozenset({"fn", "epilogue", "product_dtype", "between", "inner_dtype"})
"""Attributes that say what happens to values on the way, not which values move; `family` knows copies."""

_HALVES = frozenset({DType.F16, DType.BF16})
_MATRIX_TYPES = frozenset(
    {DType.F32, DType.F16, DType.BF16, DType.I8, DType.U8, DType.I16, DType.U16, DType.I32}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """An operator on local shapes, with where its tensors lie.

    Args:
        kind: `Op.kind`.
        attrs: `Op.attrs`; shapes in them are global and not used.
        nest: The loop nest of one tile (already localised).
        operand_types: Local types.
        result_type: Local type.
        operand_memory: SRAM: the whole local shard is in the scratchpad and read in place. DRAM:
            streamed box by box from the global tensor.
        result_memory: Where the result goes, likewise.
        mesh: The logical mesh that all tiles of the kernel form.
        operand_shardings: How each operand is cut over the mesh.
        result_sharding: How the result is cut (or partial).
    """

    kind: str
    attrs: Mapping[str, AttrValue] = field(default_factory=lambda: MappingProxyType({}))
    nest: LoopNest
    operand_types: tuple[TensorType, ...]
    result_type: TensorType
    operand_memory: tuple[Memory, ...]
    result_memory: Memory
    mesh: LogicalMesh
    operand_shardings: tuple[Sharding, ...]
    result_sharding: Sharding
    gather: Gather | None = None
    """The operands that arrive in chunks from other tiles; their pieces are the last loop."""
    scatter: Scatter | None = None
    """The tiles that add up the sums of which this one makes parts; their pieces are the last loop."""
    halo: tuple[HaloDim, ...] = ()
    """Exchanged before the kernel runs: operand 0 is then the piece with its surroundings."""
    vocabulary: tuple[int, ...] = ()
    """Axes that share out the rows of a gather's table."""

    @property
    def shape_key(self) -> tuple[object, ...]:
        """A hashable value that is equal for kernels that differ at most in where their tensors lie."""
        return (
            self.kind,
            tuple(sorted(self.attrs.items())),
            self.nest,
            self.operand_types,
            self.result_type,
            self.mesh,
            self.gather,
            self.scatter,
            self.halo,
            self.vocabulary,
        )

    @property
    def moved_key(self) -> tuple[object, ...]:
        """A hashable value that is equal for kernels that move equal boxes, wherever tensors lie.

        They may compute different things on the way, and give results of other types of the same size.
        """
        return (
            self.kind,
            self.family,
            tuple(sorted((k, v) for k, v in self.attrs.items() if k not in ON_THE_WAY)),
            self.nest,
            self.operand_types,
            self.result_type.dtype.itemsize_bytes,
            self.result_type.shape,
            self.mesh,
            self.gather,
            self.scatter,
            self.halo,
            self.vocabulary,
        )

    @property
    def family(self) -> Family:
        """How the kernel is executed."""
        if self.kind == "map" and self.attrs["fn"] == "identity":
            return Family.COPY
        return _FAMILIES[self.kind]

    @property
    def loop_in_pieces(self) -> int | None:
        """The loop whose pieces, on different tiles, are the last loop; None if there is none."""
        cut = self.gather or self.scatter
        return None if cut is None else cut.loop

    @property
    def on_matrix_unit(self) -> bool:
        """Whether a contraction runs on the matrix unit; 64-bit types go to the vector unit."""
        contracts = self.family in (Family.CONTRACT, Family.ATTENTION)
        return contracts and has_matrix_type(self.operand_types[0].dtype)


def has_matrix_type(dtype: DType) -> bool:
    """Whether the matrix unit takes an element type."""
    return dtype in _MATRIX_TYPES


WEIGHTS = "weights"
"""Name of the buffer of a box of weights that are no longer quantised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelBuffer:
    """A scratchpad buffer that lives while the kernel runs: `copies` times `size_bytes`."""

    name: str
    size_bytes: int
    copies: int


def whole_tiling(kernel: Kernel) -> Tiling:
    """Return the tiling with a single box."""
    return Tiling(tuple(d.extent for d in kernel.nest.dims), loop_order(kernel))


def loop_order(kernel: Kernel) -> tuple[int, ...]:
    """Return the loop dimensions in nest order, reductions last."""
    numbers = range(len(kernel.nest.dims))
    reductions = [d for d in numbers if kernel.nest.dims[d].role is Role.REDUCTION]
    return (*(d for d in numbers if d not in reductions), *reductions)


def tileable_dims(kernel: Kernel) -> tuple[int, ...]:
    """Return the loop dimensions that a tiling may cut."""
    if kernel.family is Family.ALIAS:
        return ()
    rows: tuple[int, ...] = ()
    if kernel.family is Family.ROWS:
        rows = tuple(term.dim for term in kernel.nest.result[-1].terms)
    if kernel.loop_in_pieces is not None:  # every step has a chunk of each piece
        rows = (len(kernel.nest.dims) - 1,)
    return tuple(
        number
        for number, dim in enumerate(kernel.nest.dims)
        if dim.role is not Role.WHOLE and dim.extent > 1 and number not in rows
    )


def trip_counts(kernel: Kernel, tiling: Tiling) -> tuple[int, ...]:
    """Return the number of boxes along each loop dimension."""
    return tuple(
        [-(-extent // size) for extent, size in zip(kernel.nest.extents, tiling.sizes, strict=True)]
    )


def box_loads(kernel: Kernel, tiling: Tiling, operand: int) -> int:
    """Return how often a box of a streamed operand is loaded.

    Consecutive equal boxes are loaded once: only loops outside of the innermost one that changes
    the box count. Boxes that miss an operand of a concat or pad do not load it.
    """
    if covers_part(kernel):
        return prod(_meeting_boxes(dim, tiling) for dim in kernel.nest.operands[operand])
    trips = trip_counts(kernel, tiling)
    return _visits(tiling, trips, kernel.nest.operand_loops[operand])


def _meeting_boxes(dim: DimMap, tiling: Tiling) -> int:
    """Return the number of boxes of a loop that have a part of [-offset, size - offset)."""
    (term,) = dim.terms
    size = tiling.sizes[term.dim]
    first, last = -dim.offset, dim.size - dim.offset - 1
    return last // size - first // size + 1 if dim.size else 0


def _visits(tiling: Tiling, trips: tuple[int, ...], used: frozenset[int]) -> int:
    """Return the trips of the loops down to the innermost one in `used` with more than one trip."""
    total = visits = 1
    for dim in tiling.order:
        total *= trips[dim]
        if dim in used and trips[dim] > 1:
            visits = total
    return visits


def result_boxes(kernel: Kernel, tiling: Tiling) -> int:
    """Return the number of result boxes; each is stored once."""
    reductions = kernel.nest.reductions
    return prod([n for d, n in enumerate(trip_counts(kernel, tiling)) if d not in reductions])


def reduction_boxes(kernel: Kernel, tiling: Tiling) -> int:
    """Return the number of boxes that accumulate into one result box."""
    extents, sizes = kernel.nest.extents, tiling.sizes
    return prod([-(-extents[d] // sizes[d]) for d in kernel.nest.reductions])


def is_padded(kernel: Kernel, operand: int) -> bool:
    """Whether the kernel reads padding around an operand (boxes reach outside the tensor)."""
    leaves = kernel.nest.leaves_operand[operand]
    return leaves and kernel.family in (Family.CONTRACT, Family.REDUCE)


def covers_part(kernel: Kernel) -> bool:
    """Whether an operand gives only a part of the result, so that boxes may miss it."""
    return kernel.kind in ("concat", "pad")


def is_broadcast(kernel: Kernel, operand: int) -> bool:
    """Whether some loop of the result repeats the operand's elements."""
    nest, used = kernel.nest, kernel.nest.operand_loops[operand]
    return any(nest.extents[d] > 1 and d not in used for d in nest.result_loops)


def is_staged(kernel: Kernel, operand: int) -> bool:
    """Whether boxes of the operand are copied to a buffer of the kernel before use."""
    streamed = kernel.operand_memory[operand] is Memory.DRAM
    if kernel.gather is not None and operand in kernel.gather.operands:
        return True
    match kernel.family:
        case Family.ALIAS:
            return False
        case Family.GATHER:
            return streamed and operand == 1
        case Family.COPY:
            return streamed and (
                kernel.result_memory is Memory.DRAM or is_broadcast(kernel, operand)
            )
        case _:
            return streamed or is_padded(kernel, operand)


def streams_beside(kernel: Kernel, operand: int) -> bool:
    """Whether an operand is the second one of a product, and both stream from DRAM."""
    both = all(memory is Memory.DRAM for memory in kernel.operand_memory[:2])
    return kernel.family is Family.CONTRACT and operand == 1 and both


def is_result_staged(kernel: Kernel) -> bool:
    """Whether result boxes are made in a buffer of the kernel and then stored."""
    return kernel.result_memory is Memory.DRAM and kernel.family not in (Family.ALIAS, Family.COPY)


def staging_shape(kernel: Kernel, tiling: Tiling, operand: int) -> tuple[int, ...]:
    """Return the shape of the staging box of an operand: padding included, the largest box."""
    dims = kernel.nest.operands[operand]
    if is_padded(kernel, operand):
        return tuple([dim.span(tiling.sizes) for dim in dims])
    return tuple([min(dim.span(tiling.sizes), dim.size) for dim in dims])


def result_shape(kernel: Kernel, tiling: Tiling) -> tuple[int, ...]:
    """Return the shape of the largest result box: of one piece if sums are scattered."""
    made = product_shape(kernel, tiling)
    if kernel.scatter is None:
        return made
    return (*made[: kernel.scatter.dim], 1, *made[kernel.scatter.dim + 1 :])


def product_shape(kernel: Kernel, tiling: Tiling) -> tuple[int, ...]:
    """Return the shape of the largest box that the loops make; see `result_shape`."""
    return tuple([min(dim.span(tiling.sizes), dim.size) for dim in kernel.nest.result])


def epilogue_operands(kernel: Kernel) -> tuple[int, ...]:
    """Return the number of the operand that the epilogue of a contraction reads, if there is one."""
    return third_operands(kernel.attrs, range(len(kernel.operand_types)))


def stationary_type(kernel: Kernel) -> DType:
    """Return the element type in which a contraction's second operand enters the matrix unit."""
    return kernel.operand_types[0 if dequantises(kernel.attrs) else 1].dtype


def accumulator_type(kernel: Kernel) -> DType:
    """Return the type in which a contraction, or a chain's second product, accumulates."""
    return sum_type(multiplied_type(kernel))


def multiplied_type(kernel: Kernel) -> DType:
    """Return the element type of the left operand of a contraction, of a chain's second product."""
    if kernel.family is Family.CHAIN:
        return chain_of(kernel).types[-1]
    return kernel.operand_types[0].dtype


def sum_type(dtype: DType) -> DType:
    """Return the type in which products of an element type add up."""
    if not has_matrix_type(dtype):
        return dtype
    return DType.F32 if dtype.is_float else DType.I32


def value_types(kernel: Kernel) -> tuple[DType, ...]:
    """Return the types that a value takes before it is the result, in order, repeats included.

    A contraction begins with its accumulator, then its product as the graph types it, then each
    epilogue step; a map has one for each step.
    """
    if kernel.family is Family.MAP:
        last, pipeline = kernel.operand_types[-1].dtype, str(kernel.attrs["fn"])
        types: tuple[DType, ...] = ()
    else:
        assert kernel.family in (Family.CONTRACT, Family.CHAIN)
        accumulator = accumulator_type(kernel)
        last = multiplied_type(kernel) if accumulator.is_float else accumulator
        types = (accumulator, last)
        pipeline = str(kernel.attrs.get("epilogue", ""))
    types += _step_types(pipeline, last)
    assert types[-1] is kernel.result_type.dtype, (
        f"{kernel.kind} gives {types[-1]}, not {kernel.result_type}"
    )
    return types


@lru_cache(maxsize=1 << 12)  # pricing asks for each tiling
def _step_types(pipeline: str, dtype: DType) -> tuple[DType, ...]:
    """Return the types of a value after each step of a pipeline, which may be empty."""
    types: list[DType] = []
    for fn, args in parse_pipeline(pipeline) if pipeline else ():
        dtype = step_dtype(fn, args, dtype)
        types.append(dtype)
    return tuple(types)


def passing_types(kernel: Kernel) -> tuple[DType, ...]:
    """Return the types other than the result's that values of a map or a contraction take on the way.

    There is a buffer for a result box in each.
    """
    return tuple(dict.fromkeys(t for t in value_types(kernel) if t is not kernel.result_type.dtype))


def reduces_wide(kernel: Kernel, tiling: Tiling) -> bool:
    """Whether a half-precision sum needs a wider accumulator because it takes several boxes."""
    half = kernel.result_type.dtype in _HALVES
    return half and kernel.nest.combine in ("sum", "prod") and reduction_boxes(kernel, tiling) > 1


def row_type(kernel: Kernel) -> DType:
    """Return the type in which a row kernel computes."""
    dtype = kernel.operand_types[0].dtype
    return DType.F32 if dtype in _HALVES else dtype


def attention_of(kernel: Kernel) -> Attention:
    """Return what an attention kernel holds and does."""
    scale = kernel.attrs["scale"]
    assert isinstance(scale, int | float), "the scale is a number"
    return Attention(
        nest=kernel.nest,
        dtype=kernel.operand_types[0].dtype,
        scale=float(scale),
        on_matrix_unit=kernel.on_matrix_unit,
    )


def chain_of(kernel: Kernel) -> Chain:
    """Return what a chain of two products holds."""
    steps = [step for step in str(kernel.attrs["between"]).split("|") if step != "identity"]
    left, pipeline = kernel.operand_types[0].dtype, "|".join(steps)
    product_type = DType(str(kernel.attrs["inner_dtype"]))
    types = (sum_type(left), product_type, *_step_types(pipeline, product_type))
    return Chain(
        nest=kernel.nest,
        pipeline=pipeline,
        types=types,
        multiplied=(left, types[-1]),
        on_matrix_unit=(has_matrix_type(left), has_matrix_type(types[-1])),
        third=kernel.operand_types[3].dtype if reads_two(str(kernel.attrs["between"])) else None,
    )


def buffers(kernel: Kernel, tiling: Tiling) -> tuple[KernelBuffer, ...]:
    """Return the scratchpad buffers that the kernel needs besides resident operands and result.

    Code generation allocates exactly these.
    """
    found = halo_buffers(kernel)
    for operand, type_ in enumerate(kernel.operand_types):
        loads = box_loads(kernel, tiling, operand) if is_staged(kernel, operand) else 0
        if loads:
            size = prod(staging_shape(kernel, tiling, operand)) * type_.dtype.itemsize_bytes
            copies = 2 if loads > 1 else 1
            found.append(KernelBuffer(name=f"operand{operand}", size_bytes=size, copies=copies))
    if dequantises(kernel.attrs):
        size = prod(staging_shape(kernel, tiling, 1)) * stationary_type(kernel).itemsize_bytes
        copies = 2 if box_loads(kernel, tiling, 1) > 1 else 1
        found.append(KernelBuffer(name=WEIGHTS, size_bytes=size, copies=copies))
    elements = prod(result_shape(kernel, tiling))
    if is_result_staged(kernel):
        size = elements * kernel.result_type.dtype.itemsize_bytes
        copies = 2 if result_boxes(kernel, tiling) > 1 else 1
        found.append(KernelBuffer(name="result", size_bytes=size, copies=copies))
    found += vocabulary_buffers(kernel)
    if kernel.scatter is not None:
        elements = prod(product_shape(kernel, tiling))
        boxes = result_boxes(kernel, tiling)
        found += scatter_buffers(kernel, kernel.scatter, elements, boxes)
    for name, size in _temporaries(kernel, tiling, elements):
        found.append(KernelBuffer(name=name, size_bytes=size, copies=1))
    return tuple(found)


def halo_buffers(kernel: Kernel) -> list[KernelBuffer]:
    """Return the buffers of a halo exchange: piece and surroundings, flags, one neutral element.

    Flags say for each coordinate of an axis whether a neighbour gave the halo: not on the first tile.
    """
    if not kernel.halo:
        return []
    flags = sum(kernel.mesh.sizes[d.axis] for d in kernel.halo if d.axis != NO_AXIS)
    sizes = {
        "halo": kernel.operand_types[0].size_bytes,
        "flags": flags * DType.BOOL.itemsize_bytes,
        "neutral": kernel.operand_types[0].dtype.itemsize_bytes,
    }
    return [KernelBuffer(name=name, size_bytes=size, copies=1) for name, size in sizes.items()]


def vocabulary_buffers(kernel: Kernel) -> list[KernelBuffer]:
    """Return the buffers of a look-up in a part of a table.

    The first row of each part by coordinates, the indices relative to the tile's part, those made rows of
    it, which ones are, and a zero.
    """
    if not kernel.vocabulary:
        return []
    indices = kernel.operand_types[1]
    parts = prod(kernel.mesh.sizes[axis] for axis in kernel.vocabulary)
    sizes = {
        "starts": parts * indices.dtype.itemsize_bytes,
        "shifted": indices.size_bytes,
        "rows": indices.size_bytes,
        "here": indices.elements * DType.BOOL.itemsize_bytes,
        "zero": kernel.result_type.dtype.itemsize_bytes,
    }
    return [KernelBuffer(name=name, size_bytes=size, copies=1) for name, size in sizes.items()]


PARTS = "parts"
"""Name of the buffer of a box of parts of sums that is sent to the tiles that add them up."""


def scatter_buffers(
    kernel: Kernel, scatter: Scatter, elements: int, boxes: int
) -> list[KernelBuffer]:
    """Return the buffers of sums that are scattered: what is sent and what arrives, for each axis.

    Args:
        kernel: The kernel.
        scatter: What is scattered.
        elements: Of the largest box, all pieces.
        boxes: Result boxes. Where parts are multiplied right into the buffer that they are sent from, there
            are two of it.
    """
    itemsize = kernel.result_type.dtype.itemsize_bytes
    copies = 1 if passing_types(kernel) else min(boxes, 2)
    found = [KernelBuffer(name=PARTS, size_bytes=elements * itemsize, copies=copies)]
    for stage in range(len(scatter.axes)):
        size = elements * scatter.pieces(stage) // scatter.size * itemsize
        if stage:
            found.append(KernelBuffer(name=f"sums{stage}", size_bytes=size, copies=1))
        found.append(KernelBuffer(name=f"slots{stage}", size_bytes=size, copies=1))
    return found


def gather_loop(kernel: Kernel) -> int:
    """Return the loop of a gather that runs over the indices."""
    (term,) = kernel.nest.operands[1][0].terms
    return term.dim


def gathers_single(kernel: Kernel, tiling: Tiling) -> bool:
    """Whether some box of a gather has one index only, for which there is no instruction."""
    loop = gather_loop(kernel)
    extent, size = kernel.nest.dims[loop].extent, tiling.sizes[loop]
    return size == 1 or extent % size == 1 or extent == 1


STATISTIC_STEPS = ("mul_const", "add_const", "sqrt")
"""What `div_rms` does to the statistic, before it divides."""


def takes_statistic(kernel: Kernel) -> bool:
    """Whether a map, or an epilogue, begins with a function of a statistic of rows."""
    pipeline = str(kernel.attrs.get("fn" if kernel.family is Family.MAP else "epilogue", ""))
    return pipeline.partition("(")[0] in STATISTIC_FUNCTIONS


def last_read(kernel: Kernel) -> int:
    """Return the number of the last operand that the pipeline of a map, or an epilogue, reads."""
    if kernel.family is Family.MAP:
        return len(kernel.operand_types) - 1
    return max(epilogue_operands(kernel), default=0)


def statistic_elements(kernel: Kernel, sizes: tuple[int, ...]) -> int:
    """Return how many values the statistic has in a box of the loops."""
    return prod(sizes[d] for d in kernel.nest.operand_loops[last_read(kernel)])


def _temporaries(kernel: Kernel, tiling: Tiling, elements: int) -> list[tuple[str, int]]:
    """Return names and bytes of values on the way to a result box of `elements` elements."""
    final = kernel.result_type.dtype
    match kernel.family:
        case Family.MAP | Family.CONTRACT | Family.CHAIN:
            found = []
            if kernel.family is Family.CHAIN:
                boxes = result_boxes(kernel, tiling) * reduction_boxes(kernel, tiling)
                found = chain_of(kernel).temporaries(tiling.sizes, boxes)
            if kernel.family is Family.CONTRACT and not kernel.on_matrix_unit:
                found.append(
                    ("product", prod(tiling.sizes) * accumulator_type(kernel).itemsize_bytes)
                )
            if takes_statistic(kernel):
                size = kernel.operand_types[last_read(kernel)].dtype.itemsize_bytes
                found.append(("statistic", statistic_elements(kernel, tiling.sizes) * size))
            types = passing_types(kernel)
            return found + [(f"value_{t}", elements * t.itemsize_bytes) for t in types]
        case Family.REDUCE if reduces_wide(kernel, tiling):
            box = prod(staging_shape(kernel, tiling, 0))
            return [
                ("wide", box * DType.F32.itemsize_bytes),
                ("total", elements * DType.F32.itemsize_bytes),
            ]
        case Family.ROWS:
            return _row_temporaries(kernel, elements)
        case Family.ATTENTION:
            keys = reduction_boxes(kernel, tiling)
            boxes = result_boxes(kernel, tiling) * keys
            return attention_of(kernel).temporaries(tiling.sizes, boxes, keys)
        case Family.GATHER if gathers_single(kernel, tiling):
            index, row = (
                kernel.operand_types[1].dtype,
                elements // tiling.sizes[gather_loop(kernel)],
            )
            return [("pair", 2 * index.itemsize_bytes), ("twice", 2 * row * final.itemsize_bytes)]
        case Family.COPY if kernel.kind == "pad" and kernel.result_memory is Memory.DRAM:
            return [("fill", final.itemsize_bytes)]
        case _:
            return []


def _row_temporaries(kernel: Kernel, elements: int) -> list[tuple[str, int]]:
    """Return the temporaries of a row kernel: a statistic per row, wide and squared rows where needed."""
    size = row_type(kernel).itemsize_bytes
    half = kernel.operand_types[0].dtype in _HALVES
    found = [("statistic", elements // kernel.result_type.shape[-1] * size)]
    if half:
        found.append(("wide", elements * size))
    in_place = half or len(kernel.operand_types) == 2
    if kernel.kind == "layernorm" or (kernel.kind == "rmsnorm" and in_place):
        found.append(("square", elements * size))
    return found


def footprint_bytes(kernel: Kernel, tiling: Tiling, alignment_bytes: int) -> int:
    """Return the scratchpad bytes of the kernel's buffers, each aligned."""
    return sum(
        -(-b.size_bytes // alignment_bytes) * alignment_bytes * b.copies
        for b in buffers(kernel, tiling)
    )
