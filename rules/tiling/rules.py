"""Tiling rules: start from the whole loop, cut within the candidate sizes."""

from __future__ import annotations

from egglog import i64

from tilewright.rules.tiling.ruleset import TilingRewrite, tiling
from tilewright.rules.tiling.terms import (
    COMBINES,
    PARALLEL,
    Kernel,
    Loop,
    outermost_candidate,
    tile_size,
)

_LOOP_NESTS = "Halide (PLDI 2013)"


@tiling.rule(source=_LOOP_NESTS)
def whole_loop(extent: i64, quantum: i64, combines: i64) -> TilingRewrite:
    """loop(e) = one tile of e indices."""
    return TilingRewrite(
        Loop.whole(extent, quantum, combines),
        to=Loop.tiled(extent, quantum, combines, extent),
    )


@tiling.rule(source=_LOOP_NESTS)
def smaller_tiles(extent: i64, quantum: i64, size: i64, part: i64) -> TilingRewrite:
    """tiles of s = smaller tiles on a parallel loop: equal parts, or whole quanta and a last, smaller one."""
    return TilingRewrite(
        Loop.tiled(extent, quantum, PARALLEL, size),
        to=Loop.tiled(extent, quantum, PARALLEL, part),
        when=(tile_size(extent, quantum, part), part < size),
    )


@tiling.rule(source="TensorRight (POPL 2025), dot rule 01; split-K kernels")
def accumulate_over_parts(extent: i64, quantum: i64, size: i64, part: i64) -> TilingRewrite:
    """sum over s indices = sum of sums over smaller tiles: the partial sum stays in the scratchpad."""
    return TilingRewrite(
        Loop.tiled(extent, quantum, COMBINES, size),
        to=Loop.tiled(extent, quantum, COMBINES, part),
        when=(tile_size(extent, quantum, part), part < size),
    )


@tiling.rule(source=_LOOP_NESTS)
def choose_outermost(kernel: i64, loop: i64) -> TilingRewrite:
    """kernel = the kernel with another parallel loop outermost."""
    return TilingRewrite(
        Kernel.named(kernel),
        to=Kernel.ordered(kernel, loop),
        when=(outermost_candidate(kernel, loop),),
    )
