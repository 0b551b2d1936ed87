"""Stages of a pipeline as one program: a group of tiles for each, and what they hand to each other.

Each stage is compiled as a program of its own for its part of the machine. Linking gives every stage its own
range of DRAM, except that what a stage reads of another one lies where that one writes it, and adds to
the streams

* on the reader, in front of its first read: a wait until all tiles of the writer have written;
* on the writer, behind its last write: the signal of that;
* on the reader, behind its last read: a signal that the place is free again;
* on the writer, at the end: a wait for that;
* on every stage, at the end: a barrier of all engines of all its tiles, so that the streams can follow
  themselves, one inference after the other.

Reads of DRAM are all of one engine and writes of another, which are in order, so that the first and the last
of them are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace

from tilewright.extract.pipeline.plan import PipelinePlan
from tilewright.hwmodel.target import Target
from tilewright.lowering.isa import Access, Engine, Instruction, Opcode, Post, Space, Wait
from tilewright.lowering.loops import matching_ends
from tilewright.lowering.lower import build_program, plan_facts
from tilewright.lowering.program import VALUES_ABSENT, DramTensor, Group, Program, Streams
from tilewright.lowering.scheduled import Scheduling

_ALIGNMENT_BYTES = 64
_BARRIER_SEMAPHORES = 7
_TOKEN_COUNT = len(Engine) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handover:
    """What one stage hands to another: the places in DRAM, and the two semaphores of it."""

    writer: int
    reader: int
    ranges: tuple[tuple[int, int], ...]
    written: int
    """Semaphore on the reader."""
    free: int
    """Semaphore on the writer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Home:
    """Where a tensor lies that a stage gives or another one reads, and who puts it there."""

    address: int
    """In the whole DRAM."""
    size_bytes: int
    writer: int | None
    """The stage; None for the host, which writes the model's inputs."""

    @property
    def place(self) -> tuple[int, int]:
        """First address and the one behind the last."""
        return self.address, self.address + self.size_bytes


def build_pipeline(
    pipeline: PipelinePlan, target: Target, scheduling: Scheduling = Scheduling.LIST
) -> Program:
    """Compile a pipeline to a program with one group for each stage.

    Args:
        pipeline: The stages and their plans.
        target: The whole machine.
        scheduling: Which orders of each stage's instructions to try.

    Raises:
        InfeasibleError: The buffers of a stage do not fit, although its plan said they would.
        UnsupportedOpError: A kernel has no instructions.
    """
    parts = tuple(build_program(stage.plan, stage.target, scheduling) for stage in pipeline.stages)
    return _Linker(pipeline, target, parts).run()


