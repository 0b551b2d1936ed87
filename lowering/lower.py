"""From a plan to a program: walks the planned ops in order and emits what each needs.

Tensors follow their placements. A tensor in the scratchpad is a buffer that every tile has; in DRAM it is one
global buffer. Deliveries are expanded move by move in front of the op that asks for them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

import numpy as np

from tilewright.constants import absent
from tilewright.errors import InfeasibleError, UnsupportedOpError
from tilewright.extract.kernel import Family
from tilewright.extract.objective import Metric
from tilewright.extract.pipeline.plan import PipelinePlan
from tilewright.extract.plan import (
    Delivery,
    Memory,
    Move,
    MoveKind,
    Placement,
    Plan,
    PlannedOp,
)
from tilewright.extract.planned import planned_kernel, planned_nest
from tilewright.graph import Array
from tilewright.hwmodel.change import with_scratchpad
from tilewright.hwmodel.mesh import replicated
from tilewright.hwmodel.target import Target
from tilewright.lowering.collectives import emit_move, new_storage
from tilewright.lowering.drafts import best_draft, draft_of
from tilewright.lowering.eager import PLANNED, Eager
from tilewright.lowering.early import Early, early_deliveries, is_product
from tilewright.lowering.emit import Builder, Storage, dram_storage
from tilewright.lowering.gathered import in_pieces
from tilewright.lowering.isa import Engine, Opcode, Space
from tilewright.lowering.kernels import emit_kernel
from tilewright.lowering.lowered import Lowered, Region
from tilewright.lowering.micro import LinearProgram, Micro, Operand
from tilewright.lowering.placement import axis_traffic_bytes, place_mesh
from tilewright.lowering.program import VALUES_ABSENT, DramTensor, Group, HostRegion, Program
from tilewright.lowering.scheduled import Scheduled, Scheduling, schedule_backend
from tilewright.reference import evaluate_op

_HOST_ALIGNMENT_BYTES = 64


def evaluate_constants(plan: Plan) -> dict[str, Array]:
    """Return all constants of a plan: those of the graph, and folded ops evaluated.

    If values are absent, all are zeros that take no memory until something reads them, and nothing is
    evaluated: such a program can only be timed.
    """
    if absent(plan.graph.constants):
        folded = [name for op in plan.folded for name in op.outputs]
        types = {name: plan.types[name] for name in (*plan.graph.constants, *folded)}
        return {name: np.zeros(t.shape, t.dtype.numpy) for name, t in types.items()}
    values = dict(plan.graph.constants)
    for op in plan.folded:
        region = plan.graph.host_models[op.text("region")] if op.kind == "host" else None
        results = evaluate_op(op, [values[name] for name in op.inputs], plan.types, region)
        values.update(zip(op.outputs, results, strict=True))
    return values


class _Lowering:
    """State of one lowering: where every tensor lies so far."""

    def __init__(
        self,
        plan: Plan,
        target: Target,
        early: Early,
        eager: Eager,
        values: dict[str, Array],
    ) -> None:
        self.plan = plan
        self.early = early
        self.eager = eager
        self.delivered: dict[tuple[int, int], Storage] = {}
        """Operands that were delivered early, by op and operand."""
        self.products = {n for p in plan.ops if is_product(plan, p) for n in p.op.outputs}
        self.builder = Builder(
            plan.mesh,
            read_multicast=target.dram.read_multicast,
            load_engines=target.tile.dma.load_engines,
            block_format=target.tile.matrix.block_format,
        )
        self.values = values
        self.located: dict[str, Storage] = {}
        self.constants: dict[str, Storage] = {}
        self.residents: dict[tuple[str, Placement], Storage] = {}
        self.load_micros: list[Micro] = []
        self.regions: list[Region] = []

    def run(self) -> Lowered:
        """Lower the whole plan."""
        plan = self.plan
        inputs = tuple(self._port(port.tensor) for port in plan.graph.inputs)
        waiting = {d.tensor: (n, d) for n, d in enumerate(plan.output_deliveries)}
        outputs: dict[str, Storage] = {}
        for number, planned in enumerate(plan.ops):
            self.builder.tag = number + 1
            if planned.op.kind == "host":
                self._host(number, planned)
            else:
                self._op(number, planned)
            for name in planned.op.outputs:
                if name in waiting:
                    outputs[name] = self._output(*waiting.pop(name))
        # What is left are inputs and constants, which lie in DRAM.
        outputs |= {name: self._locate(name) for name in waiting}
        names = tuple(planned.op.name or planned.op.kind for planned in plan.ops)
        return Lowered(
            linear=LinearProgram(
                buffers=tuple(self.builder.buffers),
                load=tuple(self.load_micros),
                run=tuple(self.builder.micros),
            ),
            inputs=inputs,
            outputs=tuple(outputs[delivery.tensor] for delivery in plan.output_deliveries),
            constants=tuple(self.constants.items()),
            regions=tuple(self.regions),
            values=self.values,
            tags=(*names, *(f"output {d.tensor}" for d in plan.output_deliveries)),
        )

    def _output(self, port: int, delivery: Delivery) -> Storage:
        """Bring a model output to DRAM as soon as it is made, so that it does not hold scratchpad."""
        self.builder.tag = len(self.plan.ops) + port + 1
        storage = self._deliver(delivery, f"output{port}")
        assert storage.space is Space.DRAM, "outputs are delivered to DRAM"
        self.builder.pin(storage.buffer)
        return storage

    # ------------------------------------------------------------------ tensors

    def _port(self, tensor: str) -> Storage:
        if tensor not in self.located:
            self.located[tensor] = self._pinned(tensor)
        return self.located[tensor]

    def _pinned(self, tensor: str) -> Storage:
        """Make a DRAM buffer that lives for the whole program."""
        everywhere = Placement(Memory.DRAM, replicated(self.plan.mesh))
        return new_storage(self.builder, everywhere, self.plan.types[tensor], tensor, pinned=True)

    def _locate(self, tensor: str) -> Storage:
        """Return where a tensor lies; constants come into being when first asked for."""
        if tensor in self.located:
            return self.located[tensor]
        assert tensor in self.values, f"tensor '{tensor}' is used before it is made"
        if tensor not in self.constants:
            self.constants[tensor] = self._pinned(tensor)
        return self.constants[tensor]

    def _deliver(self, delivery: Delivery, name: str) -> Storage:
        """Emit the moves of a delivery and return where the tensor is then."""
        storage = self._locate(delivery.tensor)
        type_ = self.plan.types[delivery.tensor]
        for number, move in enumerate(delivery.moves):
            storage = emit_move(
                self.builder, move, storage, type_, f"{name}.{delivery.tensor}.{number}"
            )
        return storage

    def _resident(self, delivery: Delivery) -> Storage:
        """Return a constant's pinned shard, loaded in the load phase.

        Its delivery says where it stays; the way from DRAM is one load.
        """
        key = (delivery.tensor, delivery.after)
        if key not in self.residents:
            everywhere = Placement(Memory.DRAM, replicated(self.plan.mesh))
            move = Move(kind=MoveKind.LOAD, before=everywhere, after=delivery.after, cycles=0.0)
            source, type_ = self._locate(delivery.tensor), self.plan.types[delivery.tensor]
            running, self.builder.micros = self.builder.micros, self.load_micros
            storage = emit_move(self.builder, move, source, type_, f"resident.{delivery.tensor}")
            self.builder.micros = running
            self.builder.pin(storage.buffer)
            self.residents[key] = storage
        return self.residents[key]

    def _operands(self, position: int, planned: PlannedOp) -> tuple[Storage, ...]:
        made: dict[tuple[str, Placement], Storage] = {}
        for number in self._delivery_order(planned):
            delivery = planned.deliveries[number]
            key = (delivery.tensor, delivery.after)
            if planned.resident[number] and delivery.after.memory is Memory.SRAM:
                made[key] = self._resident(delivery)
            elif (position, number) in self.delivered:
                made[key] = self.delivered.pop((position, number))
            elif key not in made:
                made[key] = self._deliver(delivery, f"{planned.op.name}.in{number}")
        return tuple(made[d.tensor, d.after] for d in planned.deliveries)

    def _delivery_order(self, planned: PlannedOp) -> list[int]:
        """Return operand numbers in the order of their deliveries: products' results, not yet there, last."""
        numbers = range(len(planned.deliveries))
        if planned.op.kind != "map":
            return list(numbers)
        return sorted(numbers, key=lambda n: planned.deliveries[n].tensor in self.products)

    def _deliver_early(self, position: int) -> None:
        """Emit the deliveries that travel while the op at a position runs."""
        own = self.builder.tag
        for readers in self.early.get(position, ()):
            first, number = readers[0]
            planned = self.plan.ops[first]
            self.builder.tag = first + 1
            storage = self._deliver(planned.deliveries[number], f"{planned.op.name}.in{number}")
            self.delivered |= dict.fromkeys(readers, storage)
        self.builder.tag = own

    # ------------------------------------------------------------------ ops

    def _op(self, position: int, planned: PlannedOp) -> None:
        op, plan, builder = planned.op, self.plan, self.builder
        operands = self._operands(position, planned)
        self._deliver_early(position)
        kernel = planned_kernel(planned, plan.types, plan.mesh)
        type_ = plan.types[op.output]
        if kernel.family is Family.ALIAS:
            assert kernel.operand_memory[0] is kernel.result_memory, "a reshape stays in its memory"
            shape = type_.shape if kernel.result_memory is Memory.DRAM else kernel.result_type.shape
            rows = ((),) * len(shape)
            self.located[op.output] = replace(
                operands[0], shape=shape, coefficients=rows, sharding=planned.result.sharding
            )
            return
        result = new_storage(builder, planned.result, type_, op.output)
        nest = planned_nest(planned, plan.types)
        sources = tuple(
            self._seen(in_pieces(storage, tensor, kernel), sharding)
            for storage, tensor, sharding in zip(
                operands, nest.operands, kernel.operand_shardings, strict=True
            )
        )
        assert planned.tiling is not None, f"{op.kind} '{op.name}' has no tiling"
        seen = self._seen(in_pieces(result, nest.result, kernel), kernel.result_sharding)
        eagerness = self.eager[position] if self.eager else PLANNED
        emit_kernel(builder, kernel, planned.tiling, sources, seen, op.name, eagerness)
        self.located[op.output] = result

    def _seen(self, storage: Storage, sharding: tuple[int, ...]) -> Storage:
        """Return a tensor in DRAM as tiles with a sharding address it; others unchanged."""
        if storage.space is Space.L1:
            return storage
        return dram_storage(
            storage.buffer,
            storage.dtype,
            storage.shape,
            self.plan.mesh,
            sharding,
            storage.offset_bytes,
        )

    def _host(self, position: int, planned: PlannedOp) -> None:
        """Emit a host region; its outputs share one DRAM buffer, so that one operand covers them."""
        op, plan, builder = planned.op, self.plan, self.builder
        operands = self._operands(position, planned)
        if any(storage.space is not Space.DRAM for storage in operands):
            raise UnsupportedOpError(
                f"host region '{op.name}' reads a tensor outside DRAM; deliver it to DRAM"
            )
        offsets, size = [], 0
        for name in op.outputs:
            offsets.append(size)
            size += -(-plan.types[name].size_bytes // _HOST_ALIGNMENT_BYTES) * _HOST_ALIGNMENT_BYTES
        buffer = builder.buffer(f"{op.name}.out", Space.DRAM, max(size, 1))
        everywhere = replicated(plan.mesh)
        for name, offset in zip(op.outputs, offsets, strict=True):
            type_ = plan.types[name]
            self.located[name] = dram_storage(
                buffer.number, type_.dtype, type_.shape, plan.mesh, everywhere, offset
            )
        builder.emit(
            Micro(
                opcode=Opcode.HOST,
                engine=Engine.CT,
                dst=Operand(buffer=buffer.number, dtype=plan.types[op.outputs[0]].dtype),
                sources=tuple(Operand(buffer=s.buffer, dtype=s.dtype) for s in operands),
                count=len(self.regions),
            )
        )
        self.regions.append(
            Region(
                op=op,
                inputs=tuple(zip(op.inputs, operands, strict=True)),
                outputs=tuple((name, self.located[name]) for name in op.outputs),
            )
        )


def lower_plan(
    plan: Plan,
    target: Target,
    early: Early | None = None,
    eager: Eager = (),
    values: dict[str, Array] | None = None,
) -> Lowered:
    """Lower a plan to micros, with what the program's interface needs.

    Args:
        plan: The plan.
        target: The machine.
        early: Deliveries that leave in front of products; those that fit the plan's profile by default.
        eager: What each kernel does beyond the plan; nothing by default.
        values: Those of `evaluate_constants`, if they are known.
    """
    early = early_deliveries(plan, target) if early is None else early
    values = evaluate_constants(plan) if values is None else values
    return _Lowering(plan, target, early, eager, values).run()


def lower(plan: Plan, target: Target) -> LinearProgram:
    """Lower a plan to micros in an order that is correct when executed one by one."""
    return lower_plan(plan, target).linear


def build_program(
    plan: Plan,
    target: Target,
    scheduling: Scheduling = Scheduling.LIST,
    *,
    spares_scratchpad: bool = False,
) -> Program:
    """Compile a plan to a program.

    Args:
        plan: The plan.
        target: The machine.
        scheduling: Which orders of the instructions to try. In the plan's own alone, kernels do just what is
            planned.
        spares_scratchpad: Whether to leave free what the plan does not need, rather than use it to load
            ahead; so are the programs of plans whose objective weighs the footprint.

    Raises:
        InfeasibleError: The buffers do not fit, although the plan said they would.
        UnsupportedOpError: A kernel has no instructions.
    """
    early = early_deliveries(plan, target)
    with _collector_paused():
        if spares_scratchpad or Metric.SRAM in plan.objective.metrics:
            for share in _SPARING_SHARES:  # packing leaves gaps
                room = min(int(plan.peak_sram_bytes * share), target.tile.sram.size_bytes)
                with suppress(InfeasibleError):
                    return _build(plan, target, {}, scheduling, room)
        try:
            return _build(plan, target, early, scheduling)
        except InfeasibleError:
            if not early:
                raise
            return _build(plan, target, {}, scheduling)


_SPARING_SHARES = (1.0, 1.0625, 1.25, 1.5)
"""Of the plan's fullest moment, what a program that spares scratchpad may fill, tried in this order."""


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause the cycle collector: lowering makes many objects, none in cycles, that it would go through."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _build(
    plan: Plan,
    target: Target,
    early: Early,
    scheduling: Scheduling,
    room_bytes: int | None = None,
) -> Program:
    machine = target if room_bytes is None else with_scratchpad(target, room_bytes)
    lower_as = partial(lower_plan, plan, target, early, values=evaluate_constants(plan))
    draft = draft_of(lower_as(eager=()), machine, plan.mesh)
    if room_bytes is None and scheduling is not Scheduling.PROGRAM:
        draft = best_draft(draft, plan, target, lambda eager: lower_as(eager=eager))
    scheduled = schedule_backend(
        draft.lowered.linear,
        target=machine,
        mesh=plan.mesh,
        durations=draft.durations,
        scheduling=scheduling,
        back=draft.back,
        drafts=draft.others,
    )
    return _program(plan, target, draft.lowered, scheduled)


