"""What was made once of options of variables, so that tables that are much alike share their parts."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any


class Remembered:
    """Parts of tables by what they were made of; for one machine and one way to price."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._known: dict[tuple[Hashable, ...], tuple[tuple[object, ...], Any]] = {}

    def part[T](
        self, sources: tuple[object, ...], key: tuple[Hashable, ...], make: Callable[[], T]
    ) -> T:
        """Return a part; asked for the same again, the same object.

        Args:
            sources: What it is made of, told apart as objects, which is quicker than by their values.
            key: What it is, and all else that it depends on.
            make: Makes it.
        """
        full = (*key, *map(id, sources))
        found = self._known.get(full)
        if found is None:
            found = self._known[full] = (
                sources,
                make(),
            )  # sources stay, so that no other has their id
        part: T = found[1]
        return part
