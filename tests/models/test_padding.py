"""Models whose rows the mesh does not divide, with rows added and without."""

from __future__ import annotations

from dataclasses import replace

import pytest
import write_encoder
from model_writer import embedded
from write_encoder import PRESETS

from tilewright import api
from tilewright.graph import Graph

VIT = replace(PRESETS["vit-b16"], layers=1, hidden=16, heads=1, ffn=32, image=12, patch=4)
"""Ten rows, which five tiles divide and four do not."""


@pytest.fixture(scope="module")
def vit() -> bytes:
    """The model as a file's bytes."""
    writer = write_encoder.encoder_graph(VIT)
    written: bytes = writer.model("vit", embedded(writer.weights, 1)).SerializeToString()
    return written


def rows(graph: Graph) -> set[int]:
    """Rows of what layer norms make."""
    return {graph.types[op.output].shape[-2] for op in graph.ops if op.kind == "layernorm"}


def test_a_padded_vit_computes_what_onnxruntime_does_in_fewer_cycles(vit: bytes) -> None:
    with_rows, without = (api.compile(vit, "mesh_1x4", pads=pads) for pads in (True, False))
    assert rows(with_rows.graph) == {12}
    assert rows(without.graph) == {10}
    assert all(check.passed for check in api.verify(vit, with_rows))
    assert with_rows.program is not None
    assert without.program is not None
    assert api.simulate(with_rows.program).cycles < api.simulate(without.program).cycles


@pytest.mark.slow
def test_another_mesh_is_planned_from_the_model_as_it_was(vit: bytes) -> None:
    session = api.explore(vit, "mesh_1x4")
    assert rows(session.base.plan.graph) == {12}
    changed = session.what_if("mesh=1x5")
    assert rows(changed.plan.graph) == {10}
