"""Alternatives that satisfy demands: which e-nodes and implementations are left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from tilewright.extract.exploration.demand import Aspect, Demand, allows_way
from tilewright.extract.needed import needed_classes
from tilewright.extract.options import implementations_by_node
from tilewright.extract.origins import Variable
from tilewright.rules.alternatives import KEEP, Alternatives, Implementation, LogicalNode

Placed = tuple[Demand, Variable | None]
"""A demand with the variable of its tensor; None: it is on the whole plan."""

MOST_BRANCHES = 24
"""Ways in which a rule can be made use of, or a value be read, that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restriction:
    """The alternatives of each block that are left, and the demands on single variables.

    A plan satisfies demands if it satisfies one of their restrictions.
    """

    alternatives: tuple[Alternatives, ...]
    demands: Mapping[Variable, tuple[Demand, ...]]


def restrictions(
    alternatives: tuple[Alternatives, ...], placed: Sequence[Placed]
) -> tuple[Restriction, ...]:
    """Return restrictions that together allow what demands allow; none if they contradict each other.

    What a forced tensor needs to be computed and read by something that is needed too is a matter of
    several restrictions where several others may read it.

    Args:
        alternatives: What saturation found, unpruned.
        placed: The demands.
    """
    found = chain.from_iterable(ways_to_restrict(alternatives, placed))
    return tuple(islice(found, MOST_BRANCHES))


def can_be_met(alternatives: tuple[Alternatives, ...], placed: Sequence[Placed]) -> bool:
    """Whether demands do not contradict each other: some restriction is left."""
    found = chain.from_iterable(ways_to_restrict(alternatives, placed))
    return next(found, None) is not None


def ways_to_restrict(
    alternatives: tuple[Alternatives, ...], placed: Sequence[Placed]
) -> Iterator[Iterator[Restriction]]:
    """Yield the restrictions for each way to pin forced rules to tensors, the same demands in all of one.

    There is one such way where all demands are on tensors.
    """
    everywhere = tuple(d for d, variable in placed if variable is None and not d.is_forced)
    somewhere = [d for d, variable in placed if variable is None and d.is_forced]
    single = _by_variable(placed)
    for extra in _spread(alternatives, somewhere):
        demands = {v: (*single.get(v, ()), *extra.get(v, ())) for v in (*single, *extra)}
        yield _restricted(alternatives, demands, everywhere)


def _restricted(
    alternatives: tuple[Alternatives, ...],
    demands: Mapping[Variable, tuple[Demand, ...]],
    everywhere: tuple[Demand, ...],
) -> Iterator[Restriction]:
    """Yield the restrictions that allow what demands on variables, and on all, allow."""
    left = tuple(
        _computable(_filtered(own, block, demands, everywhere))
        for block, own in enumerate(alternatives)
    )
    forced = sorted(v for v, own in demands.items() if any(d.is_forced for d in own))
    every = {v: (*everywhere, *own) for v, own in demands.items()}
    for branch in _with_required(left, forced):
        yield Restriction(alternatives=branch, demands=every)


def with_node(
    alternatives: tuple[Alternatives, ...], variable: Variable, number: int
) -> tuple[Restriction, ...]:
    """Return restrictions in which a variable is computed, by the e-node of this number."""
    block, result = variable
    own = alternatives[block]
    nodes = tuple(
        node
        for node in own.nodes
        if node.number == number or result not in (node.results or (node.result,))
    )
    left = _computable(replace(own, nodes=nodes))
    rest = (*alternatives[:block], left, *alternatives[block + 1 :])
    branches = _with_required(rest, [variable])
    return tuple(Restriction(alternatives=branch, demands={}) for branch in branches)


def _by_variable(placed: Sequence[Placed]) -> dict[Variable, tuple[Demand, ...]]:
    found: dict[Variable, tuple[Demand, ...]] = {}
    for demand, variable in placed:
        if variable is not None:
            found[variable] = (*found.get(variable, ()), demand)
    return found


def _spread(
    alternatives: tuple[Alternatives, ...], rules: Sequence[Demand]
) -> Iterator[dict[Variable, tuple[Demand, ...]]]:
    """Yield every way to pin forced rules to variables where they have something to offer."""
    if not rules:
        yield {}
        return
    first, *rest = rules
    for pinned in _spread(alternatives, rest):
        for variable in _places(alternatives, first):
            yield {**pinned, variable: (*pinned.get(variable, ()), first)}


