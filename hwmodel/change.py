"""Changes of a target, written `FIGURE=VALUE` or `FIGURE=xFACTOR`: what if it had twice the scratchpad?"""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from tilewright.errors import TargetError
from tilewright.hwmodel.check import check_target
from tilewright.hwmodel.target import Target, interned

ALIASES = {
    "sram": "tile.sram.size_bytes",
    "sram_bandwidth": "tile.sram.bytes_per_cycle",
    "dram": "dram.size_bytes",
    "dram_bandwidth": "dram.port_bytes_per_cycle",
    "clock": "clock_ghz",
    "lanes": "tile.vector.lanes",
}
"""Short names of figures that are often asked about; `mesh=RxC` sets the sizes of all axes."""

_FACTOR = re.compile(r"x(\d+(?:\.\d+)?)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SIZES = re.compile(r"\d+(?:x\d+)*")


def changed_target(target: Target, change: str) -> Target:
    """Return a target with one figure changed.

    Args:
        target: The machine.
        change: `sram=x2`, `dram_bandwidth=32`, `mesh=4x8`, or a dotted path of the target's file, as
            `tile.matrix.rows=32`; items of lists go by their name (`axes.row.size=8`) or number.
            A multiple of a whole number is rounded to one.

    Raises:
        TargetError: There is no such figure, the value is no number, or the target is wrong with it.
    """
    name, equals, value = change.partition("=")
    if not equals or not name or not value:
        raise TargetError(
            f"change '{change}': expected FIGURE=VALUE or FIGURE=xFACTOR, for example sram=x2"
        )
    data = target.model_dump(mode="json")
    if name == "mesh":
        _set_mesh(data, change, value)
    else:
        _set(data, ALIASES.get(name, name).split("."), change, value)
    if "schema_version" in data:
        data["name"] = f"{target.name} with {change}"
    try:
        found = Target.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise TargetError(
            f"change '{change}': {where}: {first['msg'].lower()}; choose another value"
        ) from None
    check_target(found, f"'{found.name}'")
    return interned(found)


def with_scratchpad(target: Target, size_bytes: int) -> Target:
    """Return the target as what may fill only so much of its scratchpads sees it."""
    sram = target.tile.sram.model_copy(update={"size_bytes": size_bytes})
    return target.model_copy(update={"tile": target.tile.model_copy(update={"sram": sram})})


def _set_mesh(data: dict[str, Any], change: str, value: str) -> None:
    axes = data["axes"]
    sizes = value.split("x")
    if not _SIZES.fullmatch(value) or len(sizes) != len(axes):
        names = ", ".join(axis["name"] for axis in axes)
        raise TargetError(
            f"change '{change}': expected a size for each of the axes {names}, joined by x"
        )
    for axis, size in zip(axes, sizes, strict=True):
        axis["size"] = int(size)


def _set(data: dict[str, Any], path: list[str], change: str, value: str) -> None:
    place: Any = data
    for step in path[:-1]:
        place = _item(place, step, change)
    key: Any = path[-1]
    if isinstance(place, list):
        key = next((n for n, own in enumerate(place) if str(n) == key), None)
    before = place.get(key) if isinstance(place, dict) else None
    if isinstance(before, bool) or not isinstance(before, int | float):
        raise TargetError(
            f"change '{change}': '{'.'.join(path)}' is no figure of the target; expected one of "
            f"{', '.join(sorted(ALIASES))}, mesh, or a path of 'tilewright targets NAME'"
        )
    if match := _FACTOR.fullmatch(value):
        after = before * float(match[1])
        if isinstance(before, int):
            after = round(after)  # bytes, tiles and the like are whole
    elif _NUMBER.fullmatch(value):
        after = float(value)
    else:
        raise TargetError(f"change '{change}': found '{value}', expected a number or xFACTOR")
    place[key] = int(after) if isinstance(before, int) and after == int(after) else after


def _item(place: Any, step: str, change: str) -> Any:
    """Return a part of nested dictionaries and lists of named parts."""
    if isinstance(place, dict) and step in place:
        return place[step]
    if isinstance(place, list):
        for number, own in enumerate(place):
            if step in (str(number), own.get("name"), "-".join(own.get("axes", ()))):
                return own
    raise TargetError(
        f"change '{change}': the target has no '{step}'; see 'tilewright targets NAME' for its figures"
    )
