"""An independent check of plans: what each tile holds is enough, moves are legal, costs add up, memory fits.

It shares the cost functions with extraction but none of its derivations: which indices a tile
needs is read off the loop
nest tile by tile, moves are checked for what they claim, and memory is counted the naive way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from math import prod

from tilewright.extract.gathered_check import Shard, arriving, check_chunks, gathers
from tilewright.extract.kernel import Kernel, footprint_bytes
from tilewright.extract.kernel_price import price
from tilewright.extract.move_buffers import aligned_bytes, move_buffers_bytes
from tilewright.extract.objective import AnyMetric, Metric, Objective
from tilewright.extract.plan import Delivery, Memory, Move, MoveKind, Placement, Plan, PlannedOp
from tilewright.extract.plan_error import PlanError
from tilewright.extract.planned import planned_kernel, planned_nest
from tilewright.extract.reshard import Crossing, single_moves
from tilewright.extract.scattered_check import added_up, check_exchanges, scattering_axes
from tilewright.extract.user_metric import UserMetric
from tilewright.extract.validate_halo import check_halo
from tilewright.extract.validate_vocabulary import check_vocabulary
from tilewright.graph import Op, third_operands
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target
from tilewright.rules.halo import HALO
from tilewright.rules.loopnest import LoopNest, OperandMap, Role
from tilewright.rules.vocabulary import VOCABULARY

Interval = tuple[int, int]
Coordinates = tuple[int, ...]

_RELATIVE = 1e-9


def validate_plan(plan: Plan, target: Target) -> None:
    """Raise PlanError unless the plan computes the model within the scratchpad at its stated cost.

    Checked: every operand is made before it is used and delivered by a continuous chain of legal moves;
    every tile holds the indices that its share of the loops touches; all tiles together make the whole
    result; the cost is the sum of its parts and not below the bound; memory fits.
    """
    placements = _check_order(plan)
    inputs = {port.tensor for port in plan.graph.inputs}
    for planned in plan.ops:
        for delivery in planned.deliveries:
            is_input = delivery.tensor in inputs
            crossing = Crossing.INPUT if is_input else Crossing.NONE
            _check_delivery(plan, target, delivery, placements, crossing, planned.op.name)
        if planned.op.kind != "host":
            _check_shares(plan, planned, target)
    for delivery in plan.output_deliveries:
        _check_delivery(plan, target, delivery, placements, Crossing.OUTPUT, "model output")
        if delivery.after.memory is not Memory.DRAM:
            raise PlanError(f"model output '{delivery.tensor}' does not end in DRAM")
    peak_bytes = _check_memory(plan, target)
    _check_cost(plan, target, peak_bytes)


def _check_order(plan: Plan) -> dict[str, Placement]:
    """Return where each tensor lies, checking that everything is made before use, once."""
    dram = Placement(Memory.DRAM, (-1,) * plan.mesh.rank)
    placements = {port.tensor: dram for port in plan.graph.inputs}
    constants = {*plan.graph.constants, *(op.output for op in plan.folded)}
    for op in plan.folded:
        if any(name not in constants for name in op.inputs):
            raise PlanError(f"folded '{op.name}' reads something that is not constant")
    for planned in plan.ops:
        for name in planned.op.inputs:
            if name not in placements and name not in constants:
                raise PlanError(f"'{planned.op.name}' reads '{name}' before it is made")
        for name in planned.op.outputs:
            if name in placements:
                raise PlanError(f"'{name}' is made twice")
            placements[name] = planned.result
    if len(plan.output_deliveries) != len(plan.graph.outputs):
        raise PlanError(
            f"{len(plan.output_deliveries)} of {len(plan.graph.outputs)} model outputs are brought to DRAM"
        )
    for delivery in plan.output_deliveries:
        if delivery.tensor not in placements and delivery.tensor not in constants:
            raise PlanError(f"model output '{delivery.tensor}' is not made")
    return placements


def _check_delivery(
    plan: Plan,
    target: Target,
    delivery: Delivery,
    placements: dict[str, Placement],
    crossing: Crossing,
    where: str,
) -> None:
    known = placements.get(delivery.tensor)
    if known is None:
        if delivery.moves or delivery.before != delivery.after:
            raise PlanError(f"'{where}': constant '{delivery.tensor}' is moved")
        return
    if delivery.before != known:
        raise PlanError(f"'{where}': '{delivery.tensor}' lies in {known}, not {delivery.before}")
    current = delivery.before
    for move in delivery.moves:
        if move.before != current:
            raise PlanError(f"'{where}': the moves of '{delivery.tensor}' are not a chain")
        _check_move(plan, target, delivery, move, crossing, where)
        current = move.after
    if current != delivery.after:
        raise PlanError(
            f"'{where}': '{delivery.tensor}' is delivered as {current}, not {delivery.after}"
        )


def _check_move(
    plan: Plan, target: Target, delivery: Delivery, move: Move, crossing: Crossing, where: str
) -> None:
    tensor = plan.types[delivery.tensor]
    for kind in single_moves(move.before, tensor, plan.mesh, target, crossing=crossing):
        if replace(kind, cycles=move.cycles, energy_pj=move.energy_pj) == move:
            if abs(kind.cycles - move.cycles) > _RELATIVE * max(1.0, kind.cycles):
                raise PlanError(
                    f"'{where}': {move.kind} of '{delivery.tensor}' costs {kind.cycles} cycles"
                )
            if abs(kind.energy_pj - move.energy_pj) > _RELATIVE * max(1.0, kind.energy_pj):
                raise PlanError(
                    f"'{where}': {move.kind} of '{delivery.tensor}' costs {kind.energy_pj} pJ"
                )
            break
    else:
        raise PlanError(f"'{where}': {move.kind} cannot turn {move.before} into {move.after}")
    if move.kind in (MoveKind.LOAD, MoveKind.STORE):
        return
    changed = [
        axis
        for axis, (old, new) in enumerate(
            zip(move.before.sharding, move.after.sharding, strict=True)
        )
        if old != new
    ]
    if changed != [move.axis]:
        raise PlanError(f"'{where}': a move on axis {move.axis} changes axes {changed}")


def _tiles(mesh: LogicalMesh) -> Iterator[Coordinates]:
    """Yield coordinates: all of them on small meshes, the corners and middles of large ones."""
    ranges = [
        range(size) if mesh.tiles <= 64 else sorted({0, 1 % size, size // 2, size - 1})
        for size in mesh.sizes
    ]
    yield from product(*ranges)


def _share(mesh: LogicalMesh, axes: list[int], coordinates: Coordinates, extent: int) -> Interval:
    """Return a tile's piece of `extent` when axes split it, the earlier the more significant."""
    index = 0
    for axis in axes:
        index = index * mesh.sizes[axis] + coordinates[axis]
    pieces = prod(mesh.sizes[axis] for axis in axes)
    if extent % pieces:
        raise PlanError(f"{extent} is not divisible into {pieces} pieces")
    return index * extent // pieces, (index + 1) * extent // pieces


