"""How much scratchpad a plan needs at each op: an exact account of what is alive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.extract.move_buffers import chain_bytes, shard_bytes
from tilewright.extract.plan import Delivery, Plan, PlannedOp
from tilewright.graph import TensorType
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.hwmodel.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class SramProfile:
    """Scratchpad bytes of one tile: `rows[i]` while op i runs and its result, if an output, goes to DRAM."""

    rows: tuple[int, ...]
    resident_bytes: int


def delivery_bytes(
    delivery: Delivery, tensor: TensorType, mesh: LogicalMesh, alignment_bytes: int
) -> int:
    """Return the largest use during a delivery, beside what its source occupies."""
    return chain_bytes(delivery.moves, tensor, mesh, alignment_bytes)


def resident_constants_bytes(
    planned: PlannedOp, types: Mapping[str, TensorType], mesh: LogicalMesh, alignment_bytes: int
) -> int:
    """Return the bytes of the constants that an op keeps in the scratchpad."""
    return sum(
        shard_bytes(delivery.after, types[delivery.tensor], mesh, alignment_bytes)
        for delivery, is_resident in zip(planned.deliveries, planned.resident, strict=True)
        if is_resident
    )


def sram_profile(plan: Plan, target: Target) -> SramProfile:
    """Return what is alive in a tile's scratchpad while each op runs.

    Resident constants are always alive; a result from its op to its last use; delivered copies while
    their op runs (all operands' copies at once); a kernel's own buffers while it runs. A reshaped
    tensor is the same bytes as its source.
    """
    alignment = target.tile.sram.alignment_bytes
    mesh, types = plan.mesh, plan.types
    count = len(plan.ops)
    resident = 0
    own = [0] * count
    alias: dict[str, str] = {}
    made: dict[str, int] = {}
    last: dict[str, int] = {}
    size: dict[str, int] = {}

    def use(name: str, position: int) -> None:
        last[alias.get(name, name)] = position

    for position, planned in enumerate(plan.ops):
        op = planned.op
        resident += resident_constants_bytes(planned, types, mesh, alignment)
        copies: list[int] = []
        peak = held = 0
        for delivery, is_resident in zip(planned.deliveries, planned.resident, strict=True):
            tensor = types[delivery.tensor]
            if is_resident:
                continue
            use(delivery.tensor, position)
            peak = max(peak, held + delivery_bytes(delivery, tensor, mesh, alignment))
            if delivery.moves:
                held += shard_bytes(delivery.after, tensor, mesh, alignment)
            copies.append(held)
        source = planned.deliveries[0] if planned.deliveries else None
        if (
            op.kind == "reshape"
            and source is not None
            and not source.moves
            and not planned.resident[0]
        ):
            root = alias.get(source.tensor, source.tensor)
            alias[op.output] = root
            last.setdefault(root, position)
            result = 0
        else:
            made[op.outputs[0]] = position
            last[op.outputs[0]] = position
            result = size[op.outputs[0]] = shard_bytes(
                planned.result, types[op.outputs[0]], mesh, alignment
            )
        own[position] = max(peak, held + planned.buffer_bytes)
        if op.kind == "reshape" and source is not None and source.moves:
            # The delivered copy becomes the result, whose bytes are counted while it lives.
            own[position] = max(peak - result, 0)
    producers = {
        name: position for position, planned in enumerate(plan.ops) for name in planned.op.outputs
    }
    for delivery in plan.output_deliveries:
        if delivery.tensor not in producers:  # an input or a constant
            continue
        position = producers[delivery.tensor]
        root = alias.get(delivery.tensor, delivery.tensor)
        last[root] = max(last.get(root, position), position)
        moved = delivery_bytes(delivery, types[delivery.tensor], mesh, alignment)
        own[position] = max(own[position], moved)
    delta = [0] * (count + 1)
    for name, position in made.items():
        delta[position] += size[name]
        delta[last[name] + 1] -= size[name]
    rows = []
    alive = resident
    for position in range(count):
        alive += delta[position]
        rows.append(alive + own[position])
    return SramProfile(rows=tuple(rows), resident_bytes=resident)
