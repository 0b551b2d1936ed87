"""What a compilation prints: tables for people, plain text for files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.table import Table

from tilewright.compiler import Compilation
from tilewright.extract.plan import Objective, Plan, PlannedOp
from tilewright.extract.planned import planned_nest
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.mesh import format_sharding
from tilewright.hwmodel.roofline import roofline
from tilewright.lowering.program import Program
from tilewright.simulator.timing_report import TimingReport
from tilewright.verify import OutputCheck

UNITS = {Objective.LATENCY: "cycles", Objective.THROUGHPUT: "cycles", Objective.ENERGY: "pJ"}


def two_columns(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    """Return a table of names and values."""
    table = Table(title=title, title_justify="left", show_header=False, title_style="bold")
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    return table


def model_rows(done: Compilation) -> list[tuple[str, str]]:
    """Describe the model and the machine."""
    graph, target = done.graph, done.target
    kinds = Counter(op.kind for op in graph.ops)
    weights = sum(array.nbytes for array in graph.constants.values())
    mesh = " x ".join(f"{name}={size}" for name, size in zip(done.mesh.names, done.mesh.sizes, strict=True))
    rows = [
        ("model", f"{graph.name}: {len(graph.ops)} ops, {weights:,} bytes of constants"),
        ("ops", ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())),
        ("target", f"{target.name}: {target.tiles:,} tiles, mesh {mesh or '1 tile'}, {target.clock_ghz:g} GHz"),
    ]
    if done.rolled is not None:
        unique = len(done.rolled.blocks)
        rows.append(("blocks", f"{unique} unique, {len(done.rolled.instances)} in all"))
    return rows + [("note", note) for note in graph.notes]


def saturation_table(done: Compilation) -> Table:
    """Show what each ruleset did, all blocks together."""
    table = Table(title="e-graph", title_justify="left", title_style="bold")
    for name in ("ruleset", "iterations", "matches", "e-nodes", "e-classes", "seconds"):
        table.add_column(name, justify="left" if name == "ruleset" else "right")
    totals: dict[str, list[float]] = {}
    for found in done.alternatives:
        for stats in found.ruleset_stats:
            row = totals.setdefault(stats.ruleset, [0, 0, 0, 0, 0.0])
            row[0] = max(row[0], stats.iterations)
            for column, value in enumerate((stats.matches, stats.e_nodes, stats.e_classes, stats.seconds), 1):
                row[column] += value
    for name, (iterations, matches, nodes, classes, seconds) in totals.items():
        table.add_row(
            name, f"{iterations:.0f}", f"{matches:,.0f}", f"{nodes:,.0f}", f"{classes:,.0f}", f"{seconds:.3f}"
        )
    return table


def plan_rows(done: Compilation, plan: Plan) -> list[tuple[str, str]]:
    """Summarise a plan: cost, bound, collectives, memory."""
    unit = UNITS[plan.objective]
    moves = Counter(move.kind for op in plan.ops for d in op.deliveries for move in d.moves)
    moves += Counter(move.kind for d in plan.output_deliveries for move in d.moves)
    moved = sum(move.cycles for op in plan.ops for d in op.deliveries for move in d.moves)
    fused = Counter(op.rule for op in plan.ops if op.rule)
    bound = roofline(done.graph, done.target)
    size = done.target.tile.sram.size_bytes
    rows = [
        ("predicted", f"{plan.cost:,.0f} {unit}" + _time(plan, done)),
        ("bound", f"{plan.bound:,.0f} {unit}, gap {plan.gap:.2%} (proof: {plan.proof.method})"),
        ("roofline", f"{bound.bound_cycles:,.0f} cycles"),
        ("moves", f"{', '.join(f'{kind} {count}' for kind, count in moves.most_common()) or 'none'}; {moved:,.0f} cycles"),
        ("SRAM", f"{plan.peak_sram_bytes:,} of {size:,} bytes a tile, {plan.resident_sram_bytes:,} resident weights"),
    ]
    if fused:
        rows.append(("rules used", ", ".join(f"{rule} {count}" for rule, count in fused.most_common())))
    rows += [("rejected", reason) for reason in done.rejected]
    return rows


def _time(plan: Plan, done: Compilation) -> str:
    if plan.objective is Objective.ENERGY:
        return ""
    return f" ({done.target.seconds(plan.cost) * 1e6:,.1f} us)"


def heavy_ops_table(plan: Plan, limit: int = 12) -> Table:
    """Show where the time goes: the dearest ops with sharding, tiling and moves."""
    table = Table(title=f"the {limit} dearest of {len(plan.ops)} ops", title_justify="left", title_style="bold")
    for name in ("op", "kind", "split", "result", "tile", "moves", UNITS[plan.objective], "share"):
        table.add_column(name, justify="right" if name in ("share", UNITS[plan.objective]) else "left")
    for planned in sorted(plan.ops, key=lambda op: -op.cost_units)[:limit]:
        table.add_row(*op_cells(plan, planned))
    return table


def op_cells(plan: Plan, planned: PlannedOp) -> tuple[str, ...]:
    """Return an op's row: name, kind, splits, result placement, tile, moves, cost, share."""
    moves = [f"{m.kind}" for d in planned.deliveries for m in d.moves]
    share = planned.cost_units / plan.cost if plan.cost else 0.0
    return (
        _short(planned.op.name),
        planned.op.kind + (f" +{planned.op.attrs['epilogue']}" if planned.op.attrs.get("epilogue") else ""),
        _splits(plan, planned),
        f"{planned.result.memory} {format_sharding(plan.mesh, planned.result.sharding)}",
        _tile(plan, planned),
        " ".join(moves),
        f"{planned.cost_units:,.0f}",
        f"{share:.1%}",
    )


