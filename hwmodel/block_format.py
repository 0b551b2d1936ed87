"""Machines whose matrix units take floats in a block format."""

from __future__ import annotations

from tilewright.dtypes import BLOCK_SOURCES, BlockFormat, DType
from tilewright.errors import TargetError
from tilewright.hwmodel.target import Target

_ELEMENT = DType.I8


def with_block_format(target: Target, name: str) -> Target:
    """Return a machine that multiplies floats in a block format.

    The array works at the rate and the energy of the format's elements, 8-bit integers. Operands lie in
    memory as they are: loading stationary weights takes as long as before.

    Args:
        target: The machine.
        name: Of a `BlockFormat`.

    Raises:
        TargetError: There is no such format, or the machine has no figures for 8-bit integers, or for no
            floats.
    """
    try:
        block_format = BlockFormat(name)
    except ValueError:
        known = ", ".join(BlockFormat)
        raise TargetError(f"matmul format '{name}' is unknown; choose one of {known}") from None
    matrix, energy = target.tile.matrix, target.energy
    if _ELEMENT not in matrix.columns:
        raise TargetError(
            f"target '{target.name}': tile.matrix.columns has no {_ELEMENT}, whose rates {name} takes; "
            "add its figures, or leave the matmul format out"
        )
    floats = [dtype for dtype in BLOCK_SOURCES if dtype in matrix.columns]
    if not floats:
        raise TargetError(
            f"target '{target.name}': tile.matrix.columns has {', '.join(matrix.columns)} alone, expected "
            f"one of {', '.join(BLOCK_SOURCES)}, which {name} rounds; add its figures, or leave the matmul "
            "format out"
        )
    changed = matrix.model_copy(
        update={
            "block_format": block_format,
            "columns": {**matrix.columns, **dict.fromkeys(floats, matrix.columns[_ELEMENT])},
            "cycles_per_row": {
                **matrix.cycles_per_row,
                **dict.fromkeys(floats, matrix.cycles_per_row[_ELEMENT]),
            },
        }
    )
    mac_pj = {**energy.mac_pj, **dict.fromkeys(floats, energy.mac_pj[_ELEMENT])}
    return target.model_copy(
        update={
            "name": f"{target.name} with {name}",
            "tile": target.tile.model_copy(update={"matrix": changed}),
            "energy": energy.model_copy(update={"mac_pj": mac_pj}),
        }
    )
