"""Each stage's result as plain text: graph, blocks, alternatives, plan, program."""

from __future__ import annotations

from collections import defaultdict

from tilewright.extract.plan import Plan, PlannedOp
from tilewright.extract.planned import planned_kernel, planned_nest
from tilewright.graph import Graph
from tilewright.hwmodel.mesh import format_sharding
from tilewright.lowering.listing import listing
from tilewright.lowering.program import Program
from tilewright.rules.alternatives import Alternatives, LogicalNode
from tilewright.rules.roll import Rolled

_SHOWN_OPERANDS = 6


def graph_text(graph: Graph) -> str:
    """Write a graph, one line an op."""
    lines = [f"graph {graph.name}"]
    lines += [f"  input {port.name}: {graph.types[port.tensor]}" for port in graph.inputs]
    for op in graph.ops:
        attrs = " ".join(f"{key}={value}" for key, value in sorted(op.attrs.items()))
        results = ", ".join(f"{name}: {graph.types[name]}" for name in op.outputs)
        operands = ", ".join(f"{name}: {graph.types[name]}" for name in op.inputs)
        lines.append(f"  {results} = {op.kind}({operands}) {attrs}".rstrip())
    lines += [f"  output {port.name} = {port.tensor}" for port in graph.outputs]
    for name, model in graph.host_models.items():
        lines.append(f"  host region {name}: {', '.join(model.op_types)} ({model.reason})")
    lines += [f"  note: {note}" for note in graph.notes]
    return "\n".join(lines) + "\n"


def blocks_text(rolled: Rolled) -> str:
    """Write the unique blocks and where each is used."""
    lines = [f"{len(rolled.blocks)} unique blocks, {len(rolled.instances)} in all"]
    for number, block in enumerate(rolled.blocks):
        uses = [f"{i.start}:{i.stop}" for i in rolled.instances if i.block == number]
        lines.append(f"{block.name}: {len(block.graph.ops)} ops, used as ops {', '.join(uses)}")
        lines.append(graph_text(block.graph).rstrip())
    return "\n".join(lines) + "\n"


def alternatives_text(names: tuple[str, ...], found: tuple[Alternatives, ...]) -> str:
    """Write what saturation found: for each value the ways to compute it and to split that work.

    Args:
        names: Names of the blocks.
        found: Their alternatives.
    """
    lines: list[str] = []
    for name, alternatives in zip(names, found, strict=True):
        lines.append(
            f"{name}: {len(alternatives.classes)} values, {len(alternatives.nodes)} ways to compute "
            f"them, {len(alternatives.implementations)} ways to split those"
        )
        lines += _class_lines(alternatives)
        lines += [f"  note: {note}" for note in alternatives.notes]
    return "\n".join(lines) + "\n"


def _class_lines(found: Alternatives) -> list[str]:
    by_class: dict[int, list[LogicalNode]] = defaultdict(list)
    for node in found.nodes:
        for result in node.results or (node.result,):
            by_class[result].append(node)
    results: dict[int, dict[str, int]] = defaultdict(dict)
    for way in found.implementations:
        counts = results[way.node]
        text = format_sharding(found.mesh, way.result)
        counts[text] = counts.get(text, 0) + 1
    lines = []
    for tensor in found.classes:
        if not by_class[tensor.number]:
            continue
        kind = " constant" if tensor.is_constant else ""
        names = f" {'='.join(tensor.names)}" if tensor.names else ""
        lines.append(f"  %{tensor.number}: {tensor.type}{kind}{names}")
        for node in by_class[tensor.number]:
            splits = results[node.number]
            total = sum(splits.values())
            shown = ", ".join(f"{text} x{count}" for text, count in splits.items())
            lines.append(
                f"    {_node_text(node)}" + (f"  {total} splits: {shown}" if total else "")
            )
    return lines


