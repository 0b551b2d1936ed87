"""Plans of SET's networks for its machine under its cost, and the same plans in our simulator.

SET (`NoC::get_time`, `LNode::search`, `TCut::construct` in its sources) prices a layer at the most of core
time and DRAM bytes over their bandwidth, adds up layers that run one after the other, and prices a segment
at the most of that sum, its DRAM bytes over their bandwidth and its busiest link's bytes over a link's. So
transfers between layers of a segment cost nothing until a link is busy all the time. `THREE_TERMS` takes the
most of all three for every kernel and every move by itself and adds up: no less than SET's price of the plan
as one segment (`segment_cycles`), and a metric that adds up, for which the planner proves a bound.
"""

from __future__ import annotations

import re
import resource
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.set.models import googlenet, gpt2_cell
from benchmarks.worker import user_seconds
from tilewright import api
from tilewright.api import Occupancy, UserMetric
from tilewright.compiler import Compilation, CompileOptions, Stage, compile_graph
from tilewright.extract.amounts import paid_deliveries
from tilewright.extract.objective import single
from tilewright.extract.plan import Plan
from tilewright.extract.validate import validate_plan
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.target import Target
from tilewright.simulator.timing import simulate

MACHINE = Path(__file__).parent / "machine.yaml"
WITHOUT = ("memory.weight_resident",)
"""SET reads all weights from DRAM in each run; ours may not keep any from one inference to the next."""
ROUNDS = 10
"""Of SET's annealing, for each layer."""


class SetError(Exception):
    """SET's program is not there or does not answer; the message says what to do."""


def three_terms(occupied: Occupancy) -> float:
    """Return the most of core time, DRAM bytes over bandwidth, and the busiest link's over bandwidth."""
    return max(occupied.core_cycles, occupied.dram_cycles, occupied.link_cycles)


THREE_TERMS = UserMetric("three terms", three_terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What SET found and took: the least delay of its searches, and user CPU seconds of all of them."""

    delay_cycles: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A network of SET: its name there, the batch, ours, and the least that was measured of SET's.

    SET's searches are seeded by the time. `recorded` are the least delay and the least seconds of at
    least three runs of its program (a7bd739) with `polar 4 4 4 24 0 10 0`, 4 threads.
    """

    title: str
    name: str
    batch: int
    model: Callable[[], bytes]
    recorded: Peer


CELLS = (
    Cell(
        title="GoogLeNet, batch 4",
        name="goog",
        batch=4,
        model=lambda: googlenet(4),
        recorded=Peer(delay_cycles=894_910, seconds=40.8),
    ),
    Cell(
        title="GPT-2 XL, prefill cell",
        name="gpt_prefill",
        batch=1,
        model=lambda: gpt2_cell("prefill"),
        recorded=Peer(delay_cycles=5_087_136, seconds=6.0),
    ),
    Cell(
        title="GPT-2 XL, decode cell",
        name="gpt_decode",
        batch=1,
        model=lambda: gpt2_cell("decode"),
        recorded=Peer(delay_cycles=1_255_891, seconds=5.8),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """Our plan: its cost and bound, SET's price of it as one segment, and the timing simulator's."""

    cost: float
    bound: float
    segment_cycles: float
    simulated_cycles: float
    seconds: float
    """User CPU seconds of planning, from the model's bytes to the plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A cell with what both found; `fresh` is SET's program just now, if it was there."""

    cell: Cell
    ours: Ours
    fresh: Peer | None

    @property
    def delay_cycles(self) -> int:
        """The least delay known of SET's."""
        known = self.cell.recorded.delay_cycles
        return known if self.fresh is None else min(known, self.fresh.delay_cycles)

    @property
    def seconds(self) -> float:
        """What SET's searches took: just now, on the same machine, if that was measured."""
        return (self.fresh or self.cell.recorded).seconds


def compare(chosen: Sequence[Cell], program: Path | None) -> tuple[Row, ...]:
    """Plan each cell, and search with SET's program where there is one.

    Raises:
        SetError: The program fails.
    """
    target = load_target(str(MACHINE))
    _plan(gpt2_cell("decode"), target, Stage.EXTRACT)  # loads solvers and compiled loops
    rows = []
    for cell in chosen:
        print(f"planning {cell.title}", flush=True)
        ours = planned(cell.model(), target)
        fresh = None if program is None else searched(cell, program, target)
        rows.append(Row(cell=cell, ours=ours, fresh=fresh))
    return tuple(rows)


def planned(model: bytes, target: Target) -> Ours:
    """Return our plan of a model under SET's cost, checked, and what it takes when it runs."""
    start = user_seconds()
    done = _plan(model, target, Stage.LOWER)
    seconds = user_seconds() - start - done.seconds[Stage.LOWER]
    assert done.plan is not None, "the compilation got there"
    assert done.program is not None, "the compilation got there"
    validate_plan(done.plan, target)
    return Ours(
        cost=done.plan.cost,
        bound=done.plan.bound,
        segment_cycles=segment_cycles(done.plan, target),
        simulated_cycles=simulate(done.program).run.cycles,
        seconds=seconds,
    )


def _plan(model: bytes, target: Target, last: Stage) -> Compilation:
    options = CompileOptions(
        objective=single(THREE_TERMS),
        without_rules=WITHOUT,
        stages=1,
        stop_after=last,
        only_timed=True,
    )
    return compile_graph(api.load(model, weights=False), target, options)


def segment_cycles(plan: Plan, target: Target) -> float:
    """Return SET's price of a plan as one segment whose layers run one after the other.

        max(sum of max(core, DRAM), sum of DRAM, sum of the busiest link's)

    The last sum is no less than what the link that is busiest in all takes.
    """
    occupied = [planned.cost.occupancy(target) for planned in plan.ops]
    occupied += [m.occupancy for delivery in paid_deliveries(plan) for m in delivery.moves]
    layers = sum(max(o.core_cycles, o.dram_cycles) for o in occupied)
    return max(layers, sum(o.link_cycles for o in occupied))


def searched(cell: Cell, program: Path, target: Target) -> Peer:
    """Run SET's searches and return the best of them, and what all took.

    Raises:
        SetError: There is no such program, or it says nothing.
    """
    rows, columns = (axis.size for axis in target.axes)
    rate = target.interconnects[0].link_bytes_per_cycle
    assert rate is not None, "a mesh has links"
    given = (cell.name, cell.batch, "polar", columns, rows, 4, round(rate), 0, ROUNDS, 0)
    command = [str(program.absolute()), "--args", "None", *map(str, given)]
    print(f"SET searches {cell.title}", flush=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with tempfile.TemporaryDirectory() as folder:  # it writes its schemes beside itself
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        except OSError as error:
            raise SetError(
                f"{program}: {error.strerror}, expected SET's build/stschedule"
            ) from None
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    delays = [int(delay) for delay in re.findall(r"Latency: (\d+)", done.stdout)]
    if done.returncode or not delays:
        raise SetError(
            f"{program}: exit code {done.returncode} without a latency, expected those of its searches; "
            "build https://github.com/SET-Scheduling-Project/SET-ISCA2023 with make"
        )
    return Peer(delay_cycles=min(delays), seconds=seconds)
