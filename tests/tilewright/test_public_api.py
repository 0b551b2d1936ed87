"""The public API: names, docstrings, the example that a reader copies first, repeatable programs."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tilewright
from tilewright import api
from tilewright.compiler import Compilation, Stage
from tilewright.errors import CompileError, InfeasibleError, ModelError, RuleError, TargetError
from tilewright.listings import alternatives_text
from tilewright.lowering.program_file import read_program, same_program


def test_every_public_function_is_documented() -> None:
    for name in tilewright.__all__:
        if name == "__version__":
            continue
        function = getattr(tilewright, name)
        assert function is getattr(api, name)
        text = inspect.getdoc(function)
        assert text, name
        assert text.splitlines()[0].endswith("."), name
        parameters = inspect.signature(function).parameters
        if len(parameters) > 2:
            assert all(f"    {parameter}:" in text for parameter in parameters), name


def test_names_survive_the_import_of_everything(program_file: Path) -> None:
    """No module of the package hides a function of the same name."""
    for name in ("cli", "commands", "verification", "inputs", "report"):
        __import__(f"tilewright.{name}")
    for name in set(tilewright.__all__) - {"__version__"}:
        assert callable(getattr(tilewright, name)), name


def test_the_example_that_a_reader_copies(cnn: Path, tmp_path: Path, image: np.ndarray) -> None:
    compilation = tilewright.compile(cnn, "toy", dims={"batch": 2})
    assert compilation.plan is not None
    assert compilation.program is not None
    assert compilation.plan.bound <= compilation.plan.cost
    assert all(check.passed for check in tilewright.verify(cnn, compilation))
    path = tilewright.save(compilation.program, tmp_path / "cnn.twp")
    outputs = tilewright.run(path, {"image": image})
    np.testing.assert_allclose(outputs["[red]probability"].sum(axis=1), 1, rtol=1e-5)
    assert tilewright.simulate(path).cycles > 0


def test_a_file_gives_what_the_program_gives(
    compiled: Compilation, program_file: Path, image: np.ndarray
) -> None:
    assert compiled.program is not None
    assert same_program(read_program(program_file), compiled.program)
    direct, stored = (tilewright.run(p, {"image": image}) for p in (compiled.program, program_file))
    assert list(direct) == list(stored)
    for name, value in direct.items():
        np.testing.assert_array_equal(value, stored[name])
    assert tilewright.simulate(compiled.program) == tilewright.simulate(program_file)


def test_sources_are_files_bytes_and_graphs(cnn: Path) -> None:
    graph = tilewright.load(cnn, dims={"batch": 2})
    ways = (str(cnn), cnn.read_bytes(), graph)
    plans = [
        api.compile(w, api.target("toy"), dims={"batch": 2}, stop_after="extract") for w in ways
    ]
    assert len({p.plan.cost for p in plans if p.plan is not None}) == 1


@pytest.mark.parametrize("stage", list(Stage))
def test_stages_fill_in_order(cnn: Path, stage: Stage) -> None:
    done = api.compile(cnn, "toy", dims={"batch": 1}, stop_after=stage)
    parts = (done.graph, done.rolled, done.alternatives or None, done.plan, done.program)
    reached = list(Stage).index(stage)
    assert [part is not None for part in parts] == [i <= reached for i in range(len(parts))]
    assert list(done.seconds) == [s.value for s in Stage][: reached + 1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"objective": "beauty"},
            CompileError,
            "objective 'beauty' is unknown; choose one of latency",
        ),
        ({"stop_after": "lunch"}, CompileError, "stage 'lunch' is unknown; choose one of frontend"),
        ({"without_rules": ["x.y"]}, RuleError, "rule 'x.y' is unknown"),
        ({"target": "nothing"}, TargetError, "target 'nothing'"),
        ({"dims": {}}, ModelError, "batch"),
    ],
)
def test_wrong_arguments(
    cnn: Path, options: dict[str, object], error: type[Exception], message: str
) -> None:
    arguments = {"target": "toy", "dims": {"batch": 1}} | options
    with pytest.raises(error, match=message):
        api.compile(cnn, **arguments)  # type: ignore[arg-type]


def test_capacity_says_demand_limit_and_shortfall(cnn: Path) -> None:
    toy = api.target("toy")
    small = toy.model_copy(update={"dram": toy.dram.model_copy(update={"size_bytes": 5000})})
    graph = api.load(cnn, dims={"batch": 1})
    ports = (*graph.inputs, *graph.outputs)
    demand = sum(a.nbytes for a in graph.constants.values())
    demand += sum(graph.types[port.tensor].size_bytes for port in ports)
    with pytest.raises(
        InfeasibleError, match=f"need {demand:_} bytes .* has 5_000, {demand - 5000:_} short"
    ):
        api.compile(graph, small)
    enough = toy.dram.model_copy(update={"size_bytes": demand})
    api.compile(graph, toy.model_copy(update={"dram": enough}), stop_after="roll")


def test_run_refuses_wrong_inputs(program_file: Path) -> None:
    with pytest.raises(ModelError, match="'image' is missing"):
        tilewright.run(program_file, {})
    with pytest.raises(ModelError, match="found 'picture'"):
        tilewright.run(program_file, {"picture": np.zeros(1)})


def test_programs_do_not_depend_on_the_process(
    cnn: Path, compiled: Compilation, program_file: Path, tmp_path: Path
) -> None:
    """A new process with a hash seed of its own writes the same bytes as this one."""
    command = [sys.executable, "-m", "tilewright", "compile", str(cnn), "-t", "toy"]
    command += ["--dim", "batch=2", "--no-simulate", "-o", str(tmp_path)]
    command += ["--emit", "bin", "--emit", "alternatives"]
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "4242" else "4242"
    environment = os.environ | {"PYTHONHASHSEED": seed}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert (tmp_path / "cnn.twp").read_bytes() == program_file.read_bytes()
    text = (tmp_path / "cnn.alternatives.txt").read_text()
    assert compiled.rolled is not None
    names = tuple(block.name for block in compiled.rolled.blocks)
    assert text.rstrip() == alternatives_text(names, compiled.alternatives).rstrip()
