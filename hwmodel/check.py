"""Checks that span several fields of a target; the types themselves check one field at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod
from operator import ge

from tilewright.errors import TargetError
from tilewright.graph import (
    BINARY_FUNCTIONS,
    PARAMETRIC_FUNCTIONS,
    TERNARY_FUNCTIONS,
    UNARY_FUNCTIONS,
)
from tilewright.hwmodel.target import BankLayout, Target, Topology

MAX_TILES = 2**20
MAX_BYTES_PER_CYCLE = 1e6
MAX_TILE_SRAM_BYTES = 2**32
MAX_CLOCK_GHZ = 100.0
MAX_SEMAPHORES = 2**16

FUNCTION_NAMES = frozenset(
    [*UNARY_FUNCTIONS, *PARAMETRIC_FUNCTIONS, *BINARY_FUNCTIONS, *TERNARY_FUNCTIONS, "sum", "prod"]
)
"""What `vector.function_cycles` may name: elementwise functions and reductions."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def fail(where: str, key: str, found: object, expected: str, lever: str) -> TargetError:
    """Return the error for a bad figure: where, what was found, what was expected, what to change."""
    return TargetError(f"target {where}: {key}: found {found}, expected {expected}; {lever}")


def check_target(target: Target, where: str) -> None:
    """Raise TargetError unless the parts of a target fit each other."""
    for error in _errors(target, where):
        raise error