def _node_text(node: LogicalNode) -> str:
    operands = ", ".join(f"%{arg}" for arg in node.args[:_SHOWN_OPERANDS])
    if len(node.args) > _SHOWN_OPERANDS:
        operands += ", …"
    fn = f".{node.attrs['fn']}" if "fn" in node.attrs else ""
    epilogue = f" then {node.attrs['epilogue']}" if node.attrs.get("epilogue") else ""
    return f"{node.kind}{fn}({operands}){epilogue}" + (f"  by {node.origin}" if node.origin else "")


def plan_text(plan: Plan) -> str:
    """Write a plan, one line an op: where operands come from, how it is split and tiled, its cost."""
    lines = [
        f"plan of {plan.graph.name} for {plan.target_name}: {plan.objective} "
        f"{plan.cost:,.0f}, bound {plan.bound:,.0f}, gap {plan.gap:.2%} ({plan.proof.method})"
    ]
    for planned in plan.ops:
        lines.append(
            f"  {planned.op.name} = {op_kind(planned)}({operands_text(plan, planned)}) "
            f"split {splits_text(plan, planned)} tile {tile_text(plan, planned)} "
            f"-> {planned.result.memory} {format_sharding(plan.mesh, planned.result.sharding)} "
            f"cost {planned.cost_units:,.0f}"
        )
    for delivery in plan.output_deliveries:
        moves = " ".join(move.kind.value for move in delivery.moves) or "as it is"
        lines.append(f"  output {delivery.tensor}: {moves}")
    return "\n".join(lines) + "\n"


def op_kind(planned: PlannedOp) -> str:
    """Return an op's kind with what is fused to it."""
    op = planned.op
    text = op.kind
    if "fn" in op.attrs:
        text += f" {op.attrs['fn']}"
    if op.attrs.get("epilogue"):
        text += f" +{op.attrs['epilogue']}"
    return text


def operands_text(plan: Plan, planned: PlannedOp) -> str:
    """Return each operand with the memory it is read from and the moves that bring it."""
    texts = []
    for delivery, kept in zip(planned.deliveries, planned.resident, strict=True):
        memory = "resident" if kept else delivery.after.memory.value
        moves = "".join(f" {move.kind.value}" for move in delivery.moves)
        sharding = format_sharding(plan.mesh, delivery.after.sharding)
        texts.append(f"{delivery.tensor}@{memory} {sharding}{moves}".strip())
    return ", ".join(texts)


def splits_text(plan: Plan, planned: PlannedOp) -> str:
    """Return which loop dimension each mesh axis splits, as y:m x:n, with macros, as y:h+halo."""
    if planned.op.kind == "host":
        return "host"
    nest = planned_nest(planned, plan.types)
    macros = planned.macros or ("",) * plan.mesh.rank
    words = []
    for axis, split, macro in zip(plan.mesh.names, planned.split_dims, macros, strict=True):
        loop = nest.dims[split].name if split >= 0 else ""
        if loop or macro:
            words.append(f"{axis}:{loop}{'+' if loop and macro else ''}{macro}")
    return " ".join(words) or "-"


def tile_text(plan: Plan, planned: PlannedOp) -> str:
    """Return the tile sizes of an op's loops, as m=16 n=64."""
    if planned.tiling is None:
        return "-"
    nest = planned_kernel(planned, plan.types, plan.mesh).nest
    sizes = zip(nest.dims, planned.tiling.sizes, strict=True)
    return " ".join(f"{dim.name}={size}" for dim, size in sizes if size > 1) or "1"


def program_text(program: Program, limit: int) -> str:
    """Write at most `limit` instructions of each engine of each group."""
    lines = []
    for number, group in enumerate(program.groups):
        for phase, streams in (("load", group.load), ("run", group.run)):
            if any(streams.values()):
                lines.append(f"group {number}, {len(group.tiles):,} tiles, {phase} phase")
                lines.append(listing(streams, limit, program.tags))
    return "\n".join(lines) + "\n"
