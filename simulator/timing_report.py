"""What a timing simulation found, as data and as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass

Share = tuple[str, float]
"""A name and a number of cycles or picojoules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUse:
    """How one engine of the program's tiles spent a phase; cycles are means over tiles."""

    name: str
    busy_cycles_mean: float
    busy_cycles_max: float
    utilisation_mean: float
    utilisation_max: float
    waits: tuple[Share, ...]
    """Cycles idle, by what the engine waited for: one of the tile's engines, a remote post, its group."""
    contention: tuple[Share, ...]
    """Cycles of the busy time that were lost because a class of resources was full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceUse:
    """Load of one class of resources."""

    name: str
    count: int
    total_bytes: float
    utilisation_mean: float
    utilisation_max: float
    bound_cycles: float
    """Bytes over capacity of the busiest one: no schedule is faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TagUse:
    """Time of one plan step."""

    tag: int
    name: str
    start_cycle: float
    end_cycle: float
    busy_cycles: tuple[Share, ...]
    """By engine, means over tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One instruction of a traced tile."""

    tile: int
    engine: str
    name: str
    start_cycle: float
    end_cycle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTiming:
    """Timing of the load or the run phase."""

    name: str
    cycles: float
    engines: tuple[EngineUse, ...]
    resources: tuple[ResourceUse, ...]
    tags: tuple[TagUse, ...]
    bound_cycles: float
    """Lower bound of this very program: the busiest resource or engine, or the longest dependency chain."""
    bound_by: str
    critical_path_cycles: float | None
    """Time if no resource were ever shared.

    None if engines compete for a semaphore: speed can then change who wins, so it is no bound.
    """
    payload_bytes: float
    """Bytes moved, added up while they moved; a multicast read counts once."""
    instructions: int
    """Executed, over all tiles."""
    events: int
    """Handled by the simulator."""
    simulated_tiles: int
    spans: tuple[Span, ...] = ()

    @property
    def gap(self) -> float:
        """How far the time is above the bound, as a fraction of the bound."""
        return self.cycles / self.bound_cycles - 1.0 if self.bound_cycles > 0.0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingReport:
    """Result of `simulate`."""

    program: str
    target: str
    clock_ghz: float
    tiles: int
    """Tiles that the program uses."""
    load: PhaseTiming
    run: PhaseTiming
    energy_pj: tuple[Share, ...]
    """Energy of one run phase, by consumer."""
    notes: tuple[str, ...]
    """What the simulation leaves out."""

    @property
    def cycles(self) -> float:
        """Cycles of the run phase: one inference."""
        return self.run.cycles

    @property
    def seconds(self) -> float:
        """Seconds of the run phase."""
        return self.run.cycles / (self.clock_ghz * 1e9)

    @property
    def load_seconds(self) -> float:
        """Seconds of the load phase."""
        return self.load.cycles / (self.clock_ghz * 1e9)

    @property
    def total_energy_pj(self) -> float:
        """Energy of one run phase."""
        return sum(energy for _, energy in self.energy_pj)

    def table_rows(self) -> tuple[tuple[str, str], ...]:
        """Return what a person wants to know, as (what, how much) pairs."""
        run = self.run
        rows = [
            ("simulated cycles", f"{run.cycles:,.0f} ({self.seconds * 1e6:,.1f} us)"),
            (
                "load phase",
                f"{self.load.cycles:,.0f} cycles ({self.load_seconds * 1e6:,.1f} us), once",
            ),
            (
                "bound of this program",
                f"{run.bound_cycles:,.0f} cycles ({run.bound_by}), gap {run.gap:.1%}",
            ),
            ("simulated tiles", f"{run.simulated_tiles:,} for {self.tiles:,}"),
        ]
        for engine in run.engines:
            if engine.busy_cycles_max > 0.0:
                text = f"{engine.utilisation_mean:.1%} busy (max {engine.utilisation_max:.1%})"
                lost = [
                    *engine.waits,
                    *(("full " + name, cycles) for name, cycles in engine.contention),
                ]
                worst = max(lost, key=lambda item: item[1], default=("", 0.0))
                if worst[1] > 0.005 * run.cycles:
                    text += f", mostly held up by {worst[0]} ({worst[1] / run.cycles:.1%})"
                rows.append((f"engine {engine.name}", text))
        for resource in run.resources:
            text = f"{resource.utilisation_mean:.1%} (max {resource.utilisation_max:.1%})"
            rows.append((resource.name, f"{text}, {resource.total_bytes:,.0f} bytes"))
        parts = ", ".join(
            f"{name} {energy / 1e6:,.2f}" for name, energy in self.energy_pj if energy > 0.0
        )
        rows.append(("energy", f"{self.total_energy_pj / 1e6:,.2f} uJ ({parts})"))
        return tuple(rows)