def numeric_leaves(value: object, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield the dotted path and value of each number in a dumped target, in file order."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from numeric_leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from numeric_leaves(item, f"{path}.{_item_name(item, number)}")


def figures(target: Target) -> tuple[tuple[str, float], ...]:
    """Return the dotted path and value of every figure that needs evidence."""
    skip = {"schema_version", "evidence", "published_peaks", "disabled_tiles"}
    return tuple(numeric_leaves(target.model_dump(mode="json", exclude=skip)))


def evidence_path(target: Target, path: str) -> str | None:
    """Return the evidence key that covers a figure: its own path or the nearest section's."""
    while path:
        if path in target.evidence:
            return path
        path = path.rpartition(".")[0]
    return None


def _item_name(item: object, number: int) -> str:
    if isinstance(item, dict) and "name" in item:
        return str(item["name"])
    if isinstance(item, dict) and "axes" in item:
        return "-".join(item["axes"])
    return str(number)


def _errors(target: Target, where: str) -> Iterator[TargetError]:
    yield from _axis_errors(target, where)
    yield from _network_errors(target, where)
    yield from _tile_errors(target, where)
    yield from _dram_errors(target, where)
    yield from _evidence_errors(target, where)


def _axis_errors(target: Target, where: str) -> Iterator[TargetError]:
    if not target.name.strip():
        yield fail(where, "name", "an empty text", "a name", "name the target")
    if target.clock_ghz > MAX_CLOCK_GHZ:
        yield fail(
            where, "clock_ghz", target.clock_ghz, f"at most {MAX_CLOCK_GHZ}", "check the unit"
        )
    axes = tuple(axis.name for axis in target.axes)
    for key, names in (
        ("axes", axes),
        ("logical_axes", tuple(a.name for a in target.logical_axes)),
    ):
        for name in names:
            if not _NAME.fullmatch(name):
                yield fail(
                    where, key, f"the name '{name}'", "letters, digits and _", "rename the axis"
                )
        if len(set(names)) < len(names):
            yield fail(where, key, f"names {', '.join(names)}", "different names", "rename one")
    tiles = target.built_tiles
    if tiles > MAX_TILES:
        yield fail(where, "axes", f"{tiles} tiles", f"at most {MAX_TILES}", "shrink an axis")
    yield from _disabled_errors(target, where)
    joined = tuple(name for level in target.interconnects for name in level.axes)
    if joined != axes:
        yield fail(
            where,
            "interconnects",
            f"levels over {', '.join(joined)}",
            f"every axis once, in the order {', '.join(axes)}",
            "give each axis one interconnect, outermost first",
        )
    merged = tuple(name for logical in target.logical_axes for name in logical.axes)
    if merged != axes and not (target.tiles == 1 and not merged):
        yield fail(
            where,
            "logical_axes",
            f"groups of {', '.join(merged) or 'nothing'}",
            f"every axis once, in the order {', '.join(axes)}",
            "put each physical axis in one logical axis, outermost first",
        )


def _network_errors(target: Target, where: str) -> Iterator[TargetError]:
    for level in target.interconnects:
        key = f"interconnects.{'-'.join(level.axes)}"
        is_switched = level.topology is Topology.CROSSBAR
        if not is_switched and level.link_bytes_per_cycle is None:
            yield fail(
                where,
                f"{key}.link_bytes_per_cycle",
                "nothing",
                f"a bandwidth, because the topology is {level.topology}",
                "give the bytes per cycle of one directed link",
            )
        if is_switched and level.link_bytes_per_cycle is not None:
            yield fail(
                where,
                f"{key}.link_bytes_per_cycle",
                level.link_bytes_per_cycle,
                "nothing, because a crossbar has no links",
                "give port_bytes_per_cycle only",
            )
        for name in ("port_bytes_per_cycle", "link_bytes_per_cycle"):
            yield from _rate_errors(where, f"{key}.{name}", getattr(level, name) or 0.0)
    router = target.router
    if router is not None and router.lane_bytes < router.flit_bytes:
        expected = f"at least flit_bytes, {router.flit_bytes}"
        yield fail(where, "router.lane_bytes", router.lane_bytes, expected, "enlarge the buffer")


def _rate_errors(where: str, key: str, rate: float) -> Iterator[TargetError]:
    if rate > MAX_BYTES_PER_CYCLE:
        expected = f"at most {MAX_BYTES_PER_CYCLE:.0f} bytes per cycle"
        yield fail(where, key, rate, expected, "divide bytes per second by the clock")


def _tile_errors(target: Target, where: str) -> Iterator[TargetError]:
    tile = target.tile
    matrix = tile.matrix
    dtypes = set(matrix.columns)
    if not dtypes:
        yield fail(where, "tile.matrix.columns", "no element type", "one or more", "add one")
    for key, table in (
        ("tile.matrix.cycles_per_row", matrix.cycles_per_row),
        ("tile.matrix.weight_load_cycles", matrix.weight_load_cycles),
        ("energy.mac_pj", target.energy.mac_pj),
    ):
        if set(table) != dtypes:
            found = ", ".join(sorted(table)) or "nothing"
            expected = f"the types of tile.matrix.columns: {', '.join(sorted(dtypes))}"
            yield fail(where, key, found, expected, "give a figure for each of these types")
    if matrix.overlap_weight_load and matrix.weight_slots < 2:
        yield fail(
            where,
            "tile.matrix.weight_slots",
            matrix.weight_slots,
            "at least 2, because overlap_weight_load is true",
            "add a slot or set overlap_weight_load to false",
        )
    for name in tile.vector.function_cycles:
        if name not in FUNCTION_NAMES:
            key = f"tile.vector.function_cycles.{name}"
            yield fail(
                where, key, "an unknown function", "a core function name", "correct the name"
            )
    yield from _memory_errors(target, where)


def _memory_errors(target: Target, where: str) -> Iterator[TargetError]:
    sram, dma, semaphores = target.tile.sram, target.tile.dma, target.tile.control.semaphores
    for key, size in (
        ("tile.sram.alignment_bytes", sram.alignment_bytes),
        ("tile.dma.burst_bytes", dma.burst_bytes),
    ):
        if size & (size - 1):
            yield fail(where, key, size, "a power of two", "use 32, 64 or 128")
    if sram.size_bytes > MAX_TILE_SRAM_BYTES:
        expected = f"at most {MAX_TILE_SRAM_BYTES}"
        yield fail(
            where, "tile.sram.size_bytes", sram.size_bytes, expected, "give bytes of one tile"
        )
    if sram.size_bytes % sram.alignment_bytes:
        expected = f"a multiple of alignment_bytes, {sram.alignment_bytes}"
        yield fail(where, "tile.sram.size_bytes", sram.size_bytes, expected, "round it down")
    if sram.bank_layout is BankLayout.BLOCKS and sram.size_bytes % (
        sram.banks * sram.alignment_bytes
    ):
        key = "tile.sram.banks"
        expected = f"equal parts of {sram.size_bytes} bytes, multiples of alignment_bytes"
        yield fail(where, key, sram.banks, expected, "change it or set bank_layout to interleaved")
    if semaphores > MAX_SEMAPHORES:
        key, expected = "tile.control.semaphores", f"at most {MAX_SEMAPHORES}"
        yield fail(where, key, semaphores, expected, "give those of one tile")
    yield from _rate_errors(where, "tile.sram.bytes_per_cycle", sram.bytes_per_cycle)
    yield from _rate_errors(where, "tile.dma.in_bytes_per_cycle", dma.in_bytes_per_cycle)
    yield from _rate_errors(where, "tile.dma.out_bytes_per_cycle", dma.out_bytes_per_cycle)


def _disabled_errors(target: Target, where: str) -> Iterator[TargetError]:
    key, sizes = "disabled_tiles", [axis.size for axis in target.axes]
    for tile in target.disabled_tiles:
        if isinstance(tile, int):
            if tile >= target.built_tiles:
                expected = f"a tile from 0 to {target.built_tiles - 1}"
                yield fail(where, key, tile, expected, "correct or drop it")
        elif len(tile) != len(sizes) or any(map(ge, tile, sizes)):
            expected = f"a coordinate on each of {axes_text(target)}, counted from 0"
            yield fail(where, key, list(tile), expected, "correct or drop it")
    places = target.disabled_coordinates
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        yield fail(where, key, f"{list(twice)} twice", "each tile once", "drop one")
    if not target.tiles:
        expected = f"at least one tile of {axes_text(target)} that works"
        yield fail(where, key, f"all {target.built_tiles} tiles", expected, "list fewer")


def axes_text(target: Target) -> str:
    """Write the axes with their sizes."""
    return " x ".join(f"{axis.name} {axis.size}" for axis in target.axes)


def _dram_errors(target: Target, where: str) -> Iterator[TargetError]:
    dram = target.dram
    yield from _rate_errors(where, "dram.port_bytes_per_cycle", dram.port_bytes_per_cycle)
    if dram.ports > MAX_TILES:
        yield fail(where, "dram.ports", dram.ports, f"at most {MAX_TILES}", "merge ports")
    if dram.attach_axis is None:
        return
    ends = tuple(level.axes[-1] for level in target.interconnects)
    if dram.attach_axis not in ends:
        expected = f"the last axis of an interconnect: {', '.join(ends)}"
        yield fail(where, "dram.attach_axis", dram.attach_axis, expected, "name one, or null")
        return
    units = units_down_to(target, dram.attach_axis)
    if dram.ports % units:
        expected = f"a multiple of the {units} units of {dram.attach_axis}"
        yield fail(where, "dram.ports", dram.ports, expected, "give each unit the same number")


def units_down_to(target: Target, axis: str) -> int:
    """Return the number of units at an axis: the product of its size and all sizes outside it."""
    names = [item.name for item in target.axes]
    return prod(item.size for item in target.axes[: names.index(axis) + 1])


def _evidence_errors(target: Target, where: str) -> Iterator[TargetError]:
    for name, peak in target.published_peaks.items():
        if peak.dtype is not None and peak.dtype not in target.tile.matrix.columns:
            key = f"published_peaks.{name}.dtype"
            yield fail(where, key, peak.dtype, "a type of tile.matrix.columns", "set it to null")
    paths = [path for path, _ in figures(target)]
    for path in paths:
        if evidence_path(target, path) is None:
            yield fail(
                where,
                path,
                "no evidence",
                "a basis (published, derived or assumed) and a source",
                f"add '{path}' or its section to evidence",
            )
    sections = {path[: end.start()] for path in paths for end in re.finditer(r"\.", path)}
    for key, item in target.evidence.items():
        if key not in sections and key not in paths:
            yield fail(
                where, f"evidence.{key}", "a path of no figure", "a path", "correct the path"
            )
        if not item.source.strip():
            lever = "say where the figure comes from"
            yield fail(where, f"evidence.{key}.source", "an empty text", "a source", lever)