def _shard(
    mesh: LogicalMesh, placement: Placement, shape: tuple[int, ...], tile: Coordinates
) -> list[Interval]:
    """Return the index intervals that a tile can reach of a tensor."""
    if placement.memory is Memory.DRAM:
        return [(0, size) for size in shape]
    return [
        _share(mesh, [a for a, state in enumerate(placement.sharding) if state == dim], tile, size)
        for dim, size in enumerate(shape)
    ]


def _loops(
    nest: LoopNest, mesh: LogicalMesh, planned: PlannedOp, tile: Coordinates
) -> list[Interval]:
    return [
        _share(
            mesh,
            [a for a, split in enumerate(planned.split_dims) if split == number],
            tile,
            loop.extent,
        )
        for number, loop in enumerate(nest.dims)
    ]


def _touched(nest: LoopNest, operand: OperandMap, loops: list[Interval]) -> list[Interval]:
    """Return the index intervals that a tile's loops touch, clipped to the tensor."""
    starts = tuple(low for low, _ in loops)
    sizes = tuple(high - low for low, high in loops)
    ranges = nest.box(operand, starts, sizes)
    return [
        (max(low, 0), min(high, dim.size)) for (low, high), dim in zip(ranges, operand, strict=True)
    ]


def _check_shares(plan: Plan, planned: PlannedOp, target: Target) -> None:
    """Check, tile by tile, that what a tile reads and makes is what its placements say."""
    nest, mesh, op = planned_nest(planned, plan.types), plan.mesh, planned.op
    _check_reductions(plan, planned, nest)
    check_chunks(plan, planned, nest, target)
    if HALO in planned.macros and planned.deliveries[0].after.memory is not Memory.SRAM:
        raise PlanError(f"'{op.name}': halos are of operand 0 in SRAM, it is in DRAM")
    kernel = planned_kernel(planned, plan.types, mesh)
    for tile in _tiles(mesh):
        loops = _loops(nest, mesh, planned, tile)
        for number, (name, operand) in enumerate(zip(op.inputs, nest.operands, strict=True)):
            if number == 0 and kernel.halo:
                held = _with_halo(plan, planned, kernel, nest, tile)
            else:
                held = list(_held(plan, planned, nest, number)(tile))
            if number == 0 and VOCABULARY in planned.macros:
                rows = op.integer("axis")
                check_vocabulary(planned, kernel, mesh, tile, held[rows], _fails(op))
                held[rows] = (0, operand[rows].size)  # the other rows are on other tiles
            for (low, high), (first, last) in zip(
                _touched(nest, operand, loops), held, strict=True
            ):
                if low < high and not (first <= low and high <= last):
                    raise PlanError(
                        f"'{op.name}' on tile {tile} reads [{low}, {high}) of '{name}' and holds "
                        f"[{first}, {last})"
                    )
        made = _made(nest, mesh, planned, tile)
        if scattering_axes(planned):
            check_exchanges(plan, planned, nest, target, made)
            made = added_up(plan, planned, nest, partial(_made, nest, mesh, planned), tile)
        if planned.result.memory is Memory.SRAM:
            held = _shard(mesh, planned.result, plan.types[op.output].shape, tile)
            if made != held:
                raise PlanError(
                    f"'{op.name}' on tile {tile} makes {made}, its result's shard is {held}"
                )


