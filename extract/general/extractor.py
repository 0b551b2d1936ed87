"""Extract from an e-graph: reductions, then elimination, then branch and bound, as far as needed.

Most e-graphs reduce to nothing. What is left is relaxed; if that does not prove a greedy choice, an integer
program gets a few nodes; if that does not end, annealing improves the choice, elimination tightens the
program, and branch and bound gets a share of the time. Every step can only lower the cost and
raise the bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic

from tilewright.extract.general.eliminate import eliminate
from tilewright.extract.general.egraph import EGraph, Extraction, Proof, needed_cost
from tilewright.extract.general.reduce import reduce
from tilewright.extract.general.workspace import Origin, Workspace, recover

# Alternatives that merging a class into its only user may make, for each that it removes.
GROWTH = 3.0
# Problems with so many alternatives or fewer are eliminated at once: cheaper than loading a solver.
SMALL = 300


@dataclass(slots=True, kw_only=True)
class Progress:
    """The best choice and bound so far."""

    graph: EGraph
    deadline: float
    time_limit: float
    cost: float = math.inf
    bound: float = -math.inf
    chosen: dict[int, int] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

    def offer(self, choice: dict[int, int]) -> None:
        """Take a choice of e-nodes if it is cheaper."""
        cost, chosen = needed_cost(self.graph, choice)
        if cost < self.cost:
            self.cost, self.chosen = cost, chosen

    def offer_origins(self, origins: Iterable[Origin]) -> None:
        """Take the choice that alternatives stand for if it is cheaper."""
        self.offer(recover(self.graph, origins))

    def raise_bound(self, bound: float, step: str) -> None:
        """Note that no choice costs less than `bound`, or than the best known."""
        self.bound = max(self.bound, min(bound, self.cost))
        self.steps.append(f"{step}: cost {self.cost:.10g}, bound {self.bound:.10g}")

    def is_proven(self) -> bool:
        """Whether nothing can be cheaper, but for rounding."""
        return self.bound >= self.cost - 1e-7 * max(1.0, abs(self.cost))

    def result(self, proof: Proof) -> Extraction:
        """The extraction, with the proof if there is one."""
        proven = self.is_proven()
        return Extraction(
            chosen=dict(sorted(self.chosen.items())),
            cost=self.cost,
            bound=self.cost if proven else self.bound,
            proof=proof if proven else Proof.bound,
            steps=tuple(self.steps),
        )


def extract(graph: EGraph, time_limit: float = 60.0) -> Extraction:
    """Return the cheapest acyclic choice of e-nodes that covers the roots, or the best in time.

    Args:
        graph: Any e-graph; costs may be negative, classes may be cyclic.
        time_limit: Wall time, [s], after which the best choice so far is returned. Reductions are not
            broken off; they take about 20 microseconds for each e-node.

    Returns:
        The choice, its cost, a bound of all choices, and what the bound rests on.

    Raises:
        InfeasibleError: A root has no acyclic extraction.
    """
    progress = Progress(graph=graph, deadline=monotonic() + time_limit, time_limit=time_limit)
    work = Workspace(graph)
    progress.steps.append(f"can be extracted: {work.size()}")
    reduce(work, GROWTH)
    progress.steps.append(f"reduced: {work.size()}")
    if work.live and work.alternative_count() <= SMALL:
        eliminate(work, 4 * SMALL, GROWTH, progress.deadline)
        progress.steps.append(f"eliminated: {work.size()}")
    if not work.live:
        progress.offer_origins(work.decided)
        progress.raise_bound(math.fsum(work.paid), "nothing left")
        return progress.result(Proof.reductions)
    # Loads scipy, which takes longer than everything so far.
    from tilewright.extract.general.bounding import decide

    return progress.result(decide(work, progress))
