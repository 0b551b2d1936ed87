"""The plain family of targets: R x C equal tiles on a mesh, by parameters instead of a file."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tilewright.dtypes import DType
from tilewright.hwmodel.check import check_target
from tilewright.hwmodel.target import (
    Basis,
    Control,
    Dma,
    Dram,
    Energy,
    Evidence,
    HostLink,
    Interconnect,
    LogicalAxis,
    MatrixUnit,
    MeshAxis,
    Scratchpad,
    Target,
    Tile,
    Topology,
    VectorUnit,
    interned,
)

PARAMETERS: Mapping[str, type[int] | type[float]] = MappingProxyType(
    {
        "sram_kib": int,
        "array": int,
        "lanes": int,
        "link_bytes_per_cycle": float,
        "sram_bytes_per_cycle": float,
        "dram_ports": int,
        "dram_port_bytes_per_cycle": float,
        "clock_ghz": float,
    }
)
"""The parameters of `mesh_target` that a name `mesh_RxC?key=value` may set."""

FUNCTION_CYCLES: Mapping[str, float] = MappingProxyType(
    dict.fromkeys("exp log sqrt rsqrt reciprocal div softplus sigmoid tanh silu".split(), 4.0)
    | dict.fromkeys("erf gelu gelu_tanh pow pow_const mod fmod sin cos elu".split(), 8.0)
    | dict.fromkeys("tan asin acos atan sinh cosh".split(), 12.0)
)
"""Cycles per vector of the functions that take several passes, as assumed for the plain family."""

_DTYPES = tuple(dtype for dtype in DType if dtype is not DType.BOOL)


def mesh_target(
    rows: int,
    columns: int,
    *,
    name: str | None = None,
    sram_kib: int = 256,
    array: int = 16,
    lanes: int = 16,
    link_bytes_per_cycle: float = 32.0,
    sram_bytes_per_cycle: float = 128.0,
    dram_ports: int | None = None,
    dram_port_bytes_per_cycle: float = 16.0,
    clock_ghz: float = 1.0,
) -> Target:
    """Return a mesh of equal tiles; all figures are assumed.

    Args:
        rows: Tiles along the logical axis `y`.
        columns: Tiles along the logical axis `x`.
        name: Name of the target; `mesh_RxC` without it.
        sram_kib: Scratchpad of a tile in KiB.
        array: Rows and columns of the matrix unit.
        lanes: Elements per cycle of the vector unit.
        link_bytes_per_cycle: Rate of mesh links, tile ports and DMA engines.
        sram_bytes_per_cycle: Rate of a tile's scratchpad.
        dram_ports: DRAM ports on the edge; a port for each row without it.
        dram_port_bytes_per_cycle: Rate of a DRAM port.
        clock_ghz: Clock.

    Raises:
        TargetError: The figures do not fit each other.
        pydantic.ValidationError: A figure is out of range.
    """
    ports = dram_ports if dram_ports is not None else rows
    assumed = Evidence(basis=Basis.ASSUMED, source="plain mesh family, a round figure")
    sections = "clock_ghz axes interconnects tile dram host energy".split()
    target = Target(
        name=name or f"mesh_{rows}x{columns}",
        description=f"Plain mesh of {rows} x {columns} tiles with round figures",
        clock_ghz=clock_ghz,
        axes=(MeshAxis(name="row", size=rows), MeshAxis(name="column", size=columns)),
        interconnects=(
            Interconnect(
                axes=("row", "column"),
                topology=Topology.MESH,
                port_bytes_per_cycle=link_bytes_per_cycle,
                link_bytes_per_cycle=link_bytes_per_cycle,
                hop_cycles=2.0,
            ),
        ),
        logical_axes=(
            LogicalAxis(name="y", axes=("row",)),
            LogicalAxis(name="x", axes=("column",)),
        ),
        tile=_tile(sram_kib * 1024, array, lanes, link_bytes_per_cycle, sram_bytes_per_cycle),
        dram=Dram(
            size_bytes=2**34,
            ports=ports,
            port_bytes_per_cycle=dram_port_bytes_per_cycle,
            efficiency=0.9,
            latency_cycles=100.0,
            read_multicast=True,
        ),
        host=HostLink(bytes_per_cycle=16.0, latency_cycles=1000.0),
        energy=Energy(
            mac_pj={dtype: 0.25 * dtype.itemsize_bytes**1.5 for dtype in _DTYPES},
            vector_op_pj=1.0,
            sram_pj_per_byte=1.0,
            noc_pj_per_byte_hop=0.5,
            dram_pj_per_byte=40.0,
        ),
        evidence=dict.fromkeys(sections, assumed),
    )
    check_target(target, f"'{target.name}'")
    return interned(target)


def _tile(
    sram_bytes: int,
    array: int,
    lanes: int,
    link_bytes_per_cycle: float,
    sram_bytes_per_cycle: float,
) -> Tile:
    """Return a tile whose array takes half a cycle per row and byte of element, at least one."""
    half_rate = sram_bytes_per_cycle / 2  # the other half is left to activations and results
    return Tile(
        matrix=MatrixUnit(
            rows=array,
            columns=dict.fromkeys(_DTYPES, array),
            cycles_per_row={dtype: max(1.0, dtype.itemsize_bytes / 2) for dtype in _DTYPES},
            weight_load_cycles={
                d: max(1.0, array**2 * d.itemsize_bytes / half_rate) for d in _DTYPES
            },
            weight_slots=2,
            overlap_weight_load=True,
            fill_cycles=2.0 * array,
        ),
        vector=VectorUnit(lanes=lanes, function_cycles=dict(FUNCTION_CYCLES), startup_cycles=8.0),
        sram=Scratchpad(size_bytes=sram_bytes, banks=8, bytes_per_cycle=sram_bytes_per_cycle),
        dma=Dma(
            in_bytes_per_cycle=link_bytes_per_cycle,
            out_bytes_per_cycle=link_bytes_per_cycle,
            startup_cycles=16.0,
        ),
        control=Control(semaphores=64, issue_cycles=1.0),
    )
