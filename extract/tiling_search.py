"""The tilings of a kernel that are worth keeping, wherever its tensors lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf

from tilewright.extract.kernel import (
    Family,
    Kernel,
    footprint_bytes,
    is_result_staged,
    is_staged,
    whole_tiling,
)
from tilewright.extract.kernel_price import (
    Likely,
    Place,
    Pricer,
    price_all,
)
from tilewright.extract.move_buffers import aligned_bytes
from tilewright.extract.plan import Memory, Tiling
from tilewright.extract.pricing import Memories, Outline, PricedShape, PricedTilings, Pricing
from tilewright.extract.tiling_choice import (
    Candidates,
    Ranking,
    held_on_the_way,
    tiling_key,
    whole_candidate,
)
from tilewright.hwmodel.cost import KernelCost

_BUDGET_SHARES = (1.0, 0.25)
"""Shares of the scratchpad within which the cheapest tiling is looked for."""

_MANY_SHARES = tuple(0.5**n for n in range(16))
"""The same where less scratchpad is better."""


def needs_tiling(kernel: Kernel) -> bool:
    """Whether a kernel has buffers of its own, so that tile sizes matter."""
    if kernel.family is Family.ALIAS:
        return False
    staged = any(is_staged(kernel, i) for i in range(len(kernel.operand_types)))
    return (
        staged or is_result_staged(kernel) or footprint_bytes(kernel, whole_tiling(kernel), 1) > 0
    )


def worthwhile_tilings(
    kernel: Kernel, levels: Iterable[Memories], outline: Outline, pricing: Pricing
) -> Mapping[Memories, PricedTilings]:
    """Return the cheapest tiling and, if it takes much scratchpad, the cheapest of those that take little.

    Args:
        kernel: The kernel, wherever its tensors lie.
        levels: Where they may lie.
        outline: Its way.
        pricing: What options are priced with.
    """
    priced = pricing.priced_shape(kernel, outline.moved)
    places = {memories: outline.places[memories] for memories in levels}
    unknown = {
        place: replace(kernel, operand_memory=memories[0], result_memory=memories[1])
        for memories, place in places.items()
        if place not in priced.tilings
    }
    if unknown:
        found = _search_tilings(unknown, priced, pricing)
        priced.tilings.update(zip(unknown, found, strict=True))
    return {memories: priced.tilings[place] for memories, place in places.items()}


def _held_bytes(kernel: Kernel, pricing: Pricing) -> int:
    """Return the scratchpad that operands and result take while the kernel runs."""
    alignment = pricing.target.tile.sram.alignment_bytes
    tensors = [
        tensor
        for tensor, memory in zip(kernel.operand_types, kernel.operand_memory, strict=True)
        if memory is Memory.SRAM
    ]
    if kernel.result_memory is Memory.SRAM and kernel.family is not Family.ALIAS:
        tensors.append(kernel.result_type)
    return sum(aligned_bytes(tensor.size_bytes, alignment) for tensor in tensors)


def _search_tilings(
    kernels: Mapping[Place, Kernel], priced: PricedShape, pricing: Pricing
) -> list[PricedTilings]:
    """Return the tilings worth keeping of kernels that differ only in where their tensors lie."""
    first = next(iter(kernels.values()))
    candidates, held = pricing.tilings.get(tiling_key(first)), held_on_the_way(first)
    known, likely = priced.moved.likely, list[Likely]()
    asked = list[tuple[Pricer, Tiling]]()
    for place, kernel in kernels.items():
        key = place, held
        if key not in known:
            known[key] = _likely_tilings(kernel, candidates, pricing)
        likely.append(known[key])
        if known[key]:
            pricer = Pricer(kernel, pricing.pieces, priced.units, priced.moved)
            asked += [(pricer, tiling) for tiling in _distinct(known[key])]
    costs = iter(price_all(asked))
    return [
        _not_dominated(shares, {tiling: next(costs) for tiling in _distinct(shares)}, pricing)
        for shares in likely
    ]


def _distinct(shares: Likely) -> dict[Tiling, None]:
    return dict.fromkeys([tiling for share in shares for tiling, _ in share])


def _likely_tilings(kernel: Kernel, candidates: Candidates | None, pricing: Pricing) -> Likely:
    """Return what may be the cheapest tilings within shares of the scratchpad."""
    budget_bytes = pricing.limit_bytes - _held_bytes(kernel, pricing)
    if budget_bytes < 0:
        return ()
    if candidates is None or not (pricing.always_cuts or needs_tiling(kernel)):
        candidates = whole_candidate(kernel)
    ranking = Ranking(kernel, candidates, pricing.target)
    shares = _MANY_SHARES if pricing.spares_scratchpad else _BUDGET_SHARES
    budgets = (int(min(pricing.limit_bytes * share, budget_bytes)) for share in shares)
    return tuple(tuple(ranking.within(budget)) for budget in budgets)


def _not_dominated(
    shares: Likely, costs: Mapping[Tiling, KernelCost], pricing: Pricing
) -> PricedTilings:
    """Return the tilings that none of their share beats, and that take less scratchpad than those before."""
    kept: dict[Tiling, tuple[KernelCost, int]] = {}
    units = {
        tiling: (pricing.objective.kernel_units(cost, pricing.target), *pricing.others(cost))
        for tiling, cost in costs.items()
    }
    least: float = inf
    for share in shares:
        found = [(tiling, size, units[tiling]) for tiling, size in share if size < least]
        for number, (tiling, size, own) in enumerate(found):
            for n, (_, _, other) in enumerate(found):
                is_rival = n < number or other != own
                if is_rival and all([x <= y for x, y in zip(other, own, strict=True)]):
                    break
            else:
                kept.setdefault(tiling, (costs[tiling], size))
                least = min(least, size)
    return tuple([(tiling, cost, size) for tiling, (cost, size) in kept.items()])
