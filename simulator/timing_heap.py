"""Two binary heaps over arrays: one event for each slot (re-timed in place), and messages in flight."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilewright.simulator.timing_jit import compiled

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MESSAGE_COLUMNS = 4
"""Arrival time, number, route, kind."""


@compiled
def _before(times: Floats, first: int, second: int) -> bool:
    """Whether slot `first` comes before slot `second`; ties go to the lower slot."""
    return bool(times[first] < times[second] or (times[first] == times[second] and first < second))


@compiled
def _rise(heap: Ints, place: Ints, times: Floats, index: int) -> None:
    slot = heap[index]
    while index > 0:
        parent = (index - 1) // 2
        if not _before(times, slot, heap[parent]):
            break
        heap[index] = heap[parent]
        place[heap[index]] = index
        index = parent
    heap[index] = slot
    place[slot] = index


@compiled
def _sink(heap: Ints, place: Ints, times: Floats, size: int, index: int) -> None:
    slot = heap[index]
    while True:
        child = 2 * index + 1
        if child >= size:
            break
        if child + 1 < size and _before(times, heap[child + 1], heap[child]):
            child += 1
        if not _before(times, heap[child], slot):
            break
        heap[index] = heap[child]
        place[heap[index]] = index
        index = child
    heap[index] = slot
    place[slot] = index


@compiled
def schedule(
    heap: Ints, place: Ints, times: Floats, sizes: Ints, mine: int, slot: int, time: float
) -> None:
    """Give the slot's event a time; it is new if the slot had none (`place` -1).

    The heap's size is sizes[mine].
    """
    times[slot] = time
    if place[slot] < 0:
        heap[sizes[mine]] = slot
        place[slot] = sizes[mine]
        sizes[mine] += 1
        _rise(heap, place, times, place[slot])
    else:
        _rise(heap, place, times, place[slot])
        _sink(heap, place, times, sizes[mine], place[slot])


@compiled
def pop(heap: Ints, place: Ints, times: Floats, sizes: Ints, mine: int) -> int:
    """Remove the earliest event and return its slot."""
    slot = heap[0]
    sizes[mine] -= 1
    place[slot] = -1
    if sizes[mine] > 0:
        heap[0] = heap[sizes[mine]]
        place[heap[0]] = 0
        _sink(heap, place, times, sizes[mine], 0)
    return int(slot)


@compiled
def _move(heap: Floats, origin: int, index: int) -> None:
    """Copy a message to another row; whole rows at once would take seconds to compile."""
    for column in range(MESSAGE_COLUMNS):
        heap[index, column] = heap[origin, column]


@compiled
def push_message(
    heap: Floats, size: int, time: float, number: float, route: float, kind: float
) -> None:
    """Add a message to a heap of `size` rows; there must be room."""
    index = size
    while index > 0:
        parent = (index - 1) // 2
        if heap[parent, 0] < time or (heap[parent, 0] == time and heap[parent, 1] < number):
            break
        _move(heap, parent, index)
        index = parent
    heap[index, 0], heap[index, 1], heap[index, 2], heap[index, 3] = time, number, route, kind


@compiled
def pop_message(heap: Floats, size: int) -> None:
    """Remove row 0 of a heap of `size` messages."""
    last = size - 1
    time, number = heap[last, 0], heap[last, 1]
    index = 0
    while True:
        child = 2 * index + 1
        if child >= last:
            break
        right = child + 1
        if right < last and (
            heap[right, 0] < heap[child, 0]
            or (heap[right, 0] == heap[child, 0] and heap[right, 1] < heap[child, 1])
        ):
            child = right
        if time < heap[child, 0] or (time == heap[child, 0] and number < heap[child, 1]):
            break
        _move(heap, child, index)
        index = child
    _move(heap, last, index)
