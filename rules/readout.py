"""The saturated e-graph as plain, acyclic, deterministically numbered data."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import networkx as nx

from tilewright.graph import Graph, Op, TensorType
from tilewright.rules.alternatives import Implementation, LogicalNode, TensorClass
from tilewright.rules.annotations import annotate
from tilewright.rules.constructors import OUTPUT, constructor_of, decode, encode
from tilewright.rules.limits import described_class
from tilewright.rules.partition.tables import StrategyTables
from tilewright.rules.session import Session
from tilewright.rules.signatures import Typing
from tilewright.rules.snapshot import INSERTED, ENode, Snapshot

_NAMED_CLASSES = 3

NodeKey = tuple[str, tuple[int, ...], tuple[str, ...]]
"""Constructor, operand e-classes and texts: what makes an e-node one."""


def node_key(node: ENode) -> NodeKey:
    """Return what identifies an e-node."""
    return node.constructor.name, node.args, node.signature_texts


@dataclass(frozen=True, slots=True)
class Candidate:
    """An e-node, or all e-nodes of one host region, that may become a LogicalNode."""

    enodes: tuple[ENode, ...]
    op_name: str

    @property
    def first(self) -> ENode:
        """The e-node that stands for all."""
        return self.enodes[0]

    @property
    def results(self) -> tuple[int, ...]:
        """Result e-classes."""
        return tuple(node.result for node in self.enodes)


class ReadOut:
    """Classes and nodes of a snapshot.

    Nodes whose choice could form a cycle are left out: those of the inserted graph come first, in
    its order, then those of rules by constructor and attributes; each stays unless its result
    already reaches it.
    """

    def __init__(
        self,
        graph: Graph,
        numbers: Mapping[str, int],
        snapshot: Snapshot,
        typing: Typing,
        rule_names: tuple[str, ...],
        nodes_per_class: int,
    ) -> None:
        self._graph, self._snapshot, self._typing = graph, snapshot, typing
        self._rule_names = rule_names
        self._named = {name: snapshot.named[number] for name, number in numbers.items()}
        self._leaves = {*snapshot.leaves.values()}
        self.notes: tuple[str, ...] = ()
        candidates = self._limited(self._candidates(), nodes_per_class)
        kept = self._used(_without_cycles(candidates, self._leaves))
        self._class_numbers = self._number_classes(kept)
        self.classes = self._classes()
        self.nodes, self._implemented = self._nodes(kept)
        self.outputs = tuple(self.class_number(self._named[p.tensor]) for p in graph.outputs)

    def class_number(self, e_class: int) -> int:
        """Return our number of an e-class of the engine."""
        return self._class_numbers[e_class]

    def is_constant(self, e_class: int) -> bool:
        """Whether an e-class of the engine is known at compile time."""
        return e_class in self._snapshot.constants

    def _inserted_keys(self) -> dict[NodeKey, str]:
        """Return the op that each inserted e-node stands for; the first of several equal ones."""
        keys: dict[NodeKey, str] = {}
        for op in self._graph.ops:
            constructor = constructor_of(op)
            args = tuple(self._named[name] for name in op.inputs)
            for output, name in enumerate(op.outputs):
                texts = encode(constructor, op.attrs, output)
                dtype = str(self._graph.types[name].dtype)
                keys.setdefault((constructor.name, args, (*texts, dtype)), op.name)
        return keys

    def _candidates(self) -> list[Candidate]:
        """Return nodes in order of precedence: inserted ones as in the graph, then those of rules."""
        keys = self._inserted_keys()
        order = {name: i for i, name in enumerate(dict.fromkeys(keys.values()))}
        by_op: defaultdict[str, list[ENode]] = defaultdict(list)
        made: list[ENode] = []
        for node in self._snapshot.enodes:
            if node.result in self._leaves:
                continue  # already there without computing anything
            if node.origin == INSERTED:
                by_op[keys[node_key(node)]].append(node)
            else:
                made.append(node)
        made.sort(key=lambda n: (n.constructor.name, n.signature_texts, n.args, n.result))
        inserted = [
            Candidate(tuple(sorted(nodes, key=_output_number)), name)
            for name, nodes in sorted(by_op.items(), key=lambda pair: order[pair[0]])
        ]
        return [*inserted, *(Candidate((node,), "") for node in made)]

    def _limited(self, candidates: list[Candidate], limit: int) -> list[Candidate]:
        """Return at most `limit` nodes for each class; nodes of the inserted graph always stay."""
        counts: Counter[int] = Counter()
        kept = []
        for candidate in candidates:
            result = candidate.first.result
            counts[result] += 1
            if counts[result] <= limit or candidate.op_name:
                kept.append(candidate)
        if len(kept) < len(candidates):
            self.notes = self._overfull(candidates, counts, limit)
        return kept

    def _overfull(
        self, candidates: list[Candidate], counts: Counter[int], limit: int
    ) -> tuple[str, ...]:
        """Say of which classes nodes were left out."""
        members: defaultdict[int, list[ENode]] = defaultdict(list)
        for candidate in candidates:
            members[candidate.first.result].append(candidate.first)
        full = [e_class for e_class, count in counts.items() if count > limit]
        notes = [
            f"{described_class(e_class, members[e_class], self._named, self._rule_names)}; "
            f"{limit} stay"
            for e_class in full[:_NAMED_CLASSES]
        ]
        if len(full) > _NAMED_CLASSES:
            notes.append(f"{len(full) - _NAMED_CLASSES} more e-classes keep {limit} e-nodes each")
        return tuple(notes)

    def _used(self, candidates: list[Candidate]) -> list[Candidate]:
        """Return the nodes of classes that named tensors are, or may be, computed from."""
        by_result: defaultdict[int, list[Candidate]] = defaultdict(list)
        for candidate in candidates:
            for result in candidate.results:
                by_result[result].append(candidate)
        todo = list(dict.fromkeys(self._named.values()))
        seen = set(todo)
        while todo:
            for candidate in by_result[todo.pop()]:
                for arg in candidate.first.args:
                    if arg not in seen:
                        seen.add(arg)
                        todo.append(arg)
        return [c for c in candidates if any(result in seen for result in c.results)]

    def _number_classes(self, kept: list[Candidate]) -> dict[int, int]:
        """Return our numbers of e-classes: named tensors, then operands of nodes, in their order."""
        found = dict.fromkeys(self._named.values())
        while True:
            before = len(found)
            # operands become known from the named classes inwards, so the order is the graph's
            for candidate in kept:
                if any(result in found for result in candidate.results):
                    found.update(dict.fromkeys(candidate.first.args))
            if len(found) == before:
                return {e_class: number for number, e_class in enumerate(found)}

    def _type(self, e_class: int) -> TensorType:
        return self._typing.types[self._snapshot.types[e_class][0]]

    def _classes(self) -> tuple[TensorClass, ...]:
        names: defaultdict[int, list[str]] = defaultdict(list)
        for name, e_class in self._named.items():
            names[e_class].append(name)
        inputs = {self._named[port.tensor] for port in self._graph.inputs}
        return tuple(
            TensorClass(
                number=number,
                type=self._type(e_class),
                names=tuple(names[e_class]),
                is_input=e_class in inputs,
                is_constant=self.is_constant(e_class),
            )
            for e_class, number in self._class_numbers.items()
        )

    def node_numbers(self, tables: StrategyTables) -> dict[tuple[int, tuple[int, ...]], int]:
        """Return the node of each signature and operand columns that has implementations."""
        return {
            (tables.signature_of(enode), enode.columns): number
            for number, enode in enumerate(self._implemented)
            if not self.is_constant(enode.result)
        }

    def _nodes(self, kept: list[Candidate]) -> tuple[tuple[LogicalNode, ...], tuple[ENode, ...]]:
        """Return nodes so that all nodes of a class come after all nodes of its operands."""
        rank = _ranks(kept, self._class_numbers)
        ordered = sorted(
            enumerate(kept), key=lambda pair: (max(rank[r] for r in pair[1].results), pair[0])
        )
        nodes = [self._node(number, candidate) for number, (_, candidate) in enumerate(ordered)]
        return tuple(nodes), tuple(candidate.first for _, candidate in ordered)

    def _node(self, number: int, candidate: Candidate) -> LogicalNode:
        first = candidate.first
        attrs = decode(first.constructor, first.texts)
        op = Op(
            name=candidate.op_name, kind=first.constructor.kind, inputs=(), outputs=(), attrs=attrs
        )
        types = tuple(self._type(arg) for arg in first.args)
        results = tuple(self._class_numbers[result] for result in candidate.results)
        return LogicalNode(
            number=number,
            kind=op.kind,
            attrs=attrs,
            args=tuple(self._class_numbers[arg] for arg in first.args),
            result=results[0],
            results=results,
            nest=annotate(op, types, self._type(first.result)),
            origin="" if first.origin == INSERTED else self._rule_names[first.origin - 1],
            op_name=candidate.op_name,
        )


def _output_number(node: ENode) -> int:
    columns = node.constructor.columns
    return int(node.texts[columns.index(OUTPUT)]) if OUTPUT in columns else 0


def _arcs(candidates: Iterable[Candidate]) -> nx.DiGraph[int]:
    """Return the graph of classes with an arc from each result to each operand of a node."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    for candidate in candidates:
        for result in candidate.results:
            graph.add_node(result)
            graph.add_edges_from((result, arg) for arg in candidate.first.args)
    return graph


