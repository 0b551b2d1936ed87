"""The order in which the engines of a group execute: queues, semaphores, deadlock.

All tiles of a group run the same streams and posts are symmetric (a send gives each tile exactly
one arrival, a multicast n - 1), so the semaphores of all tiles hold equal counts when the tiles
are executed in lock step, and one set of counters stands for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

from tilewright.errors import ProgramError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.isa import MAX_COUNT, Engine, Instruction, Opcode, Post
from tilewright.lowering.loops import MAX_UNROLLED, unroll, unrolled_length
from tilewright.lowering.program import Program, Streams


@dataclass(frozen=True, slots=True)
class Phase:
    """The unrolled streams of one phase of one group; `name` is for messages."""

    name: str
    mesh: LogicalMesh
    streams: Mapping[Engine, tuple[Instruction, ...]]
    tags: tuple[str, ...]

    @property
    def instructions(self) -> int:
        """Number of instructions of all engines."""
        return sum(map(len, self.streams.values()))

    def describe(self, engine: Engine, index: int) -> str:
        """Name an instruction for a message."""
        return (
            f"{self.name} {engine.name} {index} {describe(self.streams[engine][index], self.tags)}"
        )


def describe(instruction: Instruction, tags: Sequence[str]) -> str:
    """Write an instruction's opcode, function and plan step."""
    name = f"{instruction.opcode.name}{'.' + instruction.fn if instruction.fn else ''}"
    tag = f" ({tags[instruction.tag - 1]})" if 0 < instruction.tag <= len(tags) else ""
    return name + tag


def make_phase(
    name: str,
    mesh: LogicalMesh,
    streams: Streams,
    tags: tuple[str, ...],
    max_instructions: int = MAX_UNROLLED,
) -> Phase:
    """Unroll the streams of a phase; HALT and everything that is implied by it goes away."""
    unrolled = {}
    for engine in Engine:
        stream = streams.get(engine, ())
        if stream and stream[-1].opcode == Opcode.HALT:
            stream = stream[:-1]
        try:
            unrolled[engine] = unroll(stream, max_instructions)
        except ProgramError as error:
            raise ProgramError(f"{name} {engine.name}: {error}") from error
    return Phase(name, mesh, unrolled, tags)


def program_phases(
    program: Program, max_instructions: int = MAX_UNROLLED
) -> Iterator[tuple[int, str, Phase]]:
    """Yield (group number, "load" or "run", phase) in the order of execution.

    All groups load before any runs; groups take turns in their order, each after the one before.

    Raises:
        ProgramError: Loops are malformed, or there are more than `max_instructions` in all.
    """
    total = sum(map(unrolled_length, program.streams))
    if total > max_instructions:
        raise ProgramError(
            f"its streams unroll to {total} instructions, expected at most {max_instructions}; raise the "
            "limit (tilewright run --max-instructions), or time the program instead"
        )
    for kind in ("load", "run"):
        for number, group in enumerate(program.groups):
            streams = group.load if kind == "load" else group.run
            yield (
                number,
                kind,
                make_phase(
                    f"group {number} {kind}", group.mesh, streams, program.tags, max_instructions
                ),
            )


def submesh_tiles(mesh: LogicalMesh, axes: int) -> int:
    """Return the number of tiles of the sub-mesh that a mask of axes spans."""
    return prod(size for axis, size in enumerate(mesh.sizes) if axes >> axis & 1)


def arrivals(instruction: Instruction, post: Post, mesh: LogicalMesh) -> int:
    """Return by how much each tile's semaphore grows when all tiles execute the instruction."""
    if not post.remote or instruction.opcode == Opcode.SND:
        return post.count
    if instruction.opcode == Opcode.SIG:  # of each tile of the other group, by all of this one
        return post.count * mesh.tiles
    return post.count * (submesh_tiles(mesh, instruction.axes) - 1)


def external_semaphores(program: Program) -> tuple[frozenset[int], ...]:
    """Return, for each group, the semaphores that other groups post."""
    found: list[set[int]] = [set() for _ in program.groups]
    for group in program.groups:
        for stream in group.run.values():
            for i in stream:
                if i.opcode == Opcode.SIG:
                    found[i.count].update(post.semaphore for post in i.posts)
    return tuple(map(frozenset, found))


