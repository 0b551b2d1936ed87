"""Balance of semaphores: what a phase posts it waits for, loops counted by multiplication."""

from __future__ import annotations

from collections import Counter

from tilewright.lowering.isa import MAX_COUNT, Instruction, Opcode
from tilewright.lowering.loops import MAX_UNROLLED, unroll, unrolled_length
from tilewright.lowering.program import Program, Streams
from tilewright.simulator.scheduling import arrivals
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

    A semaphore never holds more than all posts of a phase together, one of barriers no more than those of
    two of them; where that is below the limit, no timing makes it overflow.
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
    held = {
        key: count if count <= MAX_COUNT else _held_by_barriers(program, key) or count
        for key, count in posted.items()
    }
    most = max(held.values(), default=0)
    if most > MAX_COUNT:
        phase, group, semaphore = max(held, key=lambda k: held[k])
        return not_proven(
            Property.BALANCE,
            f"group {group} {phase}: semaphore {semaphore} gets {most:,} posts, as many as are waited "
            f"for; that it never holds more than {MAX_COUNT:,} at once is a matter of timing",
        )
    return proven(
        Property.BALANCE,
        f"{len(posted):,} semaphores of groups and phases; none holds more than {most:,} posts",
    )


def _held_by_barriers(program: Program, key: Key) -> int | None:
    """Return the most posts that a semaphore of barriers holds; None if it has other uses.

    Where one engine posts to all tiles and then waits for the posts of all, again and again, a tile posts
    for the next barrier but one only when all have posted for the next one, and so waited for this one.
    """
    phase, number, semaphore = key
    group = program.groups[number]
    others = (other for n, other in enumerate(program.groups) if n != number)
    if any(_signals(other.run, number, semaphore) for other in others):
        return None
    streams = group.load if phase == "load" else group.run
    users = [stream for stream in streams.values() if any(_uses(i, semaphore) for i in stream)]
    if len(users) != 1 or unrolled_length(users[0]) > MAX_UNROLLED:
        return None
    kinds: set[tuple[int, int]] = set()
    is_open = 0
    for i in unroll(users[0]):
        is_open -= sum(wait.count for wait in i.waits if wait.semaphore == semaphore)
        posts = [post for post in i.posts if post.semaphore == semaphore]
        if is_open < 0 or (posts and is_open):
            return None
        for post in posts:
            if i.opcode is not Opcode.PS or not post.remote or len(posts) > 1:
                return None
            is_open = arrivals(i, post, group.mesh)
            kinds.add((i.axes, is_open))
    return 2 * kinds.pop()[1] if len(kinds) == 1 and not is_open else None


def _uses(i: Instruction, semaphore: int) -> bool:
    numbers = (*(wait.semaphore for wait in i.waits), *(post.semaphore for post in i.posts))
    return semaphore in numbers


def _signals(streams: Streams, group: int, semaphore: int) -> bool:
    """Whether a group posts a semaphore of another one."""
    return any(
        i.opcode is Opcode.SIG and i.count == group and _uses(i, semaphore)
        for stream in streams.values()
        for i in stream
    )
