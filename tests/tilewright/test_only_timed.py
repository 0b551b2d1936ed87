"""Models without weights become programs that take as long as those with weights, and never run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import write_llama
from model_writer import embedded, referenced

from tilewright import api
from tilewright.compiler import Compilation, CompileOptions, compile_graph
from tilewright.errors import CompileError, ProgramError
from tilewright.hwmodel.load import load_target
from tilewright.inputs import example_inputs
from tilewright.lowering.program_file import write_program

SIZE = replace(write_llama.PRESETS["tiny"], layers=1)


def lowered(*, weights: bool) -> Compilation:
    writer = write_llama.llama_graph(SIZE, "decode")
    tensors = embedded(writer.weights, 0) if weights else referenced(writer.weights, "nowhere")
    graph = api.load(writer.model("llama", tensors).SerializeToString(), weights=weights)
    options = CompileOptions(only_timed=not weights)
    return compile_graph(graph, load_target("mesh_2x2"), options)


def test_absent_weights_take_the_same_time_and_never_run(tmp_path: Path) -> None:
    light, whole = lowered(weights=False), lowered(weights=True)
    assert light.program is not None
    assert whole.program is not None
    assert light.plan is not None
    assert light.plan.folded, "the case has no constants to be computed by the compiler"
    assert light.program.groups == whole.program.groups
    assert api.simulate(light.program).cycles == api.simulate(whole.program).cycles
    assert all(not np.any(array) for _, array in light.program.constants if array.ndim > 1)
    inputs = example_inputs(whole.graph)
    assert np.abs(api.run(whole.program, inputs)["logits"]).max() > 0
    with pytest.raises(ProgramError, match=r"values of its constants were not loaded.*load the"):
        api.run(light.program, inputs)
    path = tmp_path / "m.twp"
    with pytest.raises(ProgramError, match="can only be timed"):
        write_program(light.program, path)
    assert not path.exists()


def test_only_who_asks_gets_such_a_program() -> None:
    writer = write_llama.llama_graph(SIZE, "decode")
    model = writer.model("llama", referenced(writer.weights, "nowhere")).SerializeToString()
    with pytest.raises(CompileError, match="a program needs the values"):
        api.compile(model, "mesh_2x2", weights=False)
