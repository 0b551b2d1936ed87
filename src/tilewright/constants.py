"""Constants of a graph, of which some may be known by type only.

A compilation up to the plan needs no weights. A model of 70 billion parameters is then a few
megabytes: absent constants have a name and a type (`Graph.types`), and say where their values are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from tilewright.errors import ModelError
from tilewright.graph import Array

NOTHING: Mapping[str, str] = MappingProxyType({})


class Constants(Mapping[str, Array]):
    """A mapping from names to values in which reading an absent value raises `ModelError`.

    Attributes:
        known: The constants that have values.
        absent: Of the others, which tensor of which file has the values, in words.
    """

    __slots__ = ("absent", "known")

    def __init__(self, known: Mapping[str, Array], absent: Mapping[str, str] = NOTHING) -> None:
        self.known = MappingProxyType(dict(known))
        self.absent = MappingProxyType(dict(absent))

    def __getitem__(self, name: str) -> Array:
        if name in self.absent:
            raise absent_error(f"constant '{name}'", self.absent[name])
        return self.known[name]

    def __contains__(self, name: object) -> bool:
        return name in self.known or name in self.absent

    def __iter__(self) -> Iterator[str]:
        yield from self.known
        yield from self.absent

    def __len__(self) -> int:
        return len(self.known) + len(self.absent)


def known(constants: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return the constants that have values."""
    return constants.known if isinstance(constants, Constants) else constants


def absent(constants: Mapping[str, Array]) -> Mapping[str, str]:
    """Return the places of values that were not loaded, by name."""
    return constants.absent if isinstance(constants, Constants) else NOTHING


def absent_error(where: str, place: str) -> ModelError:
    """Return the error of work that needs a value that was not loaded.

    Args:
        where: What needs it.
        place: Which values, and where they are.
    """
    return ModelError(
        f"{where}: needs the values of {place}, which were not loaded; "
        "load the model with its weights (without --shapes-only, weights=True)"
    )