def _made(
    nest: LoopNest, mesh: LogicalMesh, planned: PlannedOp, tile: Coordinates
) -> list[Interval]:
    """Return what a tile's loops touch of the result."""
    return _touched(nest, nest.result, _loops(nest, mesh, planned, tile))


def _held(plan: Plan, planned: PlannedOp, nest: LoopNest, operand: int) -> Shard:
    """Return what each tile has of an operand in the course of the op."""
    shape = plan.types[planned.op.inputs[operand]].shape
    shard = partial(_shard, plan.mesh, planned.deliveries[operand].after, shape)
    if gathers(planned, operand, nest):
        return arriving(plan, planned, operand, nest, shard)
    return shard


def _with_halo(
    plan: Plan, planned: PlannedOp, kernel: Kernel, nest: LoopNest, tile: Coordinates
) -> list[Interval]:
    """Return what a tile reaches of operand 0 when its neighbours have sent their rows."""
    mesh, delivery = plan.mesh, planned.deliveries[0]
    loops = _loops(nest, mesh, planned, tile)
    starts, sizes = tuple(low for low, _ in loops), tuple(high - low for low, high in loops)

    def held(other: Coordinates) -> list[Interval]:
        return _shard(mesh, delivery.after, plan.types[delivery.tensor].shape, other)

    touched = list(nest.box(nest.operands[0], starts, sizes))
    return check_halo(planned, kernel, mesh, tile, held, touched, _fails(planned.op))


