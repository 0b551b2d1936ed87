"""The instruction set: one definition for encoder, assembler, listings and both simulators.

A tile has five engines, each with an in-order queue: matrix (ME), vector (VE), DMA-in (DI),
DMA-out and sends (DO; loads too on machines of two load engines), control (CT). An engine executes one
instruction at a time: it waits until its semaphore waits hold, consumes them atomically, executes,
then posts. Engines of a tile share only the scratchpad and the semaphores; there is no other ordering
between them.

All tiles of a group execute the same streams (SPMD). What differs between tiles is their
coordinate on the group's logical mesh axes: the address of an access is

    base + sum(coefficient[a] * coordinate[a]) + sum(index[d] * stride[d])

over the instruction's iteration domain (a tuple of sizes). A dimension with stride 0 is absent from an
operand: absent from a source it broadcasts, absent from the destination it is reduced. All
dimensions of a domain have size >= 2 (a domain of rank 0 is one element).

Address spaces: L1 is the tile's scratchpad, DRAM the memory shared by all tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from tilewright.dtypes import BlockFormat, DType

MAX_RANK = 8
MAX_AXES = 3
MAX_LOOP_DEPTH = 2
MAX_COUNT = 65_535
"""Largest value of a semaphore."""


class Engine(IntEnum):
    """An in-order execution queue of a tile."""

    ME = 0
    VE = 1
    DI = 2
    DO = 3
    CT = 4


class Space(IntEnum):
    """An address space."""

    L1 = 0
    DRAM = 1


class Opcode(IntEnum):
    """Operation codes; the table in `SEMANTICS` says what each does."""

    HALT = 0
    WT = 1
    PS = 2
    LOOP = 3
    END = 4
    LD = 5
    GTH = 6
    ST = 7
    SND = 8
    MCS = 9
    MM = 10
    VEC = 11
    RED = 12
    HOST = 13
    SIG = 14


LOADS = (Opcode.LD, Opcode.GTH)
"""What brings bytes into the scratchpad from memory."""


SEMANTICS: dict[Opcode, str] = {
    Opcode.HALT: "any engine: end of the stream",
    Opcode.WT: "any engine: only the waits and posts",
    Opcode.PS: (
        "any engine: only the waits and posts; a remote post goes to all other tiles of the "
        "sub-mesh spanned by `axes`"
    ),
    Opcode.LOOP: (
        "any engine: repeat up to the matching END `count` times; in iteration i, accesses move "
        "by i * step[level]"
    ),
    Opcode.END: "any engine: end of the loop body",
    Opcode.LD: (
        "DI: dst (L1) <- src (DRAM), strided copy. `axes`, if not 0: all tiles of that sub-mesh "
        "read the same bytes and the memory serves them once (multicast read); values are as "
        "without. DO only on machines of two load engines"
    ),
    Opcode.GTH: (
        "DI: dst (L1) <- rows of src0 (DRAM or L1) chosen by indices src1 (L1, i32 or i64). "
        "Domain dim 0 runs over the n indices: src1 has only that dim; src0's stride of dim 0 "
        "is the distance of consecutive table rows and is multiplied by the index value; "
        "`count` is the number of table rows (bounds check)"
    ),
    Opcode.ST: (
        "DO: dst (DRAM) <- src (L1), strided copy, only on tiles whose coordinate is 0 on every "
        "axis of `axes`"
    ),
    Opcode.SND: (
        "DO: copy src (L1) to dst (L1) of the tile `shift` further (modulo size) along the one "
        "axis of `axes`. src is addressed with the coordinates of the receiver, dst with those "
        "of the sender. Remote posts land at the receiver after the payload"
    ),
    Opcode.MCS: (
        "DO: copy src (L1) to dst (L1) of every tile (the sender too) of the sub-mesh spanned "
        "by `axes`; src and dst are addressed with the sender's coordinates. Remote posts land "
        "at every other tile"
    ),
    Opcode.MM: (
        "ME: dst[b,m,n] (+)= sum over k of src0[b,m,k] * src1[b,k,n]. A domain dim is b if all "
        "three operands have it, m if dst and src0, n if dst and src1, k if src0 and src1. src1 "
        "is stationary. Accumulates into dst if `accumulate`. Floats multiply and sum in f32 or "
        "wider, integers in i32 (dst dtype i32). With a block format as function, floats are rounded "
        "to blocks along k before they are multiplied, and blocks are added in f32"
    ),
    Opcode.VEC: (
        "VE: dst <- fn(src0, ...) elementwise; no sources: fill with imm0. Integers wrap. "
        "`cast` converts to dst's dtype; `mul` converts an integer src0 to the type of a float src1"
    ),
    Opcode.RED: (
        "VE: dst <- fn-reduce of src0 over the dims that dst lacks (fn sum, max, min, prod); "
        "with `accumulate`, dst takes part"
    ),
    Opcode.HOST: (
        "CT: run host region `count` on the host: reads and writes its tensors in DRAM, once "
        "for the whole group"
    ),
    Opcode.SIG: (
        "any engine: only the waits and posts; its posts are remote and go to all tiles of group "
        "`count`, another one"
    ),
}


OPERANDS: dict[Opcode, tuple[Space | None, ...]] = {
    Opcode.LD: (Space.L1, Space.DRAM),
    Opcode.GTH: (Space.L1, None, Space.L1),
    Opcode.ST: (Space.DRAM, Space.L1),
    Opcode.SND: (Space.L1, Space.L1),
    Opcode.MCS: (Space.L1, Space.L1),
    Opcode.MM: (Space.L1, Space.L1, Space.L1),
    Opcode.VEC: (Space.L1, Space.L1, Space.L1, Space.L1),
    Opcode.RED: (Space.L1, Space.L1),
}
"""Where the destination and the sources of an opcode lie, None for anywhere; other opcodes have none.

