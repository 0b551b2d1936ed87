"""What a compilation prints: rows of tables, without any layout."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import inf

from tilewright.compiler import Compilation
from tilewright.extract.amounts import amounts
from tilewright.extract.limited import latency_cycles
from tilewright.extract.move_buffers import shard_bytes
from tilewright.extract.objective import MIXED_UNIT, Metric, Objective
from tilewright.extract.plan import Plan
from tilewright.graph import Graph
from tilewright.hwmodel.roofline import roofline
from tilewright.hwmodel.target import Target
from tilewright.listings import op_kind, splits_text, tile_text
from tilewright.lowering.program import Program
from tilewright.padding_choice import Known
from tilewright.simulator.timing_report import TimingReport
from tilewright.terminal import WIDE_COLUMNS, Row, byte_text, shorten
from tilewright.verification import OutputCheck

Fact = tuple[str, str]

SHOWN_OPS = 12
SHOWN_OUTPUTS = 12
SHOWN_NOTES = 6

_HOST_NOTE = "host region"


def model_facts(graph: Graph) -> list[Fact]:
    """Describe the model and what of it goes to the host."""
    kinds = Counter(op.kind for op in graph.ops)
    weights = sum(graph.types[name].size_bytes for name in graph.constants)
    facts = [
        ("model", f"{graph.name}: {len(graph.ops):,} ops, {byte_text(weights)} of weights"),
        ("ops", ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())),
        ("inputs", ", ".join(f"{p.name} {p.dtype}{list(p.shape)}" for p in graph.inputs) or "none"),
    ]
    for model in graph.host_models.values():
        facts.append(("host region", f"{_counted(model.op_types)}: {model.reason}"))
    if not graph.host_models:
        facts.append(("host regions", "none"))
    notes = [note for note in graph.notes if not note.startswith(_HOST_NOTE)]
    facts += [("note", note) for note in notes[:SHOWN_NOTES]]
    if len(notes) > SHOWN_NOTES:
        facts.append(("note", f"{len(notes) - SHOWN_NOTES} more with --stop-after frontend"))
    return facts


def _tiles(target: Target) -> str:
    if not target.disabled_tiles:
        return f"{target.tiles:,} tiles"
    return f"{target.tiles:,} of {target.built_tiles:,} tiles ({len(target.disabled_tiles):,} disabled)"


def target_facts(done: Compilation) -> list[Fact]:
    """Describe the machine."""
    target = done.target
    pairs = zip(done.mesh.names, done.mesh.sizes, strict=True)
    mesh = " x ".join(f"{name} {size}" for name, size in pairs) or "one tile"
    return [
        ("target", f"{target.name}: {_tiles(target)} at {target.clock_ghz:g} GHz"),
        ("mesh", mesh),
        (
            "memory",
            f"{byte_text(target.tile.sram.size_bytes)} SRAM a tile, "
            f"{byte_text(target.dram.size_bytes)} DRAM",
        ),
    ]


def block_facts(done: Compilation) -> list[Fact]:
    """Say how far repeats were rolled up."""
    if done.rolled is None:
        return []
    sizes = [len(block.graph.ops) for block in done.rolled.blocks]
    return [
        (
            "blocks",
            f"{len(sizes)} unique of {', '.join(map(str, sizes[:8]))}{', …' if len(sizes) > 8 else ''} ops, "
            f"{len(done.rolled.instances)} in all",
        )
    ]


SATURATION_HEADER = ("ruleset", "iterations", "matches", "e-nodes", "e-classes", "seconds")


def saturation_rows(done: Compilation) -> list[Row]:
    """Say what each ruleset did, all blocks together (iterations: the most of any block)."""
    totals: dict[str, list[float]] = {}
    for found in done.alternatives:
        for stats in found.ruleset_stats:
            row = totals.setdefault(stats.ruleset, [0.0] * 5)
            row[0] = max(row[0], stats.iterations)
            counts = (stats.matches, stats.e_nodes, stats.e_classes, stats.seconds)
            for column, value in enumerate(counts, 1):
                row[column] += value
    return [
        (name, *(f"{value:,.0f}" for value in row[:4]), f"{row[4]:.2f}")
        for name, row in totals.items()
    ]


def plan_facts(done: Compilation, plan: Plan) -> list[Fact]:
    """Summarise a plan: cost, bound and proof, collectives, memory, rules."""
    target = done.target
    bound = roofline(done.graph, target)
    moves = [move for op in plan.ops for d in op.deliveries for move in d.moves]
    moves += [move for d in plan.output_deliveries for move in d.moves]
    cycles: Counter[str] = Counter()
    for move in moves:
        cycles[move.kind.value] += round(move.cycles)
    counts = Counter(move.kind.value for move in moves)
    size = target.tile.sram.size_bytes
    facts = [
        ("planned", cost_text(plan, target, plan.cost)),
        (
            "proven bound",
            f"{cost_text(plan, target, plan.bound)}, no plan considered"
            f"{' with this padding' if done.paddings else ''} is better",
        ),
        ("gap", f"{plan.gap:.2%} (proof: {plan.proof.method})"),
        ("roofline", f"{bound.bound_cycles:,.0f} cycles, limited by {bound.limit}"),
        ("time by kind", _kinds(plan)),
        (
            "collectives",
            ", ".join(
                f"{kind} {count} ({cycles[kind]:,} cycles)" for kind, count in counts.most_common()
            )
            or "none",
        ),
        (
            "SRAM a tile",
            f"{byte_text(plan.peak_sram_bytes)} of {byte_text(size)} ({plan.peak_sram_bytes / size:.0%}), "
            f"{byte_text(plan.resident_sram_bytes)} of it resident weights",
        ),
        ("rules used", _counted([op.rule for op in plan.ops if op.rule]) or "none"),
        *(("computed again", text) for text in _computed_again(done, plan)[:SHOWN_NOTES]),
    ]
    if done.options.calibration is not None:
        facts.insert(1, ("calibrated", done.options.calibration.line))
    facts[1:1] = [*_objective_facts(done, plan), *_padding_facts(done, plan)]
    return facts + [("sent back", reason) for reason in done.rejected]


def _padding_facts(done: Compilation, plan: Plan) -> list[Fact]:
    """Say which paddings there were to choose from, and what each was found to cost."""
    if not done.paddings:
        return []
    chosen, *others = done.paddings
    texts = [f"{chosen.padding.text}: taken, the cheapest of {len(done.paddings)}"]
    if chosen.known is Known.DRAFT:
        texts[0] += f" by first choices, its own {cost_text(plan, done.target, chosen.cost)}"
    for other in others:
        cost = f" {cost_text(plan, done.target, other.cost)}" if other.cost < inf else ""
        texts.append(f"{other.padding.text}: {other.known}{cost}")
    return [("padding", text) for text in texts]


def _computed_again(done: Compilation, plan: Plan) -> list[str]:
    """Say of each value that is made again for readers far behind what would have been held meanwhile."""
    alignment = done.target.tile.sram.alignment_bytes
    texts = []
    for place, planned in enumerate(plan.ops):
        again = planned.again
        if again is None:
            continue
        readers = [op.op.name for op in plan.ops if planned.op.output in op.op.inputs]
        text = f"'{again.tensor}' for '{readers[0]}' by {again.rule}"
        before = [n for n, op in enumerate(plan.ops[:place]) if again.tensor in op.op.inputs]
        made = [op for op in plan.ops[:place] if again.tensor in op.op.outputs]
        if made and before:
            held = shard_bytes(made[0].result, plan.types[again.tensor], plan.mesh, alignment)
            where = f"{byte_text(held)} a tile" if held else "it in DRAM"
            text += f", in place of holding {where} for {place - before[-1] - 1} ops"
        else:
            text += ", which alone reads it"
        texts.append(text)
    return texts


def _objective_facts(done: Compilation, plan: Plan) -> list[Fact]:
    """Say what a plan takes of each metric, and what a unit of it counts in a mix."""
    if plan.objective == Objective.LATENCY and done.options.max_latency is None:
        return []
    found = amounts(plan, done.target)
    texts = [
        f"{metric} {found[metric]:,.0f} {metric.unit}"
        for metric in found
        if metric is not Metric.THROUGHPUT or metric in plan.objective.metrics
    ]
    facts = [("it takes", ", ".join(texts))]
    if plan.objective.unit == MIXED_UNIT:
        pairs = zip(plan.objective.metrics, plan.objective.rates, strict=True)
        rates = (f"{metric} {rate:.4g} for each of its {metric.unit}" for metric, rate in pairs)
        facts.append(("weighted cycles", ", ".join(rates)))
    if done.options.max_latency is not None:
        limit = latency_cycles(done.options.max_latency, done.target)
        facts.append(("latency limit", f"{limit:,.0f} cycles"))
    return facts


def cost_text(plan: Plan, target: Target, cost: float) -> str:
    """Write a cost in the unit of the plan's objective, and as time where it is one."""
    if plan.objective == Objective.SRAM:
        return f"{cost:,.0f} bytes a tile"
    if plan.objective.unit == MIXED_UNIT:
        return f"{cost:,.0f} weighted cycles"
    if plan.objective == Objective.ENERGY:
        return f"{cost / 1e6:,.2f} uJ"
    if not plan.objective.is_time:
        return f"{cost:,.6g} {plan.objective.unit} of {plan.objective}"
    return f"{cost:,.0f} cycles ({target.seconds(cost) * 1e6:,.1f} us)"


