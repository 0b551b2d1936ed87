"""Which options fit rows of a limit, by an account of what is read, copied and alive.

Row x of a choice holds what the option of variable x needs, the results of variables that are alive, and
what x copies. A result is surely alive until the last reader that reads it whatever it takes, and, if that
reader's result is the same bytes, as long as that is.
"""

from __future__ import annotations

import numpy as np

from tilewright.extract.account import Account
from tilewright.extract.choice import FORBIDDEN, ChoiceProblem, Costs, Indices, Mask

Kept = dict[int, Indices]
"""The options that are left of some variables."""


def fitting(
    problem: ChoiceProblem, account: Account, kept: Kept, limit_bytes: float
) -> Kept | None:
    """Return the options that are left within rows of a limit; None if a variable has none.

    Args:
        problem: Its edges forbid pairs of options.
        account: What options need.
        kept: Of the variables of a part that no edge joins to others.
        limit_bytes: Of each row.
    """
    left = dict(kept)
    while True:
        count = sum(map(len, left.values()))
        for row in sorted(left):
            _fit_row(account, left, row, limit_bytes)
            if not all(map(len, left.values())):
                return None
        for edge in problem.edges:
            if edge.left in left:
                table = edge.matrix[
                    np.ix_(edge.left_ports[left[edge.left]], edge.right_ports[left[edge.right]])
                ]
                allowed = table < FORBIDDEN / 2
                left[edge.left] = left[edge.left][allowed.any(axis=1)]
                left[edge.right] = left[edge.right][allowed.any(axis=0)]
                if not len(left[edge.left]) or not len(left[edge.right]):
                    return None
        if count == sum(map(len, left.values())):
            return left


def _fit_row(account: Account, left: Kept, row: int, limit_bytes: float) -> None:
    """Drop options with which a row is too full, whatever the others are."""
    need = account.own_bytes[row][left[row]]
    alive = [v for v in left if v < row and _last_row(account, left, v) >= row]
    least_alive = {v: float(account.alive_bytes[v][left[v]].min()) for v in alive}
    copied: list[tuple[int, Costs]] = [
        (v, reader.copied_bytes[np.ix_(left[v], left[row])])
        for v in left
        for reader in account.readers[v]
        if reader.variable == row
    ]
    need = need + sum(least_alive.values())
    for _, table in copied:
        need = need + table.min(axis=0)
    fits: dict[int, Mask] = {row: need <= limit_bytes}
    for v in alive:
        rest = float(need.min()) - least_alive[v]
        fits[v] = rest + account.alive_bytes[v][left[v]] <= limit_bytes
    for v, table in copied:
        pairs = need - table.min(axis=0) + table
        own = pairs.min(axis=1) <= limit_bytes
        fits[v] = fits[v] & own if v in fits else own
    for v, mask in fits.items():
        left[v] = left[v][mask]


def _last_row(account: Account, left: Kept, variable: int) -> int:
    """Return the last row in which a variable's result is alive whatever is chosen."""
    last = variable
    for reader in account.readers[variable]:
        if reader.variable in left and reader.reads[left[reader.variable]].all():
            last = max(last, reader.variable)
            if reader.is_same[np.ix_(left[variable], left[reader.variable])].all():
                last = max(last, _last_row(account, left, reader.variable))
    return last
