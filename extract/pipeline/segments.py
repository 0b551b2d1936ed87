"""A run of consecutive block instances as a model of its own."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from types import MappingProxyType

from tilewright.constants import Constants, absent, known
from tilewright.extract.pipeline.items import (
    cut_at,
    instance_ops,
    is_legal,
    last_uses,
    repeatable,
)
from tilewright.graph import Graph, Op, Port
from tilewright.rules.pipeline.legality import Legality
from tilewright.rules.roll import Block, Instance, Rolled


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Instances `first <= i < last` as a model: what they read from elsewhere are its inputs.

    `keys` say for each of its blocks what it computes, however the model is cut; values that it computes
    again are in a block of their own, in front.
    """

    first: int
    last: int
    graph: Graph
    rolled: Rolled
    keys: tuple[Hashable, ...]

    @property
    def signature(self) -> Hashable:
        """Return what the price of the segment depends on: its blocks, and how they are joined."""
        origins: dict[str, tuple[int, int]] = {
            port.tensor: (-1, place) for place, port in enumerate(self.graph.inputs)
        }
        parts: list[Hashable] = []
        for number, instance in enumerate(self.rolled.instances):
            graph = self.rolled.blocks[instance.block].graph
            reads = tuple(origins[instance.tensors[port.tensor]] for port in graph.inputs)
            parts.append((self.keys[instance.block], reads))
            for place, port in enumerate(graph.outputs):
                origins[instance.tensors[port.tensor]] = (number, place)
        outputs = tuple(sorted({origins[port.tensor] for port in self.graph.outputs}))
        return (*parts, outputs)


def _key(block: Block) -> Hashable:
    """Return what tells a block from others of the same model, whose tensors have one maker each."""
    made = tuple(name for op in block.graph.ops for name in op.outputs)
    return made, block.outputs


