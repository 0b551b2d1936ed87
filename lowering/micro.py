"""Instructions before allocation: operands name buffers, order is one linear list.

Kernel generators and collectives emit `Micro`s in an order that is correct when executed one by one;
the back end then moves loads forward, gives buffers addresses and derives semaphores.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.dtypes import DType
from tilewright.lowering.isa import Engine, Opcode, Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """A contiguous piece of memory; on every tile alike if in L1, once if in DRAM.

    `pinned` buffers live for the whole program (resident weights, model inputs and outputs,
    constants); others from their first to their last use.
    """

    number: int
    name: str
    space: Space
    size_bytes: int
    pinned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """An access to a buffer; see `tilewright.lowering.isa.Access` for the terms."""

    buffer: int
    dtype: DType
    offset_bytes: int = 0
    coefficients: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Micro:
    """One instruction of the linear order.

    The three parts of a collective on the sub-mesh `axes`:

    * `ready` (PS on CT): this tile's destination buffer is free, tell the peers. It carries the
    destination as `dst`
      and counts as a write of it.
    * sends (SND/MCS on DO): read `sources`, write `dst` on other tiles (MCS on this tile too). The first
      send of a collective waits for the ready posts of all n - 1 peers; every send posts an arrival at
      its receivers. A PS on DO with the role "send" only posts: tiles that send to neighbours alone tell the
      others too, so that nobody is ready for the next collective before all have sent in this one.
    * `arrive` (WT on CT): waits for `arrivals` arrival posts; counts as a write of `dst`.

    ready(k + 1) follows arrive(k) for the same axes, so two semaphores for each set of axes suffice.
    """

    opcode: Opcode
    engine: Engine
    domain: tuple[int, ...] = ()
    dst: Operand | None = None
    sources: tuple[Operand, ...] = ()
    fn: str = ""
    immediates: tuple[float, float] = (0.0, 0.0)
    accumulate: bool = False
    axes: int = 0
    shift: int = 0
    count: int = 0
    role: str = ""
    """"ready", "first_send", "send", "arrive" or empty."""
    arrivals: int = 0
    tag: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearProgram:
    """Micros of both phases over one table of buffers (`buffers[i].number == i`)."""

    buffers: tuple[Buffer, ...]
    load: tuple[Micro, ...]
    run: tuple[Micro, ...]
