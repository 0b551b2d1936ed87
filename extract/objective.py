"""What a plan minimises: one metric, or a weighted mix of several.

Latency, throughput and energy are sums over a plan's kernels and moves. The SRAM footprint is the largest
number of bytes that a tile's scratchpad holds at any time, so it is no sum (see `footprint.py`).

The terms of a mix have different units. Each metric is measured in parts of a reference that depends on model
and machine alone (`references`), times the reference's cycles:

    cost = sum of weight / (sum of weights) * amount / reference of the metric * reference cycles

in "weighted cycles": of two metrics with equal weights, a plan gives up the same share of a reference of
the one for that of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite
from types import MappingProxyType
from typing import ClassVar

from tilewright.errors import CompileError
from tilewright.extract.user_metric import UserMetric
from tilewright.graph import Graph
from tilewright.hwmodel.cost import KernelCost, Occupancy
from tilewright.hwmodel.roofline import least_energy_pj, roofline
from tilewright.hwmodel.target import Target


class Metric(StrEnum):
    """A figure of a plan, the smaller the better."""

    LATENCY = "latency"
    """Cycles from the first kernel to the last: of each the busiest engine and the exposed start-up."""
    THROUGHPUT = "throughput"
    """Cycles of the busiest engines alone: start-up overlaps with the next inference."""
    ENERGY = "energy"
    """Picojoules of all tiles, static power included."""
    SRAM = "sram"
    """Bytes of the fullest moment of a tile's scratchpad."""

    @property
    def unit(self) -> str:
        """What it is counted in."""
        return {Metric.ENERGY: "pJ", Metric.SRAM: "bytes"}.get(self, "cycles")


AnyMetric = Metric | UserMetric

MIXED_UNIT = "weighted cycles"


@dataclass(frozen=True, slots=True)
class Objective:
    """Metrics with their weights, and what a unit of each costs.

    Metrics of users add up like latency, but know no start-up and nothing that runs beside something else.
    `rates` follow `weights`, in units of the objective for a cycle, picojoule or byte; they are empty for a
    mix that has not met its model and machine yet (`on`).
    """

    LATENCY: ClassVar[Objective]
    THROUGHPUT: ClassVar[Objective]
    ENERGY: ClassVar[Objective]
    SRAM: ClassVar[Objective]

    weights: tuple[tuple[AnyMetric, float], ...]
    rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse metrics that listings could not tell apart."""
        names = [str(metric) for metric in self.metrics]
        own = [str(m) for m in self.metrics if isinstance(m, UserMetric)]
        if len(set(names)) < len(names) or set(own) & set(Metric):
            raise CompileError(
                f"objective '{self}': found two metrics of one name, expected different ones; "
                "name that of the user otherwise"
            )

    @property
    def metrics(self) -> tuple[AnyMetric, ...]:
        """The metrics that count."""
        return tuple(metric for metric, _ in self.weights)

    def rate(self, metric: AnyMetric) -> float:
        """Return what a unit of a metric costs."""
        assert self.rates, "a mix has rates on a model and a machine only"
        pairs = zip(self.weights, self.rates, strict=True)
        return next((rate for (own, _), rate in pairs if own is metric), 0.0)

    @property
    def cycle_rate(self) -> float:
        """What a cycle costs that something waits for, such as one of a move."""
        return self.rate(Metric.LATENCY) + self.rate(Metric.THROUGHPUT)

    @property
    def counts_time(self) -> bool:
        """Whether cycles cost something, so that what runs beside something else is free."""
        return Metric.LATENCY in self.metrics or Metric.THROUGHPUT in self.metrics

    @property
    def rewards_overlap(self) -> bool:
        """Whether a kernel that moves data while it computes may cost less than both after each other."""
        return self.counts_time or any(isinstance(metric, UserMetric) for metric in self.metrics)

    @property
    def is_time(self) -> bool:
        """Whether costs are cycles."""
        return self in (Objective.LATENCY, Objective.THROUGHPUT)

    @property
    def unit(self) -> str:
        """Unit of costs."""
        return self.metrics[0].unit if len(self.metrics) == 1 else MIXED_UNIT

    @property
    def additive(self) -> Objective:
        """The part that adds up over kernels and moves; latency, to break ties, if nothing else does."""
        kept = [n for n, metric in enumerate(self.metrics) if metric is not Metric.SRAM]
        if not kept:
            return Objective.LATENCY
        if len(kept) == len(self.weights):
            return self
        rates = tuple(self.rates[n] for n in kept) if self.rates else ()
        return Objective(tuple(self.weights[n] for n in kept), rates)

    def weigh(self, amounts: Mapping[AnyMetric, float]) -> float:
        """Return what amounts of the metrics cost."""
        pairs = zip(self.metrics, self.rates, strict=True)
        return sum(rate * amounts[metric] for metric, rate in pairs)

    def kernel_units(self, cost: KernelCost, target: Target) -> float:
        """Return a kernel's share of the objective; energy includes static power for the latency."""
        total = 0.0
        for (metric, _), rate in zip(self.weights, self.rates, strict=True):
            match metric:
                case Metric.LATENCY:
                    total += rate * cost.latency_cycles
                case Metric.THROUGHPUT:
                    total += rate * (cost.latency_cycles - cost.startup_cycles)
                case Metric.ENERGY:
                    static = target.energy.static_watt * 1e12 * target.seconds(cost.latency_cycles)
                    total += rate * (cost.energy_pj * target.tiles + static)
                case UserMetric():
                    total += rate * metric.amount(cost.occupancy(target))
        return total

    def occupancy_units(self, occupancy: Occupancy) -> float:
        """Return what the metrics of users charge for something that occupies so much."""
        return sum(
            rate * metric.amount(occupancy)
            for metric, rate in zip(self.metrics, self.rates, strict=True)
            if isinstance(metric, UserMetric)
        )

    def __str__(self) -> str:
        """Return the objective as users write it."""
        if len(self.weights) == 1:
            return str(self.weights[0][0])
        return ",".join(f"{metric}:{weight:g}" for metric, weight in self.weights)

    def on(self, graph: Graph, target: Target) -> Objective:
        """Return the objective with the rates of a model and a machine, if it has none yet."""
        if self.rates:
            return self
        return self.relative_to(references(graph, target, self.metrics))

    def relative_to(self, amounts: Mapping[AnyMetric, float]) -> Objective:
        """Return the objective with the rates that references give.

        Args:
            amounts: Of each metric, what counts as much as that of another.
        """
        total = sum(weight for _, weight in self.weights)
        cycles = amounts[Metric.LATENCY]
        rates = (weight / total * cycles / amounts[metric] for metric, weight in self.weights)
        return replace(self, rates=tuple(rates))


