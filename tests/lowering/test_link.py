"""Stages linked to one program: what it computes, once and in a stream; files; what breaks it is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tilewright import api
from tilewright.compiler import Compilation
from tilewright.constants import Constants
from tilewright.errors import ProgramError
from tilewright.hwmodel.family import mesh_target
from tilewright.hwmodel.network import logical_mesh
from tilewright.inputs import example_inputs
from tilewright.lowering.assembler import assemble, disassemble
from tilewright.lowering.isa import Engine, Instruction, Opcode
from tilewright.lowering.link import build_pipeline
from tilewright.lowering.program import Group, Program
from tilewright.lowering.program_file import program_bytes, read_program, same_program
from tilewright.rules.padding import paddings
from tilewright.simulator.functional import run_program, run_stream
from tilewright.simulator.hazards import check_hazards
from tilewright.simulator.timing import interval_cycles, simulate
from tilewright.verification import compare, reference_outputs

TARGET = mesh_target(1, 4, name="row_of_four", sram_kib=64)


@cache
def model() -> bytes:
    """Three layers, the last two of which read one function of an input."""
    draw = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(draw.normal(size=(22, 22)).astype(np.float32) / 5, f"w{i}")
        for i in range(3)
    ]
    nodes = [
        helper.make_node("Exp", ["m"], ["e"]),
        helper.make_node("MatMul", ["x", "w0"], ["a0"]),
        helper.make_node("Relu", ["a0"], ["a1"]),
        helper.make_node("MatMul", ["a1", "w1"], ["b0"]),
        helper.make_node("Mul", ["b0", "e"], ["b1"]),
        helper.make_node("MatMul", ["b1", "w2"], ["c0"]),
        helper.make_node("Mul", ["c0", "e"], ["y"]),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (5, 22)) for name in ("x", "m", "y")
    ]
    graph = helper.make_graph(nodes, "layers", ports[:2], ports[2:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


@cache
def compiled(stages: int) -> Compilation:
    return api.compile(model(), TARGET, objective="throughput", stages=stages)


def linked(stages: int) -> Program:
    program = compiled(stages).program
    assert program is not None
    assert len(program.groups) == stages
    return program


@pytest.mark.parametrize("stages", [2, 3])
def test_stages_compute_the_model_one_inference_and_several(stages: int) -> None:
    program = linked(stages)
    tiles = [tile for group in program.groups for tile in group.tiles]
    assert len(set(tiles)) == len(tiles) <= TARGET.tiles
    assert all(check.passed for check in api.verify(model(), compiled(stages)))
    graph = compiled(stages).graph
    given = [example_inputs(graph, seed) for seed in range(4)]
    for inputs, outputs in zip(given, run_stream(program, given), strict=True):
        expected = reference_outputs(model(), inputs)
        assert all(check.passed for check in compare(dict(outputs), expected))


def in_a_row(kinds: str) -> bytes:
    """Products (P) of 12 x 12 and new shapes (S) one after the other, and an input that nothing reads."""
    weight = np.random.default_rng(2).normal(size=(12, 12)).astype(np.float32)
    stored = [numpy_helper.from_array(weight, "w")]
    nodes, last, shape = [], "x", (4, 12)
    for number, kind in enumerate(kinds):
        out = f"t{number}"
        if kind == "P":
            nodes.append(helper.make_node("MatMul", [last, "w"], [out]))
        else:
            shape = (2, 2, 12) if len(shape) == 2 else (4, 12)
            stored.append(numpy_helper.from_array(np.array(shape), f"shape{number}"))
            nodes.append(helper.make_node("Reshape", [last, f"shape{number}"], [out]))
        last = out
    ports = [
        helper.make_tensor_value_info("unread", TensorProto.FLOAT, (3, 5)),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (4, 12)),
        helper.make_tensor_value_info(last, TensorProto.FLOAT, shape),
    ]
    graph = helper.make_graph(nodes, "row", ports[:2], ports[2:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


@pytest.mark.parametrize("kinds", ["PS", "SP", "PSP", "SPS"])
def test_a_stage_may_do_nothing_but_give_what_it_gets_in_a_new_shape(kinds: str) -> None:
    compilation = api.compile(in_a_row(kinds), TARGET, stages=len(kinds))
    program = compilation.program
    assert program is not None
    assert len(program.groups) == len(kinds)
    given = [example_inputs(compilation.graph, seed) for seed in range(3)]
    for inputs, outputs in zip(given, run_stream(program, given), strict=True):
        checks = compare(outputs, reference_outputs(in_a_row(kinds), inputs))
        assert [c.passed for c in checks] == [True]
    assert simulate(program).run.cycles > 0


def output_on_the_way(rows: int, shape: tuple[int, ...]) -> bytes:
    """Five products; the second is an output, too, as is a scalar by which the last is multiplied."""
    draw = np.random.default_rng(1)
    stored = [
        numpy_helper.from_array(draw.normal(size=(22, 22)).astype(np.float32) / 5, f"w{i}")
        for i in range(5)
    ]
    names = ("x", "a", "y", "c", "d", "e")
    nodes = [helper.make_node("Exp", ["s"], ["scale"])]
    nodes += [
        helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(len(stored))
    ]
    nodes.append(helper.make_node("Mul", ["e", "scale"], ["z"]))
    sizes = {"x": (rows, 22), "s": shape, "y": (rows, 22), "scale": shape, "z": (rows, 22)}
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in sizes.items()]
    graph = helper.make_graph(nodes, "on_the_way", ports[:2], ports[2:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


@pytest.mark.parametrize("rows", [7, 8], ids=["padded rows", "rows as they are"])
def test_an_output_that_a_later_stage_reads_keeps_its_shape(rows: int) -> None:
    model = output_on_the_way(rows, ())
    longest = paddings(api.load(model), logical_mesh(TARGET).sizes)[-1].graph
    compilation = api.compile(longest, TARGET, stages=3, pads=False)
    assert (compilation.graph.types["y"].shape[0] == rows) == (rows == 8)
    assert compilation.program is not None
    assert len(compilation.program.groups) == 3
    given = [example_inputs(compilation.graph, seed) for seed in range(2)]
    for inputs, outputs in zip(given, run_stream(compilation.program, given), strict=True):
        checks = compare(outputs, reference_outputs(model, inputs))
        assert [c.passed for c in checks] == [True] * 3


def test_inferences_overlap() -> None:
    program = linked(2)
    latency = simulate(program).cycles
    interval = interval_cycles(program)
    assert interval < 0.9 * latency
    # the interval is steady: two windows of it agree
    assert interval_cycles(program, fill=8, measured=8) == pytest.approx(interval)
    merged = simulate(program, symmetry=True, inferences=3).cycles
    assert merged == pytest.approx(simulate(program, symmetry=False, inferences=3).cycles)


def test_one_group_has_no_overlap_to_simulate() -> None:
    program = compiled(1).program
    assert program is not None
    assert interval_cycles(program) == simulate(program).cycles
    with pytest.raises(ProgramError, match="one group of tiles"):
        simulate(program, inferences=2)


def test_files_and_listings_keep_everything() -> None:
    program = linked(2)
    assert same_program(read_program(program_bytes(program)), program)
    assert same_program(assemble(disassemble(program)), program)
    assert any(i.opcode is Opcode.SIG for i in program.groups[0].run[Engine.DO])


def test_a_stage_without_values_keeps_the_whole_from_running() -> None:
    """Weights of one stage were not loaded."""
    pipeline = compiled(2).pipeline
    assert pipeline is not None
    *stages, last = pipeline.stages
    graph = last.plan.graph
    constants = Constants({}, dict.fromkeys(graph.constants, "a file"))
    plan = replace(last.plan, graph=replace(graph, constants=constants))
    light = replace(pipeline, stages=(*stages, replace(last, plan=plan)))
    program = build_pipeline(light, TARGET)
    assert simulate(program).cycles == simulate(linked(2)).cycles
    with pytest.raises(ProgramError, match="can only be timed"):
        run_program(program, example_inputs(compiled(2).graph))
    with pytest.raises(ProgramError, match="can only be timed"):
        program_bytes(program)


def without(group: Group, engine: Engine, is_gone: Callable[[Instruction], bool]) -> Group:
    """A group without some instructions of its run phase."""
    kept = tuple(i for i in group.run[engine] if not is_gone(i))
    assert len(kept) < len(group.run[engine])
    return replace(group, run={**group.run, engine: kept})


def is_foreign_wait(i: Instruction) -> bool:
    semaphore = TARGET.tile.control.semaphores - 16 + 7
    return i.opcode is Opcode.WT and any(w.semaphore >= semaphore for w in i.waits)


@pytest.mark.parametrize(
    ("number", "engine", "is_gone", "reason"),
    [
        (1, Engine.DI, is_foreign_wait, "reads DRAM that group 0 run writes"),
        (0, Engine.DO, is_foreign_wait, "may write again what group 1 run still reads"),
        (0, Engine.DO, lambda i: i.opcode is Opcode.SIG, "reads DRAM that group 0 run writes"),
        (1, Engine.DI, lambda i: i.opcode is Opcode.SIG, "may write again what group 1 run"),
    ],
)
def test_a_missing_signal_or_wait_is_a_race(
    number: int, engine: Engine, is_gone: Callable[[Instruction], bool], reason: str
) -> None:
    program = linked(2)
    groups = list(program.groups)
    groups[number] = without(groups[number], engine, is_gone)
    with pytest.raises(ProgramError, match=reason):
        check_hazards(replace(program, groups=tuple(groups)))


def test_without_the_barrier_inferences_race() -> None:
    program = linked(2)
    first = program.groups[0]
    low = TARGET.tile.control.semaphores - 16

    def is_barrier(i: Instruction) -> bool:
        used = [*(w.semaphore for w in i.waits), *(p.semaphore for p in i.posts)]
        return i.opcode in (Opcode.WT, Opcode.PS) and any(low <= s < low + 7 for s in used)

    for engine in Engine:
        first = without(first, engine, is_barrier)
    with pytest.raises(ProgramError, match="race"):
        check_hazards(replace(program, groups=(first, *program.groups[1:])))


def test_a_signal_that_never_comes_is_a_deadlock() -> None:
    program = linked(2)
    first = without(program.groups[0], Engine.DO, lambda i: i.opcode is Opcode.SIG)
    broken = replace(program, groups=(first, *program.groups[1:]))
    inputs = example_inputs(compiled(2).graph, 0)
    with pytest.raises(ProgramError, match="deadlock"):
        run_program(broken, inputs, check=False)
    with pytest.raises(ProgramError, match="deadlock"):
        simulate(broken)


def test_a_signal_names_another_group() -> None:
    program = linked(2)
    groups = list(program.groups)
    stream = tuple(
        replace(i, count=0) if i.opcode is Opcode.SIG else i for i in groups[0].run[Engine.DO]
    )
    groups[0] = replace(groups[0], run={**groups[0].run, Engine.DO: stream})
    with pytest.raises(ProgramError, match="group 0, expected one of 2, not 0"):
        check_hazards(replace(program, groups=tuple(groups)))
