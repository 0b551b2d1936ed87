"""What a plan takes of each resource of the machine, and how two plans differ, op by op."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tilewright.extract.plan import Delivery, Move, MoveKind, Plan, PlannedOp
from tilewright.extract.planned import planned_nest
from tilewright.extract.reshard import delivery_units
from tilewright.hwmodel.mesh import format_sharding
from tilewright.hwmodel.target import Target

DRAM_MOVES = (MoveKind.LOAD, MoveKind.STORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """An amount of one resource, summed over the plan; engines of one tile run beside each other."""

    name: str
    amount: float
    unit: str


def resources(plan: Plan, target: Target) -> tuple[Resource, ...]:
    """Return what a plan takes: cycles of each engine and of moves, traffic, energy, scratchpad."""
    kernels = [planned.cost for planned in plan.ops]
    moves = [move for delivery in _deliveries(plan) for move in delivery.moves]
    hidden = sum(delivery.hidden_cycles for delivery in _deliveries(plan))
    latency = sum(k.latency_cycles for k in kernels) + sum(m.cycles for m in moves) - hidden
    static_pj = target.energy.static_watt * 1e12
    energy = sum(k.energy_pj * target.tiles for k in kernels)
    energy += static_pj * sum(target.seconds(k.latency_cycles) for k in kernels)
    energy += sum(m.energy_pj for m in moves)
    amounts = (
        ("latency", latency, "cycles"),
        ("matrix unit", sum(k.matrix_cycles for k in kernels), "cycles"),
        ("vector unit", sum(k.vector_cycles for k in kernels), "cycles"),
        ("DMA in", sum(k.dma_in_cycles for k in kernels), "cycles"),
        ("DMA out", sum(k.dma_out_cycles for k in kernels), "cycles"),
        ("scratchpad port", sum(k.sram_cycles for k in kernels), "cycles"),
        ("start-up", sum(k.startup_cycles for k in kernels), "cycles"),
        ("loads and stores", _cycles(m for m in moves if m.kind in DRAM_MOVES), "cycles"),
        ("collectives", _cycles(m for m in moves if m.kind not in DRAM_MOVES), "cycles"),
        ("hidden moves", hidden, "cycles"),
        ("DRAM traffic of kernels", sum(k.dram_bytes for k in kernels), "bytes a tile"),
        ("energy", energy, "pJ"),
        ("scratchpad", plan.peak_sram_bytes, "bytes a tile"),
        ("resident weights", plan.resident_sram_bytes, "bytes a tile"),
    )
    return tuple(Resource(name=n, amount=float(a), unit=u) for n, a, u in amounts)


def _cycles(moves: Iterable[Move]) -> float:
    return sum(move.cycles for move in moves)


def _deliveries(plan: Plan) -> list[Delivery]:
    """Return all deliveries that are paid for: equal outputs are brought to DRAM once."""
    brought = {delivery.tensor: delivery for delivery in plan.output_deliveries}
    return [*(d for planned in plan.ops for d in planned.deliveries), *brought.values()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How ops differ between two plans; None: the plan has no such op. Equal changes are one, `count` times.

    `before` and `after` describe the op; costs are of all `count` ops, in units of the objective.
    """

    op: str
    count: int
    before: str | None
    after: str | None
    cost_before: float
    cost_after: float

    @property
    def delta(self) -> float:
        """What the second plan pays more for these ops."""
        return self.cost_after - self.cost_before


def diff(first: Plan, second: Plan) -> tuple[Change, ...]:
    """Return how two plans of one model differ, the largest differences of cost first.

    Ops are matched by the tensor that they make. The deltas add up to the difference of the plans' costs.
    """
    ours, theirs = _described(first), _described(second)
    groups: dict[tuple[object, ...], list[str]] = {}
    for name in dict.fromkeys((*ours, *theirs)):
        pair = [(d[0], round(d[1], 6)) if (d := own.get(name)) else None for own in (ours, theirs)]
        if pair[0] != pair[1]:
            groups.setdefault(tuple(pair), []).append(name)
    changes = [
        Change(
            op=names[0],
            count=len(names),
            before=ours[names[0]][0] if names[0] in ours else None,
            after=theirs[names[0]][0] if names[0] in theirs else None,
            cost_before=sum(ours[name][1] for name in names if name in ours),
            cost_after=sum(theirs[name][1] for name in names if name in theirs),
        )
        for names in groups.values()
    ]
    return tuple(sorted(changes, key=lambda c: (-abs(c.delta), c.op)))


_Described = tuple[str, float]
"""How an op runs, and what it costs."""


def _described(plan: Plan) -> dict[str, _Described]:
    found = {p.op.output: (describe(plan, p), p.cost_units) for p in plan.ops}
    objective = plan.objective
    for delivery in plan.output_deliveries:
        moved = delivery_units(delivery, objective)
        text = " ".join(move.kind.value for move in delivery.moves) or "stays"
        found[f"output {delivery.tensor}"] = (text, moved)
    return found


def describe(plan: Plan, planned: PlannedOp) -> str:
    """Return how an op runs: kind, split, where its result lies, weights, tile sizes, moves."""
    op = planned.op
    words = [op.kind, str(op.attrs.get("fn") or "")]
    if op.attrs.get("epilogue"):
        words.append(f"+{op.attrs['epilogue']}")
    if any(dim >= 0 for dim in planned.split_dims):
        loops = planned_nest(planned, plan.types).dims
        pairs = zip(plan.mesh.names, planned.split_dims, strict=True)
        words.append(" ".join(f"{axis}:{loops[dim].name}" for axis, dim in pairs if dim >= 0))
    words.append(
        f"-> {planned.result.memory.value} {format_sharding(plan.mesh, planned.result.sharding)}"
    )
    if any(planned.resident):
        words.append("weights resident")
    if planned.tiling is not None:
        words.append("tile " + "x".join(map(str, planned.tiling.sizes)))
    words += [move.kind.value for d in planned.deliveries for move in d.moves]
    return " ".join(word for word in words if word)
