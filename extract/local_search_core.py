"""By how much rows are overused, compiled."""

from __future__ import annotations

from tilewright.extract.choice import Costs, Indices
from tilewright.extract.tables_jit import compiled


@compiled
def overflows(
    rest: Costs,
    limit: float,
    first: Indices,
    last: Indices,
    amounts: Costs,
    room: Costs,
    found: Costs,
) -> None:
    """Write by how much rows are overused altogether with each of several uses.

    Args:
        rest: What others use of each row.
        limit: Of every row.
        first: The first row that each part of a use takes.
        last: The row behind its last one.
        amounts: What each use takes of these rows: [uses, parts].
        room: For a figure for each row.
        found: The result: [uses].
    """
    for use in range(len(amounts)):
        for row in range(len(rest)):
            room[row] = rest[row]
        for part in range(len(first)):
            rows = room[first[part] : last[part]]
            for row in range(len(rows)):
                rows[row] += amounts[use, part]
        total = 0.0
        for row in range(len(room)):
            total += max(room[row] - limit, 0.0)
        found[use] = total
