"""Balance of semaphores: what a phase posts it waits for, loops counted by multiplication."""

from __future__ import annotations

from collections import Counter

from tilewright.lowering.isa import Opcode
from tilewright.lowering.program import Program
from tilewright.simulator.scheduling import MAX_COUNT, arrivals
from tilewright.simulator.verifier.nest import placed
from tilewright.simulator.verifier.verdict import (
    Finding,
    Property,
    not_proven,
    proven,
    refuted,
)

Key = tuple[str, int, int]
"""Phase, group and number of a semaphore."""


def check_balance(program: Program) -> Finding:
    """Decide whether semaphores are zero at the end of each phase and never overflow.

    A semaphore never holds more than all posts of a phase together; where that is below the limit, no timing
    makes it overflow.
    """
    posted, waited = Counter[Key](), Counter[Key]()
    poster: dict[Key, str] = {}
    for item in placed(program):
        i, mesh = item.instruction, program.groups[item.group].mesh
        for wait in i.waits:
            waited[item.phase, item.group, wait.semaphore] += wait.count * item.times
        for post in i.posts:
            group = i.count if i.opcode is Opcode.SIG else item.group
            key = (item.phase, group, post.semaphore)
            posted[key] += arrivals(i, post, mesh) * item.times
            poster.setdefault(key, item.describe(program.tags))
    for key in sorted({*posted, *waited}):
        if posted[key] != waited[key]:
            phase, group, semaphore = key
            where = f"; first posted by {poster[key]}" if key in poster else ""
            return refuted(
                Property.BALANCE,
                f"group {group} {phase}: semaphore {semaphore} gets {posted[key]:,} posts and "
                f"{waited[key]:,} are waited for, expected as many{where}",
            )
    most = max(posted.values(), default=0)
    if most > MAX_COUNT:
        phase, group, semaphore = max(posted, key=lambda k: posted[k])
        return not_proven(
            Property.BALANCE,
            f"group {group} {phase}: semaphore {semaphore} gets {most:,} posts, as many as are waited "
            f"for; that it never holds more than {MAX_COUNT:,} at once is a matter of timing",
        )
    return proven(
        Property.BALANCE,
        f"{len(posted):,} semaphores of groups and phases; none gets more than {most:,} posts",
    )
