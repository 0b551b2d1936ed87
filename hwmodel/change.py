"""Changes of a target, written `FIGURE=VALUE` or `FIGURE=xFACTOR`: what if it had twice the scratchpad?"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, TypeGuard

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

LINK_BANDWIDTH = "link_bandwidth"
_LINK_FIGURES = ("port_bytes_per_cycle", "link_bytes_per_cycle")
"""The short name of the rates of ports and links on every level of the network, and these figures."""

_NO_FIGURES = ("schema_version", "evidence", "published_peaks", "logical_axes", "disabled_tiles")
"""Parts of a target's file that say something about figures, or give them names."""

_FACTOR = re.compile(r"x(\d+(?:\.\d+)?)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SIZES = re.compile(r"\d+(?:x\d+)*")


def changed_target(target: Target, change: str) -> Target:
    """Return a target with one figure changed.

    Args:
        target: The machine.
        change: `sram=x2`, `dram_bandwidth=32`, `link_bandwidth=x2` (ports and links of all levels),
            `mesh=4x8`, or a dotted path of the target's file, as `tile.matrix.rows=32`; items of lists go
            by their name (`axes.row.size=8`) or number.
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
    elif name == LINK_BANDWIDTH:
        for level in data["interconnects"]:
            for figure in _LINK_FIGURES:
                if level[figure] is not None:  # a crossbar has ports alone
                    level[figure] = _value(level[figure], change, figure, value)
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
    for number in range(len(path) - 1):
        place = _item(place, path, number, change)
    key: Any = path[-1]
    if isinstance(place, list):
        key = next((n for n, own in enumerate(place) if str(n) == key), None)
    before = place.get(key) if isinstance(place, dict) else None
    if not _is_figure(before):
        raise _no_figure(place, path, len(path) - 1, change)
    place[key] = _value(before, change, ".".join(path), value)


def _value(before: float, change: str, figure: str, value: str) -> float:
    """Return what a figure changes to."""
    if match := _FACTOR.fullmatch(value):
        after = before * float(match[1])
        if isinstance(before, int):
            after = round(after)  # bytes, tiles and the like are whole
    elif _NUMBER.fullmatch(value):
        after = float(value)
    else:
        raise TargetError(
            f"change '{change}': found '{value}', expected a number or xFACTOR for {figure}, which is "
            f"{before:,} now"
        )
    return int(after) if isinstance(before, int) and after == int(after) else after


def _is_figure(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _item(place: Any, path: list[str], number: int, change: str) -> Any:
    """Return a part of nested dictionaries and lists of named parts."""
    step = path[number]
    if isinstance(place, dict) and isinstance(place.get(step), dict | list):
        return place[step]
    for position, own in enumerate(place if isinstance(place, list) else ()):
        if step in (str(position), _name_of(own)):
            return own
    raise _no_figure(place, path, number, change)


def _name_of(part: Any) -> str:
    """Return the name of an item of a list: its own, or the axes that it is about."""
    return str(part.get("name") or "-".join(part.get("axes", ()))) if isinstance(part, dict) else ""


def _no_figure(place: Any, path: list[str], number: int, change: str) -> TargetError:
    """Return the error of a path that ends at no figure at one of its steps, with what there is instead."""
    step, last = path[number], number == len(path) - 1
    if last and isinstance(place, dict) and isinstance(place.get(step), dict | list):
        place, step, number = place[step], "", number + 1  # it stops short
    before = ".".join(path[:number])
    known = _names_in(place)
    if not before:
        known = sorted({*ALIASES, LINK_BANDWIDTH, "mesh", *known})
    close = get_close_matches(step, known, 1)
    hint = f"; did you mean {'.'.join((*path[:number], *close))}" if close else ""
    found = ".".join(path[: number + 1])
    expected = f"{before} and one of" if before else "one of"
    return TargetError(
        f"change '{change}': '{found}' is no figure of the target, expected {expected} "
        f"{', '.join(known)}{hint}"
    )


def _names_in(place: Any) -> list[str]:
    """Return what a path may go on with in a part of a target: figures, and what has some."""
    if isinstance(place, list):
        return [name for own in place if (name := _name_of(own))]
    return [
        name
        for name, own in place.items()
        if name not in _NO_FIGURES and (_is_figure(own) or (isinstance(own, dict | list) and own))
    ]