def _summed(plan: Plan) -> float:
    """Return what shares are of: a plan's cost without the footprint, which belongs to no op."""
    if Metric.SRAM not in plan.objective.metrics:
        return plan.cost
    return sum(planned.cost_units for planned in plan.ops)


def _kinds(plan: Plan) -> str:
    costs: defaultdict[str, float] = defaultdict(float)
    for planned in plan.ops:
        costs[planned.op.kind] += planned.cost_units
    whole = _summed(plan)
    dearest = sorted(costs.items(), key=lambda item: item[1], reverse=True)[:6]
    shares = [(kind, cost / whole) for kind, cost in dearest if whole]
    return ", ".join(f"{kind} {share:.0%}" for kind, share in shares if share >= 0.005) or "none"


def op_table(
    plan: Plan, timing: TimingReport | None, width: int
) -> tuple[tuple[str, ...], list[Row], int]:
    """Return header, rows and number of text columns of the dearest ops.

    "simulated" is the time from an op's first to its last instruction; neighbours overlap, so the
    column adds up to more than the total.
    """
    shown, whole = plan.objective.additive, _summed(plan)
    unit = "planned" if shown.is_time else shown.unit
    wide = width >= WIDE_COLUMNS
    spans = {} if timing is None else {t.name: t.end_cycle - t.start_cycle for t in timing.run.tags}
    text = ("op", "kind", "split", "tile", "moves") if wide else ("op", "kind", "split")
    header = (*text, unit, "share", *(("simulated",) if spans else ()))
    rows: list[Row] = []
    for planned in sorted(plan.ops, key=lambda op: -op.cost_units)[:SHOWN_OPS]:
        moves = Counter(m.kind.value for d in planned.deliveries for m in d.moves)
        cells = [
            shorten(planned.op.name, 28 if wide else 18),
            _head(op_kind(planned), 20 if wide else 14),
        ]
        cells.append(_head(splits_text(plan, planned), 18 if wide else 14))
        if wide:
            cells += [_head(tile_text(plan, planned), 20), _head(" ".join(moves), 16)]
        share = planned.cost_units / whole if whole else 0.0
        cells += [f"{planned.cost_units:,.0f}", f"{share:.1%}"]
        if spans:
            span = spans.get(planned.op.name)
            cells.append("-" if span is None else f"{span:,.0f}")
        rows.append(tuple(cells))
    return header, rows, len(text)


