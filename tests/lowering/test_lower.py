"""Whole plans, made at random, compute what the graph says: micros on a naive machine, programs simulated."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tilewright.dtypes import DType
from tilewright.extract.kernel import footprint_bytes, loop_order, tileable_dims
from tilewright.extract.objective import Objective
from tilewright.extract.plan import Delivery, Memory, Placement, Plan, PlannedOp, Proof, Tiling
from tilewright.extract.planned import planned_kernel
from tilewright.extract.reshard import build_table, dram_placement
from tilewright.graph import Graph, HostModel, Op, Port, TensorType
from tilewright.hwmodel.cost import KernelCost
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh, Sharding, is_partial, replicated
from tilewright.hwmodel.network import logical_mesh
from tilewright.hwmodel.target import Target
from tilewright.lowering.emit import Builder
from tilewright.lowering.isa import Opcode
from tilewright.lowering.lower import build_program, lower, lower_plan
from tilewright.lowering.placement import axis_traffic_bytes, place_mesh
from tilewright.reference import evaluate
from tilewright.rules.annotations import annotate
from tilewright.rules.splitting import split_sharding, strategies
from tilewright.simulator.functional import run_program

Machine = Callable[..., Any]
TARGETS = ("mesh_1x1", "mesh_1x2", "mesh_2x2", "toy")


def make_graph(with_host: bool) -> Graph:
    """Return a graph with every kernel family, a constant that is folded and two outputs."""
    types: dict[str, TensorType] = {}
    ops: list[Op] = []

    def put(kind: str, inputs: tuple[str, ...], shape: tuple[int, ...], /, **attrs: Any) -> str:
        name = f"t{len(ops)}"
        dtype = DType(attrs.pop("dtype", "f32"))
        types[name] = TensorType(shape, dtype)
        ops.append(Op(name=f"op{len(ops)}", kind=kind, inputs=inputs, outputs=(name,), attrs=attrs))
        return name

    rng = np.random.default_rng(5)
    constants = {
        "w": rng.integers(-2, 3, (16, 32)).astype(np.float32),
        "bias": rng.integers(-2, 3, (1, 32)).astype(np.float32),
        "k": rng.integers(-2, 3, (8, 4, 3, 3)).astype(np.float32),
        "ids": rng.integers(0, 8, (8,)).astype(np.int64),
    }
    for name, array in constants.items():
        types[name] = TensorType(array.shape, DType.from_numpy(array.dtype))
    types["x"], types["y"] = TensorType((8, 16), DType.F32), TensorType((8, 16), DType.F32)
    a = put("map", ("x", "y"), (8, 16), fn="add|relu")
    b = put("matmul", (a, "w"), (8, 32))
    c = put("map", (b, "bias"), (8, 32), fn="add")
    image = put("reshape", (c,), (1, 4, 8, 8), shape=(1, 4, 8, 8))
    conv = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1}
    d = put("conv", (image, "k"), (1, 8, 8, 8), **conv)
    pool = {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    e = put("pool", (d,), (1, 8, 4, 4), fn="max", **pool)
    f = put("reshape", (e,), (8, 16), shape=(8, 16))
    g = put("gather", (f, "ids"), (8, 16), axis=0)
    h = put("map", (g,), (8, 16), fn="mul_const(0.03125)")
    i = put("softmax", (h,), (8, 16))
    j = put("transpose", (i,), (16, 8), perm=(1, 0))
    k = put("reduce", (j,), (1, 8), fn="sum", axes=(0,))
    m = put("concat", (j, k), (17, 8), axis=0)
    models = {}
    if with_host:
        types["hx"], types["hm"] = types["x"], TensorType((17, 8), DType.F32)
        ops.append(
            Op(name="h", kind="host", inputs=("x", m), outputs=("hx", "hm"), attrs={"region": "r"})
        )
        models["r"] = host_model()
        m = put("map", ("hm",), (17, 8), fn="neg")
    put("slice", (m,), (8, 8), starts=(1, 0), sizes=(8, 8), steps=(2, 1))
    outputs = (ops[-1].output, b, "x") if not with_host else (ops[-1].output, b, "hx")
    return Graph(
        name="everything",
        inputs=tuple(Port(name=n, tensor=n, shape=(8, 16), dtype=DType.F32) for n in "xy"),
        outputs=tuple(
            Port(name=f"o{n}", tensor=t, shape=types[t].shape, dtype=types[t].dtype)
            for n, t in enumerate(outputs)
        ),
        types=types,
        constants=constants,
        ops=tuple(ops),
        host_models=models,
    )


def host_model() -> HostModel:
    """Return an ONNX model that doubles its first input and negates its second."""
    nodes = [helper.make_node("Add", ["p", "p"], ["pp"]), helper.make_node("Neg", ["q"], ["qq"])]
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("p", [8, 16]), ("q", [17, 8]))
    ]
    results = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("pp", [8, 16]), ("qq", [17, 8]))
    ]
    graph = helper.make_graph(nodes, "r", values, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return HostModel(
        model_bytes=model.SerializeToString(),
        input_names=("p", "q"),
        input_shapes=((8, 16), (17, 8)),
        output_names=("pp", "qq"),
        op_types=("Add", "Neg"),
        reason="test",
    )


class Planner:
    """Chooses strategies, memories and tilings at random; deliveries are the cheapest chains."""

    def __init__(self, graph: Graph, target: Target, seed: int) -> None:
        self.graph, self.target = graph, target
        self.mesh: LogicalMesh = logical_mesh(target)
        self.random = random.Random(seed)
        self.where = {port.tensor: dram_placement(self.mesh) for port in graph.inputs}
        self.where |= dict.fromkeys(graph.constants, dram_placement(self.mesh))

    def plan(self) -> Plan:
        ops = tuple(self.op(op) for op in self.graph.ops)
        outputs = tuple(
            self.deliver(p.tensor, dram_placement(self.mesh)) for p in self.graph.outputs
        )
        return Plan(
            graph=self.graph,
            target_name=self.target.name,
            mesh=self.mesh,
            objective=Objective.LATENCY,
            types=self.graph.types,
            ops=ops,
            folded=(),
            output_deliveries=outputs,
            cost=1.0,
            bound=1.0,
            proof=Proof(method="none"),
            peak_sram_bytes=0,
            resident_sram_bytes=0,
        )

    def deliver(self, tensor: str, after: Placement) -> Delivery:
        before = self.where[tensor]
        partials = frozenset({before.sharding} if is_partial(before.sharding) else ())
        table = build_table(
            self.graph.types[tensor], partials, self.mesh, self.target, Objective.LATENCY
        )
        moves = table.moves(table.index[before], table.index[after])
        return Delivery(tensor=tensor, before=before, moves=moves, after=after)

    def placement(self, sharding: Sharding) -> Placement:
        if not is_partial(sharding) and self.random.random() < 0.3:
            return dram_placement(self.mesh)
        return Placement(Memory.SRAM, sharding)

    def op(self, op: Op) -> PlannedOp:
        types = self.graph.types
        split: tuple[int, ...] = ()
        macros: tuple[str, ...] = ()
        if op.kind == "host":
            wanted = [dram_placement(self.mesh)] * len(op.inputs)
            result = dram_placement(self.mesh)
        else:
            nest = annotate(op, tuple(types[n] for n in op.inputs), types[op.output])
            assert nest is not None
            legal = [
                s
                for s in strategies(op, nest, self.mesh)
                if not any(is_partial(o) for o in s.operands)
                and all(
                    split_sharding(nest, s.split_dims, i) is not None
                    for i in (*range(any(s.macros), len(op.inputs)), None)
                )
            ]
            strategy = self.random.choice(legal)
            split, macros = strategy.split_dims, strategy.macros
            result = self.placement(strategy.result)
            wanted = [
                Placement(Memory.SRAM, s) if any(macros) else self.placement(s)
                for s in strategy.operands
            ]
            if op.kind == "reshape":
                in_dram = result.memory is Memory.DRAM
                wanted = [
                    dram_placement(self.mesh)
                    if in_dram
                    else Placement(Memory.SRAM, strategy.operands[0])
                ]
        deliveries = tuple(self.deliver(n, w) for n, w in zip(op.inputs, wanted, strict=True))
        resident = tuple(
            n in self.graph.constants and w.memory is Memory.SRAM and self.random.random() < 0.7
            for n, w in zip(op.inputs, wanted, strict=True)
        )
        deliveries = tuple(
            Delivery(tensor=d.tensor, before=d.after, moves=(), after=d.after) if kept else d
            for d, kept in zip(deliveries, resident, strict=True)
        )
        for name in op.outputs:
            self.where[name] = result
        planned = PlannedOp(
            op=op,
            split_dims=split,
            deliveries=deliveries,
            resident=resident,
            result=result,
            tiling=None,
            buffer_bytes=0,
            cost=KernelCost(),
            cost_units=0.0,
            macros=macros,
        )
        if op.kind == "host":
            return planned
        tiling = self.tiling(planned)
        kernel = planned_kernel(planned, types, self.mesh)
        return replace(planned, tiling=tiling, buffer_bytes=footprint_bytes(kernel, tiling, 64))

    def tiling(self, planned: PlannedOp) -> Tiling:
        kernel = planned_kernel(planned, self.graph.types, self.mesh)
        sizes = [d.extent for d in kernel.nest.dims]
        for dim in tileable_dims(kernel):
            if self.random.random() < 0.4:
                sizes[dim] = self.random.randint(max(1, sizes[dim] // 3), sizes[dim])
        return Tiling(tuple(sizes), loop_order(kernel))


def inputs_of(graph: Graph) -> dict[str, Any]:
    rng = np.random.default_rng(9)
    return {p.name: rng.integers(-3, 4, p.shape).astype(p.dtype.numpy) for p in graph.inputs}


def check_outputs(found: dict[str, Any], graph: Graph) -> None:
    for name, wanted in evaluate(graph, inputs_of(graph)).items():
        np.testing.assert_allclose(found[name], wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("target_name", TARGETS)
@pytest.mark.parametrize("seed", range(4))
def test_micros_compute_the_graph(target_name: str, seed: int, micro_machine: Machine) -> None:
    graph, target = make_graph(with_host=False), load_target(target_name)
    lowered = lower_plan(Planner(graph, target, seed).plan(), target)
    builder = Builder(logical_mesh(target), read_multicast=True)
    builder.buffers = list(lowered.linear.buffers)
    machine = micro_machine(builder)
    inputs = inputs_of(graph)
    everywhere = replicated(builder.mesh)
    for port, storage in zip(graph.inputs, lowered.inputs, strict=True):
        machine.write(storage.buffer, inputs[port.name], everywhere)
    for name, storage in lowered.constants:
        machine.write(storage.buffer, graph.constants[name], everywhere)
    machine.run(lowered.linear.load)
    machine.run(lowered.linear.run)
    found = {
        port.name: machine.read_tile(storage.buffer, (), port.dtype.numpy, port.shape)
        for port, storage in zip(graph.outputs, lowered.outputs, strict=True)
    }
    check_outputs(found, graph)


@pytest.mark.parametrize("target_name", TARGETS)
@pytest.mark.parametrize("seed", range(10, 14))
def test_programs_compute_the_graph(target_name: str, seed: int) -> None:
    graph, target = make_graph(with_host=True), load_target(target_name)
    program = build_program(Planner(graph, target, seed).plan(), target)
    result = run_program(program, inputs_of(graph))
    check_outputs(result.outputs, graph)


def test_lowering_is_deterministic() -> None:
    graph, target = make_graph(with_host=True), load_target("mesh_2x2")
    first, second = (lower(Planner(graph, target, 3).plan(), target) for _ in range(2))
    assert first == second


def test_resident_constants_are_loaded_once() -> None:
    graph, target = make_graph(with_host=False), load_target("mesh_2x2")
    for seed in range(6):
        plan = Planner(graph, target, seed).plan()
        linear = lower(plan, target)
        residents = {
            (d.tensor, d.after)
            for p in plan.ops
            for d, r in zip(p.deliveries, p.resident, strict=True)
            if r
        }
        loads = [m for m in linear.load if m.opcode is Opcode.LD]
        assert len(loads) == len(residents)
        written = {m.dst.buffer for m in linear.run if m.dst is not None}
        for load in linear.load:
            assert load.dst is not None
            if linear.buffers[load.dst.buffer].pinned:
                assert load.dst.buffer not in written


def test_tags_name_the_steps() -> None:
    graph, target = make_graph(with_host=True), load_target("mesh_2x2")
    lowered = lower_plan(Planner(graph, target, 1).plan(), target)
    assert lowered.tags[: len(graph.ops)] == tuple(op.name for op in graph.ops)
    assert {m.tag for m in lowered.linear.run} <= set(range(1, len(lowered.tags) + 1))


def test_placement_exchanges_equal_axes_for_shorter_wires() -> None:
    target = load_target("mesh_2x4")
    mesh = logical_mesh(target)
    assert place_mesh(target, mesh, (1.0, 1.0)) == tuple(range(8))
    torus = load_target("corsair")
    ids = place_mesh(torus, logical_mesh(torus), (1.0,) * logical_mesh(torus).rank)
    assert sorted(ids) == list(range(torus.tiles))


def test_traffic_counts_collectives_only() -> None:
    graph, target = make_graph(with_host=False), load_target("mesh_2x2")
    plans = [Planner(graph, target, seed).plan() for seed in range(5)]
    for plan in plans:
        collectives = [
            m
            for op in plan.ops
            for d in op.deliveries
            for m in d.moves
            if m.kind.value not in ("load", "store", "slice")
        ]
        outputs = [
            m
            for d in plan.output_deliveries
            for m in d.moves
            if m.kind.value not in ("load", "store", "slice")
        ]
        assert any(axis_traffic_bytes(plan)) == bool(collectives + outputs)
