"""How a tensor of the model is computed in the plan, and which rules lead there, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from tilewright.compiler import Compilation, saturation_options
from tilewright.errors import RuleError, ShapeError
from tilewright.extract.plan import Plan, PlannedOp
from tilewright.rules.constructors import constructor_of, encode
from tilewright.rules.engine import LogicalEGraph, rewrite_block
from tilewright.rules.provenance import RewriteStep, explain, term_text
from tilewright.rules.roll import Block, Instance
from tilewright.rules.snapshot import INSERTED, ENode


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A tensor, the term that the model has for it, the steps of rules, and what the plan does.

    `steps` is empty when the plan computes the term of the model, None when no chain was found.
    `chosen` is then the term of the plan. `planned` is None when the plan does not compute the tensor on
    its own; `inside` then names the tensors whose computation takes it in. `where` defines the values
    that only rules made, which the terms call #1, #2, …
    """

    tensor: str
    original: str
    steps: tuple[RewriteStep, ...] | None
    chosen: str
    planned: PlannedOp | None
    inside: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    operands: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What the terms call the tensors that the planned operator reads from elsewhere."""


def explain_tensor(done: Compilation, tensor: str) -> tuple[Explanation, ...]:
    """Explain how the plan computes a tensor; if it is fused away, also what it is fused into.

    Args:
        done: A compilation with a plan.
        tensor: Name of a tensor that an operator of the imported graph makes.

    Raises:
        ShapeError: No operator makes a tensor of this name.
    """
    assert done.rolled is not None
    assert done.plan is not None
    number = _instance_of(done, tensor)
    instance = done.rolled.instances[number]
    block = done.rolled.blocks[instance.block]
    options = replace(
        saturation_options(done.graph, done.target, done.options), multiples=done.mesh.sizes
    )
    egraph = rewrite_block(block.graph, options, done.options.without_rules)
    return tuple(_Explainer(done.plan, instance, block, egraph).explain(tensor))


def _instance_of(done: Compilation, tensor: str) -> int:
    assert done.rolled is not None
    for number, instance in enumerate(done.rolled.instances):
        block = done.rolled.blocks[instance.block]
        made = {instance.tensors[name] for op in block.graph.ops for name in op.outputs}
        if tensor in made:
            return number
    known = [name for op in done.graph.ops for name in op.outputs]
    near = [name for name in known if tensor in name][:5] or known[:5]
    raise ShapeError(
        f"no operator makes a tensor '{tensor}'; there are {', '.join(repr(n) for n in near)}, …; "
        "--stop-after frontend lists all"
    )


class _Names(dict[int, str]):
    """Names of e-classes; one without a name gets a number when it is first asked for."""

    def __init__(self, named: Mapping[int, str]) -> None:
        super().__init__(named)
        self._unnamed: list[int] = []

    def __missing__(self, e_class: int) -> str:
        self._unnamed.append(e_class)
        self[e_class] = f"#{len(self._unnamed)}"
        return self[e_class]

    def unnamed(self) -> Iterator[int]:
        """Yield the classes that got numbers, also those that get one meanwhile."""
        place = 0
        while place < len(self._unnamed):
            yield self._unnamed[place]
            place += 1


class _Explainer:
    """Explains tensors of one instance of a block."""

    def __init__(self, plan: Plan, instance: Instance, block: Block, egraph: LogicalEGraph) -> None:
        self._block, self._egraph = block, egraph
        self._graph_name = instance.tensors
        self._class = {instance.tensors[n]: c for n, c in egraph.classes.items()}
        self._names: dict[int, str] = {}
        for name, e_class in egraph.classes.items():
            self._names.setdefault(e_class, instance.tensors[name])
        self._planned = [p for p in plan.ops if p.op.output in self._class] if plan.ops else []

    def explain(self, tensor: str) -> list[Explanation]:
        """Explain a tensor, then what it is fused into."""
        found: list[Explanation] = []
        todo = [tensor]
        seen: set[str] = set()
        while todo:
            name = todo.pop(0)
            if name in seen:
                continue
            seen.add(name)
            explanation = self._one(name)
            found.append(explanation)
            todo += explanation.inside
        return found

    def _one(self, tensor: str) -> Explanation:
        e_class = self._class[tensor]
        original = self._inserted(tensor)
        names = _Names({c: n for c, n in self._names.items() if c != e_class})
        planned = next((p for p in self._planned if self._class[p.op.output] == e_class), None)
        text = term_text(original, (original,), names)
        if planned is None:
            return Explanation(
                tensor=tensor,
                original=text,
                steps=(),
                chosen="",
                planned=None,
                inside=self._consumers(tensor),
            )
        chosen = self._chosen(planned, e_class)
        steps = explain(self._egraph, e_class, original, chosen, names)
        moved = {delivery.tensor for delivery in planned.deliveries if delivery.moves}
        read = zip(planned.op.inputs, chosen.args, strict=True)
        operands = {name: names[argument] for name, argument in read if name in moved}
        # only what is shown asks for names of values that only rules made
        return Explanation(
            tensor=tensor,
            original=text,
            steps=steps,
            chosen="" if steps is not None else term_text(chosen, (chosen,), names),
            planned=planned,
            where=self._definitions(names),
            operands=MappingProxyType(operands),
        )

    def _definitions(self, names: _Names) -> tuple[str, ...]:
        """Define the classes that only rules made, each by the e-node that was made first."""
        lines = []
        for e_class in names.unnamed():
            made = [n for n in self._egraph.snapshot.enodes if n.result == e_class]
            first = min(made, key=lambda n: (n.origin, n.constructor.name, n.signature_texts))
            text = term_text(first, (first,), names)
            lines.append(f"{names[e_class]} = {text}    [{self._origin(first)}]")
        return tuple(lines)

    def _consumers(self, tensor: str) -> tuple[str, ...]:
        """Return the results of the operators of the model that read a tensor's class."""
        e_class = self._class[tensor]
        results = (
            self._graph_name[name]
            for op in self._block.graph.ops
            if any(self._egraph.classes[i] == e_class for i in op.inputs)
            for name in op.outputs
        )
        return tuple(name for name in dict.fromkeys(results) if self._class[name] != e_class)

    def _inserted(self, tensor: str) -> ENode:
        """Return the e-node of the operator that makes a tensor in the model."""
        (op,) = (
            o
            for o in self._block.graph.ops
            if any(self._graph_name[name] == tensor for name in o.outputs)
        )
        place = next(i for i, name in enumerate(op.outputs) if self._graph_name[name] == tensor)
        constructor = constructor_of(op)
        texts = encode(constructor, op.attrs, place)
        args = tuple(self._egraph.classes[name] for name in op.inputs)
        return self._node(self._class[tensor], constructor.name, texts, dict(enumerate(args)))

    def _chosen(self, planned: PlannedOp, e_class: int) -> ENode:
        """Return the e-node that the plan takes; operands without a name may be anything."""
        op = planned.op
        constructor = constructor_of(op)
        texts = encode(constructor, op.attrs)
        known = {i: self._class[name] for i, name in enumerate(op.inputs) if name in self._class}
        return self._node(e_class, constructor.name, texts, known, planned.rule)

    def _node(
        self,
        e_class: int,
        constructor: str,
        texts: tuple[str, ...],
        args: Mapping[int, int],
        rule: str | None = None,
    ) -> ENode:
        for node in self._egraph.snapshot.enodes:
            fits = node.result == e_class and node.constructor.name == constructor
            if not fits or node.texts != texts:
                continue
            if any(node.args[i] != arg for i, arg in args.items()):
                continue
            if rule is None or self._origin(node) == rule:
                return node
        raise RuleError(
            f"the e-graph has no {constructor} {list(texts)} in the class of '{self._names[e_class]}'; "
            "was the plan made with other rules?"
        )

    def _origin(self, node: ENode) -> str:
        return "" if node.origin == INSERTED else self._egraph.rules[node.origin - 1].name