class Scheduler:
    """Runs the queues of one phase in some order that the semaphores allow.

    `steps` yields (engine, index in its unrolled stream) when the instruction may execute; its posts
    take effect when the generator is resumed.

    Args:
        phase: What to run.
        counters: What semaphores hold at the start, if not zero.
        external: Semaphores that other groups post; they may be ahead.
    """

    def __init__(
        self,
        phase: Phase,
        counters: Mapping[int, int] = MappingProxyType({}),
        external: frozenset[int] = frozenset(),
    ) -> None:
        self.phase = phase
        self._counters: dict[int, int] = dict(counters)
        self._external = external
        self._next = dict.fromkeys(Engine, 0)
        self._signals: list[tuple[int, int, int]] = []

    def steps(self) -> Iterator[tuple[Engine, int]]:
        """Yield instructions until all queues are empty.

        Raises:
            ProgramError: Deadlock, a semaphore overflows, or one is not zero at the end.
        """
        yield from self.advance()
        self.finish()

    @property
    def is_done(self) -> bool:
        """Whether all queues are empty."""
        return all(self._next[e] == len(self.phase.streams[e]) for e in Engine)

    def advance(self) -> Iterator[tuple[Engine, int]]:
        """Yield instructions until none can execute."""
        moved = True
        while moved:
            moved = False
            for engine in Engine:
                stream = self.phase.streams[engine]
                while self._next[engine] < len(stream) and self._take(stream[self._next[engine]]):
                    yield engine, self._next[engine]
                    self._post(engine, stream[self._next[engine]])
                    self._next[engine] += 1
                    moved = True

    def finish(self) -> dict[int, int]:
        """Return what other groups have posted ahead.

        Raises:
            ProgramError: Deadlock, or a semaphore of the group is not zero.
        """
        if not self.is_done:
            raise ProgramError(self._deadlock())
        ahead = {s: n for s, n in self._counters.items() if n and s in self._external}
        left = [f"s{s}={n}" for s, n in sorted(self._counters.items()) if n and s not in ahead]
        if left:
            raise ProgramError(
                f"{self.phase.name}: semaphores {', '.join(left)} at the end, expected 0; a post has no wait"
            )
        return ahead

    @property
    def pending(self) -> dict[int, int]:
        """Semaphores that are not zero, in order."""
        return {s: n for s, n in sorted(self._counters.items()) if n}

    def signals(self) -> list[tuple[int, int, int]]:
        """Return and forget the posts to other groups so far: group, semaphore, amount."""
        sent, self._signals = self._signals, []
        return sent

    def receive(self, semaphore: int, amount: int) -> None:
        """Add what another group posted.

        Raises:
            ProgramError: The semaphore overflows.
        """
        self._add(semaphore, amount, self.phase.name)

    def _take(self, instruction: Instruction) -> bool:
        waits = instruction.waits
        if not waits:
            return True
        if len(waits) == 2 and waits[0].semaphore == waits[1].semaphore:
            needs = {waits[0].semaphore: waits[0].count + waits[1].count}
        else:
            needs = {w.semaphore: w.count for w in waits}
        if any(self._counters.get(s, 0) < n for s, n in needs.items()):
            return False
        for semaphore, count in needs.items():
            self._counters[semaphore] = self._counters.get(semaphore, 0) - count
        return True

    def _post(self, engine: Engine, instruction: Instruction) -> None:
        for post in instruction.posts:
            amount = arrivals(instruction, post, self.phase.mesh)
            if instruction.opcode == Opcode.SIG:
                self._signals.append((instruction.count, post.semaphore, amount))
                continue
            self._add(post.semaphore, amount, self.phase.describe(engine, self._next[engine]))

    def _add(self, semaphore: int, amount: int, where: str) -> None:
        value = self._counters.get(semaphore, 0) + amount
        if value > MAX_COUNT:
            raise ProgramError(
                f"{where}: semaphore {semaphore} reaches {value}, the limit is {MAX_COUNT}"
            )
        self._counters[semaphore] = value

    def _poster(self, semaphore: int) -> Engine | None:
        """Return the engine whose queue still holds a post to a semaphore, the nearest one first."""
        nearest: tuple[int, Engine] | None = None
        for engine in Engine:
            rest = self.phase.streams[engine][self._next[engine] :]
            for distance, instruction in enumerate(rest):
                if any(p.semaphore == semaphore and p.count for p in instruction.posts):
                    if nearest is None or distance < nearest[0]:
                        nearest = (distance, engine)
                    break
        return nearest[1] if nearest else None

    def _deadlock(self) -> str:
        """Describe the blocked engines and the cycle in which they wait for each other."""
        blocked = [e for e in Engine if self._next[e] < len(self.phase.streams[e])]
        lines, waits_for = [], dict[Engine, Engine]()
        for engine in blocked:
            index = self._next[engine]
            instruction = self.phase.streams[engine][index]
            short = [w for w in instruction.waits if self._counters.get(w.semaphore, 0) < w.count]
            wait = (short or list(instruction.waits))[0]
            poster = self._poster(wait.semaphore)
            who = "nobody posts it any more" if poster is None else f"next posted by {poster.name}"
            lines.append(
                f"{self.phase.describe(engine, index)} waits for {wait.count} of semaphore {wait.semaphore}, "
                f"which holds {self._counters.get(wait.semaphore, 0)}; {who}"
            )
            if poster is not None:
                waits_for[engine] = poster
        return "; ".join(("deadlock", *lines, *_cycle(waits_for)))


def _cycle(waits_for: Mapping[Engine, Engine]) -> tuple[str, ...]:
    """Return the first cycle of a map as text, or nothing."""
    for start in waits_for:
        path = [start]
        while path[-1] in waits_for:
            following = waits_for[path[-1]]
            if following in path:
                loop = [*path[path.index(following) :], following]
                return ("cycle " + " -> ".join(e.name for e in loop),)
            path.append(following)
    return ()
