"""What lowering makes of a plan, before the back end."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.graph import Array, Op
from tilewright.lowering.emit import Storage
from tilewright.lowering.micro import LinearProgram


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A host region with its tensors as parts of DRAM buffers."""

    op: Op
    inputs: tuple[tuple[str, Storage], ...]
    outputs: tuple[tuple[str, Storage], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """A linear program with what the micros do not say: which buffer is which tensor of the model."""

    linear: LinearProgram
    inputs: tuple[Storage, ...]
    """One for each input port."""
    outputs: tuple[Storage, ...]
    constants: tuple[tuple[str, Storage], ...]
    regions: tuple[Region, ...]
    values: dict[str, Array]
    """Constants of the graph and folded ones, by tensor."""
    tags: tuple[str, ...]
