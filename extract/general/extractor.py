"""Extract from an e-graph: reductions, then elimination, then branch and bound, as far as needed.

Most e-graphs reduce to nothing, some more once what cannot beat a greedy choice is left out. What is left
is relaxed; if that does not prove the choice, an integer program gets a node; if that does not end,
annealing improves the choice, elimination tightens the program, and branch and bound gets a share of the
time. Every step can only lower the cost and raise the bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic, process_time

from tilewright.extract.general.egraph import EGraph, Extraction, Proof, needed_cost
from tilewright.extract.general.eliminate import eliminate
from tilewright.extract.general.greedy import greedy_choice
from tilewright.extract.general.path_bound import drop_dear
from tilewright.extract.general.reduce import reduce
from tilewright.extract.general.snapshot import Snapshot, take_snapshot
from tilewright.extract.general.workspace import NoExtractionError, Origin, Workspace, recover

# Alternatives that merging a class into its only user may make, for each that it removes.
GROWTH = 3.0
# Share of the time limit, as processor time, that steps of the solver may take too long.
RESERVE_SHARE = 0.04
# Problems with so many alternatives or fewer are eliminated at once: cheaper than loading a solver.
SMALL = 300


@dataclass(slots=True, kw_only=True)
class Progress:
    """The best choice and bound so far."""

    graph: EGraph
    time_limit: float
    begin: float = field(default_factory=monotonic)
    begin_processor: float = field(default_factory=process_time)
    cost: float = math.inf
    bound: float = -math.inf
    chosen: dict[int, int] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

    @property
    def deadline(self) -> float:
        """When the time is up, of `monotonic`."""
        return self.begin + self.time_limit

    def deadline_of(self, share: float) -> float:
        """When a step is to end that may use a share of the time limit as processor time.

        On a machine that others use too, that takes longer on the clock; never past the deadline, and
        a little before: the solver does not break off some of its steps.
        """
        now = monotonic()
        used = max(process_time() - self.begin_processor, 1e-3)
        slowdown = max(1.0, (now - self.begin) / used)
        reserve = RESERVE_SHARE * self.time_limit * slowdown
        return min(self.deadline - reserve, now + share * self.time_limit * slowdown)

    def offer(self, choice: dict[int, int]) -> None:
        """Take a choice of e-nodes if it is cheaper."""
        cost, chosen = needed_cost(self.graph, choice)
        if cost < self.cost:
            self.cost, self.chosen = cost, chosen

    def offer_origins(self, origins: Iterable[Origin]) -> None:
        """Take the choice that alternatives stand for if it is cheaper."""
        self.offer(recover(self.graph, origins))

    def offer_choice(self, snapshot: Snapshot, choice: dict[int, int]) -> None:
        """Take a choice of the alternatives of a snapshot if it is cheaper."""
        _, needed = needed_cost(snapshot.as_egraph(), choice)
        origins = [snapshot.origin[needed[group]] for group in sorted(needed)]
        self.offer_origins([*snapshot.decided, *origins])

    def raise_bound(self, bound: float, step: str) -> None:
        """Note that no choice costs less than `bound`, or than the best known."""
        self.bound = max(self.bound, min(bound, self.cost))
        self.steps.append(f"{step}: cost {self.cost:.10g}, bound {self.bound:.10g}")

    def is_proven(self) -> bool:
        """Whether nothing can be cheaper, but for rounding."""
        return self.bound >= self.cost - 1e-7 * max(1.0, abs(self.cost))

    def result(self, proof: Proof) -> Extraction:
        """Return the extraction, with the proof if there is one."""
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
        time_limit: Wall time, [s], after which the best choice so far is returned. A round of reductions
            is not broken off; the first takes some 50 microseconds for each e-node.

    Returns:
        The choice, its cost, a bound of all choices, and what the bound rests on.

    Raises:
        NoExtractionError: A root has no acyclic extraction.
    """
    progress = Progress(graph=graph, time_limit=time_limit)
    work = Workspace(graph)
    progress.steps.append(f"can be extracted: {work.size()}")
    reduce(work, GROWTH, progress.deadline)
    progress.steps.append(f"reduced: {work.size()}")
    if work.live and _without_solver(work, progress):
        return progress.result(Proof.path)
    if not work.live:
        progress.offer_origins(work.decided)
        progress.raise_bound(math.fsum(work.paid), "decided")
        return progress.result(Proof.reductions)
    # Loads scipy, which takes longer than everything so far.
    from tilewright.extract.general.bounding import decide

    return progress.result(decide(work, progress))


def _without_solver(work: Workspace, progress: Progress) -> bool:
    """Look for a choice, keep only what may beat it, eliminate if little is left.

    Returns:
        Whether nothing can beat the choice.
    """
    snapshot = take_snapshot(work)
    progress.offer_choice(snapshot, greedy_choice(snapshot.as_egraph(), progress.deadline))
    try:
        progress.raise_bound(drop_dear(work, progress.cost), "dearest chain")
        reduce(work, GROWTH, progress.deadline)
        if work.alternative_count() <= SMALL:
            eliminate(work, 4 * SMALL, GROWTH, progress.deadline)
    except NoExtractionError:
        progress.raise_bound(math.inf, "no other choice")
    progress.steps.append(f"left: {work.size()}")
    return progress.is_proven()
