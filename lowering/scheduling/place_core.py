"""Compiled loops that place tasks one after the other where they fit first (serial list scheduling)."""

from __future__ import annotations

from tilewright.lowering.scheduling.jit import compiled, compiled_part
from tilewright.lowering.scheduling.tables import IntArray, Room, Tables


@compiled_part
def _push(heap: IntArray, size: int, task: int, keys: IntArray) -> None:
    """Add a task to a heap of `size` tasks; the smallest (key, task) is on top."""
    at = size
    while at > 0:
        above = (at - 1) // 2
        other = heap[above]
        if keys[other] < keys[task] or (keys[other] == keys[task] and other < task):
            break
        heap[at] = other
        at = above
    heap[at] = task


@compiled_part
def _pop(heap: IntArray, size: int, keys: IntArray) -> int:
    """Take the smallest task off a heap of `size` tasks."""
    top = heap[0]
    task = heap[size - 1]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= size - 1:
            break
        right = below + 1
        if right < size - 1:
            a, b = heap[below], heap[right]
            if keys[b] < keys[a] or (keys[b] == keys[a] and b < a):
                below = right
        other = heap[below]
        if keys[task] < keys[other] or (keys[task] == keys[other] and task < other):
            break
        heap[at] = other
        at = below
    heap[at] = task
    return int(top)


@compiled
def order_tasks(tables: Tables, keys: IntArray, room: Room) -> None:
    """Write to `room.order` the tasks by ascending key, each behind all that it waits for."""
    n = len(tables.durations)
    size = 0
    for task in range(n):
        room.waiting[task] = tables.before_first[task + 1] - tables.before_first[task]
        if room.waiting[task] == 0:
            _push(room.heap, size, task, keys)
            size += 1
    for position in range(n):
        task = _pop(room.heap, size, keys)
        size -= 1
        room.order[position] = task
        for at in range(tables.after_first[task], tables.after_first[task + 1]):
            after = tables.after_task[at]
            room.waiting[after] -= 1
            if room.waiting[after] == 0:
                _push(room.heap, size, after, keys)
                size += 1


@compiled_part
def _find(times: IntArray, count: int, time: int) -> int:
    """Return the last of `count` ascending times that is not above a time."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        if times[middle] <= time:
            low = middle
        else:
            high = middle
    return low


@compiled_part
def _cut(room: Room, count: int, time: int) -> int:
    """Begin a segment of the profile of `count` segments at a time; return how many there are now."""
    at = _find(room.times, count, time)
    if room.times[at] == time:
        return count
    resources = room.used.shape[1]
    for move in range(count, at, -1):
        room.times[move] = room.times[move - 1]
        for resource in range(resources):
            room.used[move, resource] = room.used[move - 1, resource]
    room.times[at + 1] = time
    return count + 1


@compiled_part
def _fits(tables: Tables, room: Room, task: int, at: int) -> bool:
    """Whether a segment of the profile has room for a task."""
    for resource in range(len(tables.capacities)):
        if room.used[at, resource] + tables.demands[task, resource] > tables.capacities[resource]:
            return False
    return True


@compiled_part
def _reserve(tables: Tables, room: Room, task: int, start: int, end: int, count: int) -> int:
    """Enter a task into the profile; return the number of its segments."""
    count = _cut(room, count, start)
    count = _cut(room, count, end)
    for at in range(_find(room.times, count, start), count):
        if room.times[at] >= end:
            break
        for resource in range(room.used.shape[1]):
            room.used[at, resource] += tables.demands[task, resource]
    return count


@compiled
def place_tasks(tables: Tables, room: Room, starts: IntArray) -> int:
    """Place the tasks in `room.order`, each as early as precedences and resources allow.

    Args:
        tables: The problem.
        room: Working memory; `room.order` is such that no task comes before one that it waits for.
        starts: [n], is filled with the starts.

    Returns:
        The end of the last task.
    """
    room.times[0] = 0
    for resource in range(len(tables.capacities)):
        room.used[0, resource] = 0
    count = 1
    makespan = 0
    for task in room.order:
        length = tables.durations[task]
        start = 0
        for edge in range(tables.before_first[task], tables.before_first[task + 1]):
            other = tables.before_task[edge]
            ready = starts[other] + tables.durations[other] + tables.before_lag[edge]
            start = max(start, ready)
        if length > 0:
            first = _find(room.times, count, start)
            last = first
            # the last segment is free for ever, so this ends
            while last < count and room.times[last] < start + length:
                if not _fits(tables, room, task, last):
                    first = last + 1
                    start = room.times[first]
                last += 1
            count = _reserve(tables, room, task, start, start + length, count)
        starts[task] = start
        makespan = max(makespan, start + length)
    return makespan
