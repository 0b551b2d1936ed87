"""The parts of a model between which stages may be cut."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from tilewright.extract.pipeline.branches import branch_places, in_branch_order
from tilewright.graph import Graph, Op
from tilewright.hwmodel.roofline import contraction_macs
from tilewright.rules.pipeline.legality import Legality
from tilewright.rules.pipeline.ruleset import Cut
from tilewright.rules.roll import Rolled, roll_at, run_time_ops


def instance_ops(rolled: Rolled) -> tuple[tuple[Op, ...], ...]:
    """Return the operators of each instance that run on the machine, by the model's names of tensors."""
    found = []
    for instance in rolled.instances:
        graph = rolled.blocks[instance.block].graph
        constants, ops = set(graph.constants), []
        for op in graph.ops:
            if op.kind != "host" and constants.issuperset(op.inputs):
                constants.update(op.outputs)
                continue
            ops.append(
                Op(
                    name=op.name,
                    kind=op.kind,
                    inputs=tuple(instance.tensors[name] for name in op.inputs),
                    outputs=tuple(instance.tensors[name] for name in op.outputs),
                    attrs=op.attrs,
                )
            )
        found.append(tuple(ops))
    return tuple(found)


class Places:
    """The operators of a model that run on the machine, in order, and where between them stages may be cut.

    Place p is in front of operator p.
    """

    def __init__(self, graph: Graph, rolled: Rolled, legality: Legality) -> None:
        self._graph, self._legality = graph, legality
        self.ops = tuple(op for part in instance_ops(rolled) for op in part)
        self.boundaries = (0, *(i.stop for i in rolled.instances))
        """Places between blocks, and both ends of the model."""
        self.made_by = {name: place for place, op in enumerate(self.ops) for name in op.outputs}
        """The operator that makes each value."""
        self._uses, self._able = last_uses(self.ops), repeatable(graph, self.ops, legality)

    def cuts(self, place: int) -> tuple[Cut, Cut]:
        """Return the cut at a place if nothing is computed again behind it, and if all that can be is."""
        edges, uses = self.boundaries, self._uses
        none, able = (
            cut_at(*(self._graph, self.ops, uses, place), at_boundary=place in edges, again=again)
            for again in (frozenset[str](), self._able)
        )
        return none, able

    def is_legal(self, place: int) -> bool:
        """Whether a rule allows a cut at a place inside of the model."""
        inside = 0 < place < len(self.ops)
        return inside and any(is_legal(cut, self._legality) for cut in self.cuts(place))

    def work(self) -> list[int]:
        """Return about how much there is to compute up to each operator, itself included."""
        return _work_so_far(self._graph, self.ops)


def with_branches(graph: Graph, legality: Legality, most: int) -> tuple[Graph, frozenset[int]]:
    """Return a model with every branch in one piece, and the places to cut branches out.

    If no branches are worth it, or no rule allows the cuts, it is the same model.

    Args:
        graph: The model.
        legality: Where a cut is legal.
        most: Cuts at most.
    """
    ordered = in_branch_order(graph)
    ops, outputs = run_time_ops(ordered), [port.tensor for port in graph.outputs]
    places = branch_places(ops, outputs, _work_so_far(graph, ops), most)
    uses = last_uses(ops)
    cuts = {place: cut_at(graph, ops, uses, place, at_branch=True) for place in sorted(places)}
    legal = frozenset(place for place, cut in cuts.items() if is_legal(cut, legality))
    return (ordered, legal) if legal else (graph, legal)


def cut_into_items(
    graph: Graph, rolled: Rolled, legality: Legality, wanted: int, also: Iterable[int] = ()
) -> Rolled:
    """Cut blocks that do not repeat where the rules allow it, at places that balance the work.

    Stages begin and end at items only, and rules do not see across them; so blocks that repeat stay whole.

    Args:
        graph: The model.
        rolled: Its blocks.
        legality: Where a cut is legal.
        wanted: About how many items to make in all.
        also: More places to cut at, legal ones.
    """
    known = Places(graph, rolled, legality)
    work = known.work()
    counts = [sum(i.block == b for i in rolled.instances) for b in range(len(rolled.blocks))]
    places = {*known.boundaries, *also}
    for instance in rolled.instances:
        if counts[instance.block] > 1:
            continue
        inside = [p for p in range(instance.start + 1, instance.stop) if known.is_legal(p)]
        levels = [work[place - 1] for place in inside]
        for part in range(1, wanted):
            target = work[-1] * part / wanted
            near = bisect_left(levels, target)
            around = range(max(0, near - 1), min(near + 1, len(inside)))
            places.update(
                inside[n] for n in sorted(around, key=lambda n: abs(levels[n] - target))[:1]
            )
    return roll_at(graph, sorted(places))


def repeatable(graph: Graph, ops: tuple[Op, ...], legality: Legality) -> frozenset[str]:
    """Return the values that may be computed again from the model's inputs and constants alone."""
    makers = {name for op in ops for name in op.outputs}
    able: set[str] = set()
    for op in ops:
        if legality.again(op, graph.types) is not None and able.issuperset(
            name for name in op.inputs if name in makers
        ):
            able.update(op.outputs)
    return frozenset(able)


def cut_at(
    graph: Graph,
    ops: tuple[Op, ...],
    last_use: dict[str, int],
    place: int,
    *,
    at_boundary: bool = False,
    at_branch: bool = False,
    again: frozenset[str] = frozenset(),
) -> Cut:
    """Return the cut in front of an operator; what is computed again does not cross it."""
    made = tuple(name for op in ops[:place] for name in op.outputs if name not in again)
    read = tuple(name for name in made if last_use.get(name, -1) >= place)
    return Cut(
        made=made,
        read=read,
        types=graph.types,
        is_block_boundary=at_boundary,
        is_branch_boundary=at_branch,
    )


def is_legal(cut: Cut, legality: Legality) -> bool:
    """Whether a rule allows a cut and says of everything that is read behind it that it crosses."""
    carried = legality.carried(cut)
    return carried is not None and set(cut.read) <= set(carried)


def last_uses(ops: tuple[Op, ...]) -> dict[str, int]:
    """Return the place of the last operator that reads each value."""
    return {name: place for place, op in enumerate(ops) for name in op.inputs}


def _work_so_far(graph: Graph, ops: Sequence[Op]) -> list[int]:
    """Return the work of each operator and all before it."""
    return list(accumulate(_work(graph, op) for op in ops))


def _work(graph: Graph, op: Op) -> int:
    elements = sum(graph.types[name].elements for name in op.outputs)
    return elements + (contraction_macs(graph, op) if op.kind in ("matmul", "conv") else 0)
