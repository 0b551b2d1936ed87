# mypy: disable-error-code="empty-body"
"""Terms of the tiling e-graph.

The e-class of `loop(...)` holds all ways to run that loop in tiles, the e-class of
`kernel(key)` all orders of its loops. A kernel refers to its loops by their columns, so the e-graph
holds the product of tile sizes without spelling it out, and kernels share loops.
"""

from __future__ import annotations

from egglog import Expr, Unit, function, i64Like, method

PARALLEL = 0
"""Column `combines` of a loop whose indices make different results."""

COMBINES = 1
"""Column `combines` of a loop whose indices are summed up (or combined otherwise)."""


class Loop(Expr, egg_sort="Loop"):
    """One loop of a kernel on one tile's data."""

    @method(egg_fn="loop", unextractable=True)
    @classmethod
    def whole(cls, extent: i64Like, quantum: i64Like, combines: i64Like) -> Loop:
        """Name the loop over `extent` indices that prefers multiples of `quantum`."""

    @method(egg_fn="tiled")
    @classmethod
    def tiled(cls, extent: i64Like, quantum: i64Like, combines: i64Like, size: i64Like) -> Loop:
        """Run the loop in tiles of `size` indices, the last one perhaps smaller."""


class Kernel(Expr, egg_sort="Kernel"):
    """A kernel on one tile's data."""

    @method(egg_fn="kernel", unextractable=True)
    @classmethod
    def named(cls, number: i64Like) -> Kernel:
        """Name kernel `number`."""

    @method(egg_fn="ordered")
    @classmethod
    def ordered(cls, number: i64Like, outermost: i64Like) -> Kernel:
        """Run the kernel with loop number `outermost` outermost."""


@function(egg_fn="row_loop")
def row_loop(extent: i64Like, quantum: i64Like, combines: i64Like) -> Unit:
    """Hold when a kernel has such a loop."""


@function(egg_fn="tile_size")
def tile_size(extent: i64Like, quantum: i64Like, size: i64Like) -> Unit:
    """Hold when the size is a candidate for the loop."""


@function(egg_fn="outermost_candidate")
def outermost_candidate(kernel: i64Like, loop: i64Like) -> Unit:
    """Hold when the kernel may have this loop outermost: a parallel loop, or its first."""
