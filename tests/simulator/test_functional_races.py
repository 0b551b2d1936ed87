"""The race check agrees with a naive one: explicit tiles, explicit edges, explicit bytes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dtypes import DType
from tilewright.errors import ProgramError
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.lowering.builder import ProgramBuilder
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.lowering.program import Program
from tilewright.simulator.functional import LoadCache, run_program
from tilewright.simulator.hazards import check_hazards

L1_BYTES, DRAM_BYTES = 128, 256
MESHES = [(), (2,), (3,), (2, 2), (2, 3)]
Node = tuple[int, int]
"""(tile, position in the linear order of generation)."""


@dataclass(frozen=True)
class Case:
    """Instructions in a linear order; (poster, waiter) pairs with a semaphore of their own each."""

    sizes: tuple[int, ...]
    instructions: tuple[Instruction, ...]
    edges: tuple[tuple[int, int], ...]
    remote: frozenset[int]
    """Edges whose post is remote."""


@st.composite
def accesses(
    draw: st.DrawFn, space: Space, domain: tuple[int, ...], axes: int, low: int, words: int
) -> Access:
    strides = tuple(draw(st.sampled_from([4, 8])) for _ in domain)
    coefficients = tuple(draw(st.sampled_from([0, 0, 4, 8])) for _ in range(axes))
    base = low + 4 * draw(st.integers(0, words))
    return Access(space, DType.F32, base, coefficients, strides)


@st.composite
def instructions(draw: st.DrawFn, sizes: tuple[int, ...]) -> Instruction:
    kinds = [Opcode.VEC, Opcode.LD, Opcode.ST, Opcode.PS]
    if sizes:
        kinds += [Opcode.SND, Opcode.MCS, Opcode.PS]
    opcode = draw(st.sampled_from(kinds))
    engine = {Opcode.VEC: Engine.VE, Opcode.LD: Engine.DI, Opcode.PS: Engine.CT}.get(
        opcode, Engine.DO
    )
    axes = draw(st.integers(1, (1 << len(sizes)) - 1)) if sizes else 0
    if opcode == Opcode.PS:
        return Instruction(opcode=opcode, engine=engine, axes=axes)
    domain = draw(st.sampled_from([(), (2,)]))
    rank = len(sizes)
    # sources and destinations in different halves, so that instructions do not overlap themselves
    halves = draw(st.sampled_from([(0, L1_BYTES // 2), (L1_BYTES // 2, 0)]))
    source = draw(accesses(Space.L1, domain, rank, halves[0], 6))
    dst = draw(accesses(Space.L1, domain, rank, halves[1], 6))
    if opcode == Opcode.LD:
        source = draw(accesses(Space.DRAM, domain, rank, 0, 12))
        axes = 0
    if opcode == Opcode.ST:
        dst = draw(accesses(Space.DRAM, domain, rank, 0, 12))
        axes = draw(st.integers(0, (1 << rank) - 1))
    if opcode == Opcode.SND:
        axes = 1 << draw(st.integers(0, rank - 1))
    fn = "identity" if opcode == Opcode.VEC else ""
    shift = draw(st.integers(0, 3)) if opcode == Opcode.SND else 0
    return Instruction(
        opcode=opcode,
        engine=engine,
        domain=domain,
        dst=dst,
        sources=(source,),
        fn=fn,
        axes=axes,
        shift=shift,
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sizes = draw(st.sampled_from(MESHES))
    found = draw(st.lists(instructions(sizes), min_size=2, max_size=8))
    pairs = [
        (i, j)
        for j in range(len(found))
        for i in range(j)
        if found[i].engine != found[j].engine or found[i].opcode in (Opcode.SND, Opcode.MCS)
    ]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=10)) if pairs else []
    edges: list[tuple[int, int]] = []
    remote = set()
    for i, j in sorted(chosen):
        if sum(e[0] == i for e in edges) < 2 and sum(e[1] == j for e in edges) < 2:
            if (
                sizes
                and found[i].opcode in (Opcode.PS, Opcode.SND, Opcode.MCS)
                and draw(st.booleans())
            ):
                remote.add(len(edges))
            edges.append((i, j))
    return Case(sizes, tuple(found), tuple(edges), frozenset(remote))


@cache
def target() -> Target:
    return load_target("corsair")


def arriving(case: Case, edge: int) -> int:
    i = case.instructions[case.edges[edge][0]]
    if edge not in case.remote or i.opcode == Opcode.SND:
        return 1
    return int(np.prod([n for a, n in enumerate(case.sizes) if i.axes >> a & 1])) - 1


def make_program(case: Case, phase: str = "run") -> Program:
    """Fill all memories, then run the case."""
    b = ProgramBuilder(target(), LogicalMesh(tuple("xyz"[: len(case.sizes)]), case.sizes))
    b.input("x", (DRAM_BYTES // 4,))
    everything = b.access(Space.L1, b.scratch(L1_BYTES), (L1_BYTES // 4,))
    whole = Instruction(
        opcode=Opcode.VEC, engine=Engine.VE, domain=(L1_BYTES // 4,), dst=everything, fn="fill"
    )
    b.emit(whole, "load")
    for position, instruction in enumerate(case.instructions):
        waits = [Wait(e, arriving(case, e)) for e, (_, j) in enumerate(case.edges) if j == position]
        posts = [
            Post(e, 1, e in case.remote) for e, (i, _) in enumerate(case.edges) if i == position
        ]
        b.emit(replace(instruction, waits=tuple(waits), posts=tuple(posts)), phase)
    return b.build()


def coordinates(case: Case) -> list[tuple[int, ...]]:
    return list(product(*map(range, case.sizes)))


def bytes_of(
    access: Access, at: tuple[int, ...], domain: tuple[int, ...], owner: int
) -> set[tuple[int, int]]:
    found = set()
    for index in product(*map(range, domain)):
        start = access.base + sum(c * k for c, k in zip(access.coefficients, at, strict=True))
        start += sum(s * k for s, k in zip(access.strides, index, strict=True))
        found |= {(owner, start + k) for k in range(4)}
    return found


def explicit_accesses(
    case: Case, tile: int, i: Instruction
) -> list[tuple[bool, set[tuple[int, int]]]]:
    """(writes, bytes) of an instruction on one tile; the owner -1 is DRAM."""
    tiles = coordinates(case)
    at = tiles[tile]
    if i.dst is None:
        return []
    (source,) = i.sources
    if i.opcode == Opcode.SND:
        axis = i.axes.bit_length() - 1
        to = (*at[:axis], (at[axis] + i.shift) % case.sizes[axis], *at[axis + 1 :])
        return [
            (False, bytes_of(source, to, i.domain, tile)),
            (True, bytes_of(i.dst, at, i.domain, tiles.index(to))),
        ]
    if i.opcode == Opcode.MCS:
        peers = [
            k
            for k, other in enumerate(tiles)
            if all(
                x == y or i.axes >> a & 1 for a, (x, y) in enumerate(zip(at, other, strict=True))
            )
        ]
        reached = set().union(*(bytes_of(i.dst, at, i.domain, k) for k in peers))
        return [(False, bytes_of(source, at, i.domain, tile)), (True, reached)]
    if i.opcode == Opcode.ST and any(at[a] for a in range(len(at)) if i.axes >> a & 1):
        # a tile that is no leader does not even read
        return [(False, bytes_of(source, at, i.domain, tile))]
    own = {Space.L1: tile, Space.DRAM: -1}
    return [
        (False, bytes_of(source, at, i.domain, own[source.space])),
        (True, bytes_of(i.dst, at, i.domain, own[i.dst.space])),
    ]


def successors(case: Case) -> dict[Node, set[Node]]:
    tiles = coordinates(case)
    after: dict[Node, set[Node]] = {
        (t, p): set() for t in range(len(tiles)) for p in range(len(case.instructions))
    }
    for t, at in enumerate(tiles):
        for p, i in enumerate(case.instructions):
            following = [
                q
                for q in range(p + 1, len(case.instructions))
                if case.instructions[q].engine == i.engine
            ]
            after[t, p] |= {(t, q) for q in following[:1]}
            for e, (poster, waiter) in enumerate(case.edges):
                if poster != p:
                    continue
                if e not in case.remote:
                    receivers = [t]
                elif i.opcode == Opcode.SND:
                    axis = i.axes.bit_length() - 1
                    to = (*at[:axis], (at[axis] + i.shift) % case.sizes[axis], *at[axis + 1 :])
                    receivers = [tiles.index(to)]
                else:
                    receivers = [
                        k
                        for k, other in enumerate(tiles)
                        if k != t
                        and all(
                            x == y or i.axes >> a & 1
                            for a, (x, y) in enumerate(zip(at, other, strict=True))
                        )
                    ]
                after[t, p] |= {(k, waiter) for k in receivers}
    return after


def naive_race(case: Case) -> bool:
    after = successors(case)
    reach: dict[Node, set[Node]] = {}
    for node in sorted(after, key=lambda x: -x[1]):
        # edges only lead to later positions of the linear order
        reach[node] = set().union(after[node], *(reach[k] for k in after[node]))
    found = [
        (node, writes, touched)
        for node in after
        for writes, touched in explicit_accesses(case, node[0], case.instructions[node[1]])
    ]
    for k, (x, x_writes, x_bytes) in enumerate(found):
        for y, y_writes, y_bytes in found[k + 1 :]:
            if x == y or not (x_writes or y_writes) or not x_bytes & y_bytes:
                continue
            if y not in reach[x] and x not in reach[y]:
                return True
    return False


@settings(max_examples=400)
@given(cases())
def test_race_check_agrees_with_the_naive_one(case: Case) -> None:
    program = make_program(case)
    with pytest.raises(ProgramError, match="race") if naive_race(case) else nullcontext():
        check_hazards(program)


@settings(max_examples=200)
@given(cases())
def test_sharing_equal_contents_changes_no_value(case: Case) -> None:
    """All memories end up the same with and without tracking of what varies."""
    if naive_race(case):
        return
    program = make_program(case, phase="load")
    words = np.arange(DRAM_BYTES // 4, dtype=np.float32)
    program = replace(program, constants=((program.inputs[0], words),), inputs=())
    found = []
    for track in (True, False):
        loaded = LoadCache()
        run_program(program, {}, check=False, track=track, load_cache=loaded)
        assert loaded.dram is not None
        found.append(
            (loaded.tiles[0].contents(), loaded.dram.tensor(0, (DRAM_BYTES,), np.dtype(np.uint8)))
        )
    for tracked, plain in zip(*found, strict=True):
        np.testing.assert_array_equal(tracked, plain)
