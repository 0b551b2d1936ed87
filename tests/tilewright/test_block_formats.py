"""A model compiled for products in a block format: faster, and as exact as the format allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tilewright import api
from tilewright.block_tolerance import block_tolerances
from tilewright.compiler import Compilation
from tilewright.dtypes import BlockFormat
from tilewright.lowering.isa import Opcode
from tilewright.lowering.program_file import read_program
from tilewright.verification import compare, reference_outputs


@pytest.fixture(scope="module")
def rounded(cnn: Path) -> Compilation:
    return api.compile(cnn, "toy", dims={"batch": 2}, matmul_format="mxint8")


def test_products_are_in_the_format_and_cost_less(
    rounded: Compilation, compiled: Compilation, tmp_path: Path
) -> None:
    assert rounded.program is not None
    assert compiled.program is not None
    path = api.save(rounded.program, tmp_path / "rounded.twp")
    products = [
        i.fn for i in read_program(path).groups[0].run.values() for i in i if i.opcode is Opcode.MM
    ]
    assert products
    assert set(products) == {"mxint8"}
    assert api.simulate(path).cycles < api.simulate(compiled.program).cycles
    assert api.check(path).is_proven


def test_the_error_is_that_of_the_format(
    cnn: Path, rounded: Compilation, image: np.ndarray
) -> None:
    checks = {c.name: c for c in api.verify(cnn, rounded, {"image": image})}
    logits = checks["logits"]
    assert all(c.passed for c in checks.values())
    # the products are rounded, so they are off by more than floats, and by less than the tolerance
    assert 1e-4 < logits.relative_error < logits.tolerance < 0.1


def test_the_tolerance_finds_errors_of_another_kind(
    cnn: Path, rounded: Compilation, image: np.ndarray
) -> None:
    assert rounded.program is not None
    exact = reference_outputs(cnn, {"image": image})
    allowed = block_tolerances(rounded.graph, {"image": image}, exact, BlockFormat.MXINT8)
    ours = api.run(rounded.program, {"image": image})
    wrong = ours | {"logits": np.roll(ours["logits"], 1, axis=1)}
    assert not all(c.passed for c in compare(wrong, exact, allowed))
    scaled = ours | {"logits": ours["logits"] * np.float32(1.1)}
    assert not all(c.passed for c in compare(scaled, exact, allowed))


def test_the_command_line_takes_a_format(tilewright, cnn: Path) -> None:
    options = ("--target", "toy", "--dim", "batch=2", "--matmul-format")
    ran = tilewright("compile", cnn, *options, "bfp16_64", "--verify", "--no-simulate")
    assert ran.code == 0
    assert "toy with bfp16_64" in ran.out
    ran = tilewright("compile", cnn, *options, "int3")
    assert ran.code == 1
    assert "matmul format 'int3' is unknown; choose one of mxint8, bfp16_64" in ran.err
