"""Deliveries that leave in front of a matrix product, so that they travel while it runs.

The queues of a tile are in order: moves emitted behind those of a result wait for its product, though
they may have nothing to do with it. So where an op reads a product's result and something else that needs
moving, that something moves first, as early as in front of the product if the scratchpad has room for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.extract.kernel import has_matrix_type
from tilewright.extract.move_buffers import shard_bytes
from tilewright.extract.plan import Delivery, MoveKind, Placement, Plan, PlannedOp
from tilewright.extract.profile import delivery_bytes, sram_profile
from tilewright.hwmodel.target import Target

Reader = tuple[int, int]
"""An op's position in the plan and the number of its operand."""

Early = Mapping[int, tuple[tuple[Reader, ...], ...]]
"""By the position of a product: the deliveries that leave in front of it, each for one or more readers."""


def early_deliveries(plan: Plan, target: Target) -> Early:
    """Return the deliveries that a product between their tensor and their reader lets leave early.

    Readers that want the same tensor in the same placement share one delivery. It takes its scratchpad
    from the product to its last reader, beside what the plan's profile says is alive there. Loads stay:
    the back end moves them forward anyway.
    """
    alignment, capacity = target.tile.sram.alignment_bytes, target.tile.sram.size_bytes
    makers = {name: at for at, planned in enumerate(plan.ops) for name in planned.op.outputs}
    rows = list(sram_profile(plan, target).rows)
    found: dict[int, list[list[Reader]]] = {}
    shared: dict[tuple[str, Placement], list[Reader]] = {}
    for position, planned in enumerate(plan.ops):
        for operand, delivery in enumerate(planned.deliveries):
            product = _product_between(plan, makers, planned, delivery)
            if product is None or not _is_collective(delivery):
                continue
            tensor = plan.types[delivery.tensor]
            held = shard_bytes(delivery.after, tensor, plan.mesh, alignment)
            readers = shared.get((delivery.tensor, delivery.after))
            if readers and _take(rows, range(readers[-1][0] + 1, position), held, capacity):
                readers.append((position, operand))
                continue
            moving = delivery_bytes(delivery, tensor, plan.mesh, alignment)
            if rows[product] + moving <= capacity and _take(
                rows, range(product + 1, position), held, capacity
            ):
                rows[product] += moving
                readers = shared[delivery.tensor, delivery.after] = [(position, operand)]
                found.setdefault(product, []).append(readers)
    return {at: tuple(tuple(readers) for readers in groups) for at, groups in found.items()}


def _take(rows: list[int], positions: range, size_bytes: int, capacity_bytes: int) -> bool:
    """Add bytes to what is alive at some positions if they fit at all of them; return whether they do."""
    if any(rows[at] + size_bytes > capacity_bytes for at in positions):
        return False
    for at in positions:
        rows[at] += size_bytes
    return True


def is_product(plan: Plan, planned: PlannedOp) -> bool:
    """Whether an op runs on the matrix unit, and does not itself need the network meanwhile."""
    op = planned.op
    return (
        not any(planned.macros)
        and op.kind in ("matmul", "conv")
        and has_matrix_type(plan.types[op.inputs[0]].dtype)
    )


def _product_between(
    plan: Plan, makers: Mapping[str, int], planned: PlannedOp, delivery: Delivery
) -> int | None:
    """Return the last product that the op reads and that comes after the delivered tensor is made."""
    made = makers.get(delivery.tensor, -1)
    products = [
        makers[name]
        for name in planned.op.inputs
        if name != delivery.tensor and name in makers and is_product(plan, plan.ops[makers[name]])
    ]
    return max((at for at in products if at > made), default=None)


def _is_collective(delivery: Delivery) -> bool:
    """Whether a delivery moves something, and only between scratchpads."""
    kinds = {move.kind for move in delivery.moves}
    return bool(kinds) and kinds.isdisjoint((MoveKind.LOAD, MoveKind.STORE))
