"""The deterministic figures of one compilation, and how two sets of them compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from tilewright.compiler import Compilation
from tilewright.simulator.timing import TimingReport

JUDGED = (
    "e_nodes",
    "e_classes",
    "unique_blocks",
    "predicted_cycles",
    "gap",
    "simulated_cycles",
    "sram_peak_bytes",
    "instructions",
)
"""Figures that may only go down. The bounds are shown: a tighter one is higher, a better plan's lower."""

JUDGED_ERRORS = ("median_error", "worst_error", "rank_loss", "planned_rank_loss")
"""The same of the accuracy of predictions, see `benchmarks.accuracy`."""

ROUNDING = 1e-9
"""Relative difference that counts as equal: sums of floats in another order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a compilation came to; the same on every run and machine."""

    e_nodes: int
    """Of all unique blocks together, after the last ruleset."""
    e_classes: int
    unique_blocks: int
    predicted_cycles: float
    bound_cycles: float
    """Lower bound of every plan's predicted cycles."""
    gap: float
    scheduled_cycles: float
    """Of the program's static schedule: the compiler's prediction."""
    simulated_cycles: float
    simulated_bound_cycles: float
    """Lower bound of the simulated cycles of this very program."""
    sram_peak_bytes: int
    instructions: int
    """In the program's streams, loops counted once, load and run phase."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure that differs from the baseline."""

    where: str
    figure: str
    before: float
    now: float

    @property
    def is_worse(self) -> bool:
        """Whether the figure is one that may only go down, and went up."""
        return self.figure in (*JUDGED, *JUDGED_ERRORS) and self.now > self.before


def figures_of(done: Compilation, timing: TimingReport) -> Figures:
    """Return the figures of a finished compilation and its timing simulation."""
    assert done.rolled is not None, "the compilation is finished"
    assert done.plan is not None, "the compilation is finished"
    assert done.program is not None, "the compilation is finished"
    assert done.program.scheduled_cycles is not None, "the program has one group"
    last = [found.ruleset_stats[-1] for found in done.alternatives]
    return Figures(
        e_nodes=sum(stats.e_nodes for stats in last),
        e_classes=sum(stats.e_classes for stats in last),
        unique_blocks=len(done.rolled.blocks),
        predicted_cycles=float(done.plan.cost),
        bound_cycles=float(done.plan.bound),
        gap=float(done.plan.gap),
        scheduled_cycles=done.program.scheduled_cycles,
        simulated_cycles=float(timing.run.cycles),
        simulated_bound_cycles=float(timing.run.bound_cycles),
        sram_peak_bytes=done.program.sram_bytes,
        instructions=sum(map(len, done.program.streams)),
    )


def changes(
    where: str, baseline: Mapping[str, float], now: Figures | Mapping[str, float]
) -> tuple[Change, ...]:
    """Return the figures of one model on one target that differ from the baseline's."""
    found = asdict(now) if isinstance(now, Figures) else now
    return tuple(
        Change(where, name, baseline[name], value)
        for name, value in found.items()
        if name in baseline and abs(value - baseline[name]) > ROUNDING * abs(baseline[name])
    )
