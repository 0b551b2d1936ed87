"""Our description of a machine as Stream 2.1.1's: an accelerator that names a file for each core.

What the schema asks for (stream-dse 2.1.1, `stream/parser/accelerator_validator.py` and `core_validator.py`):
sizes in bits, rates in bits per cycle; a `link` carries its rate in each direction; DRAM is a core of its
own behind links. The tile is laid out like the core `tpu_like` that Stream ships: weights in registers of the
elements, one 32-bit accumulator a column, one scratchpad with a read and a write port.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tilewright.dtypes import DType
from tilewright.errors import TargetError
from tilewright.hwmodel.network import Network, network_of
from tilewright.hwmodel.target import Dataflow, Target, Tile, Topology

ACCELERATOR, TILE, DRAM = "accelerator.yaml", "tile.yaml", "dram.yaml"
_WEIGHT_REGISTER_BITS = 1024
"""Of each element of the array; `tpu_like` has as much."""
_ACCUMULATOR_BITS = 32
_LEAST_PORT_BITS = 64
_PORT_TYPES = {"r": "read", "w": "write", "rw": "read_write"}
_OPERANDS = ("I1", "I2", "O")

Document = dict[str, Any]


def stream_documents(target: Target) -> Mapping[str, Document]:
    """Return the files of Stream's description by name; `ACCELERATOR` refers to the others.

    Raises:
        TargetError: Stream has no words for the machine: it is not one mesh of weight-stationary arrays.
    """
    _check(target)
    return {
        ACCELERATOR: _accelerator(target),
        TILE: _tile(target.tile),
        DRAM: _dram(target),
    }


def write_hardware(target: Target, folder: Path) -> Path:
    """Write the files into a folder and return the accelerator's."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in stream_documents(target).items():
        (folder / name).write_text(yaml.safe_dump(document, sort_keys=False))
    return folder / ACCELERATOR


def port_tiles(target: Target) -> tuple[int, ...]:
    """Return the tile beside each DRAM port: the one that the fewest links lead to."""
    network = network_of(target)
    return tuple(_nearest(network, port) for port in range(target.dram.ports))


def _nearest(network: Network, port: int) -> int:
    return min(
        range(network.target.tiles), key=lambda tile: (len(network.read_path(port, tile)), tile)
    )


def _check(target: Target) -> None:
    level, *others = target.interconnects
    where = f"target '{target.name}': Stream's description"
    if others or level.topology is not Topology.MESH or target.dram.attach_axis is not None:
        raise TargetError(
            f"{where}: found {len(target.interconnects)} levels, the first a {level.topology}, expected "
            "one mesh with DRAM on its edge; compare another target"
        )
    if target.tile.matrix.dataflow is not Dataflow.WEIGHT_STATIONARY:
        raise TargetError(
            f"{where}: found {target.tile.matrix.dataflow}, expected weight_stationary; "
            "change tile.matrix.dataflow"
        )


def _bits(bytes_per_cycle: float) -> int:
    return round(8 * bytes_per_cycle)


def _accelerator(target: Target) -> Document:
    sizes = [axis.size for axis in target.axes]
    columns = sizes[-1]
    rate = target.interconnects[0].link_bytes_per_cycle
    assert rate is not None, "the loader checks this"
    links = [
        {"type": "link", "cores": [tile, other], "bandwidth": _bits(rate)}
        for tile in range(target.tiles)
        for other in (tile + 1, tile + columns)
        if other < target.tiles and (other == tile + columns or other % columns)
    ]
    port_rate = _bits(target.dram.port_bytes_per_cycle * target.dram.efficiency)
    memory = target.tiles
    links += [
        {"type": "link", "cores": [tile, memory], "bandwidth": port_rate}
        for tile in port_tiles(target)
    ]
    places = {tile: [tile % columns, tile // columns] for tile in range(target.tiles)}
    return {
        "name": target.name,
        "cores": {**dict.fromkeys(range(target.tiles), f"./{TILE}"), memory: f"./{DRAM}"},
        "core_coordinates": {**places, memory: [0, target.tiles // columns]},
        "offchip_core_id": memory,
        "unit_energy_cost": 0,
        "core_connectivity": links,
    }


def _tile(tile: Tile) -> Document:
    matrix, sram = tile.matrix, tile.sram
    port_bits = _bits(sram.bytes_per_cycle / 2)
    return {
        "name": "tile",
        "type": "zigzag.compute",
        "memories": {
            "weights": {
                **_memory(_WEIGHT_REGISTER_BITS, ("I2",), ()),
                "ports": [_port("r", 8, ["I2, tl"]), _port("w", 8, ["I2, fh"])],
            },
            "accumulator": {
                **_memory(_ACCUMULATOR_BITS, ("O",), ("D2",)),
                "ports": [
                    _port(kind, _ACCUMULATOR_BITS, [f"O, {level}"], number)
                    for kind, levels in (("r", ("tl", "th")), ("w", ("fh", "fl")))
                    for number, level in enumerate(levels, 1)
                ],
            },
            "sram": {
                **_memory(8 * sram.size_bytes, _OPERANDS, ("D1", "D2")),
                "ports": [
                    _port("r", port_bits, ["I1, tl", "I2, tl", "O, tl", "O, th"]),
                    _port("w", port_bits, ["I1, fh", "I2, fh", "O, fh", "O, fl"]),
                ],
            },
        },
        "operational_array": {
            "unit_energy": 0.04,
            "unit_area": 1,
            "dimensions": ["D1", "D2"],
            "sizes": [matrix.columns[DType.I8], matrix.rows],
            "systolic_dimensions": ["D1", "D2"],
        },
        "operand_precision": {"input": "int8", "accumulator": "int32"},
    }


def _dram(target: Target) -> Document:
    rate = _bits(target.dram_bytes_per_cycle)
    levels = [f"{operand}, {level}" for operand in ("I1", "I2") for level in ("fh", "tl")]
    levels += [f"O, {level}" for level in ("fh", "tl", "fl", "th")]
    return {
        "name": "dram",
        "type": "zigzag.offchip",
        "memories": {
            "dram": {
                **_memory(8 * target.dram.size_bytes, _OPERANDS, ("D1", "D2")),
                "ports": [_port("rw", rate, levels)],
            }
        },
        "operational_array": {
            "unit_energy": 0,
            "unit_area": 0,
            "dimensions": ["D1", "D2"],
            "sizes": [0, 0],
        },
    }


def _memory(size_bits: int, operands: tuple[str, ...], served: tuple[str, ...]) -> Document:
    """Return a memory without its ports; cycles are compared, so that its energies are of no account."""
    return {
        "size": size_bits,
        "r_cost": 1,
        "w_cost": 1,
        "area": 0,
        "latency": 1,
        "operands": list(operands),
        "served_dimensions": list(served),
    }


def _port(kind: str, rate_bits: int, allocation: list[str], number: int = 1) -> Document:
    """Return a port; the schema wants names such as `rw_port_1`."""
    return {
        "name": f"{kind}_port_{number}",
        "type": _PORT_TYPES[kind],
        "bandwidth_min": min(_LEAST_PORT_BITS, rate_bits),
        "bandwidth_max": rate_bits,
        "allocation": allocation,
    }