def _without_cycles(candidates: list[Candidate], leaves: set[int]) -> list[Candidate]:
    """Return the candidates that, in order, close no cycle, and whose operands can be computed."""
    component = {
        e_class: number
        for number, members in enumerate(nx.strongly_connected_components(_arcs(candidates)))
        for e_class in members
    }
    inner: nx.DiGraph[int] = (
        nx.DiGraph()
    )  # arcs so far that stay in one strongly connected component
    kept = []
    for candidate in candidates:
        arcs = [
            (result, arg)
            for result in candidate.results
            for arg in candidate.first.args
            if component[result] == component[arg]
        ]
        inner.add_nodes_from(e_class for arc in arcs for e_class in arc)
        if any(nx.has_path(inner, arg, result) for result, arg in arcs):
            continue
        inner.add_edges_from(arcs)
        kept.append(candidate)
    computable = set(leaves)
    while True:
        defined = {r for c in kept for r in c.results} | computable
        fewer = [c for c in kept if all(arg in defined for arg in c.first.args)]
        if len(fewer) == len(kept):
            break
        kept = fewer
    assert nx.is_directed_acyclic_graph(_arcs(kept)), "a choice of nodes could form a cycle"
    return kept


def _ranks(kept: list[Candidate], numbers: Mapping[int, int]) -> dict[int, int]:
    """Return the place of each class in the first topological order, operands before results."""
    order = nx.lexicographical_topological_sort(
        _arcs(kept).reverse(copy=False), key=numbers.__getitem__
    )
    return {e_class: place for place, e_class in enumerate(order)}


