"""Groups that run at the same time, one or several inferences after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from tilewright.errors import ProgramError
from tilewright.lowering.isa import Engine
from tilewright.simulator.scheduling import Phase, Scheduler

Boundary = Callable[[int, int], None]
"""Called with the number of a group and of an inference."""


class Together:
    """Runs the run phases of all groups in some order that the semaphores allow.

    A group begins an inference when it has completed the one before it; groups wait for each other only
    where their streams say so.
    """

    def __init__(
        self,
        phases: Sequence[Phase],
        external: Sequence[frozenset[int]],
        inferences: int,
        before: Boundary,
        after: Boundary,
    ) -> None:
        self._phases, self._external = phases, external
        self._inferences = inferences
        self._before, self._after = before, after
        self._done = [0] * len(phases)
        self._ahead: list[Mapping[int, int]] = [{} for _ in phases]
        self._running = [self._start(group) for group in range(len(phases))]

    def steps(self) -> Iterator[tuple[int, Engine, int]]:
        """Yield (group, engine, index in its stream) until all inferences are complete.

        Raises:
            ProgramError: Deadlock, a semaphore overflows, or one is not zero at the end.
        """
        moved = True
        while moved:
            moved = False
            for group in range(len(self._phases)):
                for engine, index in self._advance(group):
                    moved = True
                    yield group, engine, index
        for group, done in enumerate(self._done):
            if done < self._inferences:
                self._running[group].finish()
            pending = self._running[group].pending
            if pending:
                left = ", ".join(f"s{s}={n}" for s, n in pending.items())
                raise ProgramError(
                    f"{self._phases[group].name}: semaphores {left} at the end, expected 0; "
                    "a post of another group has no wait"
                )

    def _start(self, group: int) -> Scheduler:
        if self._done[group] < self._inferences:
            self._before(group, self._done[group])
        return Scheduler(self._phases[group], self._ahead[group], self._external[group])

    def _advance(self, group: int) -> Iterator[tuple[Engine, int]]:
        """Run a group until it waits for another one or has nothing left to do."""
        while self._done[group] < self._inferences:
            scheduler = self._running[group]
            yield from scheduler.advance()
            for other, semaphore, amount in scheduler.signals():
                self._running[other].receive(semaphore, amount)
            if not scheduler.is_done:
                return
            self._ahead[group] = scheduler.finish()
            self._after(group, self._done[group])
            self._done[group] += 1
            self._running[group] = self._start(group)