def _program(plan: Plan, target: Target, lowered: Lowered, scheduled: Scheduled) -> Program:
    """Return the program of a plan, with its tensors where the back end has put them."""
    back = scheduled.back

    def tensor(name: str, storage: Storage, shape: tuple[int, ...] | None = None) -> DramTensor:
        address = back.addresses[storage.buffer] + storage.offset_bytes
        return DramTensor(
            name=name,
            dtype=storage.dtype,
            shape=storage.shape if shape is None else shape,
            address=address,
        )

    group = Group(
        mesh=plan.mesh,
        tiles=place_mesh(target, plan.mesh, axis_traffic_bytes(plan)),
        load=scheduled.load,
        run=scheduled.run,
    )
    graph = plan.graph
    return Program(
        name=graph.name,
        target=target,
        groups=(group,),
        inputs=tuple(
            tensor(port.name, s, port.shape)
            for port, s in zip(graph.inputs, lowered.inputs, strict=True)
        ),
        outputs=tuple(
            tensor(port.name, s, port.shape)
            for port, s in zip(graph.outputs, lowered.outputs, strict=True)
        ),
        constants=tuple(
            (tensor(name, storage), np.ascontiguousarray(lowered.values[name]))
            for name, storage in lowered.constants
        ),
        host_regions=tuple(
            HostRegion(
                model=graph.host_models[region.op.text("region")],
                inputs=tuple(tensor(name, storage) for name, storage in region.inputs),
                outputs=tuple(tensor(name, storage) for name, storage in region.outputs),
            )
            for region in lowered.regions
        ),
        dram_bytes=back.dram_bytes,
        sram_bytes=back.sram_bytes,
        tags=lowered.tags,
        facts=plan_facts(plan)
        | scheduled.facts
        | (dict(VALUES_ABSENT) if absent(graph.constants) else {}),
    )


def plan_facts(plan: Plan | PipelinePlan) -> dict[str, str]:
    """Return what the compiler claims of a plan."""
    return {
        "objective": str(plan.objective),
        "cost": repr(plan.cost),
        "bound": repr(plan.bound),
        "gap": repr(plan.gap),
        "proof": plan.proof.method,
    }
