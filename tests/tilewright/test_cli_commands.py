"""Each command does what it says, and prints what a person looks for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tilewright import __version__, api
from tilewright.compiler import Compilation
from tilewright.errors import CompileError
from tilewright.lowering.isa import Engine, Instruction, Opcode
from tilewright.rules.alternatives import Alternatives
from tilewright.rules.options import SaturationOptions

COMPILE = ("--target", "toy", "--dim", "batch=2")


def test_version(tilewright) -> None:
    ran = tilewright("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"tilewright {__version__}\n", "")


def test_module_runs() -> None:
    command = [sys.executable, "-m", "tilewright", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"tilewright {__version__}\n"


@pytest.mark.parametrize(
    "asked",
    [
        (),
        ("--objective", "latency:1,sram:1"),
        ("--objective", "energy", "--max-latency", "1ms"),
        ("--stages", "2"),
    ],
)
def test_compile_checks_the_bound(tilewright, cnn: Path, asked: tuple[str, ...]) -> None:
    ran = tilewright("compile", cnn, *COMPILE, *asked, "--check-bound", "--stop-after", "extract")
    assert ran.code == 0, ran.err
    assert "bound of plans on all tiles: follows from its certificate" in ran.out
    assert ("bound of divisions into stages: follows" in ran.out) == ("--stages" in asked)
    assert "bound check" in ran.out


def test_compile_reports_and_verifies(tilewright, cnn: Path, compiled: Compilation) -> None:
    ran = tilewright("compile", cnn, *COMPILE, "--verify")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    assert compiled.plan is not None
    assert compiled.program is not None
    timing = api.simulate(compiled.program)
    rows = {line[:18].strip(): line[18:].strip() for line in ran.out.splitlines()}
    assert rows["planned"].startswith(f"{compiled.plan.cost:,.0f} cycles")
    assert rows["proven bound"].startswith(f"{compiled.plan.bound:,.0f} cycles")
    assert rows["gap"].startswith(f"{compiled.plan.gap:.2%} (proof: {compiled.plan.proof.method}")
    assert rows["simulated"].startswith(f"{timing.cycles:,.0f} cycles")
    assert rows["planning error"].startswith(f"{compiled.plan.cost / timing.cycles - 1:+.1%}")
    scheduled = float(compiled.program.facts["schedule_cycles"])
    assert rows["prediction error"].startswith(f"{scheduled / timing.cycles - 1:+.1%}")
    assert rows["lower bound"].startswith(f"{timing.run.bound_cycles:,.0f} cycles")
    facts = compiled.program.facts
    assert rows["schedule"].startswith(f"{float(facts['schedule_cycles']):,.0f} cycles")
    chain, engine = facts["schedule_critical_path_cycles"], facts["schedule_resource_cycles"]
    bounds = f"critical path {float(chain):,.0f}, busiest engine {float(engine):,.0f}, no order is below "
    assert bounds in " ".join(ran.out.split())
    assert rows["host regions"] == "none"
    assert ran.out.splitlines()[-1].startswith("verified: 2 outputs agree with onnxruntime")
    for title in ("e-graph", "where the time goes", "engines", "resources", "processor time"):
        assert re.search(rf"^{title}", ran.out, re.M), title
    assert "matrix" in ran.out
    assert "DRAM ports" in ran.out


def test_names_are_printed_as_they_are(tilewright, cnn: Path) -> None:
    """A name with markup neither vanishes nor colours anything."""
    ran = tilewright("compile", cnn, *COMPILE, "--verify", "--no-simulate")
    assert re.search(r"^\[red\]probability .*agrees", ran.out, re.M)
    assert "timing simulation" not in ran.out


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_the_terminal(
    tilewright, cnn: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    ran = tilewright("compile", cnn, *COMPILE)
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= columns
    assert ("moves" in ran.out) == (columns >= 110)


@pytest.mark.parametrize(
    ("stage", "expected", "absent"),
    [
        ("frontend", r"conv\(image: f32\[2,3,8,8\], w1", "e-graph"),
        ("roll", r"1 unique blocks, 1 in all", "e-graph"),
        ("saturate", r"%\d+: f32\[2,10\].*\n +matmul\(%\d+, %\d+\).*\d+ splits", "proven bound"),
        ("extract", r"plan of cnn for toy: latency .*\n  .*conv", "timing simulation"),
        ("lower", r"group 0, 16 tiles, run phase\nME: \d+ instructions\n  ME ", "verified"),
    ],
)
def test_each_stage_is_printed_alone(
    tilewright, cnn: Path, stage: str, expected: str, absent: str
) -> None:
    ran = tilewright("compile", cnn, *COMPILE, "--stop-after", stage)
    assert ran.code == 0, ran.err
    assert re.search(expected, ran.out), ran.out
    assert absent not in ran.out


def test_emit_writes_what_was_asked_for(tilewright, cnn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    kinds = ("graph", "blocks", "alternatives", "plan", "asm", "bin", "trace")
    options = [word for kind in kinds for word in ("--emit", kind)]
    ran = tilewright("compile", cnn, *COMPILE, *options, "-o", folder)
    assert ran.code == 0, ran.err
    texts = {f"cnn.{kind}.txt" for kind in kinds[:4]}
    assert {path.name for path in folder.iterdir()} == texts | {
        "cnn.asm",
        "cnn.twp",
        "cnn.trace.json",
    }
    assert json.loads((folder / "cnn.trace.json").read_text())["traceEvents"]
    from tilewright.lowering.assembler import assemble
    from tilewright.lowering.program_file import read_program, same_program

    binary = read_program(folder / "cnn.twp")
    assert same_program(assemble((folder / "cnn.asm").read_text()), binary)


def test_output_alone_writes_plan_and_program(tilewright, cnn: Path, tmp_path: Path) -> None:
    ran = tilewright("compile", cnn, *COMPILE, "-o", tmp_path, "--no-simulate")
    assert ran.code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"cnn.plan.txt", "cnn.twp"}


@pytest.mark.parametrize("objective", ["throughput", "energy"])
def test_objectives(tilewright, cnn: Path, objective: str) -> None:
    ran = tilewright("compile", cnn, *COMPILE, "--objective", objective, "--verify")
    assert ran.code == 0
    assert f"plan for least {objective}" in ran.out
    assert ("planning error" in ran.out) == (objective != "energy")


def test_an_exact_schedule_says_what_it_proved(
    tilewright, cnn: Path, compiled: Compilation
) -> None:
    ran = tilewright("compile", cnn, *COMPILE, "--schedule", "exact", "--verify", "--no-simulate")
    assert ran.code == 0, ran.err
    text = " ".join(ran.out.split())
    found = re.search(r"exact order ([\d,]+) cycles are optimal if memory is no limit", text)
    makespan = re.search(r"schedule ([\d,]+) cycles if tiles move in lock step, order:", text)
    assert found is not None
    assert makespan is not None
    optimum, cycles = (int(match[1].replace(",", "")) for match in (found, makespan))
    assert compiled.program is not None
    listed = float(compiled.program.facts["schedule_cycles"])
    assert optimum <= cycles <= round(listed)
    assert "verified: 2 outputs agree" in text


def test_unknown_schedules_are_refused(cnn: Path) -> None:
    with pytest.raises(CompileError, match="schedule 'best' is unknown; choose one of program, l"):
        api.compile(cnn, "toy", dims={"batch": 2}, schedule="best")


def test_unknown_networks_are_refused(program_file: Path) -> None:
    with pytest.raises(
        CompileError, match="network 'wifi' is unknown; choose one of fluid, packet"
    ):
        api.simulate(program_file, network="wifi")  # type: ignore[arg-type]


def test_without_rule(tilewright, cnn: Path) -> None:
    text = ("--stop-after", "saturate")
    every = tilewright("compile", cnn, *COMPILE, *text)
    fewer = tilewright("compile", cnn, *COMPILE, *text, "--without-rule", "fusion")
    assert "by fusion." in every.out
    assert "by fusion." not in fewer.out
    assert fewer.code == 0


def test_given_inputs_are_verified(
    tilewright, cnn: Path, tmp_path: Path, image: np.ndarray
) -> None:
    np.savez(tmp_path / "x.npz", image=image)
    ran = tilewright("compile", cnn, *COMPILE, "--verify", "--inputs", tmp_path / "x.npz")
    assert ran.code == 0
    assert f"inputs of {tmp_path / 'x.npz'}" in "".join(ran.out.split("\n"))


def test_differing_outputs_fail_and_nothing_is_written(
    tilewright, cnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilewright import commands

    def shifted(model: object, inputs: object) -> dict[str, np.ndarray]:
        values = real(model, inputs)
        return {name: value + np.float32(0.01) for name, value in values.items()}

    real = commands.reference_outputs
    monkeypatch.setattr(commands, "reference_outputs", shifted)
    folder = tmp_path / "out"
    ran = tilewright("compile", cnn, *COMPILE, "--verify", "-o", folder)
    assert ran.code == 1
    assert "DIFFERS" in ran.out
    assert re.search(r"^FAILED: 2 of 2 outputs differ from onnxruntime", ran.out, re.M)
    assert not folder.exists()
    lenient = tilewright("compile", cnn, *COMPILE, "--verify", "--tolerance", "0.5")
    assert lenient.code == 0


def test_full_classes_and_slow_rules_are_named(
    tilewright, cnn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilewright import compiler

    def narrow(*arguments: object) -> SaturationOptions:
        return replace(real_options(*arguments), nodes_per_class=1)

    def slow(*arguments: object, **options: object) -> Alternatives:
        found = real_saturate(*arguments, **options)
        first, rule = found.ruleset_stats[0], found.rule_stats[0]
        return replace(
            found,
            ruleset_stats=(replace(first, seconds=1e6), *found.ruleset_stats[1:]),
            rule_stats=(replace(rule, seconds=9e5), *found.rule_stats[1:]),
        )

    real_options, real_saturate = compiler.saturation_options, compiler.saturate
    monkeypatch.setattr(compiler, "saturation_options", narrow)
    ran = tilewright("compile", cnn, *COMPILE, "--stop-after", "saturate")
    assert ran.code == 0, ran.err
    assert re.search(
        r"^note: rewriting stopped after round 1 of 12: .* has \d+ e-nodes, made by \S+\.\S+ \(\d+\)",
        ran.out,
        re.M,
    )
    monkeypatch.setattr(compiler, "saturate", slow)
    ran = tilewright("compile", cnn, *COMPILE, "--stop-after", "saturate")
    assert re.search(r"^note: rule '\S+\.\S+' took 90% of the", ran.out, re.M)
    assert "--without-rule" in ran.out


def test_host_regions_are_listed_with_reason(tilewright, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("NonZero", ["r"], ["places"]),
        helper.make_node("Shape", ["r"], ["unused"]),
        helper.make_node("CumSum", ["r", "axis"], ["s"]),
        helper.make_node("TopK", ["s", "k"], ["y", "order"]),
    ]
    del nodes[1:3]
    graph = helper.make_graph(
        nodes,
        "hosted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 16])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 3]),
            helper.make_tensor_value_info("order", TensorProto.INT64, [4, 3]),
        ],
        [
            helper.make_tensor("axis", TensorProto.INT64, [], [1]),
            helper.make_tensor("k", TensorProto.INT64, [1], [3]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "hosted.onnx")
    ran = tilewright("compile", tmp_path / "hosted.onnx", "--target", "toy", "--verify")
    assert ran.code == 0, ran.err + ran.out
    assert re.search(r"^host region +.*TopK", ran.out, re.M)
    assert "verified: 2 outputs agree" in ran.out


def test_check_says_what_is_proven(
    tilewright, program_file: Path, compiled: Compilation, tmp_path: Path
) -> None:
    ran = tilewright("check", program_file)
    assert ran.code == 0
    assert len(re.findall(r"^proven ", ran.out, re.MULTILINE)) == 7
    ran = tilewright("check", program_file, "--max-instructions", "10")
    assert ran.code == 1
    assert len(re.findall(r"^not proven ", ran.out, re.MULTILINE)) == 2
    assert api.check(program_file).is_proven
    program = compiled.program
    assert program is not None
    (group,) = program.groups
    halt = Instruction(opcode=Opcode.HALT, engine=Engine.DI)
    broken = replace(program, groups=(replace(group, run={**group.run, Engine.DI: (halt,)}),))
    path = api.save(broken, tmp_path / "broken.twp")
    assert "refuted" in tilewright("check", path).out
    for command in ("run", "simulate"):
        ran = tilewright(command, path)
        assert (ran.code, ran.out) == (1, "")
        assert re.search(r"semaphores: group 0 run: semaphore \d+ gets", ran.err)


def test_run_and_simulate_take_the_program_alone(
    tilewright, cnn: Path, compiled: Compilation, tmp_path: Path, image: np.ndarray
) -> None:
    assert compiled.program is not None
    assert tilewright("compile", cnn, *COMPILE, "-o", tmp_path, "--no-simulate").code == 0
    program = tmp_path / "cnn.twp"
    moved = (tmp_path / "elsewhere").with_suffix(".twp")
    program.rename(moved)

    np.savez(tmp_path / "x.npz", image=image)
    ran = tilewright("run", moved, "--inputs", tmp_path / "x.npz", "-o", tmp_path / "y.npz")
    assert ran.code == 0, ran.err
    here = api.run(compiled.program, {"image": image})
    session = onnxruntime.InferenceSession(str(cnn), providers=["CPUExecutionProvider"])
    with np.load(tmp_path / "y.npz") as found:
        assert list(found) == list(here)
        for name, expected in zip(here, session.run(list(here), {"image": image}), strict=True):
            np.testing.assert_array_equal(found[name], here[name])
            np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5)

    simulated = tilewright("simulate", moved, "--trace", tmp_path / "t.json")
    assert simulated.code == 0
    timing = api.simulate(compiled.program)
    assert f"{timing.cycles:,.0f} cycles" in simulated.out
    packets = tilewright("simulate", moved, "--network", "packet")
    assert packets.code == 0
    by_packets = api.simulate(compiled.program, network="packet")
    assert f"{by_packets.cycles:,.0f} cycles" in packets.out
    assert "says nothing of its routers" in " ".join(packets.out.split())
    assert "prediction error" in simulated.out
    spans = [
        e for e in json.loads((tmp_path / "t.json").read_text())["traceEvents"] if e["ph"] == "X"
    ]
    assert spans
    assert all(span["dur"] >= 0 for span in spans)


def test_run_makes_up_inputs_by_seed(tilewright, program_file: Path) -> None:
    first, second = (tilewright("run", program_file, "--seed", seed).out for seed in ("1", "2"))
    again = tilewright("run", program_file, "--seed", "1", "--no-check")
    table = slice(2, 7)
    assert first != second
    assert again.out.splitlines()[table] == first.splitlines()[table]
    assert "no race" in first
    assert "no race" not in again.out


def test_run_executes_as_many_instructions_as_allowed(tilewright, program_file: Path) -> None:
    ran = tilewright("run", program_file, "--max-instructions", "10")
    assert ran.code == 1
    assert re.search(r"unroll to \d+ instructions, expected at most 10; raise the limit ", ran.err)
    assert tilewright("run", program_file, "--max-instructions", "1000000").code == 0


def test_targets(tilewright) -> None:
    ran = tilewright("targets")
    assert ran.code == 0
    for name in api.targets():
        assert re.search(rf"^{name} ", ran.out, re.M)
    one = tilewright("targets", "corsair")
    assert "2,048" in ran.out
    assert "published" in one.out
    family = tilewright("targets", "mesh_3x5")
    assert family.code == 0
    assert "15" in family.out


def test_demo_ends_with_the_verdict(tilewright) -> None:
    ran = tilewright("demo", "--target", "toy")
    assert ran.code == 0
    assert "seeded random numbers" in ran.out
    assert ran.out.splitlines()[-1].startswith("verified: 1 output agrees with onnxruntime")


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m tilewright targets | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""