Objective.LATENCY = Objective(((Metric.LATENCY, 1.0),), (1.0,))
Objective.THROUGHPUT = Objective(((Metric.THROUGHPUT, 1.0),), (1.0,))
Objective.ENERGY = Objective(((Metric.ENERGY, 1.0),), (1.0,))
Objective.SRAM = Objective(((Metric.SRAM, 1.0),), (1.0,))


def single(metric: AnyMetric) -> Objective:
    """Return the objective of one metric."""
    return Objective(((metric, 1.0),), (1.0,))


def references(
    graph: Graph, target: Target, metrics: Iterable[AnyMetric] = ()
) -> Mapping[AnyMetric, float]:
    """Return what mixes measure metrics in: the model's lower bounds, and the whole scratchpad of a tile.

    Cycles are those of the roofline, picojoules those of the multiply-adds and the DRAM traffic that no
    schedule avoids, with static power for the roofline's time. A metric of a user is asked what it charges
    for the roofline as if it were one kernel.

    Args:
        graph: The model.
        target: The machine.
        metrics: Those of users among them have references, too.
    """
    found = roofline(graph, target)
    cycles = max(1.0, found.bound_cycles)
    whole = Occupancy(
        core_cycles=max(found.matrix_cycles, found.vector_cycles, found.sram_cycles),
        dram_bytes=found.dram_bytes,
        dram_cycles=found.dram_cycles,
    )
    own = [metric for metric in metrics if isinstance(metric, UserMetric)]
    return MappingProxyType(
        {
            **{metric: metric.amount(whole) or 1.0 for metric in own},
            Metric.LATENCY: cycles,
            Metric.THROUGHPUT: cycles,
            Metric.ENERGY: max(1.0, least_energy_pj(graph, target)),
            Metric.SRAM: float(target.tile.sram.size_bytes),
        }
    )


def parse_objective(text: str) -> Objective:
    """Read a metric's name, or a mix such as `latency:0.7,energy:0.3`.

    Raises:
        CompileError: A metric is unknown or there twice, or a weight is no positive number.

    >>> str(parse_objective("energy")), str(parse_objective("latency:7,energy:3"))
    ('energy', 'latency:7,energy:3')
    """
    weights: dict[Metric, float] = {}
    parts = text.split(",")
    for part in parts:
        name, _, number = part.strip().partition(":")
        metric = parse_metric(name, "objective")
        if metric in weights:
            raise CompileError(f"objective '{text}' has {metric} twice; give it one weight")
        weights[metric] = _weight(text, metric, number, is_alone=len(parts) == 1)
    if {Metric.LATENCY, Metric.THROUGHPUT} <= set(weights):
        raise CompileError(
            f"objective '{text}' mixes latency and throughput, which count the same cycles; drop one"
        )
    if len(weights) == 1:
        return single(*weights)
    return Objective(tuple(weights.items()))


def parse_metric(name: str, what: str) -> Metric:
    """Read a metric's name.

    Raises:
        CompileError: There is no such metric.
    """
    try:
        return Metric(name.strip())
    except ValueError:
        known = ", ".join(Metric)
        raise CompileError(
            f"{what} '{name}' is unknown; choose one of {known}, or a mix by weights such as "
            "latency:0.7,energy:0.3"
        ) from None


def _weight(text: str, metric: Metric, number: str, *, is_alone: bool) -> float:
    if is_alone and not number:
        return 1.0
    try:
        weight = float(number)
    except ValueError:
        weight = 0.0
    if not (isfinite(weight) and 0 < weight < 1e9):
        raise CompileError(
            f"objective '{text}': the weight of {metric} is '{number}', expected a positive number; "
            "write e.g. latency:0.7,energy:0.3"
        )
    return weight