def _places(alternatives: tuple[Alternatives, ...], rule: Demand) -> Iterator[Variable]:
    """Yield the variables that some way made by a rule computes."""
    for block, found in enumerate(alternatives):
        by_node = implementations_by_node(found)
        seen = set()
        for node in found.nodes:
            if found.classes[node.result].is_constant or node.result in seen:
                continue
            offered = by_node.get(node.number, ()) or (None,)
            if any(allows_way(rule, node, way, found.mesh) for way in offered):
                seen.add(node.result)
                yield block, node.result


def _filtered(
    found: Alternatives,
    block: int,
    demands: Mapping[Variable, tuple[Demand, ...]],
    everywhere: tuple[Demand, ...],
) -> Alternatives:
    """Leave out nodes and implementations that a demand does not allow."""
    if not everywhere and not any(variable[0] == block for variable in demands):
        return found
    by_node = implementations_by_node(found)
    nodes: list[LogicalNode] = []
    kept: list[Implementation] = []
    for node in found.nodes:
        own = by_node.get(node.number, ())
        if found.classes[node.result].is_constant:
            nodes.append(node)
            kept += own
            continue
        asked = [*everywhere]
        for result in node.results or (node.result,):
            asked += demands.get((block, result), ())
        if not asked:
            nodes.append(node)
            kept += own
        elif node.kind == KEEP:
            # what is kept is made, split and placed elsewhere
            if all(d.aspect is Aspect.RULE and not d.is_forced for d in asked):
                nodes.append(node)
        elif node.nest is None:
            if all(allows_way(demand, node, None, found.mesh) for demand in asked):
                nodes.append(node)
        else:
            left = [w for w in own if all(allows_way(d, node, w, found.mesh) for d in asked)]
            if left:
                nodes.append(node)
                kept += left
    return replace(found, nodes=tuple(nodes), implementations=tuple(kept))


def _computable(found: Alternatives) -> Alternatives:
    """Leave out nodes with arguments that nothing computes, then those that nothing can use."""
    known = {c.number for c in found.classes if c.is_input or c.is_constant}
    nodes = list(found.nodes)
    count = -1
    while count != len(known):
        count = len(known)
        for node in nodes:
            if known.issuperset(node.args):
                known.update(node.results or (node.result,))
    nodes = [node for node in nodes if known.issuperset(node.args)]
    reached = {*found.outputs}
    count = -1
    while count != len(reached):
        count = len(reached)
        for node in nodes:
            if node.kind == "host" or not reached.isdisjoint(node.results or (node.result,)):
                reached.update(node.args)
    nodes = [
        node
        for node in nodes
        if node.kind == "host" or not reached.isdisjoint(node.results or (node.result,))
    ]
    if len(nodes) == len(found.nodes):
        return found
    numbers = {node.number for node in nodes}
    implementations = tuple(i for i in found.implementations if i.node in numbers)
    return replace(found, nodes=tuple(nodes), implementations=implementations)


def _makes_outputs(found: Alternatives) -> bool:
    made = {r for node in found.nodes for r in (node.results or (node.result,))}
    return all(
        number in made or found.classes[number].is_input or found.classes[number].is_constant
        for number in found.outputs
    )


def _with_required(
    alternatives: tuple[Alternatives, ...], variables: Sequence[Variable]
) -> Iterator[tuple[Alternatives, ...]]:
    """Yield alternatives in which every choice computes the variables and reads them."""
    if not all(_makes_outputs(found) for found in alternatives):
        return
    if not variables:
        yield alternatives
        return
    (block, number), *rest = variables
    for found in _requiring(alternatives[block], number):
        yield from _with_required((*alternatives[:block], found, *alternatives[block + 1 :]), rest)


def _requiring(found: Alternatives, number: int) -> Iterator[Alternatives]:
    """Yield parts of the alternatives in which every choice computes a class and reads it."""
    if not any(number in (node.results or (node.result,)) for node in found.nodes):
        return
    if number in needed_classes(found):
        yield found
        return
    readers = dict.fromkeys(
        node.result
        for node in found.nodes
        if number in node.args and not found.classes[node.result].is_constant
    )
    for reader in readers:
        nodes = tuple(node for node in found.nodes if reader != node.result or number in node.args)
        left = _computable(replace(found, nodes=nodes))
        if _makes_outputs(left):
            yield from _requiring(left, reader)
