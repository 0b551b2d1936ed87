"""Tables of restricted alternatives: only what a demand touches is priced anew."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tilewright.extract.exploration.demand import Demand, allows_option
from tilewright.extract.exploration.restrict import Restriction
from tilewright.extract.exploration.tiles import with_tiles
from tilewright.extract.model_tables import build_tables, variable_options
from tilewright.extract.option import ABSENT, Option
from tilewright.extract.options import class_options
from tilewright.extract.origins import Origin, Variable, find_origins
from tilewright.extract.overlap import NEVER, LateOperand
from tilewright.extract.pricing import Pricing
from tilewright.extract.pruning import prune
from tilewright.extract.remembered import Remembered
from tilewright.extract.setting import Setting
from tilewright.graph import Graph
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.roll import Rolled


class NoOptionError(Exception):
    """Demands leave no way to compute a variable within the scratchpad."""

    def __init__(self, variable: Variable) -> None:
        """Name the variable."""
        super().__init__(str(variable))
        self.variable = variable


@dataclass(frozen=True, slots=True, eq=False)
class PricedOptions:
    """The options that were priced once, by what they depend on, and parts of tables of them."""

    options: dict[tuple[object, ...], tuple[Option, ...]] = field(default_factory=dict)
    parts: Remembered = field(default_factory=Remembered)


class OptionMemo:
    """Settings of a model that share options of variables, and parts of tables."""

    def __init__(
        self,
        graph: Graph,
        rolled: Rolled,
        pricing: Pricing,
        scale: float | None = None,
        *,
        keys: Sequence[Hashable] | None = None,
        priced: PricedOptions | None = None,
    ) -> None:
        """Take what was priced, or nothing yet.

        Args:
            graph: The model.
            rolled: Its blocks.
            pricing: What options are priced with.
            scale: That of all tables, so that they share what they have in common.
            keys: What tells blocks apart, from those of other models, too; their numbers by default.
            priced: What was priced with the same pricing, to go on with.
        """
        self._graph, self._rolled, self._pricing = graph, rolled, pricing
        self._scale, self._keys = scale, keys or range(len(rolled.blocks))
        self._priced = priced or PricedOptions()
        self._origins: Mapping[str, Origin] | None = None

    def setting(self, restriction: Restriction) -> Setting:
        """Return the setting of a restriction, options that stay what they were being the same objects.

        Raises:
            NoOptionError: Some variable has none.
        """
        pruned = tuple(prune(found) for found in restriction.alternatives)
        ways = [_ways_by_class(found) for found in pruned]
        known = self._priced.options

        def options(
            variable: Variable, needed: bool, late: Mapping[int, LateOperand]
        ) -> tuple[Option, ...]:
            block, number = variable
            demands = restriction.demands.get(variable, ())
            own = ways[block].get(number, ())
            lately = tuple(late.get(n, NEVER) for n, _ in own)
            key = (self._keys[block], number, own, lately, needed, demands)
            if key not in known:
                found = pruned[block]
                known[key] = (
                    demanded_options(found, number, needed, self._pricing, late, demands)
                    if demands
                    else variable_options(found, number, needed, self._pricing, late)
                )
            if not known[key] and pruned[block].classes[number].again_of is None:
                raise NoOptionError(variable)
            return known[key]

        graph, rolled, pricing = self._graph, self._rolled, self._pricing
        # restrictions leave out nodes, never classes
        self._origins = self._origins or find_origins(graph, rolled, pruned)
        return Setting(
            graph=graph,
            rolled=rolled,
            alternatives=pruned,
            pricing=pricing,
            tables=build_tables(
                *(graph, rolled, pruned, pricing, options),
                origins=self._origins,
                scale=self._scale,
                remembered=self._priced.parts,
            ),
        )


def _ways_by_class(found: Alternatives) -> dict[int, tuple[tuple[int, int], ...]]:
    """Return each class's nodes with how many implementations they have: filters only take away."""
    counts: dict[int, int] = {}
    for implementation in found.implementations:
        counts[implementation.node] = counts.get(implementation.node, 0) + 1
    ways: dict[int, tuple[tuple[int, int], ...]] = {}
    for node in found.nodes:
        for result in node.results or (node.result,):
            ways[result] = (*ways.get(result, ()), (node.number, counts.get(node.number, 0)))
    return ways


def demanded_options(
    found: Alternatives,
    number: int,
    needed: bool,
    pricing: Pricing,
    late: Mapping[int, LateOperand],
    demands: tuple[Demand, ...],
) -> tuple[Option, ...]:
    """Return the options of a class that satisfy demands, e-node by e-node: none hides another's."""

    def accepts(option: Option) -> bool:
        return all(allows_option(demand, option) for demand in demands)

    options: list[Option] = []
    for node in found.nodes:
        if number in (node.results or (node.result,)):
            alone = replace(
                found,
                nodes=(node,),
                implementations=tuple(i for i in found.implementations if i.node == node.number),
            )
            own = with_tiles(pricing, alone, demands)
            options += class_options(alone, number, own, late, accepts)
    if not options:
        return ()
    is_forced = any(demand.is_forced for demand in demands)
    return tuple(options) if needed or is_forced else (*options, ABSENT)