def program_facts(program: Program, file_bytes: int | None = None) -> list[Fact]:
    """Describe a program: instructions by engine, memory."""
    facts = []
    for number, group in enumerate(program.groups):
        counts = ", ".join(f"{engine.name} {len(stream):,}" for engine, stream in group.run.items())
        facts.append((f"group {number}", f"{len(group.tiles):,} tiles run one stream: {counts}"))
    size, dram = program.target.tile.sram.size_bytes, program.target.dram.size_bytes
    facts.append(
        (
            "SRAM a tile",
            f"{byte_text(program.sram_bytes)} of {byte_text(size)} ({program.sram_bytes / size:.0%})",
        )
    )
    facts.append(
        (
            "DRAM",
            f"{byte_text(program.dram_bytes)} of {byte_text(dram)} ({_share(program.dram_bytes / dram)})",
        )
    )
    for region in program.host_regions:
        facts.append(("host region", f"{_counted(region.model.op_types)}: {region.model.reason}"))
    facts += schedule_facts(program)
    if file_bytes is not None:
        facts.append(("file", byte_text(file_bytes)))
    return facts


def schedule_facts(program: Program) -> list[Fact]:
    """Hold the static schedule of each stage against what bounds it."""
    count = len(program.groups)
    stages = [""] if count == 1 else [f"stage {number} " for number in range(1, count + 1)]
    facts: list[Fact] = []
    for stage in stages:
        part = {
            key.removeprefix(f"{stage}schedule_"): value
            for key, value in program.facts.items()
            if key.startswith(f"{stage}schedule_")
        }
        try:
            text = _schedule_text(part)
        except (KeyError, ValueError):  # facts are free text
            continue
        facts.append((f"{stage}schedule", text))
        if "note" in part:
            facts.append((f"{stage}exact order", part["note"]))
    return facts


