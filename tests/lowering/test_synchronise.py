"""Tokens are complete, few and balanced; malformed collectives are refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.errors import ProgramError
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering import synchronise as module
from tilewright.lowering.dependencies import OrderedProgram
from tilewright.lowering.isa import Engine, Opcode
from tilewright.lowering.micro import Micro
from tilewright.lowering.synchronise import (
    Channel,
    SemaphoreError,
    Signal,
    number_semaphores,
    reduce_edges,
    synchronise,
)

MESH = LogicalMesh(("x", "y"), (2, 3))


def random_order(seed: int, steps: int) -> OrderedProgram:
    """Return micros on random engines, each after random earlier ones."""
    draw = random.Random(seed)
    engines = [draw.choice(tuple(Engine)) for _ in range(steps)]
    edges = []
    for position, engine in enumerate(engines):
        latest: dict[Engine, int] = {}
        for earlier in range(position):
            if engines[earlier] is not engine and draw.random() < 0.15:
                latest[engines[earlier]] = earlier
        edges.append(tuple(sorted(latest.values())))
    micros = tuple(Micro(opcode=Opcode.VEC, engine=engine) for engine in engines)
    return OrderedProgram(micros=micros, edges=tuple(edges), touches=((),) * len(micros))


def closure(order: OrderedProgram, edges: set[tuple[int, int]]) -> list[set[int]]:
    """Return the micros that are complete before each one starts."""
    before: list[set[int]] = []
    last: dict[Engine, int] = {}
    for position, micro in enumerate(order.micros):
        direct = {a for a, b in edges if b == position}
        if micro.engine in last:
            direct.add(last[micro.engine])
        before.append(direct.union(*(before[p] for p in direct)))
        last[micro.engine] = position
    return before


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_tokens_imply_all_edges_and_none_is_spare(seed: int, steps: int) -> None:
    order = random_order(seed, steps)
    everything = {(a, b) for b, sources in enumerate(order.edges) for a in sources}
    kept = reduce_edges(order)
    assert set(kept) <= everything
    assert closure(order, set(kept)) == closure(order, everything)
    for edge in kept:
        assert edge[0] not in closure(order, set(kept) - {edge})[edge[1]]


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_the_kth_token_posted_is_the_kth_taken(seed: int, steps: int) -> None:
    order = random_order(seed, steps)
    phase = synchronise(order, MESH)
    posted: dict[Channel, list[int]] = {}
    taken: dict[Channel, list[int]] = {}
    for position in range(steps):
        for signals, into in ((phase.posts, posted), (phase.waits, taken)):
            for signal in signals[position]:
                assert signal.amount == 1
                into.setdefault(signal.channel, []).append(position)
    pairs = {
        (a, b)
        for channel, made in posted.items()
        for a, b in zip(made, taken[channel], strict=True)
    }
    assert pairs == set(reduce_edges(order))


def send(role: str, opcode: Opcode = Opcode.MCS, axes: int = 2) -> Micro:
    return Micro(opcode=opcode, engine=Engine.DO, axes=axes, role=role, shift=1)


def ready(axes: int = 2) -> Micro:
    return Micro(opcode=Opcode.PS, engine=Engine.CT, axes=axes, role="ready")


def arrive(arrivals: int, axes: int = 2) -> Micro:
    return Micro(opcode=Opcode.WT, engine=Engine.CT, axes=axes, role="arrive", arrivals=arrivals)


def order_of(*micros: Micro) -> OrderedProgram:
    return OrderedProgram(micros=micros, edges=((),) * len(micros), touches=((),) * len(micros))


def test_parts_of_collectives_wait_and_post() -> None:
    micros = (
        ready(),
        ready(3),
        send("first_send"),
        send("send"),
        arrive(4),
        send("first_send", Opcode.SND, 3),
        arrive(1, 3),
    )
    phase = synchronise(order_of(*micros), MESH)
    y_ready, y_arrived = Channel("ready", 2), Channel("arrived", 2)
    assert phase.posts[0] == (Signal(y_ready, 1, True),)
    assert phase.waits[2] == (Signal(y_ready, 2),)
    assert phase.posts[2] == phase.posts[3] == (Signal(y_arrived, 1, True),)
    assert phase.waits[3] == ()
    assert phase.waits[4] == (Signal(y_arrived, 4),)
    assert phase.waits[5] == (Signal(Channel("ready", 3), 5),)
    numbers = number_semaphores((phase,), 4)
    assert sorted(numbers.values()) == [0, 1, 2, 3]
    with pytest.raises(SemaphoreError, match=r"needs 4 semaphores of a tile .*, it has 3"):
        number_semaphores((phase,), 3)


@pytest.mark.parametrize(
    "micros",
    [
        (ready(), send("first_send"), arrive(4)),
        (ready(), send("first_send")),
        (ready(), ready(), send("first_send"), arrive(2)),
        (send("first_send"), arrive(2)),
        (ready(), send("send"), arrive(2)),
        (ready(), send("first_send"), send("first_send"), arrive(4)),
        (ready(), send(""), arrive(2)),
        (ready(), send("first_send", axes=1), arrive(2)),
        (ready(), arrive(0)),
    ],
)
def test_malformed_collectives_are_refused(micros: tuple[Micro, ...]) -> None:
    with pytest.raises(ProgramError):
        synchronise(order_of(*micros), MESH)


def test_a_well_formed_collective_is_accepted() -> None:
    phase = synchronise(order_of(ready(), send("first_send"), arrive(2)), MESH)
    assert phase.waits[2] == (Signal(Channel("arrived", 2), 2),)


def test_axes_of_one_tile_need_no_semaphores() -> None:
    micros = (ready(1), send("first_send", axes=1), arrive(0, 1))
    phase = synchronise(order_of(*micros), LogicalMesh(("x",), (1,)))
    assert phase.waits == phase.posts == ((), (), ())


def test_tokens_that_pile_up_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def chain(has_reply: bool) -> OrderedProgram:
        """VE makes three tokens for ME; with a reply, it waits for the first to be taken."""
        engines = [Engine.VE, Engine.ME] * 3
        edges = [(), (0,), (1,) if has_reply else (), (2,), (3,) if has_reply else (), (4,)]
        micros = tuple(Micro(opcode=Opcode.VEC, engine=engine) for engine in engines)
        return OrderedProgram(micros=micros, edges=tuple(edges), touches=((),) * len(micros))

    monkeypatch.setattr(module, "MAX_COUNT", 1)
    reduce_edges(chain(True))
    with pytest.raises(ProgramError, match="2 tokens from VE to ME may wait at once, at most 1"):
        reduce_edges(chain(False))


def test_too_many_arrivals_are_refused() -> None:
    sends = [send("send", axes=1) for _ in range(40)]
    micros = (ready(1), send("first_send", axes=1), *sends, arrive(41 * 1999, 1))
    with pytest.raises(ProgramError, match="would hold 81959, at most 65535"):
        synchronise(order_of(*micros), LogicalMesh(("x",), (2000,)))