def _splits(plan: Plan, planned: PlannedOp) -> str:
    if planned.op.kind == "host":
        return "host"
    nest = planned_nest(planned, plan.types)
    pairs = zip(plan.mesh.names, planned.split_dims, strict=True)
    return " ".join(f"{axis}:{nest.dims[split].name}" for axis, split in pairs if split >= 0) or "-"


def _tile(plan: Plan, planned: PlannedOp) -> str:
    if planned.tiling is None:
        return "-"
    nest = planned_nest(planned, plan.types)
    sizes = zip(nest.dims, planned.tiling.sizes, strict=True)
    return " ".join(f"{dim.name}{size}" for dim, size in sizes if size > 1) or "1"


def _short(name: str, width: int = 36) -> str:
    return name if len(name) <= width else "…" + name[-(width - 1) :]


def plan_text(done: Compilation, plan: Plan) -> str:
    """Write a whole plan as plain text, one line an op."""
    lines = [f"# plan of {plan.graph.name} for {plan.target_name}"]
    lines += [f"# {name}: {value}" for name, value in plan_rows(done, plan)]
    for planned in plan.ops:
        cells = op_cells(plan, planned)
        memory = " ".join(
            f"{d.tensor}@{'resident' if kept else d.after.memory}"
            for d, kept in zip(planned.deliveries, planned.resident, strict=True)
        )
        lines.append(" | ".join((planned.op.name, *cells[1:7], memory)))
    return "\n".join(lines) + "\n"


def simulation_rows(plan: Plan | None, timing: TimingReport) -> list[tuple[str, str]]:
    """Return the timing simulator's rows, and how far the cost model was from it."""
    rows = list(timing.table_rows())
    if plan is not None and plan.objective is not Objective.ENERGY and timing.cycles:
        error = plan.cost / timing.cycles - 1
        rows.insert(1, ("prediction error", f"{error:+.1%} (predicted / simulated)"))
    return rows


def verification_rows(checks: Sequence[OutputCheck]) -> list[tuple[str, str]]:
    """Return a row for each output: error against onnxruntime and verdict."""
    rows = []
    for check in checks:
        relative = check.error / check.scale if check.scale else check.error
        verdict = "[green]agrees[/green]" if check.passed else "[red]DIFFERS[/red]"
        rows.append((check.name, f"{verdict}: max error {check.error:.3g}, {relative:.2g} of max |reference|"))
    return rows


def program_rows(program: Program, size_bytes: int | None = None) -> list[tuple[str, str]]:
    """Describe a program: instructions by engine, memory."""
    rows = []
    for number, group in enumerate(program.groups):
        counts = ", ".join(f"{engine.name} {len(stream):,}" for engine, stream in group.run.items())
        rows.append((f"group {number}", f"{len(group.tiles):,} tiles; {counts} instructions"))
    rows.append(("memory", f"{program.sram_bytes:,} bytes SRAM a tile, {program.dram_bytes:,} bytes DRAM"))
    if size_bytes is not None:
        rows.append(("file", f"{size_bytes:,} bytes"))
    return rows


def seconds_rows(done: Compilation) -> list[tuple[str, str]]:
    """Return processor seconds by stage."""
    return [(stage, f"{seconds:.2f} s") for stage, seconds in done.seconds.items()]


def cost_text(cost: KernelCost) -> str:
    """Write an op's engine occupancy in one line."""
    return (
        f"matrix {cost.matrix_cycles:,.0f}, vector {cost.vector_cycles:,.0f}, in {cost.dma_in_cycles:,.0f}, "
        f"out {cost.dma_out_cycles:,.0f}, SRAM {cost.sram_cycles:,.0f} cycles"
    )


def print_all(console: Console, parts: Iterable[RenderableType]) -> None:
    """Print tables with a blank line between."""
    for part in parts:
        console.print(part)
