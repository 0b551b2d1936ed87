"""What fair sharing gave before: the rates follow from which payloads move, and those come back.

A program repeats itself, and so do the sets of payloads that move at one time. The rates of a set and
what holds each payload back are looked up by two 64-bit sums over hashes of its members; that two sets
have both sums in common has a chance of about n^2 / 2^129 among n sets. Where only some of the payloads share
anew, what changed is part of what is looked up.
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
"""Most sets that are kept, and payloads of all of them; then all are forgotten. Memory that is not
written takes no room."""

COUNT, FILLED = 0, 1
MOVING, CHANGED = 0, 2
"""First of the two sums over payloads that move, and over resources whose users changed."""


class Memo(NamedTuple):
    """Sets of payloads (an open hash table), and the rates of each."""

    sums: Ints  # [4]
    sizes: Ints  # COUNT entries, FILLED places
    keys: Ints  # [entries, 2]
    ends: Ints  # [entries, 2] first place of a set, and one beyond its end; 0 there for none
    slots: npt.NDArray[np.int32]  # [room]
    causes: npt.NDArray[np.int32]  # [room]
    rates: Floats  # [room]


def new_memo(slots: int, entries: int = ENTRIES, room: int = ROOM) -> Memo:
    """Return a memo that knows nothing.

    Args:
        slots: Payloads of the largest set, for which there is room besides.
        entries: A power of two, at least 4.
        room: Payloads of all sets.
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
def count_in(memo: Memo, which: int, member: int, sign: int) -> None:
    """Add a member to the sums of a set (sign 1) or take it out (-1)."""
    memo.sums[which] += sign * _mixed(2 * member + 1)
    memo.sums[which + 1] += sign * _mixed(_mixed(2 * member + 2))


@compiled_part
def find(memo: Memo, whole: bool) -> int:
    """Return the entry of what moves, or of that and what changed; if its end is 0, it belongs there.

    An entry that is not filled is lost when another is looked for.
    """
    first, second = memo.sums[MOVING], memo.sums[MOVING + 1]
    if not whole:
        first += _mixed(memo.sums[CHANGED])
        second += _mixed(memo.sums[CHANGED + 1])
    last = memo.ends.shape[0] - 1
    entry = first & last
    while memo.ends[entry, 1] != 0 and (
        memo.keys[entry, 0] != first or memo.keys[entry, 1] != second
    ):
        entry = (entry + 1) & last
    memo.keys[entry, 0], memo.keys[entry, 1] = first, second
    return int(entry)


@compiled_part
def refer(memo: Memo, entry: int, first: int, end: int) -> None:
    """Fill an entry found with the range of its set."""
    memo.ends[entry, 0], memo.ends[entry, 1] = first, end
    memo.sizes[COUNT] += 1


@compiled_part
def make_room(memo: Memo, members: int) -> None:
    """Forget all if there is no room for a set of so many members and an entry that refers to it."""
    entries = memo.ends.shape[0]
    if memo.sizes[COUNT] + 2 > entries // 2 or memo.sizes[FILLED] + members > memo.rates.size:
        for other in range(entries):
            memo.ends[other, 1] = 0
        memo.sizes[COUNT] = memo.sizes[FILLED] = 0
