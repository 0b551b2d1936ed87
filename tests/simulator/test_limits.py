"""Programs that ask for too much end with an error, before the work is done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tilewright.dtypes import DType
from tilewright.errors import IntricateError, ProgramError
from tilewright.graph import HostModel
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.mesh import LogicalMesh
from tilewright.lowering.builder import ProgramBuilder
from tilewright.lowering.isa import Engine, Instruction, Opcode, Space
from tilewright.lowering.program import HostRegion, Program
from tilewright.simulator.functional import run_program
from tilewright.simulator.hazards import HazardReport, check_hazards
from tilewright.simulator.limits import Limits
from tilewright.simulator.scheduling import program_phases
from tilewright.simulator.timing import simulate
from tilewright.simulator.verifier import verify as verifier
from tilewright.simulator.verifier.verdict import Property, Verdict
from tilewright.simulator.verifier.verify import verify

CORSAIR = load_target("corsair")


def builder(*sizes: int) -> ProgramBuilder:
    return ProgramBuilder(CORSAIR, LogicalMesh(tuple("xy"[: len(sizes)]), sizes))


def fills(count: int, inner: int) -> Program:
    """A program that fills one place over and over."""
    b = builder(2)
    at = b.access(Space.L1, b.scratch(64), (16,))
    fill = Instruction(opcode=Opcode.VEC, engine=Engine.VE, domain=(16,), dst=at, fn="fill")
    loop = Instruction(opcode=Opcode.LOOP, engine=Engine.VE, count=count)
    end = Instruction(opcode=Opcode.END, engine=Engine.VE)
    for i in (loop, replace(loop, count=inner), fill, end, end):
        b.emit(i)
    return b.build()


def test_streams_of_the_whole_program_are_limited() -> None:
    for count, inner in ((1500, 1500), (2**32 - 1, 2**32 - 1)):
        long = fills(count, inner)
        with pytest.raises(ProgramError, match=f"unroll to {count * inner + 1} instructions"):
            run_program(long, {})
        with pytest.raises(ProgramError, match="expected at most 2000000"):
            check_hazards(long)
    with pytest.raises(ProgramError, match="expected at most 50000000"):
        simulate(fills(2**32 - 1, 1))
    assert run_program(fills(30, 30), {}).report.instructions == 900


def test_limits_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be executed or compared is what the caller says, in every place that unrolls loops."""
    program = fills(30, 30)  # and HALT
    with pytest.raises(
        ProgramError, match=r"expected at most 900; raise the limit .tilewright run"
    ):
        run_program(program, {}, limits=Limits(instructions=900))
    assert run_program(program, {}, limits=Limits(instructions=901)).report.instructions == 900
    reason = verify(program, max_instructions=900)[Property.ORDER].detail
    assert reason == "901 instructions, expected at most 900 to compare; raise --max-instructions"
    assert verify(program, max_instructions=901).is_proven
    asked: list[int] = []

    def follow(program: Program, *, structure_checked: bool, limits: Limits) -> HazardReport:
        asked.append(limits.instructions)
        return check_hazards(program, structure_checked=structure_checked, limits=limits)

    monkeypatch.setattr(verifier, "check_hazards", follow)
    assert verify(program, max_instructions=3_000_000).is_proven
    assert asked == [3_000_000]


@pytest.mark.slow
def test_a_raised_limit_holds_for_each_stream() -> None:
    long = fills(1, 4_000_001)
    ((_, _, load), (_, _, run)) = program_phases(long, 5_000_000)
    assert load.instructions + run.instructions == 4_000_001


def test_operations_and_memory_of_instructions_are_limited() -> None:
    program = fills(10, 10)
    assert run_program(program, {}, limits=Limits(operations=1600)).report.instructions == 100
    with pytest.raises(
        ProgramError, match=r"VE 99 VEC\.fill: the program has asked for 1600 operat"
    ):
        run_program(program, {}, limits=Limits(operations=1599))
    with pytest.raises(ProgramError, match="its operands take 128 bytes on all tiles, expected at"):
        run_program(program, {}, limits=Limits(instruction_bytes=127))


