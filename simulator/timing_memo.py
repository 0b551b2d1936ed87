"""What fair sharing gave before: new rates follow from which payloads move and which moved just before.

A program repeats itself, and so do the sets of payloads that move at one time. The rates that a change of the
set gives, and what holds each payload back then, are looked up by two 64-bit sums over hashes of the set's
members and of those that came and went; that two changes have both sums in common has a chance of about
n^2 / 2^129 among n of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tilewright.simulator.timing_jit import compiled_part

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

ENTRIES = 1 << 17
ROOM = 1 << 23
"""Most changes that are kept, and payloads of all of them; then all are forgotten. Memory that is not
written takes no room."""

COUNT, FILLED = 0, 1
MOVING, CHANGED = 0, 2
"""First of the two sums over payloads that move, and over those that came or went since rates were shared."""


class Memo(NamedTuple):
    """Changes of what moves (an open hash table), and the rates that each gives."""

    sums: Ints  # [4]
    sizes: Ints  # COUNT entries, FILLED places
    keys: Ints  # [entries, 2]
    ends: (
        Ints  # [entries, 2] first place of a change's rates, two beyond the last; 0 there for none
    )
    slots: npt.NDArray[np.int32]  # [room]
    causes: npt.NDArray[np.int32]  # [room]
    rates: Floats  # [room]


def new_memo(slots: int, entries: int = ENTRIES, room: int = ROOM) -> Memo:
    """Return a memo that knows nothing.

    Args:
        slots: Payloads of the largest change, for which there is room besides.
        entries: A power of two, at least 4.
        room: Payloads of all changes.
    """
    room += slots
    return Memo(
        sums=np.zeros(4, dtype=np.int64),
        sizes=np.zeros(2, dtype=np.int64),
        keys=np.zeros((entries, 2), dtype=np.int64),
        ends=np.zeros((entries, 2), dtype=np.int64),
        slots=np.zeros(room, dtype=np.int32),
        causes=np.zeros(room, dtype=np.int32),
        rates=np.zeros(room),
    )


@compiled_part
def _mixed(value: int) -> int:
    """Return a hash of a number: the last steps of SplitMix64 (Steele et al. 2014, figure 4; mix13)."""
    value = (value ^ ((value >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    value = (value ^ ((value >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return value ^ ((value >> 31) & 0x1FFFFFFFF)


@compiled_part
def count_in(memo: Memo, member: int, sign: int) -> None:
    """Add a payload to those that move (sign 1) or take it out (-1)."""
    first, second = _mixed(2 * member + 1), _mixed(_mixed(2 * member + 2))
    memo.sums[MOVING] += sign * first
    memo.sums[MOVING + 1] += sign * second
    # One that comes must not cancel its like that goes.
    memo.sums[CHANGED] += _mixed(first + sign)
    memo.sums[CHANGED + 1] += _mixed(second + sign)


@compiled_part
def find(memo: Memo) -> int:
    """Return the entry of the change at hand; if its end is 0, it belongs there.

    An entry that is not filled is lost when another is looked for.
    """
    first = memo.sums[MOVING] + _mixed(memo.sums[CHANGED])
    second = memo.sums[MOVING + 1] + _mixed(memo.sums[CHANGED + 1])
    last = memo.ends.shape[0] - 1
    entry = first & last
    while memo.ends[entry, 1] != 0 and (
        memo.keys[entry, 0] != first or memo.keys[entry, 1] != second
    ):
        entry = (entry + 1) & last
    memo.keys[entry, 0], memo.keys[entry, 1] = first, second
    return int(entry)


@compiled_part
def forget_change(memo: Memo) -> None:
    """Begin a new change: rates are shared for what moves now."""
    memo.sums[CHANGED] = memo.sums[CHANGED + 1] = 0


@compiled_part
def make_room(memo: Memo, members: int) -> None:
    """Forget all if there is no room for a change of the rates of so many payloads."""
    entries = memo.ends.shape[0]
    if memo.sizes[COUNT] + 1 > entries // 2 or memo.sizes[FILLED] + members > memo.rates.size:
        for other in range(entries):
            memo.ends[other, 1] = 0
        memo.sizes[COUNT] = memo.sizes[FILLED] = 0