class _Linker:
    """State of linking: where the DRAM of each part begins, and where its tensors lie."""

    def __init__(
        self,
        pipeline: PipelinePlan,
        target: Target,
        parts: tuple[Program, ...],
    ) -> None:
        self._pipeline, self._target = pipeline, target
        self._parts = parts
        self._bases = [0]
        for part in parts:
            self._bases.append(self._bases[-1] + _aligned(part.dram_bytes))
        self._model_inputs = {port.name for port in pipeline.graph.inputs}
        self._homes: dict[str, _Home] = {}
        """Of what stages give; a tensor that is another one in a new shape lies where that one does."""

    def run(self) -> Program:
        """Link everything."""
        inputs: list[DramTensor] = []
        outputs: dict[str, DramTensor] = {}
        groups, tags = [], list[str]()
        moves = [self._moves_of(number) for number in range(len(self._parts))]
        handovers = self._handovers(moves)
        for number, (part, moved) in enumerate(zip(self._parts, moves, strict=True)):
            inputs += [
                replace(t, address=moved(t.address))
                for t in part.inputs
                if t.name in self._model_inputs
            ]
            outputs |= {t.name: replace(t, address=moved(t.address)) for t in part.outputs}
            groups.append(self._group(number, moved, len(tags), handovers))
            tags += [f"stage {number + 1} {tag}" for tag in part.tags]
        unread = self._unread_inputs({t.name for t in inputs})
        end = self._bases[-1] + sum(_aligned(t.size_bytes) for t in unread)
        return Program(
            name=self._pipeline.graph.name,
            target=self._target,
            groups=tuple(groups),
            inputs=(*inputs, *unread),
            outputs=tuple(outputs[port.name] for port in self._pipeline.graph.outputs),
            constants=tuple(
                (replace(t, name=t.name, address=moved(t.address)), array)
                for part, moved in zip(self._parts, moves, strict=True)
                for t, array in part.constants
            ),
            host_regions=(),
            dram_bytes=end,
            sram_bytes=max(part.sram_bytes for part in self._parts),
            tags=tuple(tags),
            facts=self._facts(),
        )

    def _unread_inputs(self, read: Set[str]) -> tuple[DramTensor, ...]:
        """Return the model's inputs that no stage reads, behind all else; callers give them, too."""
        unread, address = [], self._bases[-1]
        for port in self._pipeline.graph.inputs:
            if port.name not in read:
                tensor = DramTensor(
                    name=port.name, dtype=port.dtype, shape=port.shape, address=address
                )
                unread.append(tensor)
                address += _aligned(tensor.size_bytes)
        return tuple(unread)

    def _facts(self) -> dict[str, str]:
        """Return what the compiler claims of the plan, and what it says of the parts."""
        facts = plan_facts(self._pipeline) | {"stages": str(len(self._pipeline.stages))}
        for number, part in enumerate(self._parts, 1):
            schedule = {k: v for k, v in part.facts.items() if k.startswith("schedule_")}
            facts |= {f"stage {number} {key}": value for key, value in schedule.items()}
            # one part without values is enough: the whole can only be timed
            facts |= {k: v for k, v in part.facts.items() if k in VALUES_ABSENT}
        cycles = [part.scheduled_cycles for part in self._parts]
        if None not in cycles and self._pipeline.micro_batches == 1:
            ends = self._pipeline.ends([c for c in cycles if c is not None])
            facts["schedule_cycles"] = repr(max(ends))
        return facts

    def _is_handed(self, tensor: DramTensor) -> bool:
        return tensor.name in self._homes and tensor.name not in self._model_inputs

    def _moves_of(self, number: int) -> Callable[[int], int]:
        """Return the function from addresses of a part to those of the whole; note where its outputs lie."""
        part, base = self._parts[number], self._bases[number]
        linked = []
        for tensor in part.inputs:
            own = _Home(address=base + tensor.address, size_bytes=tensor.size_bytes, writer=None)
            home = self._homes[tensor.name] if self._is_handed(tensor) else own
            linked.append((tensor, home))

        def home_of(address: int) -> tuple[int, int | None]:
            for tensor, home in linked:
                offset = address - tensor.address
                if 0 <= offset < tensor.size_bytes:
                    return home.address + offset, home.writer
            return base + address, number

        for tensor in part.outputs:
            address, writer = home_of(tensor.address)
            home = _Home(address=address, size_bytes=tensor.size_bytes, writer=writer)
            self._homes[tensor.name] = home
        return lambda address: home_of(address)[0]

    def _handovers(self, moves: Sequence[Callable[[int], int]]) -> tuple[_Handover, ...]:
        """Return what stages hand to each other, with semaphores above those of their streams.

        A stage that only gives what it gets in another shape does not read it.
        """
        found: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for number, part in enumerate(self._parts):
            reads = part.groups[0].run.get(Engine.DI, ())
            for home in (self._homes[t.name] for t in part.inputs if self._is_handed(t)):
                if home.writer is not None and _touching(reads, (home.place,), moves[number]):
                    found.setdefault((home.writer, number), []).append(home.place)
        following = [
            self._first_semaphore(n) + _BARRIER_SEMAPHORES for n in range(len(self._parts))
        ]
        handovers = []
        for (writer, reader), places in sorted(found.items()):
            written, free = following[reader], following[writer]
            following[reader] += 1
            following[writer] += 1
            handovers.append(
                _Handover(
                    writer=writer, reader=reader, ranges=tuple(places), written=written, free=free
                )
            )
        return tuple(handovers)

    def _first_semaphore(self, number: int) -> int:
        """Return the first semaphore that a part left alone."""
        return self._parts[number].target.tile.control.semaphores

    def _group(
        self,
        number: int,
        moved: Callable[[int], int],
        first_tag: int,
        handovers: tuple[_Handover, ...],
    ) -> Group:
        (group,) = self._parts[number].groups
        run = {e: _moved_stream(s, moved, first_tag) for e, s in group.run.items()}
        for handover in handovers:
            if number == handover.reader:
                tiles = self._parts[handover.writer].groups[0].mesh.tiles
                run[Engine.DI] = _reading(run[Engine.DI], handover, tiles)
            if number == handover.writer:
                tiles = self._parts[handover.reader].groups[0].mesh.tiles
                run[Engine.DO] = _writing(run[Engine.DO], handover, tiles)
        return Group(
            mesh=group.mesh,
            tiles=tuple(self._pipeline.stages[number].tiles[tile] for tile in group.tiles),
            load={e: _moved_stream(s, moved, first_tag) for e, s in group.load.items()},
            run=run if len(self._parts) == 1 else self._with_barrier(run, number),
        )

    def _with_barrier(self, run: Streams, number: int) -> Streams:
        mesh = self._parts[number].groups[0].mesh
        return _with_barrier(run, mesh.tiles, mesh.rank, self._first_semaphore(number))


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def _moved_stream(
    stream: Iterable[Instruction], moved: Callable[[int], int], first_tag: int
) -> tuple[Instruction, ...]:
    """Return a stream with other addresses in DRAM and other numbers of plan steps."""

    def access(a: Access) -> Access:
        return replace(a, base=moved(a.base)) if a.space is Space.DRAM else a

    return tuple(
        replace(
            i,
            dst=None if i.dst is None else access(i.dst),
            sources=tuple(map(access, i.sources)),
            tag=i.tag + first_tag if i.tag else 0,
        )
        for i in stream
    )


