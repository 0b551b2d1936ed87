"""Tile sizes and loop orders of many kernels from one e-graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from egglog import Ruleset, i64, rule, var
from egglog import ruleset as make_ruleset

from tilewright.rules.kept import kept_text
from tilewright.rules.session import Program, ProgramText, Session, write_program
from tilewright.rules.tiling.candidates import tile_sizes
from tilewright.rules.tiling.family import tiling_rules
from tilewright.rules.tiling.ruleset import TilingRule, instantiate
from tilewright.rules.tiling.terms import (
    COMBINES,
    PARALLEL,
    Kernel,
    Loop,
    outermost_candidate,
    row_loop,
    tile_size,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TilingRequest:
    """A kernel on one tile's data; all tuples have one entry for each loop of its local nest."""

    key: str
    extents: tuple[int, ...]
    is_tileable: tuple[bool, ...]
    """False for loops that must run whole."""
    is_parallel: tuple[bool, ...]
    """Loops that may be outermost."""
    is_combining: tuple[bool, ...]
    """Loops whose indices are summed up or combined otherwise."""
    quanta: tuple[int, ...]
    """Preferred multiples of tile sizes; 1 for none."""
    wanted: tuple[int | None, ...] = ()
    """A size that is a candidate whatever the quantum, None for none; empty: of no loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TilingAlternatives:
    """The choices of a kernel: any size of each loop with any outermost loop."""

    key: str
    sizes: tuple[tuple[int, ...], ...]
    """Tile sizes of each loop, largest (the whole loop) first."""
    outermost: tuple[int, ...]
    """Loops that may be outermost, ascending; empty when no tileable loop is parallel."""


def _loop(request: TilingRequest, number: int) -> tuple[int, int, int]:
    """Return the columns of a loop; a loop that runs whole has its extent as quantum."""
    extent = request.extents[number]
    quantum = request.quanta[number] if request.is_tileable[number] else max(extent, 1)
    return extent, quantum, COMBINES if request.is_combining[number] else PARALLEL


def _wanted(request: TilingRequest) -> list[tuple[int, int, int]]:
    """Return a row of `tile_size` for each loop that may have the size that is wanted of it."""
    rows = []
    for number, size in enumerate(request.wanted):
        extent, quantum, _ = _loop(request, number)
        if size is not None and request.is_tileable[number] and 0 < size < extent:
            rows.append((extent, quantum, size))
    return rows


def _load(extent: i64, quantum: i64, combines: i64, kernel: i64, loop: i64) -> Ruleset:
    """Return what makes a term of each loop and kernel that there is."""
    return make_ruleset(
        rule(row_loop(extent, quantum, combines), name="load.loop").then(
            Loop.whole(extent, quantum, combines)
        ),
        rule(outermost_candidate(kernel, loop), name="load.kernel").then(Kernel.named(kernel)),
        name="load",
    )


@lru_cache(maxsize=8)  # once for each choice of rules
def _program(rules: tuple[TilingRule, ...]) -> Program:
    if not set(rules) <= set(tiling_rules()):  # files of rules may read whatever they like
        return Program(_write(rules))
    names = " ".join(rule.name for rule in rules)
    return Program(kept_text(f"tiling {names}", partial(_write, rules)))


def _write(rules: tuple[TilingRule, ...]) -> ProgramText:
    names = ("extent", "quantum", "combines", "kernel", "loop")
    load = _load(*(var(name, i64) for name in names))
    ruleset = make_ruleset(*(instantiate(made) for made in rules), name="tiling")
    return write_program([("tiling", load + ruleset.saturate())])


def tiling_alternatives(
    requests: Sequence[TilingRequest], rules: tuple[TilingRule, ...] | None = None
) -> tuple[TilingAlternatives, ...]:
    """Return the tiling choices of kernels, in the order of the requests.

    One e-graph serves all requests; equal loops share an e-class.

    Args:
        requests: The kernels.
        rules: The tiling rules that run; all of the package by default.
    """
    loops = list(
        dict.fromkeys(_loop(r, i) for r in requests for i, extent in enumerate(r.extents) if extent)
    )
    outermost = [
        (number, i)
        for number, request in enumerate(requests)
        for i, extent in enumerate(request.extents)
        if request.is_parallel[i] and request.is_tileable[i] and extent > 1
    ]
    session = Session(_program(tiling_rules() if rules is None else rules))
    bases = dict.fromkeys((e, q) for e, q, _ in loops)
    sizes = [(e, q, s) for e, q in bases for s in tile_sizes(e, q)]
    sizes += [row for request in requests for row in _wanted(request)]
    session.insert(
        (
            (row_loop, loops),
            (tile_size, list(dict.fromkeys(sizes))),
            (outermost_candidate, outermost),
        )
    )
    session.run("tiling")
    found = session.read(("tiled", "ordered"))
    session.close()
    by_loop: defaultdict[tuple[int | str, ...], list[int]] = defaultdict(list)
    for row in found.get("tiled", []):
        by_loop[row[:3]].append(int(row[3]))
    by_kernel: defaultdict[int, list[int]] = defaultdict(list)
    for row in found.get("ordered", []):
        by_kernel[int(row[0])].append(int(row[1]))
    return tuple(
        TilingAlternatives(
            key=request.key,
            sizes=tuple(
                tuple(sorted(by_loop[_loop(request, i)], reverse=True)) if extent else (0,)
                for i, extent in enumerate(request.extents)
            ),
            outermost=tuple(sorted(by_kernel[number])),
        )
        for number, request in enumerate(requests)
    )
