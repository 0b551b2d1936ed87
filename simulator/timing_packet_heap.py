"""The heap of the packet network's events, in order of time, sort and number."""

from __future__ import annotations

from tilewright.simulator.timing_jit import compiled
from tilewright.simulator.timing_packet_state import EVENT_COLUMNS, Floats


@compiled
def _is_before(heap: Floats, row: int, time: float, sort: float, number: float) -> bool:
    if heap[row, 0] != time:
        return bool(heap[row, 0] < time)
    if heap[row, 1] != sort:
        return bool(heap[row, 1] < sort)
    return bool(heap[row, 2] < number)


@compiled
def push_event(
    heap: Floats, size: int, time: float, sort: float, number: float, worm: float
) -> None:
    """Add an event to a heap of `size` rows; there must be room."""
    index = size
    while index > 0:
        parent = (index - 1) // 2
        if _is_before(heap, parent, time, sort, number):
            break
        for column in range(EVENT_COLUMNS):
            heap[index, column] = heap[parent, column]
        index = parent
    heap[index, 0], heap[index, 1], heap[index, 2], heap[index, 3] = time, sort, number, worm


@compiled
def pop_event(heap: Floats, size: int) -> None:
    """Remove row 0 of a heap of `size` events."""
    last = size - 1
    time, sort, number = heap[last, 0], heap[last, 1], heap[last, 2]
    index = 0
    while True:
        child = 2 * index + 1
        if child >= last:
            break
        right = child + 1
        if right < last and _is_before(heap, right, heap[child, 0], heap[child, 1], heap[child, 2]):
            child = right
        if not _is_before(heap, child, time, sort, number):
            break
        for column in range(EVENT_COLUMNS):
            heap[index, column] = heap[child, column]
        index = child
    for column in range(EVENT_COLUMNS):
        heap[index, column] = heap[last, column]
