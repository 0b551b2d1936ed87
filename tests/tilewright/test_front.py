"""Fronts from Python and the command line: every point lowers, computes the model and simulates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tilewright import api
from tilewright.errors import CompileError
from tilewright.extract.objective import Metric
from tilewright.extract.reweigh import Point
from tilewright.extract.validate import validate_plan
from tilewright.front_picture import front_picture

Command = Callable[..., Any]

SMALL = ("--target", "mesh_1x2", "--dim", "batch=2")

SVG = "{http://www.w3.org/2000/svg}"


def test_every_point_lowers_and_computes_the_model(cnn: Path, image: np.ndarray) -> None:
    found = api.front(cnn, "mesh_1x2", ("latency", "sram"), points=3, dims={"batch": 2})
    assert [str(m) for m in found.metrics] == ["latency", "sram"]
    assert len(found.points) == 3
    expected = api.compile(cnn, "mesh_1x2", dims={"batch": 2})
    assert expected.plan is not None
    assert expected.program is not None
    reference = api.run(expected.program, {"image": image})
    assert found.points[0].amounts[Metric.LATENCY] == pytest.approx(expected.plan.cost, rel=1e-6)
    sizes = []
    for point in found.points:
        validate_plan(point.plan, found.target)
        own, program = found.lower(point)
        # loads ahead fill the rest, but results that take the place of an operand need no room
        assert program.sram_bytes <= own.amounts[Metric.SRAM]
        sizes.append(program.sram_bytes)
        for name, array in api.run(program, {"image": image}).items():
            np.testing.assert_allclose(array, reference[name], rtol=1e-4, atol=1e-5)
    assert sizes == sorted(set(sizes), reverse=True)


def test_what_is_printed_and_written(cnn: Path, tmp_path: Path, tilewright: Command) -> None:
    folder = tmp_path / "front"
    arguments = ("explore", "pareto", cnn, "--target", "mesh_1x2", "--dim", "batch=2")
    ran = tilewright(*arguments, "--objectives", "latency,energy,sram", "--points", 2, "-o", folder)
    assert ran.code == 0, ran.err
    assert "no plan is better than another in latency, energy, sram" in ran.out
    data = json.loads((folder / "front.json").read_text())
    picture = ElementTree.parse(folder / "front.svg")
    assert len(list(picture.iter(f"{SVG}circle"))) == len(data["points"])
    for point in data["points"]:
        assert point["bound"] <= point["cost"] * (1 + 1e-9)
        assert point["proof"]
        simulated = tilewright("simulate", folder / f"point-{point['point']}.twp")
        assert simulated.code == 0
        assert f"{point['simulated_cycles']:,.0f}" in simulated.out
        assert (folder / f"point-{point['point']}.plan.txt").read_text().startswith("plan of cnn")


def test_what_is_proven_between_points_is_said(cnn: Path, tilewright: Command) -> None:
    arguments = ("explore", "pareto", cnn, *SMALL, "--objectives", "latency,sram", "--points", 3)
    ran = tilewright(*arguments)
    assert ran.code == 0, ran.err
    assert "to the next" in ran.out
    data = json.loads(tilewright(*arguments, "--json").out)
    assert len(data["rooms"]) == len(data["points"]) - 1 > 0
    for first, second, room in zip(data["points"], data["points"][1:], data["rooms"], strict=False):
        shares = [first["amounts"]["sram"] / second["amounts"]["sram"] - 1]
        shares.append(second["amounts"]["latency"] / first["amounts"]["latency"] - 1)
        assert 0 <= room <= min(shares)
        assert ("nothing" if room == 0 else f"{room:.2%}") in ran.out


def test_nothing_is_written_by_a_request_that_is_wrong(tmp_path: Path, tilewright: Command) -> None:
    for wrong, match in (
        (("--objectives", "latency"), "two or three"),
        (("--objectives", "latency,speed"), "objective 'speed' is unknown"),
        (("--points", "1"), "expected 2 to"),
        (("--shapes-only",), "drop it, or -o"),
    ):
        ran = tilewright("explore", "pareto", "no.onnx", "-o", tmp_path / "out", *wrong)
        assert ran.code == 1
        assert match in ran.err
        assert len(ran.err.splitlines()) == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("third", [False, True])
def test_the_picture_places_points_by_their_amounts(third: bool) -> None:
    metrics = (Metric.LATENCY, Metric.ENERGY, Metric.SRAM)[: 2 + third]
    amounts = ((100.0, 9e6, 64.0), (200.0, 4e6, 32.0), (950.0, 1e6, 16.0))
    points = [
        Point(
            plan=None,  # type: ignore[arg-type]  # pictures show amounts alone
            amounts=MappingProxyType(dict(zip((*metrics, Metric.SRAM), own, strict=False))),
            limit_bytes=0,
        )
        for own in amounts
    ]
    root = ElementTree.fromstring(front_picture("a <model>", metrics, points))
    circles = list(root.iter(f"{SVG}circle"))
    across = [float(c.attrib["cx"]) for c in circles]
    down = [float(c.attrib["cy"]) for c in circles]
    assert across == sorted(across)
    assert down == sorted(down), "less energy is further down"
    # both axes are logarithmic here: equal ratios are equal distances, written in tenths of pixels
    assert (across[1] - across[0]) / (across[2] - across[0]) == pytest.approx(
        np.log(2) / np.log(9.5), abs=0.001
    )
    assert len({c.attrib["fill"] for c in circles}) == (3 if third else 1)
    assert next(t.text for t in root.iter(f"{SVG}text")) == "a <model>"


def test_exploring_adds_up_no_footprint(cnn: Path, tilewright: Command) -> None:
    ran = tilewright("explore", "explain", cnn, "a1", "--objective", "latency:1,sram:1", *SMALL)
    assert ran.code == 1
    assert "explore pareto" in ran.err
    with pytest.raises(CompileError, match="explore pareto"):  # before the model is read
        api.explore("nowhere.onnx", objective="sram")