@dataclass(frozen=True, slots=True)
class PhysicalSize:
    """Size of the delivered part of an e-graph."""

    e_nodes: int
    e_classes: int


_IMPLEMENTATIONS = ("impl1", "impl2", "impl3", "impl4", "impl5", "impl_items")


def read_implementations(
    session: Session, tables: StrategyTables, logical: ReadOut
) -> tuple[tuple[Implementation, ...], PhysicalSize]:
    """Return the implementations of the nodes that were kept, by node and strategy."""
    found = session.read(("delivered", *_IMPLEMENTATIONS))
    tensor_of = {row[2]: cast(int, row[0]) for row in found.get("delivered", [])}
    numbers = logical.node_numbers(tables)
    ways: list[tuple[int, int, int]] = []
    count = 0
    for name in _IMPLEMENTATIONS:
        for row in found.get(name, []):
            count += 1
            signature, strategy = cast(int, row[-3]), cast(int, row[-2])
            if name == "impl_items":
                operands: tuple[int, ...] = (cast(int, row[0]),)
            else:
                operands = tuple(tensor_of[delivered] for delivered in row[:-3])
            node = numbers.get((signature, operands))
            if node is not None:
                ways.append((node, signature, strategy))
    implementations = []
    for node, signature, strategy in sorted(ways):
        chosen = tables.strategies[signature][strategy]
        implementations.append(
            Implementation(
                node=node,
                split_dims=chosen.split_dims,
                operands=chosen.operands,
                result=chosen.result,
                rules=chosen.rules,
                macros=chosen.macros,
            )
        )
    size = PhysicalSize(count, len({row[2] for row in found.get("delivered", [])}))
    return tuple(implementations), size