def _fails(op: Op) -> Callable[[str], PlanError]:
    """Return what makes an error about an op."""
    return lambda why: PlanError(f"'{op.name}': {why}")


def _check_reductions(plan: Plan, planned: PlannedOp, nest: LoopNest) -> None:
    """Check that just the axes that split a reduction or pass partial operands leave partials."""
    op = planned.op
    for axis, split in enumerate(planned.split_dims):
        reduces = split >= 0 and nest.dims[split].role is Role.REDUCTION
        states = [
            d.after.sharding[axis] for d in planned.deliveries if d.after.memory is Memory.SRAM
        ]
        partial_in = bool(states) and all(state <= -2 for state in states)
        if any(state <= -2 for state in states) and not partial_in:
            raise PlanError(f"'{op.name}' mixes partial and complete operands on axis {axis}")
        linear = op.kind in ("reshape", "transpose", "slice") or (
            op.kind == "map" and op.attrs["fn"] in ("add", "sub", "neg", "identity")
        )
        if partial_in and not (linear and split < 0):
            raise PlanError(f"'{op.name}' takes partial sums but is not linear")
        if reduces and (op.attrs.get("epilogue") or nest.combine not in ("sum", "max")):
            raise PlanError(f"'{op.name}' splits a reduction that must be whole")
        partial_out = planned.result.sharding[axis] <= -2
        is_scattered = axis in scattering_axes(planned)
        sums = (
            (reduces and not is_scattered)
            or partial_in
            or VOCABULARY in planned.macros[axis : axis + 1]
        )
        if partial_out != sums:
            raise PlanError(f"'{op.name}': axis {axis} must {'' if sums else 'not '}be partial")