class Segments:
    """Cuts runs of instances out of a rolled model, where the rules allow it."""

    def __init__(self, graph: Graph, rolled: Rolled, legality: Legality) -> None:
        self._graph = graph
        self._rolled = rolled
        self._port_names = {port.name for port in (*graph.inputs, *graph.outputs)}
        parts = instance_ops(rolled)
        ops = tuple(op for part in parts for op in part)
        self._makers = {name: op for op in ops for name in op.outputs}
        self._made_in = {
            name: number for number, part in enumerate(parts) for op in part for name in op.outputs
        }
        """The instance that computes each value at run time."""
        self._read_in: dict[str, list[int]] = {}
        for number, part in enumerate(parts):
            for name in dict.fromkeys(name for op in part for name in op.inputs):
                self._read_in.setdefault(name, []).append(number)
        self._again = self._far(repeatable(graph, ops, legality))
        uses, place, legal = last_uses(ops), 0, [True]
        for part in parts:
            place += len(part)
            cut = cut_at(graph, ops, uses, place, at_boundary=True, again=self._again)
            legal.append(place == len(ops) or is_legal(cut, legality))
        self._is_legal = tuple(legal)
        kept = [[n for op in p for n in op.outputs if n not in self._again] for p in parts]
        self._read_until = tuple(max(map(self._last_read, own), default=-1) for own in kept)
        """The last instance that reads what each makes, and is not computed again."""
        results = {self._made_in.get(port.tensor, -1) for port in graph.outputs}
        self._makes_output = tuple(number in results for number in range(len(parts)))
        self.reads = self._find_reads()
        """For each instance, those before it whose results it reads, unless it computes them again."""
        self._block_keys = tuple(_key(block) for block in rolled.blocks)

    @property
    def computed_again(self) -> frozenset[str]:
        """Values that every stage that reads them computes for itself."""
        return self._again

    def _find_reads(self) -> tuple[tuple[int, ...], ...]:
        found: list[set[int]] = [set() for _ in self._rolled.instances]
        for name, readers in self._read_in.items():
            made = self._made_in.get(name)
            if made is not None and name not in self._again:
                for reader in readers:
                    found[reader].add(made)
        return tuple(tuple(sorted(made - {n})) for n, made in enumerate(found))

    def is_legal(self, first: int, last: int, *, may_pass: bool = False) -> bool:
        """Whether instances `first <= i < last` may be a stage.

        Both cuts are legal, it makes something, and nothing that other stages make passes it by, unless it
        may.
        """
        if not (self._is_legal[first] and self._is_legal[last]):
            return False
        passing = max(self._read_until[:first], default=-1) >= last
        crossing = max(self._read_until[first:last]) >= last
        return (may_pass or not passing) and (crossing or any(self._makes_output[first:last]))

    def block_key(self, number: int) -> Hashable:
        """Return what tells a block of the model from others, however the model is cut."""
        return self._block_keys[number]

    def item_of(self, name: str) -> int:
        """Return the instance that computes a value at run time."""
        return self._made_in[name]

    def computes(self, name: str, first: int, last: int) -> bool:
        """Whether instances `first <= i < last` compute a value, themselves or again."""
        if first <= self._made_in[name] < last:
            return True
        again = self._needed_again(first, last) if name in self._again else ()
        return any(name in op.outputs for op in again)

    def segment(self, first: int, last: int) -> Segment:
        """Return the instances `first <= i < last` as a model."""
        instances = self._rolled.instances[first:last]
        made = {
            instance.tensors[name]
            for instance in instances
            for op in self._rolled.blocks[instance.block].graph.ops
            for name in op.outputs
        }
        again = self._needed_again(first, last)
        made |= {name for op in again for name in op.outputs}
        ops = tuple(op for op in self._graph.ops if not made.isdisjoint(op.outputs))
        graph = self._model(f"{self._graph.name}[{first}:{last}]", ops, self._outputs(first, last))
        numbers = tuple(dict.fromkeys(instance.block for instance in instances))
        blocks = [self._rolled.blocks[number] for number in numbers]
        keys: list[Hashable] = [self._block_keys[number] for number in numbers]
        shift = instances[0].start
        found = [
            replace(i, block=numbers.index(i.block), start=i.start - shift, stop=i.stop - shift)
            for i in instances
        ]
        if again:
            block, key = self._again_block(again, ops)
            names = {name: name for name in block.graph.types}
            front = Instance(block=0, start=0, stop=len(again), tensors=MappingProxyType(names))
            blocks.insert(0, block)
            keys.insert(0, key)
            found = [front, *(replace(i, block=i.block + 1) for i in found)]
        return Segment(
            first=first,
            last=last,
            graph=graph,
            rolled=Rolled(blocks=tuple(blocks), instances=tuple(found)),
            keys=tuple(keys),
        )

    def _again_block(self, again: tuple[Op, ...], ops: tuple[Op, ...]) -> tuple[Block, Hashable]:
        """Return the block of what is computed again; the constants that lead to it come along."""
        wanted = {name for op in again for name in op.outputs}
        parts = []
        for op in reversed(ops):
            if not wanted.isdisjoint(op.outputs):
                parts.append(op)
                wanted.update(op.inputs)
        mine = {name for op in again for name in op.outputs}
        outputs = tuple(self._port(name) for name in sorted(mine))
        graph = self._model(f"{self._graph.name}.again", tuple(reversed(parts)), outputs)
        return Block(name="again", graph=graph), ("again", *sorted(mine))

    def _needed_again(self, first: int, last: int) -> tuple[Op, ...]:
        """Return the operators that a run of instances computes again, in order."""
        todo = [
            name
            for name in sorted(self._again)
            if self._made_in[name] < first and any(first <= n < last for n in self._read_in[name])
        ]
        found: set[str] = set()
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += [n for n in self._makers[name].inputs if n in self._again]
        return tuple(op for name, op in self._makers.items() if name in found)

    def _far(self, able: frozenset[str]) -> frozenset[str]:
        """Return the values among some that stages far on read, and those among them that lead to one."""
        far = [n for n in sorted(able) if self._last_read(n) - self._made_in[n] > 1]
        found: set[str] = set()
        while far:
            name = far.pop()
            if name not in found:
                found.add(name)
                far += [n for n in self._makers[name].inputs if n in able]
        return frozenset(found)

    def _last_read(self, name: str) -> int:
        return max(self._read_in.get(name, (-1,)))

    def _outputs(self, first: int, last: int) -> tuple[Port, ...]:
        """Return the model's outputs that a run makes, then what crosses the cut behind it."""
        own = [p for p in self._graph.outputs if first <= self._made_in.get(p.tensor, -1) < last]
        crossing = [
            self._port(name)
            for name, number in self._made_in.items()
            if first <= number < last <= self._last_read(name) and name not in self._again
        ]
        return (*own, *crossing)

    def _model(self, name: str, ops: tuple[Op, ...], outputs: tuple[Port, ...]) -> Graph:
        """Return operators as a model; what they do not make are inputs or constants."""
        defined = {n for op in ops for n in op.outputs}
        read = tuple(dict.fromkeys(n for op in ops for n in op.inputs))
        ports = {port.tensor: port for port in self._graph.inputs}
        constants = self._graph.constants
        names = {*read, *defined, *(port.tensor for port in outputs)}
        return replace(
            self._graph,
            name=name,
            inputs=tuple(
                ports.get(n) or self._port(n)
                for n in read
                if n not in defined and n not in constants
            ),
            outputs=outputs,
            types=MappingProxyType({n: t for n, t in self._graph.types.items() if n in names}),
            constants=Constants(
                {n: a for n, a in known(constants).items() if n in names},
                {n: a for n, a in absent(constants).items() if n in names},
            ),
            ops=ops,
        )

    def _port(self, name: str) -> Port:
        """Return the port of a value that crosses a cut, whose name no input or output of the model has."""
        tensor, handed = self._graph.types[name], name
        while handed in self._port_names:
            handed += ".handed"
        return Port(name=handed, tensor=name, shape=tensor.shape, dtype=tensor.dtype)
