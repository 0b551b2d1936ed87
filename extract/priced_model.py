"""The variables of a rolled model with their priced options and the links between them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from tilewright.extract.links import Link
from tilewright.extract.option import Option
from tilewright.extract.origins import Variable
from tilewright.extract.pricing import Pricing
from tilewright.extract.remembered import Remembered
from tilewright.graph import TensorType
from tilewright.rules.alternatives import Alternatives


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PricedModel:
    """What the tables of a model are made of.

    `multiplicity` counts the instances of each block, `number` is the place of each variable in `variables`.
    """

    alternatives: tuple[Alternatives, ...]
    pricing: Pricing
    multiplicity: tuple[int, ...]
    variables: tuple[Variable, ...]
    options: tuple[tuple[Option, ...], ...]
    links: tuple[Link, ...]
    number: Mapping[Variable, int]
    remembered: Remembered

    def of_options[T](
        self,
        variable: Variable,
        key: tuple[Hashable, ...],
        make: Callable[[tuple[Option, ...]], T],
    ) -> T:
        """Return what is made of the options of a variable."""
        options = self.options[self.number[variable]]
        return self.remembered.part((options,), key, lambda: make(options))

    def type_of(self, variable: Variable) -> TensorType:
        """Return the type of a variable's value."""
        return self.alternatives[variable[0]].classes[variable[1]].type

    def again_of(self, variable: Variable) -> int | None:
        """Return the class of the same block whose value a variable is once more, if it is one."""
        return self.alternatives[variable[0]].classes[variable[1]].again_of
