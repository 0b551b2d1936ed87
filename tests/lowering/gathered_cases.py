"""Plans of one operator that gathers operands in chunks, whatever extraction would choose."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np

from tilewright.extract.kernel import footprint_bytes, loop_order, tileable_dims
from tilewright.extract.objective import Objective
from tilewright.extract.plan import Delivery, Memory, Placement, Plan, PlannedOp, Proof, Tiling
from tilewright.extract.planned import planned_kernel, planned_nest
from tilewright.extract.reshard import build_table, dram_placement
from tilewright.graph import Graph
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.mesh import Sharding, is_partial
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.target import Target
from tilewright.rules.annotations import annotate
from tilewright.rules.splitting import Strategy, strategies


def gathering(graph: Graph, target: Target, rule: str) -> tuple[Strategy, ...]:
    """Return the strategies of a graph's only operator that follow a partition rule."""
    (op,) = graph.ops
    nest = annotate(op, tuple(graph.types[name] for name in op.inputs), graph.types[op.output])
    assert nest is not None
    found = strategies(op, nest, logical_mesh(target))
    return tuple(s for s in found if f"partition.{rule}" in s.rules)


def planned(
    graph: Graph,
    target: Target,
    strategy: Strategy,
    sizes: dict[str, int] | None = None,
    in_dram: tuple[str, ...] = (),
    chooser: random.Random | None = None,
) -> Plan:
    """Return a plan of a graph's only operator by one strategy.

    Args:
        graph: The operator.
        target: The machine.
        strategy: How it is split.
        sizes: Tile sizes by name of the loop; whole by default.
        in_dram: Tensors that are streamed.
        chooser: Cuts loops at random, if given.
    """
    (op,), mesh = graph.ops, logical_mesh(target)
    in_memory = dram_placement(mesh)

    def place(name: str, sharding: Sharding) -> Placement:
        streamed = name in in_dram and not is_partial(sharding)
        return in_memory if streamed else Placement(Memory.SRAM, sharding)

    def deliver(name: str, before: Placement, after: Placement) -> Delivery:
        partials = frozenset({before.sharding} if is_partial(before.sharding) else ())
        table = build_table(graph.types[name], partials, mesh, target, Objective.LATENCY)
        moves = table.moves(table.index[before], table.index[after])
        return Delivery(tensor=name, before=before, moves=moves, after=after)

    def operand(name: str, sharding: Sharding) -> Delivery:
        if name in graph.constants:
            stays = Placement(Memory.SRAM, sharding)
            return Delivery(tensor=name, before=stays, moves=(), after=stays)
        return deliver(name, in_memory, place(name, sharding))

    result = place(op.output, strategy.result)
    made = PlannedOp(
        op=op,
        split_dims=strategy.split_dims,
        deliveries=tuple(
            operand(name, sharding)
            for name, sharding in zip(op.inputs, strategy.operands, strict=True)
        ),
        resident=tuple(name in graph.constants for name in op.inputs),
        result=result,
        tiling=None,
        buffer_bytes=0,
        cost=KernelCost(),
        cost_units=0.0,
        split_rules=strategy.rules,
        macros=strategy.macros,
    )
    kernel = planned_kernel(made, graph.types, mesh)
    cuts = [(sizes or {}).get(loop.name, loop.extent) for loop in kernel.nest.dims]
    for loop in tileable_dims(kernel):
        if chooser and chooser.random() < 0.6:
            cuts[loop] = chooser.randint(max(1, cuts[loop] // 3), cuts[loop])
    order = loop_order(kernel)
    if chooser:
        outer = chooser.randrange(len(planned_nest(made, graph.types).dims) - 1)
        order = (outer, *(dim for dim in order if dim != outer))
    tiling = Tiling(tuple(cuts), order)
    made = replace(made, tiling=tiling, buffer_bytes=footprint_bytes(kernel, tiling, 64))
    return Plan(
        graph=graph,
        target_name=target.name,
        mesh=mesh,
        objective=Objective.LATENCY,
        types=graph.types,
        ops=(made,),
        folded=(),
        output_deliveries=(deliver(op.output, result, in_memory),),
        cost=1.0,
        bound=1.0,
        proof=Proof(method="none"),
        peak_sram_bytes=0,
        resident_sram_bytes=0,
    )


def arrays(graph: Graph) -> dict[str, Any]:
    generator = np.random.default_rng(3)
    return {
        port.name: generator.integers(-4, 5, port.shape).astype(port.dtype.numpy)
        for port in graph.inputs
    }
