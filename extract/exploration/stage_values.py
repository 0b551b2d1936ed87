"""Demands on stages against a model and a machine: what they name, and where the model is cut for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from tilewright.errors import DemandError
from tilewright.extract.exploration.conflict import shortened
from tilewright.extract.exploration.demand import Aspect, Demand
from tilewright.extract.exploration.naming import unknown_tensor
from tilewright.extract.pipeline.items import Places
from tilewright.graph import Graph
from tilewright.hwmodel.submesh import Submesh, submeshes
from tilewright.hwmodel.target import Target


def part_text(shape: Submesh) -> str:
    """Return a part as demands write it: units of each axis, as `2x4`."""
    return "x".join(map(str, shape))


def part_of(demand: Demand, target: Target) -> Submesh:
    """Return the part that a demand names.

    Raises:
        DemandError: The machine has no such part.
    """
    known = {part_text(shape): shape for shape in submeshes(target)}
    if demand.value not in known:
        axes = " x ".join(axis.name for axis in target.axes)
        raise DemandError(
            f"demand '{demand}': found '{demand.value}', which is no part of '{target.name}'; expected units "
            f"of {axes}, one of: {shortened(list(known))}"
        )
    return known[demand.value]


def number_of(demand: Demand, target: Target) -> int:
    """Return the number of a stage, or of stages, that a demand names, from 1.

    Raises:
        DemandError: It is none, or more than there are tiles.
    """
    text = demand.value
    number = int(text[:9]) if text.isascii() and text.isdecimal() else 0
    if number < 1:
        raise DemandError(
            f"demand '{demand}': found '{text}', expected a number from 1, as in stage=2"
        )
    if number > target.tiles and demand.is_forced:
        raise DemandError(
            f"demand '{demand}': found {number:,} stages, expected at most {target.tiles:,}, so many tiles "
            f"has '{target.name}'; ask for fewer or use a larger target"
        )
    return number


def stages_needed(demands: Sequence[Demand], places: Places, target: Target) -> int:
    """Return how many stages there must be at least for demands.

    Raises:
        DemandError: There are more cuts than tiles have room for.
    """
    forced = [demand for demand in demands if demand.is_forced]
    cuts = {places.made_by[d.tensor] for d in forced if d.aspect is Aspect.CUT and d.tensor}
    if len(cuts) >= target.tiles:
        raise DemandError(
            f"demands on {len(cuts):,} cuts: found {len(cuts) + 1:,} stages, expected at most "
            f"{target.tiles:,}, so many tiles has '{target.name}'; drop some or use a larger target"
        )
    numbered = (d for d in forced if d.aspect in (Aspect.STAGE, Aspect.STAGES))
    return max((len(cuts) + 1, *(number_of(demand, target) for demand in numbered)))


def check_demands(demands: Sequence[Demand], graph: Graph, places: Places, target: Target) -> None:
    """Refuse demands that name what is not there, and cuts that no rule allows.

    Raises:
        DemandError: Says where, what was found, what is expected and what to change.
    """
    for demand in demands:
        if demand.tensor is not None and demand.tensor not in places.made_by:
            raise unknown_tensor(demand.tensor, graph, places.made_by)
        if demand.aspect is Aspect.PART:
            part_of(demand, target)
        elif demand.aspect in (Aspect.STAGE, Aspect.STAGES):
            number_of(demand, target)
        elif demand.aspect is Aspect.CUT and demand.is_forced:
            _check_cut(demand, places)


def _check_cut(demand: Demand, places: Places) -> None:
    place = places.made_by[demand.subject] + 1
    if places.is_legal(place):
        return
    near = sorted(
        (other for other in range(1, len(places.ops)) if places.is_legal(other)),
        key=lambda other: (abs(other - place), other),
    )[:2]
    names = " or ".join(f"cut@{places.ops[other - 1].outputs[0]}" for other in sorted(near))
    if place == len(places.ops):
        found = "the end of the model, expected a tensor that something is computed behind"
    else:
        read = places.cuts(place)[0].read
        found = (
            f"{len(read)} values made before it that are read behind it ({shortened(read)}), expected "
            "a place where a rule allows a cut: at one value, or between blocks"
        )
    raise DemandError(
        f"demand '{demand}': found {found}; "
        + (f"the nearest are {names}" if names else "this model has none, leave it in one stage")
    )


def places_needed(demands: Sequence[Demand], places: Places, known: Sequence[int]) -> list[int]:
    """Return where a model has to be cut for demands to be told apart, besides the known places.

    Args:
        demands: Checked ones.
        places: Where the rules allow cuts.
        known: Places where the model is cut anyway.
    """
    found = set(known)
    on_tensors = [d for d in demands if d.tensor is not None]
    for demand in on_tensors:
        if demand.aspect is Aspect.CUT and demand.is_forced:
            found.add(places.made_by[demand.subject] + 1)
    ordered = sorted(on_tensors, key=lambda d: places.made_by[d.subject])
    work = places.work()
    for one, other in combinations(ordered, 2):
        first, last = (places.made_by[d.subject] for d in (one, other))
        between = range(first + 1, last + 1)
        if not _excludes(one, other) or not found.isdisjoint(between):
            continue
        middle = (work[first] + work[last]) / 2
        legal = [place for place in between if places.is_legal(place)]
        found.update(sorted(legal, key=lambda place: (abs(work[place - 1] - middle), place))[:1])
    return sorted(found.difference(known))


def _excludes(one: Demand, other: Demand) -> bool:
    """Whether two demands cannot be on one stage."""
    if one.aspect is not other.aspect or one.aspect not in (Aspect.STAGE, Aspect.PART):
        return False
    if one.value == other.value:
        return one.is_forced != other.is_forced
    return one.is_forced and other.is_forced
