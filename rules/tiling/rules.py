"""Tiling rules: start from the whole loop, cut within the candidate sizes."""

from __future__ import annotations

from typing import Any

from egglog import eq, i64, rule, union, var
from egglog import ruleset as make_ruleset

from tilewright.rules.tiling.terms import Kernel, Loop, outermost_candidate, row_loop, tile_size


def whole_loop(extent: i64, quantum: i64) -> Any:
    """loop(e) = one tile of e indices."""
    loop = Loop.whole(extent, quantum)
    return rule(row_loop(extent, quantum), name="tiling.whole_loop").then(
        union(loop).with_(Loop.tiled(extent, quantum, extent))
    )


def divide(loop: Loop, extent: i64, quantum: i64, size: i64, part: i64) -> Any:
    """tiles of s = tiles of s / p when p divides s: halves, thirds and so on."""
    return rule(
        eq(loop).to(Loop.tiled(extent, quantum, size)),
        *(tile_size(extent, quantum, part), part < size, eq(size % part).to(i64(0))),
        name="tiling.divide",
    ).then(union(loop).with_(Loop.tiled(extent, quantum, part)))


def round_to_quantum(loop: Loop, extent: i64, quantum: i64, size: i64, part: i64) -> Any:
    """tiles of s = smaller tiles of whole quanta; the last tile of the loop is smaller."""
    return rule(
        eq(loop).to(Loop.tiled(extent, quantum, size)),
        *(tile_size(extent, quantum, part), part < size, eq(part % quantum).to(i64(0))),
        name="tiling.round_to_quantum",
    ).then(union(loop).with_(Loop.tiled(extent, quantum, part)))


def choose_outermost(kernel: i64, loop: i64) -> Any:
    """kernel = the kernel with another parallel loop outermost."""
    return rule(outermost_candidate(kernel, loop), name="tiling.choose_outermost").then(
        union(Kernel.named(kernel)).with_(Kernel.ordered(kernel, loop))
    )


def _instantiate() -> tuple[Any, ...]:
    extent, quantum, size, part = (var(n, i64) for n in ("extent", "quantum", "size", "part"))
    loop = var("loop", Loop)
    return (
        whole_loop(extent, quantum),
        divide(loop, extent, quantum, size, part),
        round_to_quantum(loop, extent, quantum, size, part),
        choose_outermost(var("kernel", i64), var("number", i64)),
    )


tiling = make_ruleset(*_instantiate(), name="tiling")
"""All tiling rules."""
