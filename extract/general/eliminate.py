"""Elimination: trade classes for alternatives, as variables of a dynamic program.

On narrow problems this leaves nothing to decide; on others it makes the linear relaxation tighter, and it
takes cycles apart: once few classes are left on a cycle, all its subsets can be looked at.
"""

from __future__ import annotations

from time import monotonic

from tilewright.extract.general.reduce import reduce, settle, substitute
from tilewright.extract.general.workspace import Workspace

# Eliminations between two rounds of all reductions.
ROUND = 5


def eliminate(
    work: Workspace, limit: int, growth: float, deadline: float, *, only_cycles: bool = False
) -> None:
    """Eliminate classes, those first that add the fewest alternatives.

    Args:
        work: The reduced problem, changed in place.
        limit: Number of alternatives to stay below.
        growth: As of `reduce`, which runs in between.
        deadline: When to stop, of `monotonic`.
        only_cycles: Eliminate only classes on cycles.
    """
    count = 0
    while candidates := _candidates(work, only_cycles=only_cycles):
        added, group, partner = min(candidates)
        if work.alternative_count() + added > limit or monotonic() > deadline:
            break
        if partner < 0:
            substitute(work, group)
        else:
            _join(work, group, partner)
        settle(work, growth)
        count += 1
        if count % ROUND == 0:
            reduce(work, growth, deadline)
    reduce(work, growth, deadline)


def _candidates(work: Workspace, *, only_cycles: bool) -> list[tuple[int, int, int]]:
    """List what may be eliminated: added alternatives, class, and for two joined classes the other."""
    found: list[tuple[int, int, int]] = []
    for group in work.live - work.required:
        count = len(work.alternatives[group])
        if count > 1 and group not in work.tainted:
            if not only_cycles or work.is_on_a_cycle(group):
                found.append((len(work.users[group]) * (count - 1) - count, group, -1))
        elif count == 1 and not only_cycles:
            owners = {work.owner[user] for user in work.users[group]}
            if len(owners) > 1 and owners <= work.required:
                found.extend(_joint(work, owners))
    return found


def _joint(work: Workspace, owners: set[int]) -> list[tuple[int, int, int]]:
    """Find the two required classes that are cheapest to join, unless they are on cycles."""
    sizes = sorted((len(work.alternatives[owner]), owner) for owner in owners)
    (one, first), (two, second) = sizes[:2]
    if work.is_on_a_cycle(first) or work.is_on_a_cycle(second):
        return []
    return [(one * two - one - two, first, second)]


def _join(work: Workspace, first: int, second: int) -> None:
    """Make one class of two required ones on no cycle: its alternatives are the pairs.

    They are there whoever needs them, so that nobody has to.
    """
    for group in (first, second):
        for user in sorted(work.users[group]):
            work.change_needs(user, work.needs[user] - {group})
    before = sorted(work.alternatives[first])
    for one in before:
        for two in sorted(work.alternatives[second]):
            work.add(
                first,
                work.cost[one] + work.cost[two],
                work.needs[one] | work.needs[two],
                (work.origin[one], work.origin[two]),
            )
        work.remove(one)
    work.drop(second)
