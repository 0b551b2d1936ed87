"""What an option may cost more than another one on an edge, and which options others beat, compiled."""

from __future__ import annotations

import numpy as np

from tilewright.extract.choice import Costs, Indices, Mask
from tilewright.extract.tables_jit import compiled


@compiled
def add_worst(
    matrix: Costs,
    ports: Indices,
    other_ports: Indices,
    own: Indices,
    other: Indices,
    place: Indices,
    room: Costs,
    worst: Costs,
    more: Costs,
) -> None:
    """Add the most that option a costs above option b, over the options of a neighbour, to `more[a, b]`.

    Args:
        matrix: What the edge costs: [own ports, the neighbour's ports].
        ports: Of each option that is left.
        other_ports: Of each option of the neighbour that is left.
        own: Room for the distinct ports at this end.
        other: Room for those at the other end.
        place: Room for the place of each port of an end among the distinct ones.
        room: For what each distinct port of this end costs with one of the other end.
        worst: Room for a figure for each two distinct ports of this end, flat.
        more: What is added to: [options, options].
    """
    reached = _distinct(other_ports, other, place)
    width = _distinct(ports, own, place)
    for r in range(reached):
        row = room[r * width :]
        for a in range(width):
            row[a] = matrix[own[a], other[r]]
    for a in range(width):
        found = worst[a * width : (a + 1) * width]
        found[:] = -np.inf
        for r in range(reached):
            row = room[r * width : (r + 1) * width]
            cost = row[a]
            for b in range(width):
                above = cost - row[b]
                found[b] = above if above > found[b] else found[b]
    for a in range(len(ports)):
        found = worst[place[ports[a]] * width :]
        sums = more[a]
        for b in range(len(ports)):
            sums[b] += found[place[ports[b]]]


@compiled
def find_beaten(more: Costs, amounts: Costs, beaten: Mask, by: Indices) -> None:
    """Write which options another one beats, and of each of them the cheapest that beats it and stays.

    Of options that beat each other, the first stays.

    Args:
        more: What option a costs above option b at most: [options, options].
        amounts: What each option takes of rows: [usages, options].
        beaten: The first result: [options].
        by: The second: [options], written where options are beaten.
    """
    options = len(more)
    for b in range(options):
        beaten[b] = False
        for a in range(options):
            if a != b and more[a, b] <= 0 and _is_lean(amounts, a, b):
                if a < b or not (more[b, a] <= 0 and _is_lean(amounts, b, a)):
                    beaten[b] = True
                    break
    for b in range(options):
        if not beaten[b]:
            continue
        least = np.inf
        for a in range(options):
            if not beaten[a] and more[a, b] < least and _is_lean(amounts, a, b):
                least = more[a, b]
                by[b] = a


@compiled
def _is_lean(amounts: Costs, a: int, b: int) -> bool:
    """Whether option a takes no more of any row than option b."""
    for usage in range(len(amounts)):
        if amounts[usage, a] > amounts[usage, b]:
            return False
    return True


@compiled
def _distinct(ports: Indices, found: Indices, place: Indices) -> int:
    """Write the distinct ports and the place of each among them; return how many there are."""
    for port in ports:
        place[port] = -1
    count = 0
    for port in ports:
        if place[port] < 0:
            place[port] = count
            found[count] = port
            count += 1
    return count
