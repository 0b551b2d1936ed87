"""However payloads come and go on a mesh, their rates are the max-min fair ones."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from timing_cases import load, program, send, store, vector

from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.network import network_of
from tilewright.jit import Compiler
from tilewright.lowering.isa import Engine, Opcode
from tilewright.simulator import timing_sharing
from tilewright.simulator.timing import _state
from tilewright.simulator.timing_flows import finish_flow, start_flow
from tilewright.simulator.timing_sharing import share_anew
from tilewright.simulator.timing_state import FLUID, NOW, Ints, State, Tables
from tilewright.simulator.timing_tables import Phase, prepare

COMPILED = (*Path(timing_sharing.__file__).parent.glob("timing_*.py"), Path(__file__))


@Compiler(COMPILED).compiled
def exchange(tables: Tables, state: State, slots: Ints, kinds: Ints) -> None:
    """End the payloads of slots that have one, begin one of a kind in the others, and share."""
    for index in range(slots.size):
        if state.slots[slots[index]].nodes > 0:
            finish_flow(state, slots[index])
        else:
            start_flow(tables, state, kinds[index], slots[index], FLUID)
    share_anew(state)


def phase_of(dram: float, sram: float) -> Phase:
    """Return the phase of a program in which every engine of a 4 x 4 mesh knows all its payloads."""
    toy = load_target("toy")
    ports = toy.tile.sram.model_copy(update={"bytes_per_cycle": sram})
    target = toy.model_copy(
        update={
            "dram": toy.dram.model_copy(update={"port_bytes_per_cycle": dram}),
            "tile": toy.tile.model_copy(update={"sram": ports}),
        }
    )
    sends = (send(64, axes=axes, shift=shift) for axes in (1, 2) for shift in (1, 2, 3))
    casts = (send(64, Opcode.MCS, axes=axes) for axes in (1, 2, 3))
    streams = {
        Engine.DI: (load(64),),
        Engine.DO: (store(64), *sends, *casts),
        Engine.VE: (vector(64),),
    }
    made = program(target, streams)
    return prepare(made, network_of(target), "run", symmetry=False)


BATCH = st.lists(st.tuples(st.integers(0, 79), st.integers(0, 99)), max_size=12)


@given(
    st.sampled_from([6.0, 40.0]),
    st.sampled_from([20.0, 40.0, 128.0]),
    st.lists(BATCH, max_size=12),
    st.integers(1, 3),
)
@hypothesis_settings(max_examples=100)
def test_rates_are_max_min_fair_whatever_comes_and_goes(
    dram: float, sram: float, batches: list[list[tuple[int, int]]], times: int
) -> None:
    phase = phase_of(dram, sram)
    state = _state(phase)
    for batch in batches * times:  # what comes again is looked up
        chosen: dict[int, int] = {}
        for slot, number in batch:
            first, end = phase.slots["position"][slot], phase.slots["end"][slot]
            if first < end:
                chosen[slot] = int(phase.tables.stream[first + number % (end - first)])
        state.clock[NOW] += 1.0
        slots = np.array(list(chosen), dtype=np.int64)
        exchange(phase.tables, state, slots, np.array(list(chosen.values()), dtype=np.int64))
        check_fair(state)


def check_fair(state: State) -> None:
    """Check that no resource is overfull, and that who is not at its limit is held back fairly.

    Its cause is a full resource of which no user is faster. That characterises the max-min fair rates.
    """
    fields = ("first_node", "nodes", "speed", "limit", "cause")
    moving = [row for row in state.slots[[*fields]].tolist() if row[1] > 0]
    resources, shares = state.nodes["resource"].tolist(), state.nodes["share"].tolist()
    capacity = state.resources["capacity"].tolist()
    used: dict[int, float] = defaultdict(float)
    fastest: dict[int, float] = defaultdict(float)
    for first, nodes, speed, _, _ in moving:
        for number in range(first, first + nodes):
            used[resources[number]] += speed * shares[number]
            fastest[resources[number]] = max(fastest[resources[number]], speed)
    for resource, taken in used.items():
        assert taken <= capacity[resource] * (1 + 1e-9)
    for first, nodes, speed, limit, cause in moving:
        assert 0.0 < speed <= limit
        if cause < 0:
            assert speed == limit
            continue
        assert cause in resources[first : first + nodes]
        assert used[cause] >= capacity[cause] * (1 - 1e-9)
        assert speed >= fastest[cause] * (1 - 1e-9)
