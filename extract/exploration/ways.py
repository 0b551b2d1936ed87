"""The ways to compute a tensor, each with what a plan with it costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tilewright.errors import InfeasibleError
from tilewright.extract.account import possible
from tilewright.extract.exploration.demand import (
    sharding_text,
    split_text,
    tile_text,
    weights_of,
)
from tilewright.extract.exploration.explorer import Answer, Explorer
from tilewright.extract.exploration.restrict import with_node
from tilewright.extract.exploration.tables import NoOptionError
from tilewright.extract.exploration.warm import marginals, row_prices, with_fixed
from tilewright.extract.option import Option
from tilewright.extract.origins import Variable
from tilewright.extract.setting import Setting
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.rules.alternatives import LogicalNode

_FORM_BRANCHES = 2
"""Ways in which a value that need not be computed may be read, that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to compute a tensor, as demands write it.

    `kernel_units` is the price of its kernel alone, in one repeat. No plan with it, in which repeats do
    the same, costs less than `least`; `answer` is the best plan found with it (None: not asked for, or
    none fits).
    """

    form: str
    rule: str
    split: str
    sharding: str
    memory: str
    weights: str
    tile: str
    kernel_units: float
    least: float
    is_chosen: bool
    answer: Answer | None = None


def node_text(node: LogicalNode) -> str:
    """Return an e-node's kind, function and epilogue."""
    fn = f" {node.attrs['fn']}" if "fn" in node.attrs else ""
    epilogue = f" +{node.attrs['epilogue']}" if node.attrs.get("epilogue") else ""
    return f"{node.kind}{fn}{epilogue}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """Options that are one way, with the setting that has them."""

    setting: Setting
    variable: Variable
    numbers: tuple[int, ...]
    way: Way


def alternatives(explorer: Explorer, tensor: str, top: int = 5) -> tuple[Way, ...]:
    """Return all ways to compute a tensor on its own, likely cheapest first.

    Args:
        explorer: The planned model.
        tensor: A tensor that the model computes.
        top: For so many ways, and the chosen one, a plan is made.

    Raises:
        DemandError: Nothing of this name is computed.
    """
    variable = explorer.variable(tensor)
    candidates: list[_Candidate] = []
    block, number = variable
    for node in explorer.alternatives[block].nodes:
        if number in (node.results or (node.result,)):
            candidates += _of_node(explorer, variable, node)
    candidates.sort(key=lambda c: (c.way.least, c.way.kernel_units))
    found = [
        replace(c.way, answer=_planned(explorer, c)) if n < top or c.way.is_chosen else c.way
        for n, c in enumerate(candidates)
    ]
    found.sort(key=lambda way: (way.answer is None, way.answer.plan.cost if way.answer else 0.0))
    return tuple(found)


def _of_node(explorer: Explorer, variable: Variable, node: LogicalNode) -> list[_Candidate]:
    """Return the ways that run an e-node."""
    best: dict[tuple[str, ...], _Candidate] = {}
    for restriction in with_node(explorer.alternatives, variable, node.number)[:_FORM_BRANCHES]:
        try:
            setting = explorer.memo.setting(restriction)
        except (NoOptionError, InfeasibleError):
            continue
        prices = row_prices(setting.tables, explorer.known.prices)
        priced = marginals(setting.tables, prices, explorer.known.sent)[variable]
        usable = _usable(setting, variable)
        groups: dict[tuple[str, ...], list[int]] = {}
        for number, (option, _) in enumerate(priced):
            if option.node is not None and number in usable:
                groups.setdefault(_key(option, explorer.mesh), []).append(number)
        for key, numbers in groups.items():
            first = min(numbers, key=lambda n: (priced[n][1], n))
            way = _way(explorer, variable, key, *priced[first])
            if key not in best or way.least < best[key].way.least:
                best[key] = _Candidate(
                    setting=setting, variable=variable, numbers=tuple(numbers), way=way
                )
    return list(best.values())


def _usable(setting: Setting, variable: Variable) -> frozenset[int]:
    """Return the options of a variable that operands come to and readers take, as not all partial sums."""
    kept = possible(setting.tables.problem)
    return (
        frozenset() if kept is None else frozenset(kept[setting.tables.number[variable]].tolist())
    )


def _key(option: Option, mesh: LogicalMesh) -> tuple[str, ...]:
    """Return what tells ways apart: split, sharding, memory, where weights are."""
    assert option.node is not None
    assert option.result is not None
    way = option.implementation
    split = split_text(option.node, way, mesh) if way else option.node.kind
    sharding = sharding_text(mesh, option.result.sharding) if way or option.is_kept else "-"
    weights = "+".join(sorted(weights_of(option))) or "-"
    return split, sharding, option.result.memory.value, weights


def _way(
    explorer: Explorer, variable: Variable, key: tuple[str, ...], option: Option, least: float
) -> Way:
    assert option.node is not None
    split, sharding, memory, weights = key
    chosen = explorer.known.chosen.get(variable)
    is_chosen = (
        chosen is not None
        and chosen.node is not None
        and chosen.node.number == option.node.number
        and _key(chosen, explorer.mesh) == key
    )
    return Way(
        form=node_text(option.node),
        rule=option.node.again or option.node.origin,
        split=split,
        sharding=sharding,
        memory=memory,
        weights=weights,
        tile=tile_text(option.node, option.tiling),
        kernel_units=option.units,
        least=max(0.0, least),
        is_chosen=is_chosen,
    )


def _planned(explorer: Explorer, candidate: _Candidate) -> Answer | None:
    """Return the best plan found that computes the tensor this way."""
    if candidate.way.is_chosen:
        return explorer.base
    tables = candidate.setting.tables
    variable = tables.number[candidate.variable]
    problem = with_fixed(tables.problem, variable, np.array(candidate.numbers))
    setting = replace(candidate.setting, tables=replace(tables, problem=problem))
    try:
        return explorer.planned(setting, ())
    except InfeasibleError:
        return None
