"""Decide what reductions left: relaxation, integer program, annealing, elimination, again."""

from __future__ import annotations

import math
from time import monotonic

from tilewright.extract.general.anneal import Annealing
from tilewright.extract.general.egraph import EGraph, Proof
from tilewright.extract.general.eliminate import eliminate
from tilewright.extract.general.extractor import GROWTH, Progress
from tilewright.extract.general.greedy import greedy_choice
from tilewright.extract.general.program import Program
from tilewright.extract.general.snapshot import Snapshot, take_snapshot
from tilewright.extract.general.workspace import NoExtractionError, Workspace

# Alternatives, at most, that taking cycles apart and tightening may end with, beyond what is there.
MORE_FOR_CYCLES = 1500
MORE_FOR_TIGHTNESS = 1500
# Nodes of branch and bound before anything else is tried.
FIRST_NODES = 1
# Shares of the time limit as processor time: for the first program, for annealing, for the last program.
FIRST_SHARE, ANNEALING_SHARE, LAST_SHARE = 0.05, 0.3, 0.15
GREEDY_SHARE = 0.2
# Share of a step's time that the solver is not told about.
CLOCK_SHARE = 0.15
# Moves of a round of annealing, and the first temperatures that rounds take in turn.
MOVES = 500_000
WARMTHS = (0.5, 0.2)


def decide(work: Workspace, progress: Progress) -> Proof:
    """Improve choice and bound until they meet or the time is up; return what proves them."""
    try:
        return _decide(work, progress)
    except NoExtractionError:
        # Of what may beat the best choice, as `drop_dear` left it.
        progress.raise_bound(math.inf, "no other choice")
        return Proof.reductions


def _decide(work: Workspace, progress: Progress) -> Proof:
    reduced = take_snapshot(work)
    small = reduced.as_egraph()
    start = greedy_choice(small, progress.deadline)
    progress.offer_choice(reduced, start)
    # Reductions may lead the greedy choice astray: never be worse than the one of the whole e-graph.
    progress.offer(greedy_choice(progress.graph, progress.deadline_of(GREEDY_SHARE)))
    if reduced.cycles:
        limit = work.alternative_count() + MORE_FOR_CYCLES
        eliminate(work, limit, GROWTH, progress.deadline, only_cycles=True)
        progress.steps.append(f"cycles taken apart: {work.size()}")
    if proof := _run(work, progress, progress.deadline_of(FIRST_SHARE), FIRST_NODES):
        return proof
    if monotonic() > progress.deadline:
        return Proof.bound
    _anneal(progress, reduced, small, start)
    eliminate(work, work.alternative_count() + MORE_FOR_TIGHTNESS, GROWTH, progress.deadline)
    progress.steps.append(f"eliminated: {work.size()}")
    return _run(work, progress, progress.deadline_of(LAST_SHARE), None) or Proof.bound


def _run(
    work: Workspace, progress: Progress, deadline: float, node_limit: int | None
) -> Proof | None:
    """Relax and solve what is left; return the proof if that ends it."""
    begin = monotonic()
    if begin > deadline:
        return None
    # The solver looks at the clock now and then: it is told to stop early.
    deadline -= CLOCK_SHARE * (deadline - begin)
    snapshot = take_snapshot(work)
    if not snapshot.alternatives:
        progress.offer_origins(snapshot.decided)
        progress.raise_bound(snapshot.paid, "nothing left")
        return Proof.reductions
    program = Program(snapshot)
    relaxed = program.relax(deadline)
    if relaxed is None:
        return None
    relaxation_seconds = monotonic() - begin
    progress.raise_bound(relaxed[0], "relaxation")
    if progress.is_proven():
        return Proof.relaxation
    # Branch and bound begins with a relaxation that it does not break off.
    if monotonic() + 2 * relaxation_seconds > deadline:
        return None
    largest = max(progress.cost, progress.bound, key=lambda cost: abs(cost - snapshot.paid))
    solved = program.solve(deadline, largest, node_limit)
    if solved.columns is not None:
        progress.offer_origins(
            [*snapshot.decided, *(snapshot.origin[column] for column in solved.columns)]
        )
    progress.raise_bound(solved.bound, "branch and bound")
    return Proof.search if progress.is_proven() else None


def _anneal(progress: Progress, snapshot: Snapshot, small: EGraph, start: dict[int, int]) -> None:
    """Anneal in rounds, each with another seed, until as many as there are warmths improve nothing."""
    deadline = progress.deadline_of(ANNEALING_SHARE)
    seed = idle = 0
    while monotonic() < deadline and idle < len(WARMTHS):
        before = progress.cost
        warmth = WARMTHS[seed % len(WARMTHS)]
        choice = Annealing(small, start, seed).run(MOVES, warmth, deadline)
        progress.offer_choice(snapshot, choice)
        idle = idle + 1 if progress.cost >= before else 0
        seed += 1
    progress.steps.append(f"annealed {seed} times: cost {progress.cost:.10g}")