def _touching(
    stream: Sequence[Instruction],
    ranges: tuple[tuple[int, int], ...],
    moved: Callable[[int], int] = lambda address: address,
) -> list[int]:
    """Return where accesses to ranges of DRAM are in a stream whose addresses a function is to move."""
    return [
        position
        for position, i in enumerate(stream)
        for a in (*i.sources, *(() if i.dst is None else (i.dst,)))
        if a.space is Space.DRAM and any(low <= moved(a.base) < high for low, high in ranges)
    ]


def _outermost(
    stream: Sequence[Instruction], ranges: tuple[tuple[int, int], ...]
) -> tuple[int, int]:
    """Return where accesses to ranges of DRAM begin and end in a stream, whole loops around them included."""
    touching = _touching(stream, ranges)
    assert touching, "a stage reads its inputs and writes its outputs"
    first, last = touching[0], touching[-1]
    for start, end in matching_ends(stream).items():
        if start < first <= end:
            first = start
        if start <= last < end:
            last = end
    return first, last + 1


def _reading(
    stream: Sequence[Instruction], handover: _Handover, tiles: int
) -> tuple[Instruction, ...]:
    start, end = _outermost(stream, handover.ranges)
    wait = Instruction(opcode=Opcode.WT, engine=Engine.DI, waits=(Wait(handover.written, tiles),))
    signal = Instruction(
        opcode=Opcode.SIG,
        engine=Engine.DI,
        count=handover.writer,
        posts=(Post(handover.free, 1, remote=True),),
    )
    return (*stream[:start], wait, *stream[start:end], signal, *stream[end:])


def _writing(
    stream: Sequence[Instruction], handover: _Handover, tiles: int
) -> tuple[Instruction, ...]:
    _, end = _outermost(stream, handover.ranges)
    signal = Instruction(
        opcode=Opcode.SIG,
        engine=Engine.DO,
        count=handover.reader,
        posts=(Post(handover.written, 1, remote=True),),
    )
    wait = Instruction(opcode=Opcode.WT, engine=Engine.DO, waits=(Wait(handover.free, tiles),))
    return (*stream[:end], signal, *stream[end:-1], wait, stream[-1])


def _with_barrier(
    streams: Streams, tiles: int, rank: int, semaphore: int
) -> dict[Engine, tuple[Instruction, ...]]:
    """Return streams that end with a barrier of all engines of all tiles.

    Control collects a token of each other engine, meets the other tiles twice (so that nobody is a meeting
    ahead while another still waits), and lets the engines go.
    """
    joined, first, second = semaphore, semaphore + 1, semaphore + 2
    others = tuple(engine for engine in Engine if engine is not Engine.CT)

    def at(engine: Engine, opcode: Opcode, **fields: object) -> Instruction:
        return replace(Instruction(opcode=opcode, engine=engine), **fields)  # type: ignore[arg-type]

    middle: list[Instruction] = [
        at(Engine.CT, Opcode.WT, waits=(Wait(joined, _TOKEN_COUNT),)),
    ]
    if tiles > 1:
        for turn in (first, second):
            post = (Post(turn, 1, remote=True),)
            middle.append(at(Engine.CT, Opcode.PS, axes=(1 << rank) - 1, posts=post))
            middle.append(at(Engine.CT, Opcode.WT, waits=(Wait(turn, tiles - 1),)))
    go = [Post(semaphore + 3 + number, 1) for number in range(len(others))]
    middle += [at(Engine.CT, Opcode.PS, posts=tuple(go[n : n + 2])) for n in range(0, len(go), 2)]
    tails: dict[Engine, tuple[Instruction, ...]] = {Engine.CT: tuple(middle)}
    for number, engine in enumerate(others):
        tails[engine] = (
            at(engine, Opcode.PS, posts=(Post(joined, 1),)),
            at(engine, Opcode.WT, waits=(Wait(semaphore + 3 + number, 1),)),
        )
    halted = {e: streams.get(e, ()) or (at(e, Opcode.HALT),) for e in Engine}
    return {e: (*stream[:-1], *tails[e], stream[-1]) for e, stream in halted.items()}
