"""Sums of tables and their minima over one variable, compiled: no more than a row of sums is held."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilewright.extract.choice import Costs
from tilewright.extract.tables_jit import compiled

Numbers = NDArray[np.int64]


@compiled
def least_sums(
    large: Costs,
    small: Costs,
    starts: Numbers,
    of_inner: Numbers,
    of_group: Numbers,
    of_outer: Numbers,
    groups: int,
    sizes: Numbers,
    room: Costs,
    least: Costs,
    best: NDArray[np.int16],
) -> None:
    """Write the least sum over the groups of a variable, and the first group that gives it.

    What a step along an axis is in a table is 0 if the table has no such axis. Slices keep indices from
    being checked for negative ones, so that loops over the inner axis are vector instructions.

    Args:
        large: The first table, flat.
        small: The other tables, flat, one behind the other.
        starts: Where each of these begins: [tables]; the first table is at 0 of its own.
        of_inner: A step along the inner axis, 0 or 1: [tables].
        of_group: A step along the axis of the variable that goes: [tables].
        of_outer: A step along each outer axis: [outer axes, tables].
        groups: Of the variable that goes.
        sizes: Of the outer axes.
        room: For three rows: [3, inner].
        least: The result: [places on the outer axes, inner].
        best: The group that gives it: the same.
    """
    tables, axes, inner = len(starts), len(sizes), least.shape[1]
    row, lowest, chosen = room[0], room[1], room[2]
    for place in range(len(least)):
        lowest[:] = np.inf
        chosen[:] = 0.0
        for group in range(groups):
            alone, last = 0.0, -1
            for table in range(tables):
                if of_inner[table] == 0:
                    first = starts[table] + group * of_group[table]
                    alone += large[first] if table == 0 else small[first]
                else:
                    last = table
            number, is_begun = float(group), False
            for table in range(last + 1):
                if of_inner[table] == 0:
                    continue
                first = starts[table] + group * of_group[table]
                values = large[first:] if table == 0 else small[first:]
                if table < last:
                    for i in range(inner):
                        row[i] = (row[i] if is_begun else alone) + values[i]
                    is_begun = True
                elif is_begun:  # sums are complete: they are compared in the same pass
                    for i in range(inner):
                        total = row[i] + values[i]
                        is_less = total < lowest[i]
                        lowest[i] = total if is_less else lowest[i]
                        chosen[i] = number if is_less else chosen[i]
                else:
                    for i in range(inner):
                        total = alone + values[i]
                        is_less = total < lowest[i]
                        lowest[i] = total if is_less else lowest[i]
                        chosen[i] = number if is_less else chosen[i]
            if last < 0 and alone < lowest[0]:  # the inner axis is of one place
                lowest[:] = alone
                chosen[:] = number
        for i in range(inner):
            least[place, i] = lowest[i]
            best[place, i] = np.int16(chosen[i])
        rest = place + 1  # on to the next place: the last axes that are at their end begin again
        for axis in range(axes - 1, -1, -1):
            is_over = rest % sizes[axis] == 0
            steps = 1 - sizes[axis] if is_over else 1
            for table in range(tables):
                starts[table] += steps * of_outer[axis, table]
            if not is_over:
                break
            rest //= sizes[axis]