A VEC has as many sources as its function takes.
"""


VECTOR_FUNCTIONS: tuple[str, ...] = tuple(
    (
        "fill identity cast abs neg exp log sqrt rsqrt reciprocal floor ceil round sign relu "
        "sigmoid tanh erf gelu gelu_tanh silu softplus sin cos tan asin acos atan sinh cosh "
        "not isnan isinf square leaky_relu elu hard_sigmoid clip_min clip_max pow_const "
        "add_const mul_const add sub mul div pow mod fmod min max eq ne lt le gt ge and or "
        "xor prelu bitand bitor bitxor shl shr where sum prod"
    ).split()
)
"""Functions of VEC and RED."""


FUNCTIONS: tuple[str, ...] = (*VECTOR_FUNCTIONS, *BlockFormat)
"""Function codes are positions in this tuple plus 1; block formats are those of MM."""


@dataclass(frozen=True, slots=True)
class Access:
    """How an instruction addresses one operand; all distances in bytes.

    `coefficients` has one entry per logical axis of the group, `strides` one per domain dimension,
    `steps` one per loop level (outermost first).
    """

    space: Space
    dtype: DType
    base: int
    coefficients: tuple[int, ...]
    strides: tuple[int, ...]
    steps: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until the semaphore holds at least `count`, then subtract it."""

    semaphore: int
    count: int


@dataclass(frozen=True, slots=True)
class Post:
    """Add `count` to a semaphore of this tile or, if remote, of the tiles the opcode names."""

    semaphore: int
    count: int
    remote: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction of one engine's stream.

    `axes` is a bit mask of logical axes (bit a is axis a); `shift` and `count` as in `SEMANTICS`.
    At most two waits and two posts.
    """

    opcode: Opcode
    engine: Engine
    domain: tuple[int, ...] = ()
    dst: Access | None = None
    sources: tuple[Access, ...] = ()
    fn: str = ""
    immediates: tuple[float, float] = (0.0, 0.0)
    accumulate: bool = False
    axes: int = 0
    shift: int = 0
    count: int = 0
    waits: tuple[Wait, ...] = ()
    posts: tuple[Post, ...] = ()
    tag: int = 0
    """Number of the plan step that this instruction belongs to (for profiles); 0 is none."""


def dimension_roles(instruction: Instruction) -> tuple[str, ...]:
    """Return the role of each domain dimension of an MM: one of "b", "m", "n", "k"."""
    assert instruction.dst is not None
    assert len(instruction.sources) == 2
    roles = []
    rows = zip(
        instruction.dst.strides,
        instruction.sources[0].strides,
        instruction.sources[1].strides,
        strict=True,
    )
    for in_dst, in_a, in_b in rows:
        match (in_dst != 0, in_a != 0, in_b != 0):
            case (True, True, True):
                roles.append("b")
            case (True, True, False):
                roles.append("m")
            case (True, False, True):
                roles.append("n")
            case (False, True, True):
                roles.append("k")
            case _:
                raise AssertionError("a matrix dimension must occur in two or three operands")
    return tuple(roles)
