"""Compiled improvement of list schedules: justification, and lists made from the best one with noise."""

from __future__ import annotations

from tilewright.lowering.scheduling.jit import compiled
from tilewright.lowering.scheduling.place_core import order_tasks, place_tasks
from tilewright.lowering.scheduling.tables import IntArray, Room, Tables

_FACTOR, _MODULUS = 48271, 2147483647
"""Park and Miller's generator; products stay within 64 bits."""

_SPREADS = 4
"""Noise is a 4th, an 8th, a 16th or a 32nd of the makespan."""


@compiled
def justify(tables: Tables, backward: Tables, room: Room, makespan: int) -> int:
    """Shorten the schedule in `room.starts` by pushing all tasks late, then early, while that helps.

    Tasks are pushed late in order of their ends, the last first, and early in order of their starts. Each
    then finds at least its old place free, so the schedule does not get longer.

    Returns:
        The makespan; `room.starts` is a schedule of that length.

    Source:
        Valls, Ballestin and Quintanilla, "Justification and RCPSP", EJOR 165 (2005).
    """
    n = len(tables.durations)
    while True:
        for task in range(n):
            room.keys[task] = makespan - room.starts[task] - tables.durations[task]
        order_tasks(backward, room.keys, room)
        late = place_tasks(backward, room, room.other)
        for task in range(n):
            room.keys[task] = late - room.other[task] - tables.durations[task]
        order_tasks(tables, room.keys, room)
        early = place_tasks(tables, room, room.starts)
        if early >= makespan:
            return early
        makespan = early


@compiled
def follow(tables: Tables, backward: Tables, room: Room, keys: IntArray) -> int:
    """Make the list schedule of some priorities in `room.starts`, justified; return its makespan."""
    order_tasks(tables, keys, room)
    return justify(tables, backward, room, place_tasks(tables, room, room.starts))


@compiled
def sample(
    tables: Tables,
    backward: Tables,
    room: Room,
    noisy: IntArray,
    best: IntArray,
    makespan: int,
    bound: int,
    samples: int,
    seed: int,
) -> int:
    """Improve a schedule by lists that follow its starts, with noise of several strengths.

    Args:
        tables: The problem.
        backward: The problem with time running backwards.
        room: Working memory.
        noisy: [n], working memory too.
        best: [n], the starts; is filled with those of the best schedule.
        makespan: Of `best`.
        bound: Stop when a schedule is as short.
        samples: Schedules to make.
        seed: Of the noise.

    Returns:
        The makespan of `best`.
    """
    n = len(tables.durations)
    state = seed % (_MODULUS - 1) + 1
    for number in range(samples):
        if makespan <= bound:
            break
        spread = max(makespan >> (2 + number % _SPREADS), 1)
        for task in range(n):
            state = state * _FACTOR % _MODULUS
            noisy[task] = best[task] + state % spread
        found = follow(tables, backward, room, noisy)
        # one as long is taken too: it leads to others
        if found <= makespan:
            makespan = found
            for task in range(n):
                best[task] = room.starts[task]
    return makespan
