"""Models on machines with disabled tiles: right numbers, proven programs, no disabled tile in use."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
from benchmarks.stream.models import perceptron
from end_to_end import check_end_to_end
from onnx import TensorProto

from tilewright import api
from tilewright.hwmodel.load import load_target
from tilewright.hwmodel.network import network_of
from tilewright.hwmodel.target import Target
from tilewright.lowering.program import Program

FIRST = 1
"""The disabled tile."""


def broken(name: str) -> Target:
    """Return a target of which a tile is disabled."""
    return load_target(name).model_copy(
        update={"name": f"broken {name}", "disabled_tiles": (FIRST,)}
    )


def places(program: Program) -> set[int]:
    """Return where a program's tiles are, among all that there are."""
    all_places = network_of(program.target).places
    return {all_places[tile] for tile in chain.from_iterable(g.tiles for g in program.groups)}


@pytest.mark.parametrize(
    "target", ["toy", "mesh_3x5", pytest.param("corsair", marks=pytest.mark.slow), "mesh_1x2"]
)
def test_models_run_on_what_is_left(target: str) -> None:
    machine = broken(target)
    done = check_end_to_end(perceptron(TensorProto.FLOAT).ours, machine).compilation
    assert done.program is not None
    assert FIRST not in places(done.program)
    assert len(places(done.program)) == machine.tiles < load_target(target).tiles


def test_packets_take_the_same_ways() -> None:
    """In packet mode, too, the program runs to its end, no faster than its bound."""
    done = api.compile(perceptron(TensorProto.FLOAT).ours, broken("toy"))
    assert done.program is not None
    report = api.simulate(done.program, network="packet")
    assert report.run.cycles >= report.run.bound_cycles


def test_stages_share_what_is_left() -> None:
    done = api.compile(perceptron(TensorProto.FLOAT).ours, broken("toy"), stages=2)
    assert done.program is not None
    assert len(done.program.groups) == 2
    assert FIRST not in places(done.program)


def test_a_program_file_keeps_disabled_tiles(tmp_path: Path) -> None:
    """What is read back is the same program for the same machine, and runs as long."""
    done = api.compile(perceptron(TensorProto.FLOAT).ours, broken("toy"))
    assert done.program is not None
    path = api.save(done.program, tmp_path / "program.twp")
    assert api.simulate(path).run.cycles == api.simulate(done.program).run.cycles
    assert api.check(path).is_proven
