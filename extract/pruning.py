"""Leave out alternatives that another one always beats, before anything is priced."""

from __future__ import annotations

from dataclasses import replace

from tilewright.extract.needed import needed_classes
from tilewright.rules.alternatives import Alternatives, LogicalNode


def prune(alternatives: Alternatives) -> Alternatives:
    """Drop forms of two steps that a fused form always beats: of maps, transposed products, attentions.

    A fused map has the loops of its parts, one pass and one intermediate less, so that it can be split
    and placed in every way in which the parts can. When the value between the parts has no other use,
    the parts cannot win. The same holds for a product and a transpose that it absorbs. (Products with
    an epilogue are another matter: fused, they cannot be split along their sums.)

    An attention that reads scaled queries or keys goes where another one has the scale as its
    attribute: that scales each box of the queries once, on the way to the matrix unit.
    """
    while True:
        dominated = _dominated(alternatives)
        if not dominated:
            return alternatives
        kept = tuple(node for node in alternatives.nodes if node.number not in dominated)
        alternatives = _without_unused(replace(alternatives, nodes=kept))


def _dominated(alternatives: Alternatives) -> frozenset[int]:
    """Return the numbers of nodes that read an otherwise unused value which siblings do without."""
    needed = needed_classes(alternatives)
    makers: dict[int, list[LogicalNode]] = {}
    readers: dict[int, list[LogicalNode]] = {}
    for node in alternatives.nodes:
        makers.setdefault(node.result, []).append(node)
        for argument in dict.fromkeys(node.args):
            readers.setdefault(argument, []).append(node)
    found = {
        node.number
        for node in alternatives.nodes
        if node.kind == "attention" and _scales_elsewhere(node, makers)
    }
    for argument, nodes in readers.items():
        if argument in needed:
            continue
        if len({node.result for node in nodes}) == 1:
            found |= {
                node.number
                for node in nodes
                if (node.kind == "map" and _is_fused_elsewhere(node, argument, makers))
                or (node.kind == "transpose" and _is_written_transposed(node, argument, makers))
            }
        if all(_is_read_transposed(node, argument, makers) for node in nodes):
            found |= {node.number for node in nodes}
    return frozenset(found)


def _is_fused_elsewhere(
    node: LogicalNode, argument: int, makers: dict[int, list[LogicalNode]]
) -> bool:
    """Whether sibling maps read what each maker of the argument reads, and the node's other operands.

    A maker that is no map, such as a product, has no fused form that could stand for it.
    """
    others = {a for a in node.args if a != argument}
    siblings = [
        set(sibling.args)
        for sibling in makers[node.result]
        if sibling.kind == "map" and argument not in sibling.args
    ]
    inner = makers.get(argument, [])
    return bool(inner) and all(
        maker.kind == "map" and others | set(maker.args) in siblings for maker in inner
    )


def _scales_elsewhere(node: LogicalNode, makers: dict[int, list[LogicalNode]]) -> bool:
    """Whether a sibling attention reads what a scaling map makes the queries or keys from."""
    for position in (0, 1):
        for maker in makers.get(node.args[position], ()):
            if maker.kind == "map" and len(maker.args) == 1:
                args = (*node.args[:position], maker.args[0], *node.args[position + 1 :])
                siblings = makers[node.result]
                if any(other.kind == "attention" and other.args == args for other in siblings):
                    return True
    return False


def _is_read_transposed(
    node: LogicalNode, argument: int, makers: dict[int, list[LogicalNode]]
) -> bool:
    """Whether a sibling product reads what a transpose that makes the argument reads."""
    sources = {maker.args[0] for maker in makers.get(argument, ()) if maker.kind == "transpose"}
    wanted = {tuple(source if a == argument else a for a in node.args) for source in sources}
    return node.kind == "matmul" and any(
        sibling.args in wanted and _product(sibling) == _product(node)
        for sibling in makers[node.result]
    )


def _is_written_transposed(
    node: LogicalNode, argument: int, makers: dict[int, list[LogicalNode]]
) -> bool:
    """Whether each product that makes the argument of a transpose has a sibling of the transpose."""
    products = {(m.args, _product(m)) for m in makers.get(argument, ())}
    siblings = {(m.args, _product(m)) for m in makers[node.result] if m.kind == "matmul"}
    return bool(products) and products <= siblings


def _product(node: LogicalNode) -> tuple[str, object]:
    """Return kind and epilogue: what a product does, whatever the order of its dimensions."""
    return node.kind, node.attrs.get("epilogue")


def _without_unused(alternatives: Alternatives) -> Alternatives:
    """Drop nodes that no choice can reach from the outputs."""
    reached = set(alternatives.outputs)
    kept = []
    for node in reversed(alternatives.nodes):
        results = node.results or (node.result,)
        if node.kind == "host" or not reached.isdisjoint(results):
            reached.update(node.args)
            kept.append(node)
    nodes = tuple(reversed(kept))
    numbers = {node.number for node in nodes}
    implementations = tuple(i for i in alternatives.implementations if i.node in numbers)
    return replace(alternatives, nodes=nodes, implementations=implementations)