class _Covers:
    """What each product can cover: deliveries that nothing waits for while it runs."""

    def __init__(self, plan: Plan, target: Target) -> None:
        self._plan, self._target = plan, target
        self._makers = {n: i for i, p in enumerate(plan.ops) for n in p.op.outputs}
        self._left: dict[int, float] = {}

    def check(self, position: int, operand: int) -> None:
        """Raise PlanError unless products cover what the plan says of an operand's delivery."""
        planned = self._plan.ops[position]
        delivery = planned.deliveries[operand]
        claimed = delivery.hidden_cycles
        if claimed == 0:
            return
        where = f"'{planned.op.name}': {claimed} cycles of '{delivery.tensor}'"
        if claimed < 0:
            raise PlanError(f"{where} are hidden from the cost")
        if claimed > sum(move.cycles for move in delivery.moves) * (1 + _RELATIVE):
            raise PlanError(f"{where} are hidden, its moves take less")
        product = self._product_beside(position, operand)
        if product is None:
            raise PlanError(f"{where} are hidden, no product runs beside its delivery")
        left = self._left.get(product, self._cycles(product, position)) - claimed
        if left < -_RELATIVE * claimed:
            raise PlanError(f"{where} are hidden, the product beside it takes less")
        self._left[product] = left

    def _product_beside(self, position: int, operand: int) -> int | None:
        op = self._plan.ops[position].op
        if op.kind in ("matmul", "conv"):
            return position if operand == 2 and third_operands(op.attrs, op.inputs) else None
        late = op.inputs[operand]
        for other in op.inputs:
            maker = self._makers.get(other)
            if op.kind != "map" or maker is None or other == late:
                continue
            if self._plan.ops[maker].op.kind in ("matmul", "conv") and not self._feeds(maker, late):
                return maker
        return None

    def _feeds(self, maker: int, tensor: str) -> bool:
        """Whether a tensor is made from an op's result, through any number of ops."""
        made_from = {tensor}
        for planned in reversed(self._plan.ops):
            if made_from.intersection(planned.op.outputs):
                made_from.update(planned.op.inputs)
        return bool(made_from.intersection(self._plan.ops[maker].op.outputs))

    def _cycles(self, product: int, reader: int) -> float:
        """Return the product's cycles on the matrix unit until the reader needs its other operand."""
        planned = self._plan.ops[product]
        assert planned.tiling is not None
        if any(planned.macros):  # it needs the network itself
            return 0.0
        kernel = planned_kernel(planned, self._plan.types, self._plan.mesh)
        cycles = price(kernel, planned.tiling, self._target).matrix_cycles
        boxes = 1
        if product == reader:  # the first box's epilogue needs it
            for loop, size in zip(kernel.nest.dims, planned.tiling.sizes, strict=True):
                boxes *= 1 if loop.role is Role.REDUCTION else -(-loop.extent // size)
        return cycles / boxes


Amounts = dict[AnyMetric, float]


def _own_metrics(objective: Objective) -> list[UserMetric]:
    return [metric for metric, _ in objective.weights if isinstance(metric, UserMetric)]


def _kernel_amounts(cost: KernelCost, target: Target, objective: Objective) -> Amounts:
    """Return what a kernel takes, on all tiles, of each metric that adds up."""
    seconds = cost.latency_cycles / (target.clock_ghz * 1e9)
    occupied = cost.occupancy(target)
    return {
        **{metric: metric.price(occupied) for metric in _own_metrics(objective)},
        Metric.LATENCY: cost.latency_cycles,
        Metric.THROUGHPUT: cost.latency_cycles - cost.startup_cycles,
        Metric.ENERGY: cost.energy_pj * target.tiles + seconds * target.energy.static_watt * 1e12,
    }


def _delivery_amounts(delivery: Delivery, objective: Objective) -> Amounts:
    """Return what the moves of a delivery take, less what a product hides."""
    cycles = sum(move.cycles for move in delivery.moves) - delivery.hidden_cycles
    energy = sum(move.energy_pj for move in delivery.moves)
    own: Amounts = {
        metric: sum(metric.price(move.occupancy) for move in delivery.moves)
        for metric in _own_metrics(objective)
    }
    return {**own, Metric.LATENCY: cycles, Metric.THROUGHPUT: cycles, Metric.ENERGY: energy}


def _weighed(amounts: list[Amounts], objective: Objective) -> float:
    """Return amounts in units of the objective; what makes no sum counts nothing."""
    return sum(
        rate * amount.get(metric, 0.0)
        for (metric, _), rate in zip(objective.weights, objective.rates, strict=True)
        for amount in amounts
    )


def _check_cost(plan: Plan, target: Target, peak_bytes: int) -> None:
    total: list[Amounts] = []
    covers = _Covers(plan, target)
    by_op = plan.objective.additive
    for position, planned in enumerate(plan.ops):
        for operand in range(len(planned.deliveries)):
            covers.check(position, operand)
        cost = planned.cost
        if planned.op.kind != "host":
            assert planned.tiling is not None
            kernel = planned_kernel(planned, plan.types, plan.mesh)
            cost = price(kernel, planned.tiling, target)
        own = [_kernel_amounts(cost, target, by_op)]
        own += [_delivery_amounts(delivery, by_op) for delivery in planned.deliveries]
        units = _weighed(own, by_op)
        if abs(units - planned.cost_units) > _RELATIVE * max(1.0, units):
            raise PlanError(
                f"'{planned.op.name}' costs {units}, the plan says {planned.cost_units}"
            )
        total += own
    brought = {d.tensor: d for d in plan.output_deliveries}.values()
    total += [_delivery_amounts(delivery, by_op) for delivery in brought]
    total.append({Metric.SRAM: float(peak_bytes)})
    if any(d.hidden_cycles for d in plan.output_deliveries):
        raise PlanError("a model output's way to DRAM is hidden from the cost")
    units = _weighed(total, plan.objective)
    if abs(units - plan.cost) > 1e-6 * max(1.0, units):
        raise PlanError(f"the plan costs {units}, it says {plan.cost}")
    if plan.bound > plan.cost * (1 + _RELATIVE):
        raise PlanError(f"the bound {plan.bound} is above the cost {plan.cost}")


def _check_memory(plan: Plan, target: Target) -> int:
    """Check the fullest moment, and return its bytes."""
    capacity, peak = target.tile.sram.size_bytes, 0
    for what, needed in moments(plan, target):
        if needed > capacity:
            raise PlanError(f"{what} needs {needed} bytes of scratchpad, {capacity} are there")
        peak = max(peak, needed)
    if plan.peak_sram_bytes not in (0, peak):  # 0: not counted yet
        raise PlanError(f"the plan's fullest moment takes {peak} bytes, not {plan.peak_sram_bytes}")
    return peak


def moments(plan: Plan, target: Target) -> Iterator[tuple[str, int]]:
    """Count, op by op and move by move, the bytes of everything that this one or a later op still needs."""
    alignment = target.tile.sram.alignment_bytes

    def size(placement: Placement, name: str) -> int:
        if placement.memory is Memory.DRAM:
            return 0
        tile = (0,) * plan.mesh.rank
        shard = _shard(plan.mesh, placement, plan.types[name].shape, tile)
        elements = prod(high - low for low, high in shard)
        return aligned_bytes(elements * plan.types[name].dtype.itemsize_bytes, alignment)

    resident = sum(
        size(delivery.after, delivery.tensor)
        for planned in plan.ops
        for delivery, kept in zip(planned.deliveries, planned.resident, strict=True)
        if kept
    )
    uses: dict[str, int] = {}
    root: dict[str, str] = {}
    for position, planned in enumerate(plan.ops):
        if planned.op.kind == "reshape" and not planned.deliveries[0].moves:
            root[planned.op.output] = root.get(planned.op.inputs[0], planned.op.inputs[0])
        for delivery in planned.deliveries:
            uses[root.get(delivery.tensor, delivery.tensor)] = position
    leaving = {d.tensor: d for d in plan.output_deliveries}
    for position, planned in enumerate(plan.ops):
        before = resident
        for other in plan.ops[:position]:
            name = other.op.outputs[0]
            if name not in root and uses.get(name, -1) >= position:
                before += size(other.result, name)
        own_name = planned.op.outputs[0]
        alive = before + (0 if own_name in root else size(planned.result, own_name))
        # a moved copy that is reshaped becomes the result, else the result has its place from the start
        becomes_result = planned.op.kind == "reshape" and bool(planned.deliveries[0].moves)
        held = before if becomes_result else alive
        steps = _steps(plan, planned.deliveries, held, size, alignment)
        steps += [
            (f"{what} of the output", needed)
            for name in planned.op.outputs
            if name in leaving
            for what, needed in _steps(plan, (leaving[name],), alive, size, alignment)
        ]
        if planned.op.kind != "host" and planned.tiling is not None:
            kernel = planned_kernel(planned, plan.types, plan.mesh)
            own = footprint_bytes(kernel, planned.tiling, alignment)
            if own != planned.buffer_bytes:
                raise PlanError(
                    f"'{planned.op.name}' has {own} bytes of buffers, the plan says {planned.buffer_bytes}"
                )
            alive += own
        for delivery in planned.deliveries:
            if delivery.moves and planned.op.kind != "reshape":
                alive += size(delivery.after, delivery.tensor)
        yield f"'{planned.op.name}'", alive
        yield from ((f"'{planned.op.name}': {what}", needed) for what, needed in steps)


def _steps(
    plan: Plan,
    deliveries: Iterable[Delivery],
    before: int,
    size: Callable[[Placement, str], int],
    alignment: int,
) -> list[tuple[str, int]]:
    """Return the moves of deliveries, one after the other, with the bytes alive during each."""
    steps = []
    for delivery in deliveries:
        station = 0
        for move in delivery.moves:
            buffers = move_buffers_bytes(move, plan.types[delivery.tensor], plan.mesh, alignment)
            steps.append((str(move.kind), before + station + buffers))
            station = size(move.after, delivery.tensor)
        before += station
    return steps
