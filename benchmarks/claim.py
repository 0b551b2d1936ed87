"""What the published speed of Llama 3 8B on eight Corsair cards would take, and what our plans reach.

The maker claims 60,000 tokens a second at 1 ms a token for one server, without a method. Nothing here is
tuned to it: the plans are those that `tilewright compile` makes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.models import halved, shapes_of
from tilewright import api
from tilewright.compiler import Compilation, CompileOptions, Stage, compile_graph
from tilewright.extract.plan import Delivery, Plan
from tilewright.extract.reshard import delivery_units
from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.network import network_of
from tilewright.hwmodel.roofline import roofline
from tilewright.hwmodel.target import Target
from tilewright.simulator.timing import TimingReport, simulate

MODEL, TARGET = "llama3-8b_decode", "corsair_server"
_READING = """
No plan here comes near the claim, and the tables say why. The weights of f32 and f16 do not fit the
scratchpads together with what else must be there, so that they stream from DRAM in every step. Tensors in
DRAM are interleaved over the ports of all cards, and seven eighths of what a tile reads cross its card's
link, which binds long before DRAM does; weights kept in the DRAM of the card that reads them would not
cross it. The rest is the attention: heads that share keys and values are expanded through DRAM (no rule
lets a product read them unexpanded), and 2,049 tokens are divided by no mesh axis. The claim leaves 31 us a
layer, and needs formats of at most 8 bits to stay in the scratchpads, and 60 sequences that share a pass
over the weights. One sequence is planned here, so the rate of 60,000 tokens a second is not modelled.
"""
_RULE = "|---|---:|---:|"
CLAIM_TOKENS_PER_S, CLAIM_SECONDS = 60_000, 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A plan of one number format, and its simulated time if it was simulated."""

    dtype: str
    done: Compilation
    plan: Plan
    timing: TimingReport | None


def main(*, simulates: bool) -> int:
    """Print the section; return the exit code."""
    target = load_target(TARGET)
    print(_heading(target))
    for dtype in ("f32", "f16"):
        model = shapes_of(MODEL)
        graph = api.load(model if dtype == "f32" else halved(model), weights=False)
        last = Stage.LOWER if simulates else Stage.EXTRACT
        done = compile_graph(graph, target, CompileOptions(only_timed=True, stop_after=last))
        assert done.plan is not None
        validate_plan(done.plan, target)
        timing = simulate(done.program) if done.program is not None else None
        print(section(Reached(dtype=dtype, done=done, plan=done.plan, timing=timing)))
    return 0


def _heading(target: Target) -> str:
    lines = ["\n| all tiles read parts of their own, limited by | GB/s |", "|---|---:|"]
    rates = sorted(dram_rates(target).items(), key=lambda item: item[1])
    lines += [f"| {name} | {rate * target.clock_ghz:,.0f} |" for name, rate in rates]
    rate = target.dram_bytes_per_cycle * target.clock_ghz
    return (
        "# Llama 3 8B on eight Corsair cards\n\n"
        "`./tw bench claim` prints this page. The maker claims "
        f"{CLAIM_TOKENS_PER_S:,} tokens a second at {CLAIM_SECONDS * 1e3:.0f} ms a token for one "
        f"server (reported by EE Times, no method given): {CLAIM_TOKENS_PER_S * CLAIM_SECONDS:.0f} sequences "
        f"in flight. Below is what the planner reaches on the preset `{target.name}` for one step of "
        "one sequence with 2,048 tokens in its cache, in f32 and f16. The maker's block formats of 4 "
        "and 8 bits would also make the weights smaller: `--matmul-format` does not, it rounds only "
        "what is multiplied, and is not used here. The preset has "
        f"{target.tiles:,} tiles with {target.sram_bytes / 1e9:.1f} GB of scratchpad, and "
        f"{rate:,.0f} GB/s of DRAM; figures of its network and vector units are assumptions.\n"
        + _READING
        + "\n".join(lines)
        + "\n"
    )