def _schedule_text(part: Mapping[str, str]) -> str:
    cycles, chain, resource = (
        float(part[name]) for name in ("cycles", "critical_path_cycles", "resource_cycles")
    )
    bound = float(part.get("bound_cycles", "0"))
    text = (
        f"{cycles:,.0f} cycles if tiles move in lock step, order: {part['order']}; critical path "
        f"{chain:,.0f}, busiest engine {resource:,.0f}"
    )
    return text + (f", no order is below {bound:,.0f}" if bound > 0.0 else "")


def simulation_facts(
    timing: TimingReport, planned_cycles: float | None, predicted_cycles: float | None = None
) -> list[Fact]:
    """Summarise a timing simulation, and how far the cost model was from it.

    Args:
        timing: What was found.
        planned_cycles: The plan's cost, if that is a time: a sum, in which little overlaps.
        predicted_cycles: The makespan of the program's static schedule.
    """
    run = timing.run
    facts = [
        ("simulated", f"{run.cycles:,.0f} cycles ({timing.seconds * 1e6:,.1f} us)"),
        (
            "lower bound",
            f"{run.bound_cycles:,.0f} cycles ({run.bound_by}); simulated {run.gap:.1%} above",
        ),
    ]
    for name, what, cycles in (
        ("prediction error", "predicted by the static schedule", predicted_cycles),
        ("planning error", "planned, as a sum over operators", planned_cycles),
    ):
        if cycles is not None and run.cycles:
            facts.append((name, f"{cycles / run.cycles - 1:+.1%} ({cycles:,.0f} cycles {what})"))
    facts.append(
        (
            "load phase",
            f"{timing.load.cycles:,.0f} cycles ({timing.load_seconds * 1e6:,.1f} us), once before all runs",
        )
    )
    parts = [f"{name} {energy / 1e6:,.2f}" for name, energy in timing.energy_pj if energy > 0.0]
    facts.append(("energy", f"{timing.total_energy_pj / 1e6:,.2f} uJ ({', '.join(parts)})"))
    facts.append(("tiles", f"{timing.tiles:,} used, {run.simulated_tiles:,} simulated apart"))
    return facts + [("note", note) for note in timing.notes]