def test_what_cannot_be_followed_is_not_proven() -> None:
    """A sum over more than a billion overlapping places."""
    b = builder()
    source = b.access(Space.L1, b.scratch(900_000), (), strides=())
    domain = (200,) * 4
    red = Instruction(
        opcode=Opcode.RED,
        engine=Engine.VE,
        domain=domain,
        dst=replace(source, base=b.scratch(64), strides=(0,) * 4),
        sources=(replace(source, strides=(1000, 1001, 1003, 1007)),),
        fn="sum",
    )
    b.emit(red)
    program = b.build()
    with pytest.raises(IntricateError, match="touches 1600000000 runs of bytes"):
        check_hazards(program)
    found = verify(program)
    assert found[Property.ORDER].verdict is Verdict.NOT_PROVEN
    assert found[Property.BOUNDS].verdict is Verdict.PROVEN
    with pytest.raises(ProgramError, match="its operands take 12800000008 bytes"):
        run_program(program, {}, check=False)


def test_comparisons_are_limited() -> None:
    program = fills(30, 30)
    with pytest.raises(IntricateError, match="too many accesses to common bytes to follow"):
        check_hazards(program, limits=Limits(comparisons=100))


def host_program(model: onnx.ModelProto) -> Program:
    b = builder()
    x, y = b.input("x", (1,)), b.output("y", (1,))
    host = HostModel(
        model_bytes=model.SerializeToString(),
        input_names=("x",),
        input_shapes=((1,),),
        output_names=("y",),
        op_types=("Loop",),
        reason="control flow",
    )
    b.host_region(HostRegion(model=host, inputs=(x,), outputs=(y,)))
    b.emit(Instruction(opcode=Opcode.HOST, engine=Engine.CT, count=0))
    return b.build()


def value(name: str, kind: int = TensorProto.FLOAT, shape: Any = (1,)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def made(node: onnx.NodeProto, *initializers: TensorProto) -> onnx.ModelProto:
    graph = helper.make_graph([node], "host", [value("x")], [value("y")], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_host_region_that_never_ends_is_stopped() -> None:
    scalar = dict(kind=TensorProto.BOOL, shape=())
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still_on"]),
            helper.make_node("Add", ["a", "a"], ["b"]),
        ],
        "body",
        [value("i", TensorProto.INT64, ()), value("on", **scalar), value("a")],
        [value("still_on", **scalar), value("b")],
    )
    node = helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)
    program = host_program(made(node, helper.make_tensor("true", TensorProto.BOOL, (), [True])))
    with pytest.raises(ProgramError, match=r"host region with Loop: .*terminate"):
        run_program(program, {"x": np.zeros(1, np.float32)}, limits=Limits(host_seconds=0.2))


def test_a_host_region_reads_no_files(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.float32(7).tobytes())
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    outside.data_location = TensorProto.EXTERNAL
    for location in (secret.name, str(secret)):
        del outside.external_data[:]
        outside.external_data.add(key="location", value=location)
        model = made(helper.make_node("Add", ["x", "w"], ["y"]), outside)
        with pytest.raises(ProgramError, match="tensor 'w' lies in another file"):
            run_program(host_program(model), {"x": np.zeros(1, np.float32)})
        # hidden in a constant of a branch
        node = helper.make_node("Constant", [], ["w"], value=outside)
        add = helper.make_node("Add", ["x", "w"], ["z"])
        branch = helper.make_graph([node, add], "branch", [], [value("z")])
        choice = helper.make_node("If", ["on"], ["y"], then_branch=branch, else_branch=branch)
        on = helper.make_tensor("on", TensorProto.BOOL, (), [True])
        with pytest.raises(ProgramError, match="tensor 'w' lies in another file"):
            run_program(host_program(made(choice, on)), {"x": np.zeros(1, np.float32)})
    inside = helper.make_tensor("w", TensorProto.FLOAT, (1,), [7.0])
    model = made(helper.make_node("Add", ["x", "w"], ["y"]), inside)
    found = run_program(host_program(model), {"x": np.zeros(1, np.float32)})
    assert found.outputs["y"] == 7.0
    assert DType.F32.numpy == found.outputs["y"].dtype
