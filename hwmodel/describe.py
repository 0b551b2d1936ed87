"""What a person wants to know of a target, as plain rows."""

from __future__ import annotations

from tilewright.dtypes import DType
from tilewright.hwmodel.check import axes_text, evidence_path
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.target import Interconnect, Target

_COMMON = (DType.I8, DType.F16, DType.BF16, DType.F32)


def describe_target(target: Target) -> tuple[tuple[str, str, str], ...]:
    """Return (label, value, evidence) rows; the evidence is empty where all is counted up here."""
    tile, dram, matrix = target.tile, target.dram, target.tile.matrix
    mesh = logical_mesh(target)
    logical = " x ".join(f"{n} {s}" for n, s in zip(mesh.names, mesh.sizes, strict=True))
    rows = [
        ("name", target.name, ""),
        ("description", target.description, ""),
        ("clock", f"{target.clock_ghz:g} GHz", _evidence(target, "clock_ghz")),
        ("tiles", str(target.tiles), ""),
        (
            "axes",
            axes_text(target),
            _evidence(target, f"axes.{target.axes[0].name}.size"),
        ),
        *_left_out_rows(target),
        ("logical mesh", logical or "one tile", ""),
    ]
    rows += [_level_row(target, level) for level in target.interconnects]
    columns = max(matrix.columns.values())
    rows.append(
        ("matrix unit", f"{matrix.rows} x {columns}", _evidence(target, "tile.matrix.rows"))
    )
    rows += [
        (
            f"peak {dtype}",
            f"{_scaled(target.peak_ops_per_s(dtype))}op/s",
            _evidence(target, f"tile.matrix.cycles_per_row.{dtype}"),
        )
        for dtype in _COMMON
        if dtype in matrix.columns
    ]
    rows += [
        (
            f"published peak {name}",
            f"{_scaled(peak.ops_per_s)}op/s",
            f"published: {peak.source}",
        )
        for name, peak in target.published_peaks.items()
    ]
    sram_rate = _scaled(target.sram_bytes_per_s)
    dram_rate = _scaled(dram.ports * dram.port_bytes_per_cycle * target.clock_ghz * 1e9)
    rows += [
        ("vector unit", f"{tile.vector.lanes} lanes", _evidence(target, "tile.vector.lanes")),
        (
            "SRAM",
            f"{_scaled(target.sram_bytes)}B, {_scaled(tile.sram.size_bytes)}B a tile",
            _evidence(target, "tile.sram.size_bytes"),
        ),
        ("SRAM bandwidth", f"{sram_rate}B/s", _evidence(target, "tile.sram.bytes_per_cycle")),
        (
            "DRAM",
            f"{_scaled(dram.size_bytes)}B, {dram.ports} ports",
            _evidence(target, "dram.size_bytes"),
        ),
        (
            "DRAM bandwidth",
            f"{dram_rate}B/s, {dram.efficiency:.0%} of it usable",
            _evidence(target, "dram.port_bytes_per_cycle"),
        ),
    ]
    return tuple(rows)


def _left_out_rows(target: Target) -> list[tuple[str, str, str]]:
    """Return a row on disabled tiles and what is left out with them, none where all tiles work."""
    if not target.disabled_tiles:
        return []
    left_out = [
        f"{axis.name} {unit}"
        for axis, used in zip(target.axes, target.units, strict=True)
        for unit in sorted(set(range(axis.size)) - set(used))
    ]
    tiles = target.built_tiles - target.tiles
    text = f"{len(target.disabled_tiles)}; left out: {', '.join(left_out)} ({tiles} tiles)"
    return [("disabled tiles", text, "")]


def _level_row(target: Target, level: Interconnect) -> tuple[str, str, str]:
    name = "-".join(level.axes)
    port = _scaled(level.port_bytes_per_cycle * target.clock_ghz * 1e9)
    value = f"{level.topology}, {port}B/s a port, {level.hop_cycles:g} cycles a hop"
    return (
        f"network of {name}",
        value,
        _evidence(target, f"interconnects.{name}.port_bytes_per_cycle"),
    )


def _evidence(target: Target, path: str) -> str:
    """Return 'basis: source' of a figure."""
    key = evidence_path(target, path)
    if key is None:
        return ""
    item = target.evidence[key]
    return f"{item.basis}: {item.source}"


def _scaled(value: float) -> str:
    """Write a number with a decimal prefix.

    >>> _scaled(2.4e15), _scaled(262144)
    ('2.4 P', '262 k')
    """
    for factor, prefix in (
        (1e18, "E"),
        (1e15, "P"),
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
    ):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "
