"""The machines of the comparison: meshes of 64 x 64 arrays with 256 KiB each, as both tools describe them.

What Stream has no notion of costs nothing here: latencies of hops, memory and start-ups, bursts, the issue
of instructions. Rates are in bytes per cycle; `benchmarks.stream.hardware` writes them in bits per cycle.
"""

from __future__ import annotations

from typing import Any

from tilewright.hwmodel.check import check_target
from tilewright.hwmodel.target import Target

ARRAY = 64
"""Rows and columns of a tile's matrix unit, which takes one row a cycle."""
SRAM_BYTES = 256 * 1024
SRAM_BYTES_PER_CYCLE = 256
"""Reads and writes together: Stream's tile has one port of 1024 bits a cycle for each."""
LINK_BYTES_PER_CYCLE = 16
_ITEMSIZES = {"i8": 1, "u8": 1, "f16": 2, "bf16": 2, "f32": 4, "i32": 4}


def mesh(
    rows: int,
    columns: int,
    ports: int,
    port_bytes_per_cycle: int,
    sram_bytes_per_cycle: int = SRAM_BYTES_PER_CYCLE,
) -> Target:
    """Return a mesh of tiles with DRAM ports spread over its edge.

    Args:
        rows: Of the mesh.
        columns: Of the mesh.
        ports: Of the DRAM.
        port_bytes_per_cycle: Of one port, reads and writes together.
        sram_bytes_per_cycle: Of a tile's scratchpad, reads and writes together.
    """
    name = f"mesh{rows}x{columns}_dram{ports}x{8 * port_bytes_per_cycle}"
    axes = ("row", "column")
    data = {
        "name": name,
        "description": f"{rows} x {columns} tiles, {ports} DRAM ports, as Stream can describe them",
        "clock_ghz": 1.0,
        "axes": [{"name": axis, "size": n} for axis, n in zip(axes, (rows, columns), strict=True)],
        "interconnects": [
            {
                "axes": axes,
                "topology": "mesh",
                "port_bytes_per_cycle": sram_bytes_per_cycle // 2,
                "link_bytes_per_cycle": LINK_BYTES_PER_CYCLE,
                "hop_cycles": 0,
            }
        ],
        "logical_axes": [{"name": "y", "axes": ["row"]}, {"name": "x", "axes": ["column"]}],
        "tile": _tile(sram_bytes_per_cycle),
        "dram": {
            "size_bytes": 2**34,
            "ports": ports,
            "port_bytes_per_cycle": port_bytes_per_cycle,
            "efficiency": 1.0,
            "latency_cycles": 0,
            "read_multicast": True,
        },
        "host": {"bytes_per_cycle": 16, "latency_cycles": 0},
        "energy": {
            "mac_pj": dict.fromkeys(_ITEMSIZES, 0.04),
            "vector_op_pj": 0.04,
            "sram_pj_per_byte": 3.0,
            "noc_pj_per_byte_hop": 0.5,
            "dram_pj_per_byte": 125.0,
        },
        "evidence": {
            key: {"basis": "assumed", "source": "what Stream's description of hardware can express"}
            for key in ("clock_ghz", "axes", "interconnects", "tile", "dram", "host", "energy")
        },
    }
    target = Target.model_validate(data)
    check_target(target, f"'{name}'")
    return target


def _tile(sram_bytes_per_cycle: int) -> dict[str, Any]:
    port = sram_bytes_per_cycle // 2
    return {
        "matrix": {
            "rows": ARRAY,
            "columns": dict.fromkeys(_ITEMSIZES, ARRAY),
            "cycles_per_row": dict.fromkeys(_ITEMSIZES, 1),
            "weight_load_cycles": {
                name: ARRAY * ARRAY * size / port for name, size in _ITEMSIZES.items()
            },
            "weight_slots": 2,
            "overlap_weight_load": True,
            "fill_cycles": 2 * ARRAY - 2,
        },
        "vector": {"lanes": ARRAY * ARRAY, "function_cycles": {}, "startup_cycles": 0},
        "sram": {
            "size_bytes": SRAM_BYTES,
            "banks": 8,
            "bytes_per_cycle": sram_bytes_per_cycle,
        },
        "dma": {
            "in_bytes_per_cycle": port,
            "out_bytes_per_cycle": port,
            "startup_cycles": 0,
            "burst_bytes": 1,
        },
        "control": {"issue_cycles": 0},
    }
