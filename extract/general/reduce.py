"""Reductions of a choice problem that keep an optimal extraction.

Each is safe for negative costs and for cycles; `tests/extract/test_general.py` holds them to brute
force. Exchange arguments are in the docstrings.
"""

from __future__ import annotations

import math
from collections import deque
from time import monotonic

from tilewright.extract.general.workspace import NoExtractionError, Workspace

# Alternatives of one class that others are compared with: keeps huge classes from costing their square.
COMPARED = 400
# Needs are handed from a class to its users only while that adds few edges.
EDGE_GROWTH = 64


def reduce(work: Workspace, growth: float, deadline: float = math.inf) -> None:
    """Apply all reductions until none applies, or until a deadline.

    Args:
        work: The problem, changed in place.
        growth: A class used by a single other class is merged into it when the alternatives of the two
            multiply to at most `growth` times their sum.
        deadline: When to begin no other round, of `monotonic`.

    Raises:
        NoExtractionError: A required class has no acyclic extraction.
    """
    work.dirty |= work.live
    work.refresh()
    while work.dirty:
        settle(work, growth)
        if monotonic() > deadline:
            return
        work.drop_unreachable()
        settle(work, growth)
        work.refresh()
        _use_necessities(work)
        # Components are finer now: fewer needs of required classes can be part of a cycle.
        for group in work.required:
            if any(
                work.component[work.owner[user]] != work.component[group]
                for user in work.users[group]
            ):
                work.dirty.add(group)


def settle(work: Workspace, growth: float) -> None:
    """Apply the reductions that look at one class and its users, until none applies."""
    while work.dirty:
        group = work.dirty.pop()
        if group not in work.live:
            continue
        if not work.users[group] and group not in work.required:
            work.drop(group)
            continue
        for alternative in sorted(work.alternatives[group]):
            if group in work.needs[alternative]:
                work.remove(alternative)
        if len(work.alternatives[group]) > 1:
            _drop_dominated(work, group)
        count = len(work.alternatives[group])
        if count == 0:
            _drop_impossible(work, group)
        elif group in work.required:
            _settle_required(work, group)
        elif count == 1:
            _settle_single(work, group)
        else:
            _merge_into_user(work, group, growth)


def _drop_dominated(work: Workspace, group: int) -> None:
    """Drop alternatives that need more and cost no less than another.

    Taking the other instead leaves out what only the first one needs; that must not be wanted for
    negative costs.
    """
    kept: list[int] = []
    order = sorted(work.alternatives[group], key=lambda a: (work.cost[a], len(work.needs[a]), a))
    for alternative in order:
        needs = work.needs[alternative]
        for other in kept:
            less = work.needs[other]
            if less <= needs and not (needs - less) & work.tainted:
                work.remove(alternative)
                break
        else:
            if len(kept) < COMPARED:
                kept.append(alternative)


def _drop_impossible(work: Workspace, group: int) -> None:
    """Drop a class without alternatives, and all that need it."""
    if group in work.required:
        raise NoExtractionError(group, str(group))
    for user in sorted(work.users[group]):
        work.remove(user)
    work.drop(group)


def _settle_required(work: Workspace, group: int) -> None:
    """Pay for a required class with one alternative; forget who else needs a required one.

    Whoever needs it gets it for nothing. But where a cycle could pass, the need itself must stay.
    """
    users = sorted(work.users[group])
    if len(work.alternatives[group]) == 1:
        (alternative,) = work.alternatives[group]
        needs = work.needs[alternative]
        for user in users:
            same = work.component.get(group) == work.component.get(work.owner[user])
            work.change_needs(user, (work.needs[user] - {group}) | (needs if same else set()))
        work.paid.append(work.cost[alternative])
        work.decided.append(work.origin[alternative])
        work.required |= needs
        work.dirty |= needs
        work.drop(group)
        return
    for user in users:
        if work.component.get(group, -1) != work.component.get(work.owner[user], -1):
            work.change_needs(user, work.needs[user] - {group})


def _settle_single(work: Workspace, group: int) -> None:
    """Fold a class with one alternative into its users, or at least hand them its needs.

    Its cost can move when it is 0, or when one class is the only user: then it is paid at most once.
    """
    (alternative,) = work.alternatives[group]
    cost, needs, users = work.cost[alternative], work.needs[alternative], work.users[group]
    grows = len(needs) * len(users)
    is_small = grows <= EDGE_GROWTH or grows <= 2 * (len(needs) + len(users))
    if not is_small:
        return
    if cost == 0 or len({work.owner[user] for user in users}) == 1:
        for user in sorted(users):
            work.cost[user] += cost
            work.origin[user] = (work.origin[user], work.origin[alternative])
            work.change_needs(user, (work.needs[user] - {group}) | needs)
        work.drop(group)
    elif needs:
        for user in sorted(users):
            work.change_needs(user, work.needs[user] | needs)
        work.change_needs(alternative, set())


