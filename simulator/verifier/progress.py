"""Freedom from deadlock: the queues run on counters alone, and periods of loops are skipped.

Where each semaphore has one waiting engine, an instruction that can execute stays able to: no other one
takes its tokens. So all orders lead to the same end, and one order decides for all of them. Streams are
executed with their loops: when the queues stand at the same instructions with equal semaphores again, what
lies between repeats as long as no loop ends, and as many periods are skipped at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.lowering.isa import MAX_COUNT, Engine, Instruction, Opcode
from tilewright.lowering.program import Group, Program, Streams
from tilewright.simulator.scheduling import arrivals
from tilewright.simulator.verifier.nest import Placed, phases, placed
from tilewright.simulator.verifier.verdict import (
    Finding,
    Property,
    not_proven,
    proven,
    refuted,
)

MAX_STEPS = 1_000_000
"""Instructions that synchronise, executed one by one, after which a proof is given up."""

_NAMED = 6
_INNERMOST, _OUTERMOST = 0, 1

_Stand = list[tuple[int, int, int]]

Tokens = tuple[tuple[tuple[int, int], int], ...]
"""((group, semaphore), amount) of each."""


@dataclass(frozen=True, slots=True)
class _Step:
    """An instruction that waits or posts."""

    position: int
    instruction: Instruction
    waits: Tokens
    posts: Tokens


@dataclass(frozen=True, slots=True)
class _Loop:
    count: int
    body: tuple[_Step | _Loop, ...]


@dataclass(slots=True)
class _Frame:
    """A loop (or the stream) that a queue is in."""

    body: tuple[_Step | _Loop, ...]
    place: int
    left: int
    """Iterations, the one at hand included."""


@dataclass(slots=True)
class _Queue:
    """An engine of a group on its way through its stream."""

    group: int
    engine: Engine
    frames: list[_Frame]

    def stand(self) -> _Stand:
        """Return where it stands: loop, place and iterations left of each frame."""
        return [(id(frame.body), frame.place, frame.left) for frame in self.frames]

    def next_step(self) -> _Step | None:
        """Return the step to execute next, None at the end; enters and leaves loops."""
        while self.frames:
            frame = self.frames[-1]
            if frame.place < len(frame.body):
                item = frame.body[frame.place]
                if isinstance(item, _Step):
                    return item
                self.frames.append(_Frame(item.body, 0, item.count))
                continue
            frame.left -= 1
            if frame.left:
                frame.place = 0
                continue
            self.frames.pop()
            if self.frames:
                self.frames[-1].place += 1
        return None


class DeadlockError(Exception):
    """The queues cannot go on; the message says where they wait."""


class TooLongError(Exception):
    """The budget is spent."""


class _Execution:
    """Groups that run at the same time."""

    def __init__(self, queues: list[_Queue], max_steps: int) -> None:
        self._queues = queues
        self._tokens: dict[tuple[int, int], int] = {}
        self._max_steps = max_steps
        self.steps = 0
        self.skipped = 0
        self._rounds = 0
        self._keep_at = 1
        self._kept: list[_Stand] = [queue.stand() for queue in queues]
        self._kept_tokens: dict[tuple[int, int], int] = {}

    def run(self) -> None:
        """Execute until all queues are empty.

        Raises:
            DeadlockError: They do not become empty, or a semaphore overflows.
            TooLongError: More steps than allowed.
        """
        moved = True
        while moved:
            moved = False
            for queue in self._queues:
                moved |= self._advance(queue)
            if moved:
                self._skip_periods()
        waiting = [(q, step) for q in self._queues if (step := q.next_step()) is not None]
        if waiting:
            raise DeadlockError(self._text(waiting))

    def _advance(self, queue: _Queue) -> bool:
        """Execute what a queue can, at most one iteration of its loop."""
        moved = False
        while (step := queue.next_step()) is not None:
            tokens = self._tokens
            if any(tokens.get(key, 0) < amount for key, amount in step.waits):
                return moved
            for key, amount in step.waits:
                tokens[key] -= amount
            for key, amount in step.posts:
                tokens[key] = tokens.get(key, 0) + amount
                if tokens[key] > MAX_COUNT:
                    where = f"group {queue.group} {queue.engine.name}"
                    self._check_amount(key, f"{where}, instruction {step.position}")
            self.steps += 1
            if self.steps > self._max_steps:
                raise TooLongError
            moved = True
            frame = queue.frames[-1]
            frame.place += 1
            if frame.place == len(frame.body) and len(queue.frames) > 1:
                return True
        return moved

    def _skip_periods(self) -> None:
        """Skip repetitions of loops since a state that was kept (Brent's way to find periods).

        Where queues stand as before with at least as many tokens, they can do again what they did in between:
        more tokens hinder nobody.
        """
        self._rounds += 1
        kept, tokens = self._kept, self._kept_tokens
        if all(self._tokens.get(key, 0) >= amount for key, amount in tokens.items()):
            for level in (_INNERMOST, _OUTERMOST):
                if self._repeat(kept, level):
                    break
        if self._rounds >= self._keep_at:
            self._keep_at = 2 * self._rounds
            self._kept = [queue.stand() for queue in self._queues]
            self._kept_tokens = dict(self._tokens)

    def _repeat(self, kept: list[_Stand], level: int) -> bool:
        """Skip periods if queues stand as before but for the counters of one level of loops."""
        frames: list[tuple[_Frame, int]] = []
        periods = 0
        for queue, before in zip(self._queues, kept, strict=True):
            now = queue.stand()
            if now == before:
                continue
            free = len(now) - 1 if level == _INNERMOST else 1
            if len(now) != len(before) or not 1 <= free < len(now):
                return False
            (body, place, left), (old_body, old_place, old_left) = now[free], before[free]
            same = (body, place) == (old_body, old_place) and left < old_left
            if not same or now[:free] + now[free + 1 :] != before[:free] + before[free + 1 :]:
                return False
            done, most = old_left - left, (left - 1) // (old_left - left)
            periods = most if not frames else min(periods, most)
            frames.append((queue.frames[free], done))
        if not periods:
            return False
        for frame, done in frames:
            frame.left -= done * periods
        for key, amount in self._tokens.items():
            self._tokens[key] = amount + periods * (amount - self._kept_tokens.get(key, 0))
            self._check_amount(key, "a loop")
        self.skipped += periods
        self._keep_at = self._rounds
        return True

    def _check_amount(self, key: tuple[int, int], where: str) -> None:
        if self._tokens[key] > MAX_COUNT:
            raise DeadlockError(
                f"{where}: semaphore {key[1]} of group {key[0]} reaches {self._tokens[key]:,}, "
                f"the limit is {MAX_COUNT:,}"
            )

    def _text(self, waiting: list[tuple[_Queue, _Step]]) -> str:
        texts = []
        for queue, step in waiting[:_NAMED]:
            needs = " and ".join(
                f"{amount} of semaphore {semaphore}, which holds {self._tokens.get((group, semaphore), 0)}"
                for (group, semaphore), amount in step.waits
                if self._tokens.get((group, semaphore), 0) < amount
            )
            texts.append(
                f"group {queue.group} {queue.engine.name}, instruction {step.position} "
                f"{step.instruction.opcode.name} waits for {needs}"
            )
        if len(waiting) > _NAMED:
            texts.append(f"{len(waiting) - _NAMED} more engines wait")
        return "; ".join(texts)


def _tokens(entries: Iterator[tuple[tuple[int, int], int]]) -> Tokens:
    merged: dict[tuple[int, int], int] = {}
    for key, amount in entries:
        if amount:
            merged[key] = merged.get(key, 0) + amount
    return tuple(merged.items())


def _body(
    stream: tuple[Instruction, ...], number: int, group: Group
) -> tuple[tuple[_Step | _Loop, ...], int]:
    """Return what of a stream synchronises, with its loops, and the number of such instructions."""
    stack: list[tuple[int, list[_Step | _Loop]]] = [(1, [])]
    steps = 0
    for position, i in enumerate(stream):
        if i.opcode is Opcode.LOOP:
            stack.append((i.count, []))
        elif i.opcode is Opcode.END:
            count, body = stack.pop()
            if count and body:
                stack[-1][1].append(_Loop(count, tuple(body)))
        elif i.waits or i.posts:
            steps += 1
            waits = _tokens(((number, w.semaphore), w.count) for w in i.waits)
            to = i.count if i.opcode is Opcode.SIG else number
            posts = _tokens(((to, p.semaphore), arrivals(i, p, group.mesh)) for p in i.posts)
            stack[-1][1].append(_Step(position, i, waits, posts))
    return tuple(stack[0][1]), steps


def _queues(number: int, group: Group, streams: Streams) -> list[_Queue]:
    return [
        _Queue(number, engine, [_Frame(_body(stream, number, group)[0], 0, 1)])
        for engine, stream in streams.items()
    ]


def _second_waiter(program: Program) -> tuple[Placed, Placed] | None:
    """Return two instructions of different engines that wait for one semaphore."""
    waiters: dict[tuple[str, int, int], Placed] = {}
    for item in placed(program):
        for wait in item.instruction.waits:
            if wait.count:
                key = (item.phase, item.group, wait.semaphore)
                first = waiters.setdefault(key, item)
                if first.engine is not item.engine:
                    return first, item
    return None


def check_progress(program: Program, max_steps: int = MAX_STEPS) -> Finding:
    """Decide whether every phase comes to its end, whatever the timing.

    Args:
        program: The program.
        max_steps: Synchronising instructions to execute one by one.
    """
    together: list[list[_Queue]] = []
    run: list[_Queue] = []
    for kind, number, group, streams in phases(program):
        queues = _queues(number, group, streams)
        if kind == "load":
            together.append(queues)
        else:
            run += queues
    steps = skipped = 0
    for queues in (*together, run):
        execution = _Execution(queues, max_steps - steps)
        try:
            execution.run()
        except DeadlockError as error:
            return refuted(Property.PROGRESS, str(error))
        except TooLongError:
            return not_proven(
                Property.PROGRESS,
                f"still running after {max_steps:,} synchronising instructions; loops have no period "
                "that repeats early",
            )
        steps, skipped = steps + execution.steps, skipped + execution.skipped
    pair = _second_waiter(program)
    if pair is not None:
        first, second = (item.describe(program.tags) for item in pair)
        return not_proven(
            Property.PROGRESS,
            f"one order comes to its end, but {first} and {second} wait for one semaphore, so others may not",
        )
    periods = f", {skipped:,} periods of loops skipped" if skipped else ""
    return proven(Property.PROGRESS, f"{steps:,} synchronising instructions{periods}")
