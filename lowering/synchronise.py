"""Semaphores: which instruction waits for and posts to which counting semaphore.

Tokens order the engines of one tile. Each ordered pair of engines has one semaphore; the engines are in-order
queues, so the k-th token that one posts is the k-th that the other takes, and every token
posted is waited for. Waits that follow from earlier ones are left out (vector clocks).

Collectives need two semaphores for each set of axes (ready, arrived), barriers two that take turns. One ready
semaphore is enough although some tiles may be a collective ahead of others: a first send follows the
ready posts of n - 1 peers and, by a token, its own tile's. If a peer's ready(k + 1) is among those counted
for collective k, then that peer has arrive(k), so some tile made its first send k; the earliest
such send saw ready(k) of all tiles.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from tilewright.errors import InfeasibleError, ProgramError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.dependencies import BARRIER_POST, BARRIER_WAIT, OrderedProgram
from tilewright.lowering.isa import MAX_COUNT, Engine, Opcode
from tilewright.lowering.micro import Micro

_EXCHANGES = ("ready", "arrived")
"""Kinds of channels between tiles that exchange data."""


class Channel(NamedTuple):
    """What a semaphore is for."""

    kind: str
    """"token" from engine `a` to engine `b`, or "ready" or "arrived" on axes mask `a`, or
    "barrier" on axes mask `a`, turn `b`."""
    a: int
    b: int = 0


class Signal(NamedTuple):
    """A wait or a post."""

    channel: Channel
    amount: int
    is_remote: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Synchronised:
    """Micros of one phase with all their waits and posts (any number of each)."""

    micros: tuple[Micro, ...]
    waits: tuple[tuple[Signal, ...], ...]
    posts: tuple[tuple[Signal, ...], ...]


def synchronise(ordered: OrderedProgram, mesh: LogicalMesh) -> Synchronised:
    """Return waits and posts that enforce the order and the parts of collectives.

    Args:
        ordered: Micros of one phase and what each waits for.
        mesh: The logical mesh of the group.

    Raises:
        ProgramError: A collective is malformed, or a semaphore could exceed its range.
    """
    waits: list[list[Signal]] = [[] for _ in ordered.micros]
    posts: list[list[Signal]] = [[] for _ in ordered.micros]
    for producer, consumer in reduce_edges(ordered):
        ends = ordered.micros[producer].engine, ordered.micros[consumer].engine
        channel = Channel("token", *ends)
        posts[producer].append(Signal(channel, 1))
        waits[consumer].append(Signal(channel, 1))
    check_collectives(ordered.micros, mesh)
    for position, micro in enumerate(ordered.micros):
        for is_wait, signal in _remote_signals(micro, mesh):
            if signal.amount > MAX_COUNT:
                raise ProgramError(
                    f"plan step {micro.tag}: {signal.channel.kind} semaphore would hold {signal.amount}, "
                    f"at most {MAX_COUNT}; use smaller axes or fewer sends in a collective"
                )
            (waits if is_wait else posts)[position].append(signal)
    return Synchronised(
        micros=ordered.micros,
        waits=tuple(tuple(sorted(signals)) if signals else () for signals in waits),
        posts=tuple(tuple(sorted(signals)) if signals else () for signals in posts),
    )


def reduce_edges(ordered: OrderedProgram) -> tuple[tuple[int, int], ...]:
    """Return the (producer, consumer) pairs that need a token, in order of the consumers.

    For each engine the pass keeps a clock: how many micros of each engine are complete when its next
    micro starts. A dependency that the clock covers needs no token. The producers of the tokens between two
    engines ascend strictly, so each token has count 1.
    """
    engines = len(Engine)
    clocks = [[0] * engines for _ in range(engines)]
    # clock at the completion of each micro
    completion: list[list[int]] = []
    kept: list[tuple[int, int]] = []
    tokens: dict[tuple[Engine, Engine], tuple[list[int], list[int]]] = {}
    for consumer, micro in enumerate(ordered.micros):
        clock = clocks[micro.engine]
        # latest first: it may imply the others
        for producer in reversed(ordered.edges[consumer]):
            source = ordered.micros[producer].engine
            done = completion[producer]
            if done[source] <= clock[source]:
                continue
            kept.append((producer, consumer))
            made, taken = tokens.setdefault((source, micro.engine), ([], []))
            made.append(producer)
            taken.append(clock[micro.engine] + 1)
            clock = [max(a, b) for a, b in zip(clock, done, strict=True)]
        clock = clock.copy()
        clock[micro.engine] += 1
        clocks[micro.engine] = clock
        completion.append(clock)
    for (source, target), (made, taken) in tokens.items():
        _check_token_count(source, target, [completion[p][target] for p in made], taken)
    return tuple(kept)


def _check_token_count(source: Engine, target: Engine, known: list[int], taken: list[int]) -> None:
    """Check that the tokens of a pair that may be waiting together fit the semaphore.

    Args:
        source: Engine that posts.
        target: Engine that waits.
        known: For each token, how many micros of the target are surely complete when it is posted.
        taken: For each token, the count of the target's micros that completes with its consumer.
    """
    if len(taken) <= MAX_COUNT:
        return
    for number, complete in enumerate(known):
        waiting = number + 1 - bisect_right(taken, complete)
        if waiting > MAX_COUNT:
            raise ProgramError(
                f"{waiting} tokens from {source.name} to {target.name} may wait at once, "
                f"at most {MAX_COUNT} fit a semaphore; use larger kernel tiles"
            )


def _group_size(axes: int, mesh: LogicalMesh) -> int:
    return prod(size for axis, size in enumerate(mesh.sizes) if axes >> axis & 1)


def _remote_signals(micro: Micro, mesh: LogicalMesh) -> Iterator[tuple[bool, Signal]]:
    """Yield (is it a wait, signal) of a micro that talks to other tiles."""
    if not micro.role:
        return
    axes = micro.axes
    peers = _group_size(axes, mesh) - 1
    if peers == 0:
        return
    match micro.role:
        case "ready":
            yield False, Signal(Channel("ready", axes), 1, True)
        case "first_send" | "send":
            if micro.role == "first_send":
                yield True, Signal(Channel("ready", axes), peers)
            yield False, Signal(Channel("arrived", axes), 1, True)
        case "arrive":
            yield True, Signal(Channel("arrived", axes), micro.arrivals)
        case role if role == BARRIER_POST:
            yield False, Signal(Channel("barrier", axes, micro.shift), 1, True)
        case role if role == BARRIER_WAIT:
            yield True, Signal(Channel("barrier", axes, micro.shift), micro.arrivals)
        case role:
            raise ProgramError(f"plan step {micro.tag}: unknown role '{role}' of a micro")


def check_collectives(micros: Sequence[Micro], mesh: LogicalMesh) -> None:
    """Check that collectives on each set of axes are ready, first send, sends, arrive, in order.

    Raises:
        ProgramError: Parts are out of order, or the arrivals waited for are not those sent.
    """
    arrivals: dict[int, int | None] = {}
    for micro in micros:
        is_send = micro.opcode in (Opcode.SND, Opcode.MCS) or micro.role == "send"
        if not is_send and micro.role not in ("ready", "arrive"):
            continue
        due = arrivals.get(micro.axes, None)
        peers = _group_size(micro.axes, mesh) - 1
        match micro.role:
            case "ready":
                fits = micro.axes not in arrivals
                arrivals[micro.axes] = None
            case "first_send" | "send":
                is_first = micro.axes in arrivals and due is None
                fits = is_send and is_first == (micro.role == "first_send")
                fits = fits and (is_first or due is not None)
                sent = min(peers, 1) if micro.opcode is Opcode.SND else peers
                arrivals[micro.axes] = (due or 0) + sent
            case "arrive":
                fits = due is not None and (due == micro.arrivals or peers == 0)
                arrivals.pop(micro.axes, None)
            case _:
                fits = False
        if not fits:
            raise ProgramError(
                f"plan step {micro.tag}: {micro.opcode.name} with role '{micro.role}' on axes mask "
                f"{micro.axes:#b} is out of order (arrivals so far {due}, waited for {micro.arrivals}); "
                "fix the collective's expansion"
            )
    for axes in sorted(arrivals):
        raise ProgramError(f"a collective on axes mask {axes:#b} has no arrive; fix its expansion")


class SemaphoreError(InfeasibleError):
    """A program needs more semaphores than a tile has; says what for.

    Attributes:
        demand: How many it needs.
        limit: How many there are.
        axes: Logical axes of its exchanges between tiles, those with the fewest signals first.
    """

    def __init__(self, signals: Counter[Channel], limit: int) -> None:
        """Write the message.

        Args:
            signals: Waits and posts of each channel.
            limit: How many semaphores there are.
        """
        self.demand, self.limit = len(signals), limit
        kinds = Counter(channel.kind for channel in signals)
        along: Counter[int] = Counter()
        for channel, count in signals.items():
            if channel.kind in _EXCHANGES:
                bits = range(channel.a.bit_length())
                along.update({axis: count for axis in bits if channel.a >> axis & 1})
        self.axes = tuple(sorted(along, key=lambda axis: (along[axis], axis)))
        exchanges = sum(kinds[kind] for kind in _EXCHANGES)
        super().__init__(
            f"the program needs {self.demand} semaphores of a tile ({kinds['token']} between its engines, "
            f"{exchanges} to exchange with others, {kinds['barrier']} for barriers), it has {limit}, "
            f"{self.demand - limit} short; use fewer combinations of mesh axes or a target with "
            f"{self.demand} semaphores or more"
        )


def number_semaphores(phases: Sequence[Synchronised], limit: int) -> dict[Channel, int]:
    """Return a number for each channel in use, the same in all phases.

    Raises:
        SemaphoreError: There are more channels than semaphores.
    """
    signals = Counter(
        signal.channel
        for phase in phases
        for group in (*phase.waits, *phase.posts)
        for signal in group
    )
    if len(signals) > limit:
        raise SemaphoreError(signals, limit)
    return {channel: number for number, channel in enumerate(sorted(signals))}