def _merge_into_user(work: Workspace, group: int, growth: float) -> None:
    """Merge a class into the only class that uses it, unless that has too many alternatives."""
    users = work.users[group]
    if len({work.owner[user] for user in users}) == 1:
        mine, theirs = len(work.alternatives[group]), len(users)
        if mine * theirs <= growth * (mine + theirs):
            substitute(work, group)


def substitute(work: Workspace, group: int) -> None:
    """Replace a class by its alternatives in all its users.

    Users of several classes may then take different alternatives, which is never cheaper as long as
    no negative cost is below: where the first one is built, the others can use it. What an alternative
    costs becomes a class of its own, so that equal choices are paid once.
    """
    mine = sorted(work.alternatives[group])
    users = sorted(work.users[group])
    owners = {work.owner[user] for user in users}
    leaves = {
        alternative: work.add_leaf(work.cost[alternative])
        for alternative in mine
        if len(owners) > 1 and work.cost[alternative] > 0
    }
    for user in users:
        rest = work.needs[user] - {group}
        for alternative in mine:
            needs = rest | work.needs[alternative]
            cost = work.cost[user] + work.cost[alternative]
            if alternative in leaves:
                needs.add(leaves[alternative])
                cost = work.cost[user]
            if work.owner[user] not in needs:
                origin = (work.origin[user], work.origin[alternative])
                work.add(work.owner[user], cost, needs, origin)
        work.remove(user)
    work.drop(group)
    work.dirty |= owners
    work.dirty.update(leaves.values())


def _use_necessities(work: Workspace) -> None:
    """Use what every acyclic extraction of a class contains.

    Alternatives that cannot do without their own class go. What the required classes cannot do without
    is required too. An alternative goes when another needs only what comes with the first one anyway.
    """
    order = sorted(work.live, key=lambda group: (work.component[group], group))
    bit = {group: 1 << place for place, group in enumerate(order)}
    necessary = _necessary(work, order, bit)
    everywhere = 0
    for group in work.required:
        everywhere |= necessary[group]
    for group in order:
        if everywhere & bit[group] and group not in work.required:
            work.required.add(group)
            work.dirty.add(group)
    together: dict[int, int] = {}
    for group in order:
        number = work.component[group]
        together[number] = together.get(number, 0) | bit[group]
    for group in order:
        free = everywhere & ~together[work.component[group]]
        _compare_necessities(work, group, bit, necessary, free)


def _necessary(work: Workspace, order: list[int], bit: dict[int, int]) -> dict[int, int]:
    """Find the classes, as bits, that every acyclic extraction of a class contains.

    The greatest solution of: a class, and what all its alternatives share. Derivations contain it by
    induction on their height.
    """
    everything = (1 << len(order)) - 1
    necessary = dict.fromkeys(order, everything)
    queue = deque(order)
    queued = set(order)
    while queue:
        group = queue.popleft()
        queued.discard(group)
        common = everything
        for alternative in work.alternatives[group]:
            with_it = 0
            for child in work.needs[alternative]:
                with_it |= necessary[child]
            common &= with_it
            if not common:
                break
        common |= bit[group]
        if common != necessary[group]:
            necessary[group] = common
            for user in work.users[group]:
                owner = work.owner[user]
                if owner not in queued:
                    queued.add(owner)
                    queue.append(owner)
    return necessary


def _compare_necessities(
    work: Workspace, group: int, bit: dict[int, int], necessary: dict[int, int], free: int
) -> None:
    """Drop alternatives of a class by what comes with them; `free` comes with all of them."""
    kept: list[tuple[int, int]] = []
    for alternative in sorted(work.alternatives[group], key=lambda a: (work.cost[a], a)):
        needs = work.needs[alternative]
        direct = with_it = 0
        for child in needs:
            direct |= bit[child]
            with_it |= necessary[child]
        if with_it & bit[group]:
            work.remove(alternative)
            continue
        missing = ~(with_it | free)
        for other, wanted in kept:
            if not wanted & missing and not (needs - work.needs[other]) & work.tainted:
                work.remove(alternative)
                break
        else:
            if len(kept) < COMPARED:
                kept.append((alternative, direct))