ENGINE_HEADER = ("engine", "held up most by", "busy", "busiest tile")
RESOURCE_HEADER = ("resource", "mean", "busiest", "traffic", "bound cycles")


def engine_rows(timing: TimingReport) -> list[Row]:
    """Say how busy each engine was, and what it waited for most."""
    rows: list[Row] = []
    for engine in timing.run.engines:
        if engine.busy_cycles_max <= 0.0:
            continue
        lost = [*engine.waits, *((f"full {name}", cycles) for name, cycles in engine.contention)]
        name, cycles = max(lost, key=lambda item: item[1], default=("", 0.0))
        share = cycles / timing.run.cycles if timing.run.cycles else 0.0
        cause = f"{name} ({share:.0%})" if share >= 0.005 else "-"
        rows.append(
            (engine.name, cause, f"{engine.utilisation_mean:.1%}", f"{engine.utilisation_max:.1%}")
        )
    return rows


def resource_rows(timing: TimingReport) -> list[Row]:
    """Say how loaded each class of resources was."""
    return [
        (
            use.name,
            f"{use.utilisation_mean:.1%}",
            f"{use.utilisation_max:.1%}",
            byte_text(use.total_bytes),
            f"{use.bound_cycles:,.0f}",
        )
        for use in timing.run.resources
    ]


VERIFICATION_HEADER = ("output", "type", "verdict", "max error", "relative", "allowed")


def verification_rows(checks: Sequence[OutputCheck]) -> list[Row]:
    """Return a row for each output, the worst first if there are many."""
    shown = list(checks)
    if len(shown) > SHOWN_OUTPUTS:
        shown = sorted(shown, key=lambda c: (c.passed, -c.relative_error))[:SHOWN_OUTPUTS]
    rows: list[Row] = [
        (
            shorten(check.name, 24),
            f"{check.dtype}[{','.join(map(str, check.shape))}]",
            "agrees" if check.passed else "DIFFERS",
            f"{check.error:.2g}",
            f"{check.relative_error:.2g}",
            f"{check.tolerance:.2g}",
        )
        for check in shown
    ]
    if len(shown) < len(checks):
        rows.append((f"and {len(checks) - len(shown)} more", "", "", "", "", ""))
    return rows


def verdict(checks: Sequence[OutputCheck]) -> str:
    """Say in one line whether all outputs agree."""
    if not checks:
        return "verified: the model has no outputs to compare"
    wrong = [check for check in checks if not check.passed]
    outputs = f"{len(checks)} output{'s' if len(checks) > 1 else ''}"
    if wrong:
        worst = max(wrong, key=lambda check: check.relative_error)
        return (
            f"FAILED: {len(wrong)} of {outputs} differ from onnxruntime, most '{worst.name}': "
            f"{worst.relative_error:.2g} of max |reference|, allowed {worst.tolerance:.2g}"
        )
    worst = max(checks, key=lambda check: check.relative_error)
    agree = "agrees" if len(checks) == 1 else "agree"
    return (
        f"verified: {outputs} {agree} with onnxruntime, "
        f"worst error {worst.relative_error:.2g} of max |reference|"
    )


def seconds_facts(seconds: Mapping[str, float], peak_memory_bytes: int) -> list[Fact]:
    """Return processor seconds by stage, and the most memory that was in use."""
    facts = [(str(stage), f"{value:.2f} s") for stage, value in seconds.items()]
    facts.append(
        ("total", f"{sum(seconds.values()):.2f} s, {byte_text(peak_memory_bytes)} peak memory")
    )
    return facts


def _counted(names: Iterable[str]) -> str:
    """Write names with how often they occur, the most frequent first."""
    counts = Counter(names).most_common()
    return ", ".join(name if count == 1 else f"{name} {count}" for name, count in counts)


def _head(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _share(share: float) -> str:
    return "< 0.01%" if 0 < share < 0.0001 else f"{share:.2%}"