def dram_rates(target: Target) -> Mapping[str, float]:
    """Return the bytes per cycle at which all tiles read parts of their own, by what limits them.

    Tensors are interleaved over all DRAM ports, so that most of what a tile reads comes from other cards.
    """
    network = network_of(target)
    slowest: dict[str, float] = {"DRAM ports": 1 / target.dram_bytes_per_cycle}
    cycles = network.dram_read_load / network.rates / target.tiles
    for link, each in zip(network.links, cycles.tolist(), strict=True):
        level = link.name.partition("[")[0]
        if level != "dram" and each > 0:
            name = f"links of level {level}"
            slowest[name] = max(slowest.get(name, 0.0), each)
    return {name: 1 / each for name, each in slowest.items()}


def section(reached: Reached) -> str:
    """Return the part of the page on one number format."""
    done, plan, target = reached.done, reached.plan, reached.done.target

    def times(cycles: float) -> str:
        return f"{cycles:,.0f} | {target.seconds(cycles) * 1e6:,.1f}"

    limits = roofline(done.graph, target)
    lines = [
        f"## {reached.dtype}\n",
        f"Weights: {limits.weight_bytes / 1e9:.2f} GB.\n",
        "| | cycles | us |",
        _RULE,
        f"| the claim | {times(CLAIM_SECONDS * target.clock_ghz * 1e9)} |",
        f"| plan, predicted | {times(plan.cost)} |",
        f"| no plan of the alternatives considered is faster | {times(plan.bound)} |",
    ]
    if reached.timing is not None:
        run = reached.timing.run
        lines += [
            f"| plan, simulated | {times(run.cycles)} |",
            f"| bound of its program: {run.bound_by} | {times(run.bound_cycles)} |",
        ]
    lines += [f"| model's bound: {name} | {times(cycles)} |" for name, cycles in limits.by_resource]
    lines += [
        "\nWhere the predicted cycles go:\n",
        "| | cycles | us | share |",
        "|---|---:|---:|---:|",
    ]
    spent = spent_cycles(plan, target)
    for name, cycles in sorted(spent.items(), key=lambda item: -item[1]):
        if cycles >= 0.001 * plan.cost:
            lines.append(f"| {name} | {times(cycles)} | {cycles / plan.cost:.1%} |")
    if reached.timing is not None:
        lines += [
            "\nResources of the simulated program:\n",
            "| | busiest, cycles | us |",
            _RULE,
        ]
        for resource in sorted(reached.timing.run.resources, key=lambda r: -r.bound_cycles)[:6]:
            lines.append(f"| {resource.name} | {times(resource.bound_cycles)} |")
    return "\n".join(lines) + "\n"


def spent_cycles(plan: Plan, target: Target) -> Mapping[str, float]:
    """Return the plan's cycles by what takes them: the busiest engine of kernels, moves by axis."""
    spent: Counter[str] = Counter()
    for planned in plan.ops:
        cost = planned.cost
        engines = {
            "matrix unit": cost.matrix_cycles,
            "vector unit": cost.vector_cycles,
            "DMA in: weights and values from DRAM": cost.dma_in_cycles,
            "DMA out": cost.dma_out_cycles,
            "scratchpad": cost.sram_cycles,
        }
        moved = sum(delivery_units(delivery, plan.objective) for delivery in planned.deliveries)
        spent[f"kernels: {max(engines, key=engines.__getitem__)}"] += planned.cost_units - moved
        spent.update(_moves(planned.deliveries, target))
    spent.update(_moves({d.tensor: d for d in plan.output_deliveries}.values(), target))
    return spent


def _moves(deliveries: Iterable[Delivery], target: Target) -> Mapping[str, float]:
    spent: Counter[str] = Counter()
    for delivery in deliveries:
        for move in delivery.moves:
            axis = target.logical_axes[move.axis].name if move.axis >= 0 else "DRAM"
            spent[f"moves: {move.kind} over {axis}"] += move.cycles
        if delivery.hidden_cycles:
            spent["moves hidden behind products"] -= delivery.hidden_cycles
    return spent
